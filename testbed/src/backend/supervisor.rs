//! The task behind a backend: takes connections, and obeys its handle.
//!
//! Owns the listener, the held address and the tasks of all connections, so
//! that nothing of a backend outlives it, and a panic in a connection is
//! noticed. Never reads a request. Started by [`super::Builder`].

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use super::connection::{Connection, Orders, closed, run};
use super::shared::Shared;
use crate::http1::Inbox;
use crate::log::EventKind;
use crate::net::Net;
use crate::sync::Board;

/// How long to wait after a failed accept, as when descriptors run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(10);

/// What a handle asks for, and where the answer goes.
pub(super) enum Command {
    Kill(oneshot::Sender<()>),
    /// Answered once nobody listens; then, when all is finished, the other.
    Stop(oneshot::Sender<()>, oneshot::Sender<()>),
    Revive(oneshot::Sender<io::Result<()>>),
    BlackHole(oneshot::Sender<io::Result<()>>),
    CloseIdle,
}

pub(super) struct Supervisor<N: Net> {
    net: N,
    hold: N::Hold,
    shared: Arc<Shared>,
    listener: Option<N::Listener>,
    hole: Option<N::Hole>,
    connections: JoinSet<()>,
    orders: Arc<Board<Orders>>,
    /// Counts revivals, from 1: what is ordered of one life leaves the next be.
    life: u64,
    next_connection: u64,
    /// Who waits for the end of a polite stop.
    stopping: Vec<oneshot::Sender<()>>,
}

impl<N: Net> Supervisor<N> {
    pub(super) fn new(
        net: N,
        hold: N::Hold,
        listener: Option<N::Listener>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            net,
            hold,
            shared,
            listener,
            hole: None,
            connections: JoinSet::new(),
            orders: Arc::default(),
            life: 1,
            next_connection: 1,
            stopping: Vec::new(),
        }
    }

    /// Works until the last handle is gone; connections end with it.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return self.reset_all().await,
                },
                Some(ended) = self.connections.join_next() => self.ended(ended),
                taken = accept(&self.net, self.listener.as_ref()) => match taken {
                    Ok((stream, peer)) => self.serve(stream, peer),
                    Err(error) => self.cannot_accept(&error).await,
                },
            }
        }
    }

    /// An asker that has gone away is no reason to stop: answers are sent to
    /// whom it may concern.
    async fn obey(&mut self, command: Command) {
        match command {
            Command::Kill(done) => {
                self.kill().await;
                let _ = done.send(());
            }
            Command::Stop(deaf, done) => {
                self.stop(done);
                let _ = deaf.send(());
            }
            Command::Revive(done) => drop(done.send(self.revive().await)),
            Command::BlackHole(done) => drop(done.send(self.black_hole().await)),
            Command::CloseIdle => self.orders.change(|o| o.idle_round += 1),
        }
    }

    /// Nobody listens and nothing is open on return.
    async fn reset_all(&mut self) {
        self.close_ears();
        self.orders.change(|o| o.killed = self.life);
        while let Some(ended) = self.connections.join_next().await {
            self.note_panic(ended);
        }
    }

    async fn kill(&mut self) {
        self.reset_all().await;
        self.stopping.clear();
        self.shared.record(EventKind::Killed { backend: Arc::clone(&self.shared.name) });
    }

    fn stop(&mut self, done: oneshot::Sender<()>) {
        self.close_ears();
        self.orders.change(|o| o.stopped = self.life);
        self.stopping.push(done);
        self.finish_stop();
    }

    /// Reports the end of a polite stop if it has come.
    fn finish_stop(&mut self) {
        if self.stopping.is_empty() || !self.connections.is_empty() {
            return;
        }
        self.shared.record(EventKind::Stopped { backend: Arc::clone(&self.shared.name) });
        for done in self.stopping.drain(..) {
            let _ = done.send(());
        }
    }

    async fn revive(&mut self) -> io::Result<()> {
        if self.listener.is_some() {
            return Ok(());
        }
        self.listener = Some(match self.hole.take() {
            Some(hole) => self.net.reopen(&self.hold, hole).await?,
            None => self.net.listen(&self.hold).await?,
        });
        self.life += 1;
        self.stopping.clear();
        self.shared.record(EventKind::Revived { backend: Arc::clone(&self.shared.name) });
        Ok(())
    }

    async fn black_hole(&mut self) -> io::Result<()> {
        if self.hole.is_none() {
            let listener = self.listener.take();
            self.hole = Some(self.net.black_hole(&self.hold, listener).await?);
        }
        self.shared.record(EventKind::BlackHoled { backend: Arc::clone(&self.shared.name) });
        Ok(())
    }

    fn close_ears(&mut self) {
        self.listener = None;
        self.hole = None;
    }

    fn serve(&mut self, stream: N::Stream, peer: SocketAddr) {
        let id = self.next_connection;
        self.next_connection += 1;
        self.shared.record(EventKind::Accepted {
            backend: Arc::clone(&self.shared.name),
            connection: id,
            peer,
        });
        if self.shared.faults(|faults| faults.reset_on_accept()) {
            self.net.reset(stream);
            return closed(&self.shared, id);
        }
        self.connections.spawn(run(Connection {
            net: self.net.clone(),
            stream,
            id,
            life: self.life,
            shared: Arc::clone(&self.shared),
            orders: Arc::clone(&self.orders),
            inbox: Inbox::default(),
        }));
    }

    fn ended(&mut self, ended: Result<(), JoinError>) {
        self.note_panic(ended);
        self.finish_stop();
    }

    fn note_panic(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            self.shared.panicked(&error.to_string());
        }
    }

    async fn cannot_accept(&self, error: &io::Error) {
        self.shared.note(format_args!("cannot accept: {error}"));
        // Nothing tells when there are descriptors again.
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}

/// The next connection; never if nobody listens.
async fn accept<N: Net>(
    net: &N,
    listener: Option<&N::Listener>,
) -> io::Result<(N::Stream, SocketAddr)> {
    match listener {
        Some(listener) => net.accept(listener).await,
        None => pending().await,
    }
}
