//! What can happen: the vocabulary of the event log.
//!
//! Owns the kinds of events and their one-line form. Records nothing itself:
//! see [`crate::log`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::body::BodyDigest;
use crate::fault::{Fault, Health};

/// How many bytes of what a client wrote or read an event keeps at most.
pub const EXCERPT: usize = 4096;

/// One entry of an [`EventLog`](crate::log::EventLog).
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number, from 0, without gaps. Events are numbered in the order in
    /// which they were recorded.
    pub seq: u64,
    /// When, since the log began, on tokio's clock.
    pub at: Duration,
    /// What happened.
    pub kind: EventKind,
}

/// What happened, and to whom.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A client is about to write this request.
    Sent {
        /// The client's name.
        client: Arc<str>,
        /// Names the request for the whole log: its `X-Nonce`.
        nonce: u64,
        /// `GET`, `POST`, ...
        method: Arc<str>,
        /// Path and query.
        target: String,
        /// The body it is going to write.
        body: BodyDigest,
        /// The head it is going to write: its first [`EXCERPT`] bytes.
        head: Arc<[u8]>,
    },
    /// A client has read a whole answer.
    Answered {
        /// The client's name.
        client: Arc<str>,
        /// The request that was answered.
        nonce: u64,
        /// The answer's status.
        status: u16,
        /// The answer's `X-Backend`; none if the balancer answered itself.
        backend: Option<Arc<str>>,
        /// The answer's `X-Nonce`: the request that the backend answered.
        echo: Option<u64>,
        /// The answer's `X-Received`: the body that the backend read.
        received: Option<BodyDigest>,
        /// The answer's `X-Body`: the body that the backend meant to write.
        promised: Option<BodyDigest>,
        /// The body that the client read.
        body: BodyDigest,
        /// The answer's head, as it came: its first [`EXCERPT`] bytes.
        head: Arc<[u8]>,
    },
    /// A client's request came to nothing.
    Failed {
        /// The client's name.
        client: Arc<str>,
        /// The request.
        nonce: u64,
        /// The answer's status if its head had been read.
        status: Option<u16>,
        /// What went wrong.
        error: String,
        /// What there is of the answer's head: its first [`EXCERPT`] bytes.
        head: Arc<[u8]>,
    },
    /// A client that writes bytes, not requests, is about to write these.
    Wrote {
        /// The client's name.
        client: Arc<str>,
        /// The first [`EXCERPT`] bytes.
        bytes: Arc<[u8]>,
        /// How many they are altogether.
        total: u64,
    },
    /// A client that writes bytes, not requests, has read these.
    Read {
        /// The client's name.
        client: Arc<str>,
        /// The first [`EXCERPT`] bytes.
        bytes: Arc<[u8]>,
        /// How many they are altogether.
        total: u64,
    },
    /// A backend has read a request's head.
    Received {
        /// The backend's name.
        backend: Arc<str>,
        /// The backend's number of the connection.
        connection: u64,
        /// The request's `X-Nonce`.
        nonce: Option<u64>,
        /// `GET`, `POST`, ...
        method: Arc<str>,
        /// Path and query, as they came.
        target: String,
        /// The head's bytes, as they came, with the blank line.
        head: Arc<[u8]>,
    },
    /// A backend has read a whole request: from here on it counts as executed.
    Executed {
        /// The backend's name.
        backend: Arc<str>,
        /// The backend's number of the connection.
        connection: u64,
        /// The request's `X-Nonce`.
        nonce: Option<u64>,
        /// `GET`, `POST`, ...
        method: Arc<str>,
        /// The body it read.
        body: BodyDigest,
    },
    /// A backend has written a whole answer. The client may know it earlier.
    Replied {
        /// The backend's name.
        backend: Arc<str>,
        /// The backend's number of the connection.
        connection: u64,
        /// The request's `X-Nonce`.
        nonce: Option<u64>,
        /// The answer's status.
        status: u16,
    },
    /// A backend has seen a health probe and is about to answer it.
    Probed {
        /// The backend's name.
        backend: Arc<str>,
        /// The answer's status, 0 if it gave none.
        status: u16,
    },
    /// A backend has accepted a connection.
    Accepted {
        /// The backend's name.
        backend: Arc<str>,
        /// The backend's number of the connection, from 1, never used again.
        connection: u64,
        /// Who connected.
        peer: SocketAddr,
    },
    /// A backend's connection is closed.
    Closed {
        /// The backend's name.
        backend: Arc<str>,
        /// The backend's number of the connection.
        connection: u64,
    },
    /// A backend has its port.
    Started {
        /// The backend's name.
        backend: Arc<str>,
        /// Where it listens, or will.
        addr: SocketAddr,
        /// Whether it does already.
        listens: bool,
    },
    /// What a backend does with requests is about to change.
    Armed {
        /// The backend's name.
        backend: Arc<str>,
        /// What it does.
        fault: Fault,
        /// With how many requests; none if it is with all, until it is told
        /// otherwise.
        times: Option<u64>,
    },
    /// A backend is about to forget its faults.
    Cleared {
        /// The backend's name.
        backend: Arc<str>,
    },
    /// How a backend answers probes is about to change.
    HealthSet {
        /// The backend's name.
        backend: Arc<str>,
        /// The answer.
        health: Health,
    },
    /// A backend accepts nothing, and connects hang.
    BlackHoled {
        /// The backend's name.
        backend: Arc<str>,
    },
    /// A backend's listener is closed and its connections are reset.
    Killed {
        /// The backend's name.
        backend: Arc<str>,
    },
    /// A backend's listener is closed and its requests are finished.
    Stopped {
        /// The backend's name.
        backend: Arc<str>,
    },
    /// A backend listens again.
    Revived {
        /// The backend's name.
        backend: Arc<str>,
    },
    /// A child process printed a line.
    Output {
        /// The process's name.
        source: Arc<str>,
        /// The line, without its end.
        line: String,
    },
    /// Anything else worth telling whoever reads the log.
    Note(String),
}

impl Event {
    /// The nonce of the request that this event is about.
    pub fn nonce(&self) -> Option<u64> {
        match &self.kind {
            EventKind::Sent { nonce, .. }
            | EventKind::Answered { nonce, .. }
            | EventKind::Failed { nonce, .. } => Some(*nonce),
            EventKind::Received { nonce, .. }
            | EventKind::Executed { nonce, .. }
            | EventKind::Replied { nonce, .. } => *nonce,
            _ => None,
        }
    }

    /// The backend to which this event happened, or that gave this answer.
    pub fn backend(&self) -> Option<&str> {
        match &self.kind {
            EventKind::Answered { backend, .. } => backend.as_deref(),
            EventKind::Received { backend, .. }
            | EventKind::Executed { backend, .. }
            | EventKind::Replied { backend, .. }
            | EventKind::Probed { backend, .. }
            | EventKind::Accepted { backend, .. }
            | EventKind::Closed { backend, .. }
            | EventKind::Started { backend, .. }
            | EventKind::Armed { backend, .. }
            | EventKind::Cleared { backend }
            | EventKind::HealthSet { backend, .. }
            | EventKind::BlackHoled { backend }
            | EventKind::Killed { backend }
            | EventKind::Stopped { backend }
            | EventKind::Revived { backend } => Some(backend),
            _ => None,
        }
    }
}

impl EventKind {
    /// That `client` is about to write `bytes`.
    pub fn wrote(client: &Arc<str>, bytes: &[u8]) -> Self {
        let client = Arc::clone(client);
        Self::Wrote { client, bytes: excerpt(bytes), total: bytes.len() as u64 }
    }

    /// That `client` has read `bytes`.
    pub fn read(client: &Arc<str>, bytes: &[u8]) -> Self {
        let client = Arc::clone(client);
        Self::Read { client, bytes: excerpt(bytes), total: bytes.len() as u64 }
    }
}

/// The first [`EXCERPT`] bytes.
pub(crate) fn excerpt(bytes: &[u8]) -> Arc<[u8]> {
    bytes[..bytes.len().min(EXCERPT)].into()
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64() * 1e3;
        write!(f, "seq={} at_ms={at:.3} {}", self.seq, self.kind)
    }
}

/// The start of some bytes in a key=value line.
struct Start<'a>(&'a [u8]);

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0[..self.0.len().min(60)].escape_ascii())
    }
}

/// An optional value in a key=value line: `-` if there is none.
struct Maybe<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for EventKind {
    #[rustfmt::skip]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { client, nonce, method, target, body, .. } =>
                write!(f, "event=sent client={client} nonce={nonce} method={method} target={target} body={body}"),
            Self::Answered { client, nonce, status, backend, echo, received, body, .. } =>
                write!(f, "event=answered client={client} nonce={nonce} status={status} backend={} echo={} received={} body={body}",
                    Maybe(backend), Maybe(echo), Maybe(received)),
            Self::Failed { client, nonce, status, error, .. } =>
                write!(f, "event=failed client={client} nonce={nonce} status={} error={error:?}", Maybe(status)),
            Self::Received { backend, connection, nonce, method, target, head } =>
                write!(f, "event=received backend={backend} connection={connection} nonce={} method={method} target={target} head_bytes={}",
                    Maybe(nonce), head.len()),
            Self::Executed { backend, connection, nonce, method, body } =>
                write!(f, "event=executed backend={backend} connection={connection} nonce={} method={method} body={body}", Maybe(nonce)),
            Self::Replied { backend, connection, nonce, status } =>
                write!(f, "event=replied backend={backend} connection={connection} nonce={} status={status}", Maybe(nonce)),
            Self::Probed { backend, status } => write!(f, "event=probed backend={backend} status={status}"),
            Self::Accepted { backend, connection, peer } =>
                write!(f, "event=accepted backend={backend} connection={connection} peer={peer}"),
            Self::Closed { backend, connection } => write!(f, "event=closed backend={backend} connection={connection}"),
            Self::Wrote { client, bytes, total } => write!(f, "event=wrote client={client} bytes={total} start={}", Start(bytes)),
            Self::Read { client, bytes, total } => write!(f, "event=read client={client} bytes={total} start={}", Start(bytes)),
            Self::Started { backend, addr, listens } => write!(f, "event=started backend={backend} addr={addr} listens={listens}"),
            Self::Armed { backend, fault, times } => write!(f, "event=armed backend={backend} times={} fault={fault}", Maybe(times)),
            Self::Cleared { backend } => write!(f, "event=cleared backend={backend}"),
            Self::HealthSet { backend, health } => write!(f, "event=health_set backend={backend} health={health}"),
            Self::BlackHoled { backend } => write!(f, "event=black_holed backend={backend}"),
            Self::Killed { backend } => write!(f, "event=killed backend={backend}"),
            Self::Stopped { backend } => write!(f, "event=stopped backend={backend}"),
            Self::Revived { backend } => write!(f, "event=revived backend={backend}"),
            Self::Output { source, line } => write!(f, "event=output source={source} line={line:?}"),
            Self::Note(text) => write!(f, "event=note text={text:?}"),
        }
    }
}
