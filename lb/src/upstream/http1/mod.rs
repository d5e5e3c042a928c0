//! HTTP/1.1 as a client of a server: one request and its answer at a time.
//!
//! Owns a connection's bytes in both directions and what they mean. Lives in
//! the task of the request, without a task, a channel or a buffer of its own
//! (but for a request that outlasts the beginning of its answer), and knows exactly whether any byte of a request was written: what may be
//! sent again depends on it. Strict: what is not HTTP is an error, never
//! repaired.

mod answer;
mod chunked;
mod upload;

use std::{
    cell::{Ref, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use hyper::{Method, header::HeaderValue, http::request, http::response};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    task::JoinHandle,
};

use self::{answer::Answer, chunked::Step, upload::Upload};
use super::AttemptBody;
use crate::net::SharedStream;

/// The largest head of an answer, with all that is sent before it: interim answers,
/// empty lines.
const HEAD_LIMIT: usize = 256 * 1024;

/// The largest buffer of a body. Buffers are powers of two: of few sizes the
/// allocator keeps little that is free.
const BODY_BYTES: usize = 64 * 1024;

/// The largest that a connection keeps from one message to the next, and the
/// first of a body that may be short.
const KEPT_BYTES: usize = 8 * 1024;

/// The part of a buffer that a read is not expected to fill: the event loop takes
/// a full read for a sign that more is there.
const SPARE_BYTES: usize = 1024;

/// How much of a body is handed on at a time, at most: hyper copies it into a
/// buffer that doubles, with a few bytes more if it makes a chunk of it.
pub const PIECE_BYTES: usize = 4 * 1024 - 64;

/// Why an exchange with a server came to nothing.
#[derive(Debug, Error)]
pub enum WireError {
    /// No byte of the request was written.
    #[error("the connection was dead: {0}")]
    Unsent(io::Error),
    /// The connection ended or broke before the answer did.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The answer is not HTTP.
    #[error("not HTTP: {0}")]
    Garbage(&'static str),
    /// The client's body broke off.
    #[error("the request's body broke off")]
    Client,
}

/// The bytes between `lb` and a server.
#[derive(Debug)]
pub struct Wire<S> {
    /// Shared with the task of a detached upload.
    stream: Rc<RefCell<S>>,
    upload: Upload,
    /// A request that goes on in a task of its own, as its answer has begun.
    detached: Option<Detached>,
    /// Read, and not yet understood.
    ahead: BytesMut,
    /// The size of the buffer that `ahead` is a part of.
    size: usize,
    /// How much has been read since the request began, while its answer has not.
    head_bytes: usize,
    /// Whether the last read of a body filled the buffer.
    filled: bool,
    incoming: Incoming,
    /// Whether the server keeps the connection after this answer.
    keep: bool,
}

/// What is still to come of an answer's body (RFC 9112 §6.3).
#[derive(Debug)]
enum Incoming {
    /// The answer has not begun.
    Awaited,
    /// So many bytes.
    Length(u64),
    Chunked(chunked::Decoder),
    /// All until the connection ends.
    UntilClose,
    /// Nothing.
    Over,
}

/// A task that ends with its connection.
#[derive(Debug)]
struct Detached(JoinHandle<Result<(), WireError>>);

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Wire<S> {
    /// A connection that has carried nothing yet.
    pub fn new(stream: S) -> Self {
        Wire {
            stream: Rc::new(RefCell::new(stream)),
            upload: Upload::default(),
            detached: None,
            ahead: BytesMut::new(),
            size: 0,
            head_bytes: 0,
            filled: false,
            incoming: Incoming::Over,
            keep: true,
        }
    }

    /// The socket, for a look at its state.
    pub fn stream(&self) -> Ref<'_, S> {
        self.stream.borrow()
    }

    /// Sends no more of the request; the connection carries no other.
    pub fn stop_upload(&mut self) {
        self.upload.stop();
    }

    /// Lets the rest of the request go on by itself, for as long as the
    /// connection lives: its answer has begun, and a client that does not read
    /// it must not hold up what it sends.
    pub fn detach_upload(&mut self) {
        if self.upload.is_over() || self.upload.is_broken() {
            return;
        }
        let (mut upload, stream) = (std::mem::take(&mut self.upload), self.stream.clone());
        let task = tokio::task::spawn_local(async move {
            let sent = poll_fn(|cx| upload.poll(cx, &mut *stream.borrow_mut())).await;
            if let Err(WireError::Client) = sent {
                // The server shall not wait for the rest.
                let end =
                    |cx: &mut Context<'_>| Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx);
                let _ = poll_fn(end).await;
            }
            sent
        });
        self.detached = Some(Detached(task));
    }

    /// Resolves when what goes on by itself of the request has been sent.
    ///
    /// # Errors
    /// The client broke it off, or the server takes no more: the connection
    /// carries no other request.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let Some(Detached(task)) = &mut self.detached else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(task).poll(cx));
        self.detached = None;
        let sent = ended.unwrap_or_else(|error| Err(WireError::Broken(io::Error::other(error))));
        if sent.is_err() {
            self.stop_upload();
        }
        Poll::Ready(sent)
    }

    /// Whether the request goes on by itself, or nobody has seen its end yet.
    pub fn is_uploading(&self) -> bool {
        self.detached.is_some()
    }

    /// Prepares a request; `host` is said if the head says none.
    pub fn begin(&mut self, head: &request::Parts, host: Option<&HeaderValue>, body: AttemptBody) {
        self.upload.begin(head, host, body);
        self.incoming = Incoming::Awaited;
        self.head_bytes = 0;
    }

    /// Whether the server has said that the connection stays open.
    pub fn keeps(&self) -> bool {
        self.keep
    }

    /// Whether it may carry another request: both messages are over, and
    /// nothing was sent that nobody asked for.
    pub fn is_reusable(&self) -> bool {
        let sent = self.upload.is_over() && self.detached.is_none();
        self.is_over() && sent && self.keep && self.ahead.is_empty()
    }

    /// Gives back what only the message before needed.
    pub fn shrink(&mut self) {
        if self.size > KEPT_BYTES {
            (self.ahead, self.size) = (BytesMut::new(), 0);
        }
        self.upload.shrink();
    }

    /// Lets `ahead` take so many more bytes.
    fn make_room(&mut self, more: usize) {
        if !self.ahead.try_reclaim(more) {
            self.size = (self.ahead.len() + more).next_power_of_two();
            let mut buffer = BytesMut::with_capacity(self.size);
            buffer.extend_from_slice(&self.ahead);
            self.ahead = buffer;
        }
    }

    /// Sends the request and reads the answer's head; `scratch` is room for
    /// the first read. A request that cannot be sent to its end may still be
    /// answered.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        scratch: &RefCell<Box<[u8]>>,
    ) -> Poll<Result<response::Parts, WireError>> {
        self.send(cx)?;
        loop {
            while let Some(answer) = answer::parse(&mut self.ahead, method)? {
                if let Some(head) = self.accept(answer) {
                    return Poll::Ready(Ok(head));
                }
            }
            if self.head_bytes > HEAD_LIMIT {
                return Poll::Ready(Err(WireError::Garbage("the head is too large")));
            }
            let mut scratch = scratch.borrow_mut();
            let mut read = ReadBuf::new(&mut scratch);
            let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut read);
            ready!(polled).map_err(WireError::Broken)?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(WireError::Broken(io::ErrorKind::UnexpectedEof.into())));
            }
            let count = read.filled().len();
            self.head_bytes += count;
            self.make_room(count);
            self.ahead.extend_from_slice(&scratch[..count]);
        }
    }

    /// Goes on with the request; an error of the server's side shows in the
    /// answer, or in its absence.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), WireError> {
        match self.upload.poll(cx, &mut *self.stream.borrow_mut()) {
            Poll::Ready(Err(WireError::Broken(_))) | Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// Takes an answer's head; none if another is to follow (RFC 9110 §15.2).
    fn accept(&mut self, answer: Answer) -> Option<response::Parts> {
        let switches = answer.head.status == hyper::StatusCode::SWITCHING_PROTOCOLS;
        if answer.head.status.is_informational() && !switches {
            return None;
        }
        self.keep = answer.keep && !switches;
        self.incoming = answer.incoming;
        self.filled = false;
        Some(answer.head)
    }

    /// The rest of the answer's body, if all of it is here.
    pub fn take_rest(&mut self) -> Option<Bytes> {
        if let Incoming::Length(left) = self.incoming {
            let left = usize::try_from(left).ok().filter(|left| *left <= self.ahead.len())?;
            self.incoming = Incoming::Over;
            return Some(self.ahead.split_to(left).freeze());
        }
        self.is_over().then(Bytes::new)
    }

    /// Whether all of the answer has been read.
    pub fn is_over(&self) -> bool {
        matches!(
            self.incoming,
            Incoming::Over | Incoming::Length(0) | Incoming::Chunked(chunked::Decoder::Over)
        )
    }

    /// How much of the answer's body is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self.incoming {
            Incoming::Over => SizeHint::with_exact(0),
            Incoming::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    /// The next piece of the answer's body; none after its end.
    ///
    /// # Errors
    /// It broke off, or is not HTTP.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        loop {
            match self.next_frame()? {
                Step::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Step::End => {
                    self.incoming = Incoming::Over;
                    return Poll::Ready(None);
                }
                Step::More => {}
            }
            if ready!(self.poll_fill(cx))? == 0 {
                if let Incoming::UntilClose = self.incoming {
                    self.incoming = Incoming::Over;
                    return Poll::Ready(None);
                }
                let end = io::ErrorKind::UnexpectedEof.into();
                return Poll::Ready(Some(Err(WireError::Broken(end))));
            }
        }
    }

    /// The next piece of what has been read.
    fn next_frame(&mut self) -> Result<Step, WireError> {
        let there = self.ahead.len().min(PIECE_BYTES);
        let own = match &mut self.incoming {
            Incoming::Over | Incoming::Length(0) => return Ok(Step::End),
            Incoming::Awaited => return Err(WireError::Garbage("a body without a head")),
            Incoming::Chunked(decoder) => return decoder.decode(&mut self.ahead),
            Incoming::UntilClose => there,
            Incoming::Length(left) => {
                let own = there.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= own as u64;
                own
            }
        };
        if own == 0 {
            return Ok(Step::More);
        }
        Ok(Step::Frame(Frame::data(self.ahead.split_to(own).freeze())))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        let expected = match self.incoming {
            Incoming::Length(left) => usize::try_from(left).unwrap_or(BODY_BYTES),
            _ if self.filled => BODY_BYTES,
            _ => KEPT_BYTES - SPARE_BYTES,
        };
        let there = self.ahead.len();
        let size = there + expected.min(BODY_BYTES) + SPARE_BYTES;
        self.make_room(size.next_power_of_two().min(BODY_BYTES) - there);
        let room = self.ahead.capacity() - there;
        let mut stream = self.stream.borrow_mut();
        let read = pin!(stream.read_buf(&mut self.ahead));
        let count = ready!(read.poll(cx)).map_err(WireError::Broken)?;
        self.filled = count == room;
        Poll::Ready(Ok(count))
    }

    /// The socket, and what was read behind the last message.
    pub fn into_parts(self) -> (SharedStream<S>, BytesMut) {
        (SharedStream(self.stream), self.ahead)
    }
}

#[cfg(test)]
mod tests;
