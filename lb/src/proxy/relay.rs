//! A server's answer on its way to the client.
//!
//! Owns the server's connection until the body's last byte has been read, then
//! gives it back to its pool; dropped earlier (the client went away, or the
//! server broke off) it takes the connection down with it. An answer may be
//! over before its request is: what the client still sends goes on to the
//! server, unless the answer is a refusal.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Exchange;
use crate::{
    headers::filter_trailers,
    net::Net,
    upstream::{Claim, Connection, PIECE_BYTES, RequestBody, WireError},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer to a client.
pub enum AnswerBody<N: Net> {
    /// One of `lb`'s own sentences, sent once.
    Own {
        /// What is left to send.
        sentence: Option<Bytes>,
        /// Logged when the answer is gone.
        _exchange: Box<Exchange<N>>,
    },
    /// Nothing: what follows is not HTTP.
    None,
    /// A server's, as it comes.
    Relayed(Relay<N>),
}

/// A server's body and the connection that it comes on.
pub struct Relay<N: Net> {
    /// Until the body has ended.
    lease: Option<Lease<N>>,
    /// What is left to hand on of a body whose end has been read.
    rest: Bytes,
    /// The request's body, which may outlast the answer.
    request: RequestBody,
    /// Unless it goes on behind the answer.
    exchange: Option<Box<Exchange<N>>>,
    /// How long the server may be silent.
    patience: Duration,
    /// Whether the connection's timer runs since the server's last bytes.
    silent: bool,
    /// Why it broke off, to be told next.
    broken: Option<BoxError>,
}

/// A connection in use, and where it belongs.
pub struct Lease<N: Net> {
    /// Its pool, and the request that the server has in flight: given back
    /// before the connection is closed.
    pub pool: Claim<N>,
    /// The connection.
    pub connection: Box<Connection<N::Stream>>,
}

impl<N: Net> Relay<N> {
    /// Relays what comes on the leased connection.
    pub fn new(
        lease: Lease<N>,
        request: RequestBody,
        exchange: Box<Exchange<N>>,
        patience: Duration,
    ) -> Self {
        let mut relay = Relay {
            lease: Some(lease),
            rest: Bytes::new(),
            request,
            exchange: Some(exchange),
            patience,
            silent: false,
            broken: None,
        };
        relay.release_at_end();
        relay
    }

    /// Gives the connection back as soon as the last byte is here, not when
    /// somebody asks for more.
    fn release_at_end(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        if let Some(rest) = lease.connection.wire.take_rest() {
            self.count(rest.len());
            self.rest = rest;
            self.end();
        }
    }

    fn count(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.count(bytes);
        }
    }

    /// The server is silent: resolves when it has been for too long, and the
    /// request that it may wait for has made no progress either.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let mut timer = lease.connection.timer.as_mut();
        if !std::mem::replace(&mut self.silent, true) {
            timer.as_mut().reset(Instant::now() + self.patience);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            let progressed = self.request.progressed().filter(|_| !self.request.is_over());
            match progressed.map(|progressed| progressed + self.patience) {
                Some(later) if later > Instant::now() => timer.as_mut().reset(later),
                _ => return Poll::Ready(()),
            }
        }
    }

    fn end(&mut self) {
        let (Some(lease), Some(exchange)) = (self.lease.take(), &mut self.exchange) else { return };
        let now = exchange.complete();
        if lease.connection.wire.is_reusable() {
            lease.pool.put(lease.connection, now);
        } else if lease.connection.wire.is_uploading() && !exchange.is_refusal() {
            let (request, patience) = (self.request.take(), self.patience);
            if let Some(exchange) = self.exchange.take() {
                exchange.goes_on(|exchange| Box::pin(see_off(lease, request, exchange, patience)));
            }
        } else {
            // A connection on which a request is still being written is of no
            // use to another: the client may never finish.
            self.request.abandon();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if !self.rest.is_empty() {
            let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        let polled = match lease.connection.wire.poll_body(cx) {
            Poll::Pending if lease.pool.upstream.departure.is_cut() => {
                Err("the server was removed, and its drain time is over".into())
            }
            Poll::Ready(polled) => polled.transpose().map_err(BoxError::from),
            Poll::Pending => {
                ready!(self.poll_silence(cx));
                Err("the server's answer came to a halt".into())
            }
        };
        self.silent = false;
        match polled {
            Ok(Some(frame)) => {
                let frame = match frame.into_trailers() {
                    Ok(mut trailers) => {
                        filter_trailers(&mut trailers);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                };
                self.count(frame.data_ref().map_or(0, Bytes::len));
                self.release_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            // A body without a length has no end but this one.
            Ok(None) => {
                self.end();
                Poll::Ready(None)
            }
            Err(error) => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.break_off();
                }
                // What came before is flushed first: an error takes hyper's
                // buffer down.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// Sees the rest of a request off whose answer is over, for as long as the
/// client makes progress with it, then gives the connection back. A server that
/// takes no more of it has said all that it has to say.
async fn see_off<N: Net>(
    mut lease: Lease<N>,
    request: RequestBody,
    mut exchange: Box<Exchange<N>>,
    patience: Duration,
) {
    let departure = &lease.pool.upstream.departure;
    let Connection { wire, timer, .. } = &mut *lease.connection;
    let mut progressed = Instant::now();
    let sent = loop {
        timer.as_mut().reset(progressed + patience);
        tokio::select! {
            biased;
            sent = poll_fn(|cx| {
                if exchange.has_sent_all() {
                    request.expect_no_more();
                }
                wire.poll_upload(cx)
            }) => break sent,
            () = departure.until_cut() => return request.abandon(),
            () = timer.as_mut() => {}
        }
        match request.progressed() {
            Some(later) if later > progressed => progressed = later,
            _ if request.is_awaited() => break Err(WireError::Client),
            _ => break Err(WireError::Broken(io::ErrorKind::TimedOut.into())),
        }
    };
    match sent {
        Ok(()) => {
            let now = exchange.complete();
            if lease.connection.wire.is_reusable() {
                lease.pool.put(lease.connection, now);
            }
        }
        Err(WireError::Client) => {
            exchange.client_broke_off();
            request.abandon();
        }
        Err(_) => request.abandon(),
    }
}

impl<N: Net> Body for AnswerBody<N> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            AnswerBody::Own { sentence, .. } => {
                Poll::Ready(sentence.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            AnswerBody::None => Poll::Ready(None),
            AnswerBody::Relayed(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own { sentence, .. } => sentence.is_none(),
            AnswerBody::None => true,
            AnswerBody::Relayed(relay) => relay.lease.is_none() && relay.rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own { sentence, .. } => {
                SizeHint::with_exact(sentence.as_ref().map_or(0, |s| s.len() as u64))
            }
            AnswerBody::None => SizeHint::with_exact(0),
            AnswerBody::Relayed(relay) => match &relay.lease {
                Some(lease) => lease.connection.wire.size_hint(),
                None => SizeHint::with_exact(relay.rest.len() as u64),
            },
        }
    }
}
