//! The client's socket as hyper sees it: one whole message head at a time.
//!
//! Owns what hyper does not do, or does without a reason code: the limits of a
//! head (408, 414, 431), the end of an idle connection, writes that make no
//! progress. Hands hyper no byte behind the message at hand, so what a client
//! sends ahead meets the same limits, and an idle connection leaves nothing
//! behind in hyper: it can be given up and made anew.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    config::Timeouts,
    error::Reason,
    framing::{Rest, head_end, leading_empty},
    proxy::Client,
};

/// The longest request line (414).
const LINE_LIMIT: usize = 8 * 1024;

/// The longest head (431).
const HEAD_LIMIT: usize = 32 * 1024;

/// How much is read behind a request that is being answered. The end of the
/// connection is seen behind that much, and what is sent beyond it waits.
const AHEAD_LIMIT: usize = HEAD_LIMIT;

/// How much room for what is read ahead a connection keeps.
const KEPT_BYTES: usize = 8 * 1024;

/// After this long without a request a connection is parked.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// A client's socket and where its stream of messages stands.
pub(super) struct Guard<S> {
    stream: S,
    client: Rc<Client>,
    timeouts: Timeouts,
    state: State,
    /// Read from the socket, not yet handed to hyper.
    ahead: Vec<u8>,
    /// How many bytes of empty lines were skipped before the next head.
    empty: usize,
    /// When the head at hand began to arrive; `None` if it has not, or nobody
    /// has waited for its rest yet.
    head_began: Option<Instant>,
    /// Since when the client takes nothing of what is written.
    stuck: Option<Instant>,
    /// One timer for all waits. It is not put off with every message, but
    /// checks at its end whether it still is one.
    timer: Pin<Box<Sleep>>,
    refused: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next head has not arrived in whole; so much of `ahead` has been
    /// searched for its end.
    Head { searched: usize },
    /// hyper has it, but for so many bytes of `ahead`, and has not said yet
    /// what it is.
    Parsing { left: usize },
    /// The rest of a message.
    Body(Rest),
    /// Nothing more is read: `lb` answers itself, and closes.
    Refused,
}

const NEXT_HEAD: State = State::Head { searched: 0 };

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards `stream`, of which `ahead` has been read already.
    pub(super) fn new(stream: S, ahead: Vec<u8>, client: Rc<Client>, timeouts: Timeouts) -> Self {
        let timer = Box::pin(sleep_until(client.idle_since.get() + PARK_AFTER));
        Guard {
            stream,
            client,
            timeouts,
            state: NEXT_HEAD,
            ahead,
            empty: 0,
            head_began: None,
            stuck: None,
            timer,
            refused: None,
        }
    }

    /// hyper has parsed the head; `rest` is what follows it.
    pub(super) fn head_parsed(&mut self, rest: Rest) {
        self.state = if rest == Rest::Nothing { NEXT_HEAD } else { State::Body(rest) };
        self.empty = 0;
    }

    /// Whether a request has begun to arrive, and no more than that.
    fn is_partial(&self) -> bool {
        let head = matches!(self.state, State::Head { .. }) && !self.ahead.is_empty();
        head && self.stuck.is_none() && !self.client.active.get()
    }

    /// Whether the client has asked for nothing, not even in part, and takes
    /// what it gets.
    pub(super) fn is_idle(&self) -> bool {
        let between = self.state == NEXT_HEAD && self.ahead.is_empty();
        between && self.stuck.is_none() && !self.client.active.get()
    }

    /// The answer that `lb` owes a client whose request never became one, and
    /// since when it has been waited for.
    pub(super) fn refused(&self) -> Option<(Reason, Instant)> {
        Some((self.refused?, self.head_began.unwrap_or_else(Instant::now)))
    }

    /// Whether the client has not taken what was written last.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Whether bytes of a request may be left that nobody will read.
    pub(super) fn has_unread(&self) -> bool {
        self.state != NEXT_HEAD || !self.ahead.is_empty()
    }

    /// The socket, and what has been read of it and not been used.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.ahead)
    }

    fn refuse(&mut self, reason: Reason) {
        self.refused = Some(reason);
        self.state = State::Refused;
    }

    /// Looks for the end of the head in `ahead`; true if it may be handed over.
    fn search(&mut self, searched: usize) -> bool {
        let empty = self.skip_empty();
        if self.empty > LINE_LIMIT {
            self.refuse(Reason::BadRequest);
            return false;
        }
        let from = searched.saturating_sub(empty);
        let end = head_end(&self.ahead, from);
        if let Some(reason) = beyond_limits(&self.ahead[..end.unwrap_or(self.ahead.len())]) {
            self.refuse(reason);
            return false;
        }
        if end.is_some() && has_fragment(&self.ahead) {
            self.refuse(Reason::BadRequest);
            return false;
        }
        self.state = match end {
            Some(left) => State::Parsing { left },
            // The last two bytes may be the beginning of its end.
            None => State::Head { searched: self.ahead.len().saturating_sub(2) },
        };
        end.is_some()
    }

    /// Drops so many bytes of `ahead`, and with the last of them a large buffer: a
    /// connection may live for long, and never need it again.
    fn drop_first(&mut self, count: usize) {
        self.ahead.drain(..count);
        if self.ahead.is_empty() && self.ahead.capacity() > KEPT_BYTES {
            self.ahead = Vec::new();
        }
    }

    /// Drops the empty lines before a head; says how many bytes they were.
    fn skip_empty(&mut self) -> usize {
        let empty = leading_empty(&self.ahead);
        self.drop_first(empty);
        self.empty += empty;
        empty
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        searched: usize,
    ) -> Poll<io::Result<()>> {
        if self.client.active.get() {
            return self.poll_end(cx, buf);
        }
        if self.stuck.is_some() {
            // The answer before has not been flushed; whoever flushes it wakes.
            self.client.reader.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        if searched < self.ahead.len() && self.search(searched) {
            return self.poll_read_guarded(cx, buf);
        }
        while let State::Head { searched } = self.state {
            let before = buf.filled().len();
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else {
                return self.poll_patience(cx);
            };
            read?;
            let read = &buf.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.ahead.is_empty() && is_one_head(read) && !has_fragment(read) {
                self.state = State::Parsing { left: 0 };
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(read);
            buf.set_filled(before);
            self.search(searched);
        }
        self.poll_read_guarded(cx, buf)
    }

    /// While a request is being answered: nothing is handed over, but the end
    /// of the connection, which may follow what was sent ahead.
    fn poll_end(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.client.sent_all.set(true);
        loop {
            self.skip_empty();
            if self.ahead.len() + self.empty >= AHEAD_LIMIT {
                break;
            }
            let before = buf.filled().len();
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else { break };
            read?;
            let read = &buf.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(read);
            buf.set_filled(before);
        }
        if self.ahead.len() + self.empty > 0 {
            self.client.reader.set(Some(cx.waker().clone()));
        }
        Poll::Pending
    }

    /// No more has come: for how long may a head take?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let began = *self.head_began.get_or_insert_with(Instant::now);
            ready!(self.poll_until(cx, began + self.timeouts.request_head));
            self.refuse(Reason::HeadTimeout);
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Resolves when the connection has been idle for a while. Asked by whoever
    /// drives hyper: when an answer ends hyper has often read already, and does
    /// not come back before more arrives.
    pub(super) fn poll_parking(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_idle() {
            return Poll::Pending;
        }
        self.poll_until(
            cx,
            self.client.idle_since.get() + PARK_AFTER.min(self.timeouts.client_idle),
        )
    }

    /// Resolves when a request has begun to arrive, and no more than that, for
    /// as long as `limit`.
    pub(super) fn poll_partial(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        match self.head_began {
            Some(began) if self.is_partial() => self.poll_until(cx, began + limit),
            _ => Poll::Pending,
        }
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        mut rest: Rest,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            let own = rest.advance(read);
            self.ahead.extend_from_slice(&read[own..]);
            buf.set_filled(before + own);
        } else {
            let room = self.ahead.len().min(buf.remaining());
            let own = rest.advance(&self.ahead[..room]);
            buf.put_slice(&self.ahead[..own]);
            self.drop_first(own);
        }
        self.head_parsed(rest);
        if rest.is_endless() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_guarded(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.state {
            State::Head { searched } => self.poll_head(cx, buf, searched),
            // hyper has another idea of where the head ends: it gets more.
            State::Parsing { left: 0 } => {
                self.state = NEXT_HEAD;
                self.poll_head(cx, buf, 0)
            }
            State::Parsing { left } => {
                let own = left.min(buf.remaining());
                buf.put_slice(&self.ahead[..own]);
                self.drop_first(own);
                self.head_began = None;
                self.state = State::Parsing { left: left - own };
                Poll::Ready(Ok(()))
            }
            State::Body(rest) => self.poll_rest(cx, buf, rest),
            State::Refused => Poll::Ready(Ok(())),
        }
    }
}

/// Whether `bytes` are a head within all limits, and nothing else.
fn is_one_head(bytes: &[u8]) -> bool {
    bytes.len() <= LINE_LIMIT
        && !matches!(bytes[0], b'\r' | b'\n')
        && head_end(bytes, 0) == Some(bytes.len())
}

/// Whether there is a `#` in the request line. No target has one (RFC 9112 §3.2);
/// hyper would drop it and what is behind it, where another forwards it.
fn has_fragment(head: &[u8]) -> bool {
    memchr::memchr2(b'#', b'\n', head).is_some_and(|at| head[at] == b'#')
}

/// What is too long in the head that begins with `bytes`.
fn beyond_limits(bytes: &[u8]) -> Option<Reason> {
    if bytes.len() <= LINE_LIMIT {
        return None;
    }
    if !bytes[..LINE_LIMIT].contains(&b'\n') {
        return Some(Reason::UriTooLong);
    }
    (bytes.len() > HEAD_LIMIT).then_some(Reason::HeadTooLarge)
}

/// The reason behind an answer that hyper has made up (RFC 9110 §15.5).
fn reason_of(answer: &[u8]) -> Reason {
    match answer.get(9..12) {
        Some(b"414") => Reason::UriTooLong,
        Some(b"431") => Reason::HeadTooLarge,
        _ => Reason::BadRequest,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_guarded(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        if let State::Parsing { .. } = guard.state {
            // Nobody has been asked: hyper answers what it could not parse. It
            // is said again, with a reason.
            guard.refuse(reason_of(bytes));
        }
        if guard.state == State::Refused {
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut guard.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                if guard.stuck.take().is_some()
                    && let Some(reader) = guard.client.reader.take()
                {
                    reader.wake();
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                let since = *guard.stuck.get_or_insert_with(Instant::now);
                ready!(guard.poll_until(cx, since + guard.timeouts.body));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Dropping the socket says the same, and whoever lingers says it first.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
