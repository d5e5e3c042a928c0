//! The client's body on its way to a server, possibly more than once.
//!
//! Owns the first [`KEPT_BYTES`] of the body for replay; past that it streams
//! and is gone. Nothing is read from the client before a server's connection
//! asks for it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, body::Incoming};

/// How much of a body is kept, so that a failed attempt can be repeated.
pub const KEPT_BYTES: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client's request body.
#[derive(Debug)]
pub struct RequestBody(Option<Rc<RefCell<Source>>>);

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    /// What has been read, from the beginning; empty once `overflowed`.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    overflowed: bool,
    ended: bool,
    failed: bool,
    /// Only the newest attempt may read.
    attempt: u32,
}

impl RequestBody {
    /// Takes the body as it comes from the client.
    pub fn new(incoming: Incoming) -> Self {
        if http_body::Body::is_end_stream(&incoming) {
            return RequestBody(None);
        }
        RequestBody(Some(Rc::new(RefCell::new(Source {
            incoming,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            overflowed: false,
            ended: false,
            failed: false,
            attempt: 0,
        }))))
    }

    /// Whether it can be sent from its beginning (again).
    pub fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|source| !source.borrow().overflowed)
    }

    /// Whether the client broke off.
    pub fn has_failed(&self) -> bool {
        self.0.as_ref().is_some_and(|source| source.borrow().failed)
    }

    /// The body for the next attempt, from the beginning; ends earlier ones.
    pub fn attempt(&self) -> AttemptBody {
        AttemptBody(self.0.as_ref().map(|source| {
            source.borrow_mut().attempt += 1;
            let attempt = source.borrow().attempt;
            Reader { source: source.clone(), attempt, next: 0, trailers_sent: false }
        }))
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub struct AttemptBody(Option<Reader>);

#[derive(Debug)]
struct Reader {
    source: Rc<RefCell<Source>>,
    attempt: u32,
    /// The next kept piece to send.
    next: usize,
    trailers_sent: bool,
}

impl Source {
    /// Reads the next piece from the client.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.failed = true;
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.data_ref() {
            Some(data) => self.keep(data.clone()),
            None => self.trailers = frame.trailers_ref().cloned(),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: Bytes) {
        self.kept_bytes += data.len();
        if self.overflowed {
            return;
        }
        if self.kept_bytes > KEPT_BYTES {
            self.overflowed = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(data);
        }
    }
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(reader) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let mut source = reader.source.borrow_mut();
        if source.attempt != reader.attempt {
            return Poll::Ready(Some(Err("a newer attempt has the body".into())));
        }
        if let Some(data) = source.kept.get(reader.next) {
            reader.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if source.ended {
            let trailers = source.trailers.clone().filter(|_| !reader.trailers_sent);
            reader.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = source.poll_incoming(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            reader.next = source.kept.len();
            reader.trailers_sent |= frame.is_trailers();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let source = reader.source.borrow();
        // Exact or unknown: what was declared, or chunked.
        match source.incoming.size_hint().exact() {
            Some(rest) if !source.overflowed => {
                SizeHint::with_exact(rest + source.kept_bytes as u64)
            }
            _ => SizeHint::default(),
        }
    }
}
