//! One worker's thread: the client connections it serves, and their end.
//!
//! Owns no connection ([`client`]) and nothing that a request needs
//! ([`worker`](crate::worker)).
//! Called by [`server`](crate::server).

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tracing::debug;

use crate::{
    allocator::give_back,
    client,
    net::Net,
    worker::{Load, Worker},
};

/// How long a client that has sent no whole request may take for it after the
/// signal to stop.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to cut off what is left at the end: it waits for nobody.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// An accepted connection, its client, and its share of the connections that
/// there may be.
pub type Handover<N> = (<N as Net>::Accepted, SocketAddr, OwnedSemaphorePermit);

/// What a worker is told.
pub enum Order<N: Net> {
    /// To serve this connection.
    Serve(Handover<N>),
    /// To end connections as soon as they are done. The last few may follow.
    Stop,
}

/// Serves the connections that come through `orders` until its senders are
/// gone, then finishes what is in flight, for at most the drain time.
pub async fn run<N: Net>(worker: Worker<N>, mut orders: mpsc::UnboundedReceiver<Order<N>>) {
    let worker = Rc::new(worker);
    let stops = Rc::new(Stops::default());
    let sweeper = tokio::task::spawn_local({
        let worker = worker.clone();
        async move {
            tokio::select! {
                () = worker.pools.sweep() => {}
                () = give_back() => {}
            }
        }
    });
    let cutter = tokio::task::spawn_local({
        let (stops, mut cuts) = (stops.clone(), worker.shared.cluster.cuts());
        async move {
            while cuts.changed().await.is_ok() {
                stops.wake_all();
            }
        }
    });
    let closer = tokio::task::spawn_local({
        let worker = worker.clone();
        async move {
            loop {
                worker.shared.cluster.shortage().await;
                worker.pools.close_oldest();
            }
        }
    });
    while let Some(order) = orders.recv().await {
        let Order::Serve((accepted, address, room)) = order else {
            stops.stop(Stopping::Politely);
            continue;
        };
        match worker.net.adopt(accepted) {
            Ok(stream) => serve(&worker, &stops, (stream, address, room)),
            Err(error) => {
                worker.load.connection_closed();
                debug!("client={address} connection lost: {error}");
            }
        }
    }
    let drain = worker.settings().timeouts.drain;
    if timeout(STOP_PATIENCE.min(drain), stops.closed(&worker.load)).await.is_err() {
        stops.stop(Stopping::Impatiently);
    }
    // At the end of the drain time what is left is cut off, and its lines are
    // written while somebody takes them.
    let left = drain.saturating_sub(STOP_PATIENCE);
    if timeout(left, stops.closed(&worker.load)).await.is_err() {
        worker.stopped.set(true);
        stops.stop(Stopping::AtOnce);
        let _ = timeout(CUT_PATIENCE, stops.closed(&worker.load)).await;
    }
    sweeper.abort();
    cutter.abort();
    closer.abort();
    worker.pools.close_all();
}

/// Serves one connection in a task of its own.
fn serve<N: Net>(
    worker: &Rc<Worker<N>>,
    stops: &Rc<Stops>,
    (stream, address, room): (N::Stream, SocketAddr, OwnedSemaphorePermit),
) {
    let (worker, stops) = (worker.clone(), stops.clone());
    tokio::task::spawn_local(async move {
        let _registered = stops.register().await;
        tokio::select! {
            biased;
            () = client::serve(worker.clone(), &stops, stream, address) => {}
            () = stops.until_over() => {}
        }
        drop(room);
        worker.load.connection_closed();
    });
}

/// Whether a worker is about to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stopping {
    /// It is not.
    #[default]
    No,
    /// Connections end with their next answer.
    Politely,
    /// Those that have not asked for anything yet end now.
    Impatiently,
    /// All end now, whatever they are at.
    AtOnce,
}

/// The client connections of a worker, to be told when it stops.
#[derive(Debug, Default)]
pub struct Stops {
    stopping: Cell<Stopping>,
    /// A waker for each connection; free slots are `None`.
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    one_closed: Notify,
}

impl Stops {
    /// Whether connections are to end with their next answer.
    pub fn stopping(&self) -> bool {
        self.stopping.get() != Stopping::No
    }

    /// Whether those that have not sent a whole request for a while end now.
    pub fn impatient(&self) -> bool {
        matches!(self.stopping.get(), Stopping::Impatiently | Stopping::AtOnce)
    }

    /// Whether all end now.
    pub fn over(&self) -> bool {
        self.stopping.get() == Stopping::AtOnce
    }

    /// Resolves when all end: for those that are registered.
    pub async fn until_over(&self) {
        poll_fn(|_| if self.over() { Poll::Ready(()) } else { Poll::Pending }).await
    }

    /// Whether a parked connection ends now; one that has not asked for
    /// anything yet may have its first request on the way.
    pub fn ends_idle(&self, has_asked: bool) -> bool {
        self.impatient() || self.stopping() && has_asked
    }

    fn stop(&self, how: Stopping) {
        self.stopping.set(how);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.wakers.borrow().iter().flatten().for_each(Waker::wake_by_ref);
    }

    async fn closed(&self, load: &Load) {
        while load.connections() > 0 {
            self.one_closed.notified().await;
        }
    }

    /// Registers the calling task. Its waker stays the same, so once is enough.
    async fn register(self: &Rc<Self>) -> Registered {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let mut wakers = self.wakers.borrow_mut();
        let free = self.free.borrow_mut().pop();
        let slot = free.unwrap_or_else(|| {
            wakers.push(None);
            wakers.len() - 1
        });
        wakers[slot] = Some(waker);
        Registered { stops: self.clone(), slot }
    }
}

/// A connection's place among the wakers.
struct Registered {
    stops: Rc<Stops>,
    slot: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.stops.wakers.borrow_mut()[self.slot] = None;
        self.stops.free.borrow_mut().push(self.slot);
        self.stops.one_closed.notify_one();
    }
}
