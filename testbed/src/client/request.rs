//! A request and its bytes.
//!
//! Owns what a client is to send. Adds `Host` and `X-Nonce`, the framing of the
//! body, and nothing else.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use crate::body::{BodyDigest, encode_chunked};

/// What a client is to send.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    minor_version: u8,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
    /// Bytes written at a time, and the pause between two.
    pace: Option<(usize, Duration)>,
    /// Bytes read at a time, and the pause before each.
    pub(super) read_pace: Option<(usize, Duration)>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            minor_version: 1,
            fields: Vec::new(),
            body: Vec::new(),
            chunked: false,
            pace: None,
            read_pace: None,
        }
    }

    /// Adds a field. A `Host` replaces the usual one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Whether the body goes out chunked, in sizes that follow from the nonce,
    /// instead of with a Content-Length. Default false.
    #[must_use]
    pub fn chunked(mut self, chunked: bool) -> Self {
        self.chunked = chunked;
        self
    }

    /// Speaks HTTP/1.0.
    #[must_use]
    pub fn http10(mut self) -> Self {
        self.minor_version = 0;
        self
    }

    /// Writes only so many bytes (at least 1) at a time, head included, with a
    /// pause after each.
    #[must_use]
    pub fn slowly(mut self, bytes: usize, every: Duration) -> Self {
        self.pace = Some((bytes.max(1), every));
        self
    }

    /// Has [`Client::send`](super::Client::send) read only so many bytes (at least
    /// 1) of the answer at a time, head included, with a pause before each.
    #[must_use]
    pub fn read_slowly(mut self, bytes: usize, every: Duration) -> Self {
        self.read_pace = Some((bytes.max(1), every));
        self
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn digest(&self) -> BodyDigest {
        BodyDigest::of(&self.body)
    }

    /// The head as it goes over the wire.
    pub(super) fn head(&self, host: &str, nonce: u64) -> String {
        let mut head = format!("{} {} HTTP/1.{}\r\n", self.method, self.target, self.minor_version);
        let has_host = self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        if !has_host {
            push(&mut head, "Host", host);
        }
        push(&mut head, "X-Nonce", &nonce.to_string());
        for (name, value) in &self.fields {
            push(&mut head, name, value);
        }
        if self.chunked {
            push(&mut head, "Transfer-Encoding", "chunked");
        } else if !self.body.is_empty() || matches!(&*self.method, "POST" | "PUT" | "PATCH") {
            push(&mut head, "Content-Length", &self.body.len().to_string());
        }
        head.push_str("\r\n");
        head
    }

    /// Head and body as they go over the wire.
    pub(super) fn bytes(&self, host: &str, nonce: u64) -> Vec<u8> {
        let mut bytes = self.head(host, nonce).into_bytes();
        match self.chunked {
            true => bytes.append(&mut encode_chunked(&self.body, nonce, true)),
            false => bytes.extend_from_slice(&self.body),
        }
        bytes
    }

    pub(super) async fn write(
        &self,
        bytes: Vec<u8>,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let Some((size, every)) = self.pace else {
            return to.write_all(&bytes).await;
        };
        for piece in bytes.chunks(size) {
            to.write_all(piece).await?;
            sleep(every).await;
        }
        Ok(())
    }
}

fn push(head: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = write!(head, "{name}: {value}\r\n");
}
