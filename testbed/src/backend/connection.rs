//! One connection of a backend: requests in, one after the other.
//!
//! Owns the stream, the bytes that are not yet understood, and the end of the
//! connection. What a request is answered is [`super::act`]'s. Run by
//! [`super::supervisor`], one task each.

use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::answer::Answer;
use super::shared::Shared;
use crate::http1::head::RequestHead;
use crate::http1::{Inbox, Malformed};
use crate::log::EventKind;
use crate::net::Net;
use crate::sync::Board;

/// How much a client may send ahead of its turn.
const MAX_AHEAD: usize = 256 * 1024;

/// How long a refused client's remaining bytes are read away, so that they do
/// not turn the answer into a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What the supervisor tells all connections. A life of the backend begins
/// with a revival; the first one is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Connections of lives up to this one finish their request, nothing else.
    pub(super) stopped: u64,
    /// Connections of lives up to this one are reset.
    pub(super) killed: u64,
    /// Connections that were idle when it last changed are to be closed.
    pub(super) idle_round: u64,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    /// As [`End::Fin`], and what still comes is read away for a while.
    FinAndLinger,
    Reset,
    /// Closed as it is: the kernel sends a RST if there are bytes unread.
    Abandon,
}

/// Whether another request may follow.
pub(super) type Flow = ControlFlow<End>;

pub(super) struct Connection<N: Net> {
    pub(super) net: N,
    pub(super) stream: N::Stream,
    pub(super) id: u64,
    /// The backend's life in which it was accepted.
    pub(super) life: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Arc<Board<Orders>>,
    pub(super) inbox: Inbox,
}

/// Serves a connection until either side ends it.
pub(super) async fn run<N: Net>(mut connection: Connection<N>) {
    let orders = Arc::clone(&connection.orders);
    let life = connection.life;
    let end = tokio::select! {
        biased;
        () = orders.until(|o| o.killed >= life) => End::Reset,
        end = connection.serve() => end,
    };
    connection.close(end).await;
}

impl<N: Net> Connection<N> {
    async fn serve(&mut self) -> End {
        loop {
            match self.exchange().await {
                Ok(Flow::Continue(())) => {}
                Ok(Flow::Break(end)) => return end,
                Err(error) => return self.give_up(&error).await,
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<Flow> {
        let Some(head) = self.next_head().await? else {
            return Ok(Flow::Break(End::Fin));
        };
        let (path, _) = head.target.split_once('?').unwrap_or((&head.target, ""));
        // Probes have no nonce: a balancer's may ask for what clients ask for.
        match path == self.shared.health_path && head.fields.get("x-nonce").is_none() {
            true => self.probe(head).await,
            false => self.traffic(head).await,
        }
    }

    /// The next request's head; none if the client or the supervisor ends the
    /// connection between two requests.
    async fn next_head(&mut self) -> io::Result<Option<RequestHead>> {
        let dismissed = self.dismissed();
        tokio::pin!(dismissed);
        loop {
            if let Some(head) = RequestHead::parse(self.inbox.data()).map_err(invalid)? {
                self.inbox.consume(head.raw.len());
                return Ok(Some(head));
            }
            let idle = self.inbox.is_empty();
            let read = tokio::select! {
                // A request that has arrived is served even when stopping.
                biased;
                read = self.inbox.fill(&mut self.stream) => read?,
                () = &mut dismissed, if idle => return Ok(None),
            };
            match read {
                0 if idle => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// Waits for `event`; false if the client goes away before. What the client
    /// sends meanwhile is kept for later.
    pub(super) async fn hold(&mut self, event: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = event => true,
            () = self.gone() => false,
        }
    }

    /// Waits until the client has closed.
    async fn gone(&mut self) {
        while self.inbox.data().len() < MAX_AHEAD {
            match self.inbox.fill(&mut self.stream).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        pending().await
    }

    /// Waits until the supervisor wants this connection closed between two
    /// requests.
    pub(super) fn dismissed(&self) -> impl Future<Output = ()> + Send + use<N> {
        let (life, orders) = (self.life, Arc::clone(&self.orders));
        let round = orders.get().idle_round;
        async move { orders.until(|o| o.stopped >= life || o.idle_round != round).await }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.orders.get().stopped >= self.life
    }

    pub(super) fn note(&self, what: impl fmt::Display) {
        let id = self.id;
        self.shared.note(format_args!("connection={id} {what}"));
    }

    async fn give_up(&mut self, error: &io::Error) -> End {
        self.note(format_args!("error={:?}", error.to_string()));
        if error.kind() != io::ErrorKind::InvalidData {
            return End::Fin;
        }
        let mut answer = Answer::new(400, format!("{error}\n").into_bytes());
        answer.keep_alive = false;
        let bytes = [answer.head(), answer.body_bytes()].concat();
        match self.stream.write_all(&bytes).await {
            Ok(()) => End::FinAndLinger,
            Err(_) => End::Fin,
        }
    }

    async fn close(mut self, end: End) {
        match end {
            // Errors say that the other side was faster.
            End::Fin => drop(self.stream.shutdown().await),
            End::FinAndLinger => {
                drop(self.stream.shutdown().await);
                let _ = timeout(LINGER, self.read_away()).await;
            }
            End::Reset => {
                self.net.reset(self.stream);
                return closed(&self.shared, self.id);
            }
            End::Abandon => {}
        }
        drop(self.stream);
        closed(&self.shared, self.id);
    }

    /// Reads until the other side closes, and forgets it. Returns how much.
    pub(super) async fn read_away(&mut self) -> usize {
        let mut bytes = self.inbox.data().len();
        let mut away = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = self.stream.read(&mut away).await {
            bytes += read;
        }
        bytes
    }
}

pub(super) fn closed(shared: &Shared, connection: u64) {
    shared.record(EventKind::Closed { backend: Arc::clone(&shared.name), connection });
}

/// The client's mistake as the error that leads to a 400.
pub(super) fn invalid(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
