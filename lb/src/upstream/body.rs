//! The client's body on its way to a server, possibly more than once.
//!
//! Owns the first 64 KiB of the body for replay; past that it streams
//! and is gone. Nothing is read from the client before a server's connection
//! asks for it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, body::Incoming};
use tokio::time::Instant;

use super::make_room;
use crate::{error::Reason, worker::OwnLoad};

/// How much of a body is kept, so that a failed attempt can be repeated.
const KEPT_BYTES: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client's request body.
#[derive(Debug)]
pub struct RequestBody(Option<Rc<RefCell<Source>>>);

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    /// What has been read, from the beginning, while it is short. Copied, as
    /// a piece of a few bytes would hold on to the whole buffer it came in.
    kept: Vec<u8>,
    read_bytes: u64,
    trailers: Option<HeaderMap>,
    /// Where its bytes are counted.
    load: OwnLoad,
    /// Whether `kept` is all that has been read.
    whole: bool,
    ended: bool,
    /// Whether no more comes than hyper has read already.
    all_read: bool,
    /// Why no more of it comes.
    failure: Option<Reason>,
    /// The most bytes that it may have.
    limit: u64,
    /// When the client last sent something.
    progressed: Instant,
    /// Only the newest attempt may read.
    attempt: u32,
    /// Who waits for more.
    reader: Option<Waker>,
}

impl RequestBody {
    /// Takes the body as it comes from the client; it fails beyond `limit`
    /// bytes. They are counted in `load`.
    pub fn new(incoming: Incoming, limit: u64, now: Instant, load: &OwnLoad) -> Self {
        if Body::is_end_stream(&incoming) {
            return RequestBody(None);
        }
        RequestBody(Some(Rc::new(RefCell::new(Source {
            incoming,
            kept: Vec::new(),
            read_bytes: 0,
            trailers: None,
            load: load.clone(),
            whole: true,
            ended: false,
            all_read: false,
            failure: None,
            limit,
            progressed: now,
            attempt: 0,
            reader: None,
        }))))
    }

    /// Whether it can be sent from its beginning (again).
    pub fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.borrow().whole)
    }

    /// Whether it is known to fit into what is kept.
    pub fn is_short(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let rest = source.borrow().incoming.size_hint().exact();
            rest.is_some_and(|rest| rest <= KEPT_BYTES as u64)
        })
    }

    /// Whether there is a body whose length nobody knows beforehand.
    pub fn is_chunked(&self) -> bool {
        let unknown =
            |source: &Rc<RefCell<Source>>| source.borrow().incoming.size_hint().exact().is_none();
        self.0.as_ref().is_some_and(unknown)
    }

    /// Whether the client has sent all of it.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.borrow().is_over())
    }

    /// Whether a server waits for the client to send more of it.
    pub fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|source| source.borrow().reader.is_some())
    }

    /// Why no more of it comes: the client broke off, or sent too much.
    pub fn failure(&self) -> Option<Reason> {
        self.0.as_ref().and_then(|source| source.borrow().failure)
    }

    /// When the client last sent something of it; `None` if there is no body.
    pub fn progressed(&self) -> Option<Instant> {
        self.0.as_ref().map(|source| source.borrow().progressed)
    }

    /// Ends the attempt under way: nobody wants the rest.
    pub fn abandon(&self) {
        let Some(source) = &self.0 else { return };
        let mut source = source.borrow_mut();
        source.attempt += 1;
        let reader = source.reader.take();
        drop(source);
        reader.iter().for_each(Waker::wake_by_ref);
    }

    /// The client has sent all of it. hyper does not tell the end of a body whose
    /// trailers came behind the answer before the next request does, which waits for
    /// this one's end; nor the trailers, which are lost (RFC 9110 §6.5.1).
    pub fn expect_no_more(&self) {
        let Some(source) = &self.0 else { return };
        let mut source = source.borrow_mut();
        if !std::mem::replace(&mut source.all_read, true) {
            let reader = source.reader.take();
            drop(source);
            reader.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Hands it over; here is no body any more.
    pub fn take(&mut self) -> Self {
        RequestBody(self.0.take())
    }

    /// The body for the next attempt, from the beginning; ends earlier ones.
    pub fn attempt(&self) -> AttemptBody {
        AttemptBody(self.0.as_ref().map(|source| {
            source.borrow_mut().attempt += 1;
            let attempt = source.borrow().attempt;
            Reader { source: source.clone(), attempt, replayed: false, trailers_sent: false }
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
    /// Whether what earlier attempts have read has been sent.
    replayed: bool,
    trailers_sent: bool,
}

impl AttemptBody {
    /// Whether all of it is kept, however often it is sent.
    pub fn is_kept(&self) -> bool {
        let fits = |reader: &Reader| {
            let source = reader.source.borrow();
            let rest = source.incoming.size_hint().exact();
            source.whole && rest.is_some_and(|rest| rest <= KEPT_BYTES as u64)
        };
        self.0.as_ref().is_none_or(fits)
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl Source {
    fn is_over(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    /// Reads the next piece from the client.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Polled {
        let polled = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending if self.all_read => None,
            polled => ready!(polled),
        };
        let frame = match polled {
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.failure = Some(Reason::ClientBody);
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        self.progressed = Instant::now();
        match frame.data_ref() {
            Some(data) => {
                self.keep(data);
                if self.read_bytes > self.limit {
                    self.failure = Some(Reason::BodyTooLarge);
                    return Poll::Ready(Some(Err("the body is too large".into())));
                }
            }
            None => {
                self.trailers = frame.trailers_ref().cloned();
                self.ended = true;
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: &[u8]) {
        self.read_bytes += data.len() as u64;
        self.load.stats.body_bytes.add(data.len() as u64);
        self.whole &= self.read_bytes <= KEPT_BYTES as u64;
        if self.whole {
            make_room(&mut self.kept, data.len());
            self.kept.extend_from_slice(data);
        } else {
            self.kept = Vec::new();
        }
    }
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let Some(reader) = &mut self.0 else { return Poll::Ready(None) };
        let mut source = reader.source.borrow_mut();
        if source.attempt != reader.attempt {
            return Poll::Ready(Some(Err("a newer attempt has the body".into())));
        }
        if !std::mem::replace(&mut reader.replayed, true) && !source.kept.is_empty() {
            let kept = Bytes::copy_from_slice(&source.kept);
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        // One with a length is over with its last byte: hyper may not say so
        // before the next request comes.
        if source.is_over() {
            let trailers = source.trailers.clone().filter(|_| !reader.trailers_sent);
            reader.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = source.poll_incoming(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => reader.trailers_sent |= frame.is_trailers(),
            Poll::Ready(_) | Poll::Pending => {}
        }
        source.reader = polled.is_pending().then(|| cx.waker().clone());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.0 else { return SizeHint::with_exact(0) };
        let source = reader.source.borrow();
        // Exact or unknown: what was declared, or chunked.
        match source.incoming.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + source.kept.len() as u64),
            None => SizeHint::default(),
        }
    }
}
