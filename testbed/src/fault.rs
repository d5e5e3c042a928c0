//! What a backend can do wrong, and what it says about its health.
//!
//! Owns the names of the faults. What each does on the wire is in
//! [`crate::backend`], and what a raw client then sees is in `tests/faults.rs`.

use std::fmt;
use std::time::Duration;

/// What a backend does with a traffic request instead of answering it well.
///
/// Health probes have answers of their own, see [`Health`]; only
/// [`Fault::ResetOnAccept`] hits them too, as no request is known by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: a normal answer.
    #[default]
    None,
    /// A normal answer with this status.
    Status(u16),
    /// The answer waits for `release()`. A request counts as parked from its
    /// `Received` event on.
    Park,
    /// No answer, ever; the connection stays open.
    Hang,
    /// The answer waits so long.
    Delay(Duration),
    /// The request is executed, then the connection is reset.
    ResetAfterRequest,
    /// The request is executed; at the next `release()` the connection is reset.
    ResetWhenReleased,
    /// The head is read, the body only after the next `release()`, up to what
    /// a client may send ahead; then a normal answer.
    ReadLater,
    /// The request is executed, then the connection is closed with a FIN,
    /// without a byte of an answer.
    CloseAfterRequest,
    /// The connection is accepted and reset at once. Counted in connections.
    ResetOnAccept,
    /// The connection is reset when the head is read, the body unread: the
    /// request is not executed.
    ResetAfterHead,
    /// Head and `after` bytes of the body, then a RST.
    ResetMidBody {
        /// Bytes of the body; one that is too short is replaced by a pattern.
        after: u64,
    },
    /// Head with a Content-Length, `after` bytes of the body, then a FIN.
    Truncate {
        /// Bytes of the body; one that is too short is replaced by a pattern.
        after: u64,
    },
    /// Chunked head, `after` bytes in whole chunks, no last chunk, then a FIN.
    TruncateChunked {
        /// Bytes of the body; one that is too short is replaced by a pattern.
        after: u64,
    },
    /// A complete answer that promises to keep the connection, then a FIN.
    CloseAfterAnswer,
    /// A complete answer that promises to keep the connection, which is then
    /// closed when the next request's first bytes are there, with them unread:
    /// that request is not executed, and its sender sees a RST.
    CloseWhenNext,
    /// A complete answer with `Connection: close`, then a FIN.
    NoKeepAlive,
    /// An HTTP/1.0 answer without a length that ends with the connection.
    Http10CloseDelimited,
    /// A complete keep-alive answer, followed by these bytes.
    ExtraBytes(Vec<u8>),
    /// A complete keep-alive answer, followed by these bytes at the next
    /// `release()`. The note `extra_bytes=N` tells when they are written.
    ExtraBytesLater(Vec<u8>),
    /// An answer of so many bytes, written as fast as they are taken. The note
    /// `stuck written=N` tells that nobody has taken any for a while.
    Flood(u64),
    /// Something that is no status line, then a FIN.
    Garbage,
    /// Two Content-Length fields that contradict each other.
    TwoContentLengths,
    /// A complete 413, or what `?status=N` asks for, before the request's body
    /// is read; then the body is read.
    EarlyAnswer,
    /// As [`Fault::EarlyAnswer`], with `Connection: close`: then a FIN, and what
    /// comes is read away for a second (RFC 9112 section 9.6).
    EarlyAnswerThenClose,
    /// A head with this 1xx status first, then a normal answer.
    Informational(u16),
    /// A head with a field of so many bytes.
    HugeHead(usize),
    /// The head dribbles.
    SlowHead {
        /// Bytes written at a time, at least 1.
        chunk: usize,
        /// The pause between two writes.
        every: Duration,
    },
    /// The body dribbles.
    Drip {
        /// Bytes written at a time, at least 1.
        chunk: usize,
        /// The pause between two writes.
        every: Duration,
    },
    /// The head at once, then a piece of the body for each `release()` since the
    /// request arrived.
    Gate {
        /// Bytes written at a time, at least 1.
        chunk: usize,
    },
    /// A complete keep-alive answer, then a FIN, but what comes is still read
    /// (and not executed) until the other side closes too.
    HalfClose,
    /// A 101 and these bytes at once; from then on every byte is sent back, and
    /// after the other side's FIN a last `bye` and a FIN.
    SwitchProtocols(Vec<u8>),
    /// These bytes instead of an answer, then a FIN.
    RawAnswer(Vec<u8>),
    /// These bytes instead of an answer, and the connection stays open for
    /// more requests.
    RawKeepAlive(Vec<u8>),
    /// These pieces instead of an answer, each a packet of its own.
    RawPieces {
        /// What is written at a time.
        pieces: Vec<Vec<u8>>,
        /// Whether a FIN follows; else the connection stays open for more requests.
        closes: bool,
    },
}

/// How a backend answers its health probes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// This status, and keep-alive. The default is 200.
    Status(u16),
    /// A 302 to this location.
    Redirect(String),
    /// This status after so long.
    Slow(Duration, u16),
    /// No answer, ever; the connection stays open.
    Hang,
    /// A FIN without a byte of an answer.
    Close,
    /// A RST.
    Reset,
    /// These bytes, then a FIN.
    Raw(Vec<u8>),
}

impl Default for Health {
    fn default() -> Self {
        Self::Status(200)
    }
}

/// As it is written in code; of bytes, their start.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::ExtraBytes(bytes) => ("ExtraBytes", bytes),
            Self::ExtraBytesLater(bytes) => ("ExtraBytesLater", bytes),
            Self::SwitchProtocols(bytes) => ("SwitchProtocols", bytes),
            Self::RawAnswer(bytes) => ("RawAnswer", bytes),
            Self::RawKeepAlive(bytes) => ("RawKeepAlive", bytes),
            Self::RawPieces { pieces, .. } => return named(f, "RawPieces", &pieces.concat()),
            short => return write!(f, "{short:?}"),
        };
        named(f, name, bytes)
    }
}

/// As it is written in code; of bytes, their start.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(bytes) => named(f, "Raw", bytes),
            short => write!(f, "{short:?}"),
        }
    }
}

fn named(f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8]) -> fmt::Result {
    let more = if bytes.len() > 60 { "..." } else { "" };
    write!(f, "{name}(\"{}\"{more})", bytes[..bytes.len().min(60)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_and_only_their_start() {
        let text = |fault: Fault| fault.to_string();
        assert_eq!(text(Fault::Status(503)), "Status(503)");
        assert_eq!(
            text(Fault::RawAnswer(b"HTTP/1.1\0\r\n".into())),
            r#"RawAnswer("HTTP/1.1\x00\r\n")"#
        );
        assert_eq!(
            text(Fault::ExtraBytes(vec![b'x'; 9999])).len(),
            60 + r#"ExtraBytes(""...)"#.len()
        );
    }
}
