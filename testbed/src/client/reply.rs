//! What a client got: an answer, or the reason why there is none.

use std::io;
use std::time::Duration;

use crate::body::BodyDigest;
use crate::http1::Malformed;
use crate::http1::head::Fields;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The fields, in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// The fields after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The statuses of the 1xx heads before it.
    pub interim: Vec<u16>,
    /// `X-Backend`: who answered; none if the balancer did.
    pub backend: Option<String>,
    /// The request's nonce.
    pub nonce: u64,
    /// Whether the connection may be used again.
    pub reusable: bool,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection: nothing was sent.
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    /// The request could not be written, and no answer came.
    #[error("write: {0}")]
    Write(#[source] io::Error),
    /// The connection ended before a head was read. The kind tells a FIN
    /// (`UnexpectedEof`) from a RST (`ConnectionReset`).
    #[error("no answer: {0}")]
    NoAnswer(#[source] io::Error),
    /// The connection ended in the middle of an answer.
    #[error("truncated: status {status}, {read} bytes of the body, then {error}")]
    Truncated {
        /// The answer's status.
        status: u16,
        /// Bytes of the body that were read.
        read: usize,
        /// How it ended; `UnexpectedEof` for a FIN.
        #[source]
        error: io::Error,
    },
    /// It is no HTTP.
    #[error("malformed answer: {0}")]
    Malformed(#[source] Malformed),
    /// The client's watchdog.
    #[error("no whole answer within {0:?}")]
    TimedOut(Duration),
}

impl Reply {
    /// The first value of a field, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        field.map(|(_, value)| &**value)
    }

    /// Who answered; empty if the balancer did.
    pub fn backend(&self) -> &str {
        self.backend.as_deref().unwrap_or_default()
    }

    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body's digest.
    pub fn digest(&self) -> BodyDigest {
        BodyDigest::of(&self.body)
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.header(name)?.parse().ok()
    }
}

impl ClientError {
    /// Whether the other side reset the connection, at any point.
    pub fn is_reset(&self) -> bool {
        self.kind() == Some(io::ErrorKind::ConnectionReset)
    }

    /// Whether nobody listened.
    pub fn is_refused(&self) -> bool {
        self.kind() == Some(io::ErrorKind::ConnectionRefused)
    }

    /// Whether the other side closed with a FIN before the answer was whole.
    pub fn is_eof(&self) -> bool {
        self.kind() == Some(io::ErrorKind::UnexpectedEof)
    }

    fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Connect(error) | Self::Write(error) | Self::NoAnswer(error) => Some(error.kind()),
            Self::Truncated { error, .. } => Some(error.kind()),
            Self::Malformed(_) | Self::TimedOut(_) => None,
        }
    }
}

impl From<Fields> for Vec<(String, String)> {
    fn from(fields: Fields) -> Self {
        fields.0
    }
}
