//! Bytes that are written as fast as they are taken, or when nobody expects them.
//!
//! Owns how a backend tells that nobody takes what it writes. Called by
//! [`super::act`].

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::connection::Connection;
use super::shared::Ticket;
use crate::net::Net;

/// How many bytes are written at a time.
const PIECE: usize = 64 * 1024;

/// A write that takes longer is stuck.
const STUCK_AFTER: Duration = Duration::from_millis(200);

impl<N: Net> Connection<N> {
    /// An answer of `size` bytes, as fast as they are taken.
    pub(super) async fn flood(&mut self, size: u64) -> io::Result<()> {
        let name = &self.shared.name;
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: {size}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        let (piece, mut written) = (vec![0; PIECE], 0);
        while written < size {
            let left = usize::try_from(size - written).unwrap_or(PIECE);
            let taken =
                match timeout(STUCK_AFTER, self.stream.write(&piece[..PIECE.min(left)])).await {
                    Ok(taken) => taken?,
                    Err(_) => {
                        self.note(format_args!("stuck written={written}"));
                        self.stream.write(&piece[..PIECE.min(left)]).await?
                    }
                };
            written += taken as u64;
        }
        Ok(())
    }

    /// Writes `bytes`, which belong to no answer, when released.
    pub(super) async fn add_later(&mut self, bytes: &[u8], mut ticket: Ticket) -> io::Result<()> {
        if self.hold(ticket.released()).await {
            self.stream.write_all(bytes).await?;
            self.note(format_args!("extra_bytes={}", bytes.len()));
        }
        Ok(())
    }
}
