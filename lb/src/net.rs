//! The seam between the balancer and the network.
//!
//! Everything that `lb` does on sockets goes through [`Net`]; [`Tcp`] is the
//! real one, a simulated network is another. Owns no policy: no timeouts, no
//! retries, no limits.

use std::{
    cell::RefCell,
    future::Future,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    os::fd::RawFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SocketFlags, acceptfrom_with, recv},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::inherit::listening_socket;

/// Connections waiting to be accepted, at most (the kernel may cap it lower).
const BACKLOG: i32 = 4096;

/// A silent peer is asked after a minute, then each 10 s, 6 times: one that has
/// vanished is known after two minutes.
const KEEP_ALIVE: socket2::TcpKeepalive = socket2::TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// A network. Monomorphised: the seam costs nothing at run time.
pub trait Net: Clone + Send + 'static {
    /// A connection, bound to one thread.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;
    /// A listening socket.
    type Listener: 'static;
    /// An accepted connection on its way to the worker that will serve it.
    type Accepted: Send + 'static;

    /// Listens on `addr`; port 0 means any free one.
    ///
    /// # Errors
    /// The address is taken, forbidden, or not of this machine.
    fn listen(&self, addr: SocketAddr) -> io::Result<Self::Listener>;

    /// Takes the listening socket that this process has inherited as
    /// descriptor `fd`. Others may accept from it too.
    ///
    /// # Errors
    /// It is none.
    fn inherit(&self, fd: RawFd) -> io::Result<Self::Listener>;

    /// The address that `listener` is bound to.
    ///
    /// # Errors
    /// The operating system does not tell.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// Accepts the next connection.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Accepted, SocketAddr)>>;

    /// Binds an accepted connection to the calling thread.
    ///
    /// # Errors
    /// The thread's event loop takes no more descriptors.
    fn adopt(&self, accepted: Self::Accepted) -> io::Result<Self::Stream>;

    /// Connects to `addr`.
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Makes the end of `stream` a reset, where an orderly end would lie.
    fn reset_on_close(&self, stream: &Self::Stream);

    /// Has a peer that is silent for long asked whether it is still there: if
    /// nobody answers, `stream` breaks. Without effect unless the network can.
    fn keep_alive(&self, _stream: &Self::Stream) {}

    /// Whether anything is known to have arrived on an idle connection, by
    /// what the event loop has seen so far: costs no system call.
    fn has_news(&self, stream: &Self::Stream) -> bool;

    /// Whether an idle connection is alive and silent at this moment: no end,
    /// no error and no byte has arrived on it.
    fn is_quiet(&self, stream: &Self::Stream) -> bool;

    /// The addresses of `host`, in the order in which they are to be tried.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Rc<[SocketAddr]>>>;
}

/// The operating system's TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Net for Tcp {
    type Stream = TcpStream;
    /// In tokio's type for streams: it lets us say how to accept.
    type Listener = TcpStream;
    type Accepted = StdStream;

    fn listen(&self, addr: SocketAddr) -> io::Result<Self::Listener> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        into_listener(socket)
    }

    fn inherit(&self, fd: RawFd) -> io::Result<Self::Listener> {
        into_listener(listening_socket(fd)?.into())
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    /// Not tokio's accept, which would register the connection with this
    /// thread's event loop, when it is for that of a worker.
    async fn accept(&self, listener: &Self::Listener) -> io::Result<(StdStream, SocketAddr)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accept = || Ok(acceptfrom_with(listener, flags)?);
        let (stream, peer) = listener.async_io(Interest::READABLE, accept).await?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok((stream.into(), peer.ok_or(io::ErrorKind::NotConnected)?))
    }

    fn adopt(&self, accepted: StdStream) -> io::Result<TcpStream> {
        TcpStream::from_std(accepted)
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr).await?;
        if stream.local_addr()? == addr {
            // A connect to a closed port of the ephemeral range can meet
            // itself (TCP simultaneous open); the server is not there.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn reset_on_close(&self, stream: &TcpStream) {
        // It fails only if the connection is gone already.
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }

    fn keep_alive(&self, stream: &TcpStream) {
        // It fails only if the connection is gone already.
        let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&KEEP_ALIVE);
    }

    fn has_news(&self, stream: &TcpStream) -> bool {
        let mut news = false;
        // The closure is called only if the socket is known to be readable.
        let _ = stream.try_io(Interest::READABLE, || {
            news = true;
            Ok(())
        });
        news
    }

    fn is_quiet(&self, stream: &TcpStream) -> bool {
        let mut byte = [0u8];
        let peeked = recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(Errno::AGAIN))
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

fn into_listener(socket: socket2::Socket) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    TcpStream::from_std(socket.into())
}

/// Whether an error is a lack of this machine, and says nothing of the other side.
pub fn is_local(error: &io::Error) -> bool {
    let local = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| local.contains(&errno))
}

/// Whether an error is this process's lack of descriptors: any connection that idles has
/// one to give. One that the whole machine lacks others would take.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MFILE)
}

/// A socket that hyper drives and others look at, on one thread.
#[derive(Debug)]
pub struct SharedStream<S>(pub Rc<RefCell<S>>);

impl<S: AsyncRead + Unpin> AsyncRead for SharedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SharedStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }

    /// One buffer and one plain write cost less than gathering small pieces.
    fn is_write_vectored(&self) -> bool {
        false
    }
}
