//! A server's answer on its way to the client.
//!
//! Owns the server's connection until the body's last byte has been read, then
//! gives it back to its pool; dropped earlier (the client went away, or the
//! server broke off) it takes the connection down with it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Exchange;
use crate::{
    net::Net,
    upstream::{Claim, Connection, RequestBody},
};

/// The body of an answer to a client.
pub enum AnswerBody<N: Net> {
    /// One of `lb`'s own sentences, sent once.
    Own {
        /// What is left to send.
        sentence: Option<Bytes>,
        /// Logged when the answer is gone.
        _exchange: Exchange<N>,
    },
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
}

/// A connection in use, and where it belongs.
pub struct Lease<N: Net> {
    /// The connection.
    pub connection: Connection<N::Stream>,
    /// Its pool, and the request that the server has in flight.
    pub pool: Claim<N>,
}

impl<N: Net> Relay<N> {
    /// Relays `incoming`, which comes on the leased connection.
    pub fn new(
        incoming: Incoming,
        lease: Lease<N>,
        request: RequestBody,
        exchange: Exchange<N>,
    ) -> Self {
        let mut relay = Relay { incoming, lease: Some(lease), request, exchange };
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
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let relay = match self.get_mut() {
            AnswerBody::Own { sentence, .. } => {
                return Poll::Ready(sentence.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            AnswerBody::Relayed(relay) => relay,
        };
        let polled = ready!(Pin::new(&mut relay.incoming).poll_frame(cx));
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
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own { sentence, .. } => sentence.is_none(),
            AnswerBody::Relayed(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own { sentence, .. } => {
                SizeHint::with_exact(sentence.as_ref().map_or(0, |s| s.len() as u64))
            }
            AnswerBody::Relayed(relay) => relay.incoming.size_hint(),
        }
    }
}
