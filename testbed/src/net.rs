//! The seam between testbed and the network.
//!
//! Owns the one trait through which backends and clients touch sockets, and
//! its implementation on real ones. A simulated network is another
//! implementation, elsewhere. Never knows HTTP. Called by [`crate::backend`]
//! and [`crate::client`].

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::keeper::PortKeeper;
use crate::sync::lock;

/// What backends and clients need of a network.
pub trait Net: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Takes connections.
    type Listener: Send + Sync + 'static;
    /// Keeps an address while nobody listens on it.
    type Hold: Send + Sync + 'static;
    /// A listener that lets no handshake finish, until dropped.
    type Hole: Send + Sync + 'static;

    /// Takes `addr` (port 0: any free one) and says which it became.
    fn reserve(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Hold, SocketAddr)>> + Send;

    /// Listens on a held address.
    fn listen(&self, hold: &Self::Hold) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Takes the next connection.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Connects.
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Makes connects to a held address hang, as when packets are dropped.
    /// Connections that wait in `listener` break nothing: they go on waiting.
    /// Fails as `Unsupported` where the network cannot.
    fn black_hole(
        &self,
        hold: &Self::Hold,
        listener: Option<Self::Listener>,
    ) -> impl Future<Output = io::Result<Self::Hole>> + Send;

    /// Ends a black hole by listening again.
    fn reopen(
        &self,
        hold: &Self::Hold,
        hole: Self::Hole,
    ) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Waits until bytes or the end are there, and leaves them there. Returns
    /// 0 at the end.
    fn readable(&self, stream: &mut Self::Stream)
    -> impl Future<Output = io::Result<usize>> + Send;

    /// Whether the peer has neither closed nor sent anything unread.
    fn is_quiet(&self, stream: &Self::Stream) -> bool;

    /// Closes with a RST.
    fn reset(&self, stream: Self::Stream);
}

/// Real sockets, with a [`PortKeeper`] behind each held address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

/// Real sockets without a keeper: an address is taken as any server takes it,
/// and a second one on it is refused. After a kill the port is anybody's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exclusive;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long a connect that fills a queue may take; one that takes longer is taken to
/// hang, as the queue is full without it.
const FILLING: Duration = Duration::from_millis(100);

/// A listener that is deaf as soon as it is dropped.
#[derive(Debug)]
pub struct Ears {
    listener: TcpListener,
    /// What has filled its queue, and waits in it. Open, so that nobody else can
    /// have its address.
    filling: Mutex<Vec<TcpStream>>,
}

impl Ears {
    fn new(listener: TcpListener) -> Ears {
        Ears { listener, filling: Mutex::default() }
    }

    /// Whether this is the connection that has filled the queue; its end, then.
    fn is_filling(&self, peer: SocketAddr) -> bool {
        let mut filling = lock(&self.filling);
        let own = filling.iter().position(|own| own.local_addr().is_ok_and(|own| own == peer));
        own.map(|place| filling.swap_remove(place)).is_some()
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        // Closing alone is not enough: while another thread's epoll looks at
        // the socket the kernel holds it, and it goes on taking connections.
        // It fails only if the socket is deaf already.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// A listener whose queue is full of connections that nobody accepts.
#[derive(Debug)]
pub struct FullBacklog(Ears);

impl Net for Loopback {
    type Stream = TcpStream;
    type Listener = Ears;
    type Hold = PortKeeper;
    type Hole = FullBacklog;

    async fn reserve(&self, addr: SocketAddr) -> io::Result<(PortKeeper, SocketAddr)> {
        let keeper = PortKeeper::reserve_at(addr)?;
        let addr = keeper.addr();
        Ok((keeper, addr))
    }

    async fn listen(&self, hold: &PortKeeper) -> io::Result<Ears> {
        TcpListener::from_std(hold.listen(BACKLOG)?).map(Ears::new)
    }

    async fn accept(&self, ears: &Ears) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let (stream, peer) = accept(&ears.listener).await?;
            if !ears.is_filling(peer) {
                return Ok((stream, peer));
            }
        }
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        connect(addr).await
    }

    /// A backlog of 0 holds one connection on Linux: one that waits already, or
    /// the one made here. From then on the kernel drops every SYN. The listener is
    /// the same: closing it would reset what waits.
    async fn black_hole(&self, hold: &PortKeeper, ears: Option<Ears>) -> io::Result<FullBacklog> {
        let ears = match ears {
            Some(ears) => ears,
            None => Ears::new(TcpListener::from_std(hold.listen(0)?)?),
        };
        rustix::net::listen(&ears.listener, 0)?;
        if let Ok(Ok(filling)) = timeout(FILLING, connect(hold.addr())).await {
            lock(&ears.filling).push(filling);
        }
        Ok(FullBacklog(ears))
    }

    async fn reopen(&self, _: &PortKeeper, FullBacklog(ears): FullBacklog) -> io::Result<Ears> {
        rustix::net::listen(&ears.listener, BACKLOG)?;
        Ok(ears)
    }

    async fn readable(&self, stream: &mut TcpStream) -> io::Result<usize> {
        stream.peek(&mut [0; 1024]).await
    }

    fn is_quiet(&self, stream: &TcpStream) -> bool {
        is_quiet(stream)
    }

    fn reset(&self, stream: TcpStream) {
        reset(stream);
    }
}

impl Net for Exclusive {
    type Stream = TcpStream;
    type Listener = Ears;
    type Hold = (SocketAddr, Arc<Mutex<Option<TcpListener>>>);
    type Hole = Infallible;

    async fn reserve(&self, addr: SocketAddr) -> io::Result<(Self::Hold, SocketAddr)> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(((addr, Arc::new(Mutex::new(Some(listener)))), addr))
    }

    async fn listen(&self, hold: &Self::Hold) -> io::Result<Ears> {
        let first = lock(&hold.1).take();
        match first {
            Some(listener) => Ok(Ears::new(listener)),
            None => TcpListener::bind(hold.0).await.map(Ears::new),
        }
    }

    async fn accept(&self, ears: &Ears) -> io::Result<(TcpStream, SocketAddr)> {
        accept(&ears.listener).await
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        connect(addr).await
    }

    async fn black_hole(&self, _: &Self::Hold, _: Option<Ears>) -> io::Result<Infallible> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn reopen(&self, _: &Self::Hold, hole: Infallible) -> io::Result<Ears> {
        match hole {}
    }

    async fn readable(&self, stream: &mut TcpStream) -> io::Result<usize> {
        stream.peek(&mut [0; 1024]).await
    }

    fn is_quiet(&self, stream: &TcpStream) -> bool {
        is_quiet(stream)
    }

    fn reset(&self, stream: TcpStream) {
        reset(stream);
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks the kernel: tokio's idea of readiness lags until its driver runs.
fn is_quiet(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = rustix::net::recv(stream, &mut [0_u8; 1], flags);
    matches!(seen, Err(rustix::io::Errno::AGAIN))
}

/// Closing alone is not enough, see [`Ears`]: the RST would leave when the
/// kernel lets go of the socket. Dissolving the connection sends it now.
fn reset(stream: TcpStream) {
    // Both fail only if the connection is gone already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let _ = rustix::net::connect_unspec(&stream);
}
