//! A backend's answer: from what was asked to bytes.
//!
//! Owns what a normal answer says, how faults change what is said, and its
//! wire form. How and when the bytes are written, and what happens to the
//! connection then, is [`super::act`]'s.

use std::fmt::Write;

use crate::body::{BodyDigest, encode_chunked, pattern};
use crate::fault::Fault;

/// What the query of a target asks for: `?size=9&chunked=1`.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) size: Option<usize>,
    pub(super) chunked: bool,
    pub(super) echo: bool,
    pub(super) status: Option<u16>,
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Length,
    Chunked,
    /// Chunked, and it never ends.
    ChunkedWithoutLast,
    Close,
}

/// An answer that is not yet written.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) minor_version: u8,
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) form: Form,
    pub(super) keep_alive: bool,
    /// An answer to HEAD says what it would, and has no body.
    pub(super) to_head: bool,
    /// Chooses the sizes of chunks.
    pub(super) seed: u64,
}

impl Query {
    pub(super) fn of(target: &str) -> Self {
        let mut query = Self::default();
        let (_, pairs) = target.split_once('?').unwrap_or_default();
        for (key, value) in pairs.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "size" => query.size = value.parse().ok(),
                "chunked" => query.chunked = value == "1",
                "echo" => query.echo = value == "1",
                "status" => query.status = value.parse().ok(),
                _ => {}
            }
        }
        query
    }
}

impl Answer {
    /// A keep-alive answer with a length.
    pub(super) fn new(status: u16, body: Vec<u8>) -> Self {
        Self {
            minor_version: 1,
            status,
            fields: Vec::new(),
            body,
            form: Form::Length,
            keep_alive: true,
            to_head: false,
            seed: 0,
        }
    }

    pub(super) fn field(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    /// Says which body is meant, for the client to compare.
    pub(super) fn promise(self) -> Self {
        let digest = BodyDigest::of(&self.body);
        self.field("X-Body", digest)
    }

    /// Changes what is said; how it is written is not decided here.
    pub(super) fn shape(&mut self, fault: &Fault) {
        match fault {
            Fault::Status(status) => self.status = *status,
            Fault::NoKeepAlive => self.keep_alive = false,
            Fault::Http10CloseDelimited => {
                self.minor_version = 0;
                self.form = Form::Close;
                self.keep_alive = false;
            }
            Fault::TwoContentLengths => {
                let other = (self.body.len() + 1).to_string();
                self.fields.push(("Content-Length".into(), other));
            }
            Fault::HugeHead(bytes) => {
                self.fields.push(("X-Huge".into(), "h".repeat(*bytes)));
            }
            Fault::ResetMidBody { after } | Fault::Truncate { after } => {
                self.outgrow(*after);
            }
            Fault::TruncateChunked { after } => {
                self.outgrow(*after);
                self.body.truncate(*after as usize);
                self.form = Form::ChunkedWithoutLast;
            }
            _ => {}
        }
    }

    /// A body of more than `len` bytes.
    fn outgrow(&mut self, len: u64) {
        if self.body.len() as u64 <= len {
            self.body = pattern(self.seed, len as usize + 1);
        }
    }

    pub(super) fn head(&self) -> Vec<u8> {
        let reason = reason(self.status);
        let mut head = format!("HTTP/1.{} {} {reason}\r\n", self.minor_version, self.status);
        for (name, value) in &self.fields {
            // Writing to a string cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match self.form {
            Form::Length if !self.is_bodiless() => {
                let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
            }
            Form::Chunked | Form::ChunkedWithoutLast => {
                head.push_str("Transfer-Encoding: chunked\r\n");
            }
            Form::Length | Form::Close => {}
        }
        if !self.keep_alive {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    pub(super) fn body_bytes(&self) -> Vec<u8> {
        if self.to_head || self.is_bodiless() {
            return Vec::new();
        }
        match self.form {
            Form::Length | Form::Close => self.body.clone(),
            Form::Chunked => encode_chunked(&self.body, self.seed, true),
            Form::ChunkedWithoutLast => encode_chunked(&self.body, self.seed, false),
        }
    }

    /// Whether the status rules a body and its length out (RFC 9110 8.6).
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Whatever",
    }
}
