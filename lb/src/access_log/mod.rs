//! One line a request, and the `--debug` blocks.
//!
//! Owns what the lines say. Formatted by the worker, written by [`Output`].

mod json;
mod text;
mod values;

use std::{
    ffi::OsString, io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime,
};

use clap::ValueEnum;
use hyper::{Request, StatusCode, Version, body::Incoming, header::HeaderValue};
use tokio::time::Instant;

use crate::{
    balance::Failure,
    error::Reason,
    output::{Escaped, Output},
    upstream::Upstream,
};

/// One request, as its line tells it.
pub struct Entry<'a> {
    /// The client's address.
    pub client: &'a str,
    /// What the request is called, if it became one.
    pub id: Option<&'a HeaderValue>,
    /// The request's method.
    pub method: &'a str,
    /// The path of the request's target.
    pub path: &'a str,
    /// Its query, without the question mark.
    pub query: Option<&'a str>,
    /// The status that the client got, if any.
    pub status: Option<StatusCode>,
    /// Why `lb` answered itself, if it did.
    pub reason: Option<Reason>,
    /// The server that answered.
    pub server: Option<&'a Upstream>,
    /// The attempts that came to nothing.
    pub failed: &'a [Attempt],
    /// Bytes of body relayed to the client.
    pub bytes: u64,
    /// When the head had been read.
    pub began: Instant,
    /// When the connection stood; `None` if it was a kept one.
    pub connected: Option<Instant>,
    /// When the answer's head was here.
    pub answered: Option<Instant>,
    /// When it was over.
    pub ended: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

/// An attempt that came to nothing.
pub struct Attempt {
    /// The server tried.
    pub server: Arc<Upstream>,
    /// How it failed.
    pub failure: Failure,
    /// When it failed.
    pub at: Instant,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the whole answer.
    Complete,
    /// The client went away before it.
    ClientGone,
    /// The server broke off in the middle of its answer.
    ServerBrokeOff,
    /// `lb` stopped before it, at the end of the drain time.
    Stopped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::ClientGone => "client_gone",
            Outcome::ServerBrokeOff => "server_broke_off",
            Outcome::Stopped => "stopped",
        }
    }
}

/// A word, or the status for which the request was retried.
pub(crate) fn outcome_of(failure: Failure, number: &mut itoa::Buffer) -> &str {
    match failure {
        Failure::RetriedStatus(status) => number.format(status),
        _ => failure_word(failure),
    }
}

/// What a failure is called, in the log and in metrics.
pub(crate) fn failure_word(failure: Failure) -> &'static str {
    match failure {
        Failure::ConnectRefused => "refused",
        Failure::ConnectTimedOut => "connect_timeout",
        Failure::NoResources => "no_resources",
        Failure::WentOut => "went_out",
        Failure::BodyTimedOut => "body_timeout",
        Failure::Unsent { .. } => "closed_before_request",
        Failure::Sent { reused: true } => "reused_closed",
        Failure::Sent { reused: false } => "closed",
        Failure::HeadTimedOut => "response_timeout",
        Failure::BadAnswer { .. } => "bad_answer",
        Failure::RetriedStatus(_) => "status",
    }
}

/// Where the lines of requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Standard output, `-`.
    #[default]
    Stdout,
    /// A file.
    File(PathBuf),
    /// Nowhere, `off`.
    Off,
}

impl From<OsString> for Destination {
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some("-") => Destination::Stdout,
            Some("off") => Destination::Off,
            _ => Destination::File(text.into()),
        }
    }
}

/// How the line of a request looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Words, `key=value`.
    #[default]
    Text,
    /// An object with the same keys.
    Json,
}

/// The longest request id that is printed, in bytes.
const ID_LIMIT: usize = 64;

/// The access log, shared by all threads.
#[derive(Debug)]
pub struct AccessLog {
    stdout: Output,
    requests: Option<Output>,
    format: Format,
    /// Where the clock of the log's lines began.
    origin: (Instant, SystemTime),
}

impl AccessLog {
    /// A log whose lines of requests go to `requests`, if anywhere, and all
    /// others to `stdout`.
    pub fn new(stdout: Output, requests: Option<Output>, format: Format) -> AccessLog {
        AccessLog { stdout, requests, format, origin: (Instant::now(), wall_clock()) }
    }

    /// Prints a line that is not about a request.
    pub fn line(&self, line: &str) {
        self.stdout.append(|text| {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        });
    }

    /// Prints the line of one request.
    pub fn request(&self, entry: &Entry<'_>) {
        let Some(output) = &self.requests else { return };
        let wall = self.origin.1 + entry.ended.duration_since(self.origin.0);
        output.append(|line| match self.format {
            Format::Text => text::write(line, entry, wall),
            Format::Json => json::write(line, entry, wall),
        });
    }

    /// Lines of requests that were lost: nobody took them fast enough, or at
    /// all.
    pub fn lost(&self) -> u64 {
        self.requests.as_ref().map_or(0, Output::lost)
    }

    /// Opens the file of the lines of requests anew, if they go to one.
    pub fn reopen(&self) {
        if let Some(output) = &self.requests {
            output.reopen();
        }
    }

    /// Takes no more lines, and waits until what there is has been written: as
    /// long as that takes, so the caller bounds it.
    pub async fn close(&self) {
        if let Some(output) = &self.requests {
            output.close().await;
        }
        self.stdout.close().await;
    }

    /// Prints the block of a request as it came, but for what terminals obey.
    pub fn debug_request(&self, client: SocketAddr, request: &Request<Incoming>) {
        self.stdout.append(|text| {
            let _ = writeln!(text, "Received request from {}", client.ip());
            let target = request.uri().path_and_query().map_or("*", |path| path.as_str());
            let (method, version) = (request.method(), request.version());
            let _ = writeln!(text, "{method} {} {version:?}", Escaped(target));
            for (name, value) in request.headers() {
                let value = String::from_utf8_lossy(value.as_bytes());
                let _ = writeln!(text, "{name}: {}", Escaped(&value));
            }
            text.push(b'\n');
        });
    }

    /// Prints the status line of a server's answer.
    pub fn debug_answer(&self, status: StatusCode, version: Version) {
        self.stdout.append(|text| {
            let _ = writeln!(text, "Response from server: {version:?} {status}");
        });
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that tells the time of day")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
