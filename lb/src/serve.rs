//! One worker's thread: the client connections it serves, and their end.
//!
//! Owns nothing that a request needs: that is [`worker`](crate::worker)'s.
//! Called by [`server`](crate::server).

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tracing::debug;

use crate::{
    net::{Net, SharedStream},
    proxy::{Client, handle},
    worker::{Load, Worker},
};

/// How long a client that has sent no whole request may take for it after the
/// signal to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// An accepted connection and its client.
pub type Handover<N> = (<N as Net>::Accepted, SocketAddr);

/// Serves the connections that come through `handovers` until its senders are
/// gone, then finishes what is in flight, for at most the drain time.
pub async fn run<N: Net>(worker: Worker<N>, mut handovers: mpsc::UnboundedReceiver<Handover<N>>) {
    let worker = Rc::new(worker);
    let connections = Rc::new(Connections::default());
    let sweeper = tokio::task::spawn_local({
        let worker = worker.clone();
        async move { worker.pools.sweep().await }
    });
    while let Some((accepted, address)) = handovers.recv().await {
        match worker.net.adopt(accepted) {
            Ok(stream) => serve(&worker, &connections, stream, address),
            Err(error) => {
                worker.load.connection_closed();
                worker.shared.connection_closed.notify_waiters();
                debug!("client={address} connection lost: {error}");
            }
        }
    }
    connections.stop(Stopping::Politely);
    if timeout(STOP_PATIENCE, connections.closed(&worker.load)).await.is_err() {
        connections.stop(Stopping::Impatiently);
    }
    // At the end of the drain time what is left is cut off.
    let left = worker.shared.timeouts.drain.saturating_sub(STOP_PATIENCE);
    let _ = timeout(left, connections.closed(&worker.load)).await;
    sweeper.abort();
    worker.pools.close_all();
}

fn serve<N: Net>(
    worker: &Rc<Worker<N>>,
    connections: &Rc<Connections>,
    stream: N::Stream,
    address: SocketAddr,
) {
    let client = Rc::new(Client::new(address));
    let stream = Rc::new(RefCell::new(stream));
    let service = service_fn({
        let (worker, client) = (worker.clone(), client.clone());
        move |request: hyper::Request<Incoming>| {
            let answer = handle(worker.clone(), client.clone(), request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(worker.shared.timeouts.client_idle)
        // One buffer and one plain write cost less than gathering small pieces.
        .writev(false)
        .serve_connection(TokioIo::new(SharedStream(stream.clone())), service);
    let mut served = Served {
        connection: Box::pin(connection),
        client: client.clone(),
        connections: connections.clone(),
        slot: None,
        stopped: false,
    };
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        if let Err(error) = (&mut served).await {
            debug!("client={address} connection ended: {error}");
        }
        if client.must_reset.get() {
            worker.net.reset_on_close(&stream.borrow());
        }
        drop(served);
        worker.load.connection_closed();
        worker.shared.connection_closed.notify_waiters();
    });
}

/// Whether a worker is about to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stopping {
    /// It is not.
    #[default]
    No,
    /// Connections end after their current or first request.
    Politely,
    /// Those that have not asked for anything yet end now.
    Impatiently,
}

/// The client connections of a worker, to be told when it stops.
#[derive(Debug, Default)]
struct Connections {
    stopping: Cell<Stopping>,
    /// A waker for each connection; free slots are `None`.
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    one_closed: Notify,
}

impl Connections {
    fn stop(&self, how: Stopping) {
        self.stopping.set(how);
        self.wakers.borrow().iter().flatten().for_each(Waker::wake_by_ref);
    }

    async fn closed(&self, load: &Load) {
        while load.connections() > 0 {
            self.one_closed.notified().await;
        }
    }

    fn register(&self, waker: &Waker) -> usize {
        let mut wakers = self.wakers.borrow_mut();
        if let Some(slot) = self.free.borrow_mut().pop() {
            wakers[slot] = Some(waker.clone());
            return slot;
        }
        wakers.push(Some(waker.clone()));
        wakers.len() - 1
    }

    fn remove(&self, slot: usize) {
        self.wakers.borrow_mut()[slot] = None;
        self.free.borrow_mut().push(slot);
    }
}

/// A hyper connection that ends after its current request once the worker stops.
trait Stoppable: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, B, S> Stoppable for http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http1::Connection::graceful_shutdown(self);
    }
}

/// One client connection being served.
struct Served<C> {
    connection: Pin<Box<C>>,
    client: Rc<Client>,
    /// Its place among the wakers, once it has been polled.
    slot: Option<usize>,
    stopped: bool,
    connections: Rc<Connections>,
}

impl<C: Stoppable> Future for Served<C> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        // A task's waker stays the same: registering once is enough.
        if self.slot.is_none() {
            self.slot = Some(self.connections.register(cx.waker()));
        }
        let stopping = self.connections.stopping.get();
        if stopping != Stopping::No && !self.stopped {
            self.stopped = true;
            self.connection.as_mut().graceful_shutdown();
        }
        let polled = self.connection.as_mut().poll(cx);
        if stopping == Stopping::Impatiently && !self.client.has_asked.get() {
            return Poll::Ready(Ok(()));
        }
        polled
    }
}

impl<C> Drop for Served<C> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.connections.remove(slot);
        }
        self.connections.one_closed.notify_one();
    }
}
