//! The bodies of requests: read, or sent back as they come.
//!
//! Owns how a body leaves the connection. Called by [`super::act`] and
//! [`super::probe`].

use std::io;

use tokio::io::AsyncWriteExt;

use super::act::{next, nonce};
use super::answer::{Answer, Form};
use super::connection::{Connection, Flow, invalid};
use crate::body::{BodyDigest, BodyHasher, LAST_CHUNK, push_chunk};
use crate::http1::body::BodyDecoder;
use crate::http1::head::{Framing, RequestHead};
use crate::net::Net;

impl<N: Net> Connection<N> {
    /// Tells a client that waits for it to send its body (RFC 9110 10.1.1).
    pub(super) async fn allow_body(&mut self, head: &RequestHead) -> io::Result<()> {
        let waits = head.minor_version == 1
            && head.framing != Framing::Length(0)
            && head.fields.lists("expect", "100-continue");
        if waits && self.inbox.is_empty() {
            let go = Answer::new(100, Vec::new()).head();
            self.stream.write_all(&go).await?;
        }
        Ok(())
    }

    pub(super) async fn read_body(&mut self, head: &RequestHead) -> io::Result<BodyDigest> {
        let mut decoder = BodyDecoder::new(head.framing);
        let (mut hasher, mut piece) = (BodyHasher::default(), Vec::new());
        while !decoder.is_done() {
            piece.clear();
            self.next_piece(&mut decoder, &mut piece).await?;
            hasher.update(&piece);
        }
        if !decoder.trailers().0.is_empty() {
            self.note(format_args!("trailers={:?}", decoder.trailers().0));
        }
        Ok(hasher.finish())
    }

    /// Appends at least a byte of the body to `piece`, unless it is done.
    pub(super) async fn next_piece(
        &mut self,
        decoder: &mut BodyDecoder,
        piece: &mut Vec<u8>,
    ) -> io::Result<()> {
        loop {
            let used = decoder.decode(self.inbox.data(), piece).map_err(invalid)?;
            self.inbox.consume(used);
            if decoder.is_done() || !piece.is_empty() {
                return Ok(());
            }
            if self.inbox.fill(&mut self.stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends each piece of the body back as it comes.
    pub(super) async fn echo(&mut self, head: &RequestHead) -> io::Result<Flow> {
        let mut answer = Answer::new(200, Vec::new()).field("X-Backend", &self.shared.name);
        if let Some(nonce) = nonce(head) {
            answer = answer.field("X-Nonce", nonce);
        }
        self.suit(&mut answer, head);
        answer.form = Form::Close;
        match head.framing {
            Framing::Length(len) => answer = answer.field("Content-Length", len),
            _ => answer.form = Form::Chunked,
        }
        self.stream.write_all(&answer.head()).await?;
        let chunked = answer.form == Form::Chunked;
        let mut decoder = BodyDecoder::new(head.framing);
        let (mut hasher, mut piece) = (BodyHasher::default(), Vec::new());
        while !decoder.is_done() {
            piece.clear();
            self.next_piece(&mut decoder, &mut piece).await?;
            hasher.update(&piece);
            if decoder.is_done() {
                self.executed(head, hasher.finish());
            }
            let wire = match chunked {
                true => chunk_of(&piece, decoder.is_done()),
                false => std::mem::take(&mut piece),
            };
            self.stream.write_all(&wire).await?;
        }
        if head.framing == Framing::Length(0) {
            self.executed(head, hasher.finish());
        }
        self.replied(head, answer.status);
        Ok(next(&answer))
    }
}

/// `piece` as a chunk, if any, and the last chunk, if it is time.
fn chunk_of(piece: &[u8], last: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    if !piece.is_empty() {
        push_chunk(&mut wire, piece);
    }
    if last {
        wire.extend_from_slice(LAST_CHUNK);
    }
    wire
}
