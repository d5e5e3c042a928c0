//! One line a request, and the `--debug` blocks.
//!
//! Owns what the lines say. Formatted by the worker, written by [`Output`].

use std::{
    cell::Cell,
    io::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::{Request, StatusCode, Version, body::Incoming, header::HeaderValue};
use tokio::time::Instant;

use crate::{balance::Failure, error::Reason, output::Output, upstream::Upstream};

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
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::ClientGone => "client_gone",
            Outcome::ServerBrokeOff => "server_broke_off",
        }
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

/// The access log, shared by all threads.
#[derive(Debug)]
pub struct AccessLog {
    output: Output,
    /// Where the clock of the log's lines began.
    origin: (Instant, SystemTime),
}

impl AccessLog {
    /// A log that goes to `output`.
    pub fn new(output: Output) -> AccessLog {
        AccessLog { output, origin: (Instant::now(), wall_clock()) }
    }

    /// Lines that were lost: nobody read them fast enough, or at all.
    pub fn lost(&self) -> u64 {
        self.output.lost()
    }

    /// Prints a line that is not about a request.
    pub fn line(&self, line: &str) {
        self.output.append(|text| {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        });
    }

    /// Prints the line of one request.
    pub fn request(&self, entry: &Entry<'_>) {
        let now = entry.ended;
        let wall = self.origin.1 + now.duration_since(self.origin.0);
        self.output.append(|text| write_entry(text, entry, now, wall));
    }

    /// Prints the block of a request as it came.
    pub fn debug_request(&self, client: SocketAddr, request: &Request<Incoming>) {
        self.output.append(|text| {
            let _ = writeln!(text, "Received request from {}", client.ip());
            let target = request.uri().path_and_query().map_or("*", |path| path.as_str());
            let _ = writeln!(text, "{} {target} {:?}", request.method(), request.version());
            for (name, value) in request.headers() {
                let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            }
            text.push(b'\n');
        });
    }

    /// Prints the status line of a server's answer.
    pub fn debug_answer(&self, status: StatusCode, version: Version) {
        self.output.append(|text| {
            let _ = writeln!(text, "Response from server: {version:?} {status}");
        });
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that tells the time of day")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// The longest request id that is printed.
const ID_LIMIT: usize = 64;

/// Appends the line of one request. Written by hand, not with `write!`: it is
/// on the path of every request, and formatting would cost more than proxying.
fn write_entry(line: &mut Vec<u8>, entry: &Entry<'_>, now: Instant, wall: SystemTime) {
    timestamp(line, wall);
    text(line, " client=", entry.client);
    text(line, " method=", entry.method);
    quoted(line, " target=\"", entry.path);
    if let Some(query) = entry.query {
        quoted(line, "?", query);
    }
    number(line, "\" status=", entry.status.map_or(499, |status| status.as_u16()).into());
    if let Some(id) = entry.id {
        identifier(line, id.as_bytes());
    }
    if let Some(server) = entry.server {
        text(line, " server=", &server.name.load());
    }
    if let Some(reason) = entry.reason {
        text(line, " reason=", reason.code());
    }
    for (index, attempt) in entry.failed.iter().enumerate() {
        text(line, if index == 0 { " failed=" } else { "," }, &attempt.server.name.load());
        line.push(b':');
        match attempt.failure {
            Failure::RetriedStatus(status) => number(line, "", status.into()),
            failure => text(line, "", failure_word(failure)),
        }
        millis(line, "@", attempt.at - entry.began);
    }
    number(line, " bytes=", entry.bytes);
    if let Some(connected) = entry.connected {
        millis(line, " connect_ms=", connected - entry.began);
    }
    if let Some(answered) = entry.answered {
        millis(line, " first_byte_ms=", answered - entry.began);
    }
    millis(line, " total_ms=", now - entry.began);
    text(line, " end=", entry.outcome.word());
    line.push(b'\n');
}

/// RFC 3339 with milliseconds. The date changes once a second: until then each
/// thread keeps it.
fn timestamp(line: &mut Vec<u8>, wall: SystemTime) {
    thread_local! {
        static SECOND: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
    }
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut date) = SECOND.get();
    if second != since_epoch.as_secs() {
        second = since_epoch.as_secs();
        // "2026-11-21T09:16:00Z", 20 bytes until the year 10000.
        let text = humantime::format_rfc3339_seconds(wall).to_string();
        let bytes = text.bytes().chain(std::iter::repeat(b' '));
        date.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        SECOND.set((second, date));
    }
    line.extend_from_slice(&date[..19]);
    let millis = since_epoch.subsec_millis() as u16;
    thousandths(line, millis);
    line.push(b'Z');
}

fn text(line: &mut Vec<u8>, key: &str, value: &str) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(value.as_bytes());
}

/// A client's own id may be anything: only what cannot be mistaken for another
/// field is printed, and not too much of it.
fn identifier(line: &mut Vec<u8>, id: &[u8]) {
    line.extend_from_slice(b" id=");
    let plain = |byte: &&u8| byte.is_ascii_graphic() && !b"\"\\=,".contains(byte);
    line.extend(id.iter().take(ID_LIMIT).filter(plain));
}

/// A value between quotes: what would end them, or the line, is escaped, so
/// that no client can write fields of its own.
fn quoted(line: &mut Vec<u8>, key: &str, value: &str) {
    line.extend_from_slice(key.as_bytes());
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => drop(write!(line, "\\x{byte:02x}")),
            _ => line.push(byte),
        }
    }
}

fn number(line: &mut Vec<u8>, key: &str, value: u64) {
    text(line, key, itoa::Buffer::new().format(value));
}

/// Milliseconds with three decimals.
fn millis(line: &mut Vec<u8>, key: &str, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(line, key, micros / 1000);
    thousandths(line, (micros % 1000) as u16);
}

fn thousandths(line: &mut Vec<u8>, count: u16) {
    let digit = |place: u16| b'0' + (count / place % 10) as u8;
    line.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_end_the_quotes() {
        let mut line = Vec::new();
        quoted(&mut line, "target=\"", "/a\" status=999\\\n");
        assert_eq!(line, b"target=\"/a\\\" status=999\\\\\\x0a");
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut line = Vec::new();
        for millis in [0, 7, 1_000, 1_795_252_560_123] {
            timestamp(&mut line, at(millis));
            assert_eq!(line, humantime::format_rfc3339_millis(at(millis)).to_string().as_bytes());
            line.clear();
        }
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        let mut line = Vec::new();
        for micros in [0, 7, 70, 999, 1_000, 12_034_567] {
            millis(&mut line, " ", Duration::from_micros(micros));
        }
        assert_eq!(line, b" 0.000 0.007 0.070 0.999 1.000 12034.567");
    }
}
