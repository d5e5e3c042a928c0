//! Accepts clients' connections and hands each to the least loaded worker.
//!
//! Owns the limit of connections: one that is too many waits for a moment,
//! then gets a 503 instead of an error.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    client::refuse,
    error::Reason,
    net::Net,
    serve::{Handover, Order},
    worker::{Load, Shared},
};

/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that is one too many waits for another to end.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// How long it may then take to read why it was refused.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// How many connections wait or are being refused, at most; more stay in the
/// kernel's queue.
const WAITING_LIMIT: usize = 256;

/// How long those in the kernel's queue wait at the end for descriptors: idle
/// connections give theirs back within a second.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);

/// How many of those who still wait at the end are let in: more than the
/// kernel's queue holds.
const LAST_ROOM: usize = 8192;

/// The workers, and how many connections they may have in all.
pub struct Workers<N: Net> {
    each: Vec<(mpsc::UnboundedSender<Order<N>>, Arc<Load>)>,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// For those who are too many; none without a limit but that of descriptors.
    waiting: Option<Arc<Semaphore>>,
    turn: Cell<usize>,
}

impl<N: Net> Workers<N> {
    /// Hands connections to `each` worker: at most `limit` at one time, of
    /// which there is no more than `descriptors` allow.
    pub fn new(
        each: Vec<(mpsc::UnboundedSender<Order<N>>, Arc<Load>)>,
        shared: Arc<Shared>,
        limit: Option<usize>,
        descriptors: usize,
    ) -> Rc<Self> {
        let room = limit.map_or(descriptors, |limit| limit.min(descriptors));
        let waiting = descriptors.saturating_sub(room).min(WAITING_LIMIT);
        let semaphore = |permits: usize| {
            Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS - LAST_ROOM)))
        };
        Rc::new(Workers {
            each,
            shared,
            room: semaphore(room),
            waiting: (waiting > 0).then(|| semaphore(waiting)),
            turn: Cell::new(0),
        })
    }

    /// Accepts connections for ever. Dropped, it loses none: once one has been
    /// accepted, nothing is waited for.
    pub async fn accept_all(self: &Rc<Self>, net: &N, listener: &N::Listener) {
        loop {
            self.place().await;
            match net.accept(listener).await {
                Ok(connection) => self.admit(net, connection),
                Err(error) => pause_after(&error).await,
            }
        }
    }

    /// Accepts those who are already waiting: closing the listener would reset them.
    pub async fn accept_waiting(self: &Rc<Self>, net: &N, listener: N::Listener) {
        let deadline = Instant::now() + QUEUE_PATIENCE;
        loop {
            match timeout(Duration::ZERO, net.accept(&listener)).await {
                Ok(Ok(connection)) => self.admit(net, connection),
                Ok(Err(error)) if Instant::now() < deadline => pause_after(&error).await,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Tells the workers that nobody will come but those who wait already.
    pub fn stop(&self) {
        for (sender, _) in &self.each {
            let _ = sender.send(Order::Stop);
        }
        // Where descriptors alone are the limit nobody waits for room any
        // longer: connections that idle are about to end, and make it.
        if self.waiting.is_none() {
            self.room.add_permits(LAST_ROOM);
        }
    }

    /// Waits until one more may be accepted: others stay in the kernel's queue.
    async fn place(&self) {
        drop(self.waiting.as_ref().unwrap_or(&self.room).acquire().await);
    }

    fn admit(self: &Rc<Self>, net: &N, (accepted, address): (N::Accepted, SocketAddr)) {
        let room = self.room.clone();
        if let Ok(room) = room.clone().try_acquire_owned() {
            return self.hand_over((accepted, address, room));
        }
        let (workers, net) = (self.clone(), net.clone());
        tokio::task::spawn_local(async move {
            // Neither semaphore is ever closed.
            let Some(waiting) = workers.waiting.clone() else {
                let Ok(room) = room.acquire_owned().await else { return };
                return workers.hand_over((accepted, address, room));
            };
            let _waiting = waiting.acquire_owned().await;
            match timeout(ROOM_PATIENCE, room.acquire_owned()).await {
                Ok(Ok(room)) => workers.hand_over((accepted, address, room)),
                _ => {
                    warn!("client={address} refused: too many connections");
                    workers.shared.turned_away.fetch_add(1, Ordering::Relaxed);
                    drop(timeout(REFUSAL_LIMIT, turn_away(&net, accepted)).await);
                }
            }
        });
    }

    fn hand_over(&self, connection: Handover<N>) {
        // Ties go round, or short connections would all go to the first.
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let count = self.each.len();
        let order = (0..count).map(|index| index.wrapping_add(turn) % count);
        let Some(least) = order.min_by_key(|&index| self.each[index].1.connections()) else {
            return;
        };
        let (sender, load) = &self.each[least];
        load.connection_assigned();
        // A worker that is gone takes its connections with it.
        let _ = sender.send(Order::Serve(connection));
    }
}

/// Says 503, and closes.
async fn turn_away<N: Net>(net: &N, accepted: N::Accepted) -> io::Result<()> {
    let mut stream = net.adopt(accepted)?;
    refuse(&mut stream, Reason::TooManyConnections).await?;
    stream.shutdown().await
}

/// A connection that was reset while it waited is nobody's loss; being out of
/// descriptors or memory is waited out.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, NotConnected};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected) {
        warn!("cannot accept connections: {error}; trying again in {ACCEPT_PAUSE:?}");
        // Nothing tells when another process gives descriptors or memory back.
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
