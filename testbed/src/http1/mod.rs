//! Reading HTTP/1 from raw sockets, strictly.
//!
//! Owns heads ([`head`]), the framing of bodies ([`body`]) and the bytes that
//! have arrived and are not yet understood ([`Inbox`]). Never writes, and never
//! repairs: what the other side got wrong is an error. Called by backends (for
//! requests) and clients (for answers).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

pub mod body;
pub mod head;

/// Why bytes are not HTTP/1. One line, with what was got.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// How many bytes are asked of a socket at first: an idle connection costs no
/// large buffer.
const FIRST_ASK: usize = 1024;

/// How many bytes are asked of a socket at most.
const MAX_ASK: usize = 64 * 1024;

/// Bytes that have arrived, of which the first ones may be used up.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// How many of `bytes` are used up.
    used: usize,
    /// How many bytes to ask for; grows while reads are full.
    ask: usize,
}

impl Inbox {
    /// What has arrived and is not used up.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.data().is_empty()
    }

    /// Uses up the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.used = (self.used + n).min(self.bytes.len());
        if self.used == self.bytes.len() {
            self.bytes.clear();
            self.used = 0;
        }
    }

    /// Waits for more bytes; 0 means that no more come. Safe to cancel.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn fill<R: AsyncRead + Unpin>(&mut self, from: &mut R) -> io::Result<usize> {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        let ask = self.ask.max(FIRST_ASK);
        self.bytes.reserve(ask);
        let read = from.take(ask as u64).read_buf(&mut self.bytes).await?;
        self.ask = if read == ask { MAX_ASK.min(ask * 4) } else { ask };
        Ok(read)
    }
}
