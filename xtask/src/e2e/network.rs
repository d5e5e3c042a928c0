//! How a world's clients reach the balancer: over real sockets or simulated
//! ones.
//!
//! Owns the choice between both, so that a scenario has one type of client and
//! of connection. Backends and balancers have networks of their own.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use testbed::net::{Loopback, Net};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::sim;

/// How long nothing has to come on a simulated network to be sure that nothing
/// does: more than all round trips of an exchange.
const SETTLED: Duration = Duration::from_millis(50);

/// A network for clients.
#[derive(Clone)]
pub(crate) enum Network {
    /// The operating system's.
    Real,
    /// The simulated one, from this host.
    Simulated(sim::Host),
}

/// A connection of a client.
pub(crate) enum Stream {
    /// The operating system's.
    Real(TcpStream),
    /// A simulated one.
    Simulated(sim::Stream),
}

impl Network {
    /// Whether nothing has come on `stream` that nobody expected.
    pub(crate) async fn is_silent(&self, stream: &Stream) -> bool {
        match self {
            Network::Real => tokio::task::yield_now().await,
            Network::Simulated(_) => tokio::time::sleep(SETTLED).await,
        }
        self.is_quiet(stream)
    }
}

impl Stream {
    /// Where this end is.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Real(stream) => stream.local_addr(),
            Stream::Simulated(stream) => Ok(stream.local_addr()),
        }
    }
}

/// Clients connect; they do not listen.
impl Net for Network {
    type Stream = Stream;
    type Listener = Infallible;
    type Hold = Infallible;
    type Hole = Infallible;

    async fn reserve(&self, _: SocketAddr) -> io::Result<(Infallible, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn listen(&self, hold: &Infallible) -> io::Result<Infallible> {
        match *hold {}
    }

    async fn accept(&self, listener: &Infallible) -> io::Result<(Stream, SocketAddr)> {
        match *listener {}
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        match self {
            Network::Real => Loopback.connect(addr).await.map(Stream::Real),
            Network::Simulated(host) => Net::connect(host, addr).await.map(Stream::Simulated),
        }
    }

    async fn black_hole(&self, hold: &Infallible, _: Option<Infallible>) -> io::Result<Infallible> {
        match *hold {}
    }

    async fn reopen(&self, hold: &Infallible, _: Infallible) -> io::Result<Infallible> {
        match *hold {}
    }

    async fn readable(&self, stream: &mut Stream) -> io::Result<usize> {
        match (self, stream) {
            (Network::Simulated(host), Stream::Simulated(stream)) => host.readable(stream).await,
            (_, Stream::Real(stream)) => Loopback.readable(stream).await,
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn is_quiet(&self, stream: &Stream) -> bool {
        match (self, stream) {
            (Network::Simulated(host), Stream::Simulated(stream)) => Net::is_quiet(host, stream),
            (_, Stream::Real(stream)) => Loopback.is_quiet(stream),
            _ => false,
        }
    }

    fn reset(&self, stream: Stream) {
        match (self, stream) {
            (Network::Simulated(host), Stream::Simulated(stream)) => host.reset(stream),
            (_, Stream::Real(stream)) => Loopback.reset(stream),
            _ => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Real(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Real(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Simulated(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Real(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Real(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
