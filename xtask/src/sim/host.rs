//! A host on the simulated network: what `lb`, backends and clients see of it.
//!
//! Owns the thin layer between both traits `Net` and `turmoil-net`'s sockets:
//! which host's TCP a call is meant for, and what `turmoil-net` has no call
//! for (resets, looking without reading). Never decides what becomes of a
//! packet: see [`super::network`].

mod nets;

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil_net::{
    HostId, set_current,
    shim::tokio::net::{TcpListener, TcpStream},
};

use super::network::{Door, Network};

/// One host; clones are the same.
#[derive(Clone)]
pub(crate) struct Host {
    id: HostId,
    network: Arc<Network>,
}

/// A connection of a host.
pub(crate) struct Stream {
    // Dropped first of all: its host is made the current one before.
    socket: TcpStream,
    host: Host,
    local: SocketAddr,
    peer: SocketAddr,
    /// Whether its end is a reset.
    resets: AtomicBool,
}

/// A listening socket of a host. Dropped, it refuses: the socket itself stays
/// as long as its address is held, as `turmoil-net` gives an address to nobody
/// else while connections of it live.
pub(crate) struct Listener {
    socket: Arc<Socket>,
    host: Host,
}

struct Socket {
    inner: TcpListener,
    host: Host,
}

impl Host {
    pub(super) fn new(id: HostId, network: &Arc<Network>) -> Self {
        Self { id, network: Arc::clone(network) }
    }

    /// Makes the calls that follow on this thread this host's.
    fn enter(&self) {
        self.network.called();
        set_current(self.id);
    }

    fn listen_on(&self, addr: SocketAddr) -> io::Result<Listener> {
        self.enter();
        // It has nothing to wait for.
        let bound = TcpListener::bind(addr).now_or_never();
        let socket = bound.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
        let socket = Arc::new(Socket { inner: socket, host: self.clone() });
        Ok(Listener { socket, host: self.clone() })
    }

    async fn connect_to(&self, addr: SocketAddr) -> io::Result<Stream> {
        let connect = Scoped { host: self, inner: Some(Box::pin(TcpStream::connect(addr))) };
        self.stream(connect.await?)
    }

    async fn accept_on(&self, listener: &Listener) -> io::Result<(Stream, SocketAddr)> {
        let (socket, peer) = poll_fn(|cx| {
            self.enter();
            listener.socket.inner.poll_accept(cx)
        })
        .await?;
        Ok((self.stream(socket)?, peer))
    }

    fn stream(&self, socket: TcpStream) -> io::Result<Stream> {
        self.enter();
        let (local, peer) = (socket.local_addr()?, socket.peer_addr()?);
        self.network.opened(local, peer);
        Ok(Stream { socket, host: self.clone(), local, peer, resets: AtomicBool::new(false) })
    }

    /// Whether nothing has come, not even the end.
    fn is_silent(&self, stream: &Stream) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        stream.poll_peek(&mut cx, &mut byte).is_pending()
    }
}

impl Stream {
    /// Where this end is.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.host.enter();
        self.socket.poll_peek(cx, &mut ReadBuf::new(buf))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.host.enter();
        match self.resets.load(Ordering::Relaxed) {
            true => self.host.network.reset(self.local, self.peer),
            false => self.host.network.abandoned(self.local, self.peer),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.host.enter();
        let Ok(addr) = self.socket.inner.local_addr() else { return };
        self.host.network.set_door(addr, Some(Door::Shut));
        let mut cx = Context::from_waker(Waker::noop());
        // Whoever waits to be accepted is reset.
        while let Poll::Ready(Ok((socket, _))) = self.socket.inner.poll_accept(&mut cx) {
            if let Ok(stream) = self.host.stream(socket) {
                stream.resets.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.host.enter();
        self.host.network.stir();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.host.enter();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        // It may have opened the window.
        if read.is_ready() {
            self.host.network.stir();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.host.enter();
        self.host.network.stir();
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.host.enter();
        self.host.network.stir();
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A future whose every step, its end included, is this host's.
struct Scoped<'a, F> {
    host: &'a Host,
    inner: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Scoped<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.host.enter();
        self.host.network.stir();
        match &mut self.inner {
            Some(inner) => inner.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Scoped<'_, F> {
    fn drop(&mut self) {
        self.host.enter();
        self.inner = None;
    }
}
