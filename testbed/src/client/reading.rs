//! Reading one answer, strictly.
//!
//! Owns the steps from bytes to a [`Reply`]: interim heads, the head, the body
//! by its framing. A body that ends early is an error, however it ends.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep;

use super::attempt::Attempt;
use super::reply::{ClientError, Reply};
use crate::event::excerpt;
use crate::http1::head::{AnswerHead, Framing};
use crate::http1::{Inbox, Malformed, body::BodyDecoder};

pub(super) struct Reader<'a, R> {
    from: R,
    inbox: Inbox,
    attempt: &'a mut Attempt,
    /// Bytes at a time, and the pause before each.
    pace: Option<(usize, Duration)>,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    pub(super) fn new(from: R, attempt: &'a mut Attempt) -> Self {
        Self { from, inbox: Inbox::default(), attempt, pace: None }
    }

    /// Reads no faster than this.
    pub(super) fn paced(self, pace: Option<(usize, Duration)>) -> Self {
        Self { pace, ..self }
    }

    pub(super) async fn reply(mut self, method: &str) -> Result<Reply, ClientError> {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.head().await?;
            if !head.is_interim() {
                break head;
            }
            interim.push(head.status);
        };
        self.attempt.status = Some(head.status);
        let framing = head.framing(method).map_err(ClientError::Malformed)?;
        let (body, decoder) = self.body(head.status, framing).await?;
        let left = self.inbox.data().len();
        if left > 0 {
            self.attempt.note(format_args!("bytes_after_the_answer={left}"));
        }
        Ok(Reply {
            status: head.status,
            minor_version: head.minor_version,
            backend: head.fields.get("x-backend").map(str::to_owned),
            reusable: head.fields.keep_alive(head.minor_version)
                && framing != Framing::UntilClose
                && head.status != 101
                && left == 0,
            headers: head.fields.into(),
            body,
            trailers: decoder.trailers().clone().into(),
            interim,
            nonce: self.attempt.nonce(),
        })
    }

    async fn head(&mut self) -> Result<AnswerHead, ClientError> {
        loop {
            let parsed = AnswerHead::parse(self.inbox.data());
            let len = match &parsed {
                Ok(Some(head)) => head.len,
                _ => self.inbox.data().len(),
            };
            self.attempt.head = excerpt(&self.inbox.data()[..len]);
            if let Some(head) = parsed.map_err(ClientError::Malformed)? {
                self.inbox.consume(head.len);
                return Ok(head);
            }
            let read = self.fill().await;
            if read.map_err(ClientError::NoAnswer)? == 0 {
                return Err(self.end_in_head());
            }
        }
    }

    fn end_in_head(&self) -> ClientError {
        match self.inbox.data().len() {
            0 => ClientError::NoAnswer(io::ErrorKind::UnexpectedEof.into()),
            n => ClientError::Malformed(Malformed(format!("end after {n} bytes of a head"))),
        }
    }

    async fn body(
        &mut self,
        status: u16,
        framing: Framing,
    ) -> Result<(Vec<u8>, BodyDecoder), ClientError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut body = Vec::new();
        loop {
            let used = decoder.decode(self.inbox.data(), &mut body);
            self.inbox.consume(used.map_err(ClientError::Malformed)?);
            if decoder.is_done() {
                return Ok((body, decoder));
            }
            let cut = |error| ClientError::Truncated { status, read: body.len(), error };
            if self.fill().await.map_err(cut)? == 0 {
                let eof = |e| io::Error::new(io::ErrorKind::UnexpectedEof, e);
                decoder.end().map_err(eof).map_err(cut)?;
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let Some((bytes, every)) = self.pace else {
            return self.inbox.fill(&mut self.from).await;
        };
        sleep(every).await;
        self.inbox.fill(&mut (&mut self.from).take(bytes as u64)).await
    }
}
