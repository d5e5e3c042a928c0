//! A server's answer on its way to the client.
//!
//! Owns the server's connection until the body's last byte has been read, then
//! gives it back to its pool; dropped earlier (the client went away, or the
//! server broke off) it takes the connection down with it.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Exchange;
use crate::{
    net::Net,
    upstream::{Connection, Pool, RequestBody},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer to a client.
pub enum AnswerBody<N: Net> {
    /// One of `lb`'s own sentences, sent once.
    Own {
        /// What is left to send.
        sentence: Option<Bytes>,
        /// Logged when the answer is gone.
        _exchange: Exchange<N>,
    },
    /// Nothing: what follows is not HTTP.
    None,
    /// A server's, as it comes.
    Relayed(Relay<N>),
}

/// A server's body and the connection that it comes on.
pub struct Relay<N: Net> {
    incoming: Incoming,
    /// Until the body has ended.
    lease: Option<Lease<N>>,
    /// The request's body, which may outlast the answer.
    request: RequestBody,
    exchange: Exchange<N>,
    /// How long the server may be silent.
    patience: Duration,
    /// Whether the connection's timer runs since the server's last bytes.
    silent: bool,
}

/// A connection in use, and where it belongs.
pub struct Lease<N: Net> {
    /// The connection.
    pub connection: Connection<N::Stream>,
    /// Its pool.
    pub pool: Rc<Pool<N>>,
}

impl<N: Net> Relay<N> {
    /// Relays `incoming`, which comes on the leased connection.
    pub fn new(
        incoming: Incoming,
        lease: Lease<N>,
        request: RequestBody,
        exchange: Exchange<N>,
        patience: Duration,
    ) -> Self {
        let lease = Some(lease);
        let mut relay = Relay { incoming, lease, request, exchange, patience, silent: false };
        relay.release_at_end();
        relay
    }

    /// Gives the connection back as soon as the last byte is here, not when
    /// somebody asks for more.
    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.end();
        }
    }

    /// The server is silent: resolves when it has been for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let timer = &mut lease.connection.timer;
        if !std::mem::replace(&mut self.silent, true) {
            timer.as_mut().reset(Instant::now() + self.patience);
        }
        timer.as_mut().poll(cx)
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            let now = self.exchange.complete();
            // A connection on which a request is still being written is of no
            // use to another: the client may never finish.
            match self.request.is_over() {
                true => lease.pool.put(lease.connection, now),
                false => self.request.abandon(),
            }
        }
    }
}

impl<N: Net> Body for AnswerBody<N> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let relay = match self.get_mut() {
            AnswerBody::Own { sentence, .. } => {
                return Poll::Ready(sentence.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            AnswerBody::None => return Poll::Ready(None),
            AnswerBody::Relayed(relay) => relay,
        };
        let Poll::Ready(polled) = Pin::new(&mut relay.incoming).poll_frame(cx) else {
            ready!(relay.poll_silence(cx));
            relay.exchange.break_off();
            return Poll::Ready(Some(Err("the server's answer came to a halt".into())));
        };
        relay.silent = false;
        match &polled {
            Some(Ok(frame)) => {
                relay.exchange.count(frame.data_ref().map_or(0, Bytes::len));
                match frame.is_trailers() {
                    true => relay.end(),
                    false => relay.release_at_end(),
                }
            }
            Some(Err(_)) => relay.exchange.break_off(),
            // A body without a length has no end but this one.
            None => relay.end(),
        }
        Poll::Ready(polled.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own { sentence, .. } => sentence.is_none(),
            AnswerBody::None => true,
            AnswerBody::Relayed(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own { sentence, .. } => {
                SizeHint::with_exact(sentence.as_ref().map_or(0, |s| s.len() as u64))
            }
            AnswerBody::None => SizeHint::with_exact(0),
            AnswerBody::Relayed(relay) => relay.incoming.size_hint(),
        }
    }
}
