//! A host as `lb` sees it, and as backends and clients do.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::RawFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use super::{Host, Listener, Socket, Stream};
use crate::sim::network::Door;

impl lb::net::Net for Host {
    type Stream = Stream;
    type Listener = Listener;
    type Accepted = Stream;

    fn listen(&self, addr: SocketAddr) -> io::Result<Listener> {
        self.listen_on(addr)
    }

    fn inherit(&self, _: RawFd) -> io::Result<Listener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn local_addr(&self, listener: &Listener) -> io::Result<SocketAddr> {
        self.enter();
        listener.socket.inner.local_addr()
    }

    async fn accept(&self, listener: &Listener) -> io::Result<(Stream, SocketAddr)> {
        self.accept_on(listener).await
    }

    fn adopt(&self, accepted: Stream) -> io::Result<Stream> {
        Ok(accepted)
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        self.connect_to(addr).await
    }

    fn reset_on_close(&self, stream: &Stream) {
        stream.resets.store(true, Ordering::Relaxed);
    }

    fn has_news(&self, stream: &Stream) -> bool {
        !self.is_silent(stream)
    }

    fn is_quiet(&self, stream: &Stream) -> bool {
        self.is_silent(stream)
    }

    /// There are no names here.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        let ip = host.parse().map_err(|_| io::ErrorKind::NotFound)?;
        Ok([SocketAddr::new(ip, port)].into())
    }
}

/// An address that is being kept.
pub(crate) struct Hold {
    addr: SocketAddr,
    socket: Arc<Socket>,
}

impl testbed::net::Net for Host {
    type Stream = Stream;
    type Listener = Listener;
    type Hold = Hold;
    type Hole = Listener;

    async fn reserve(&self, addr: SocketAddr) -> io::Result<(Hold, SocketAddr)> {
        let listener = self.listen_on(addr)?;
        let addr = listener.socket.inner.local_addr()?;
        Ok((Hold { addr, socket: Arc::clone(&listener.socket) }, addr))
    }

    async fn listen(&self, hold: &Hold) -> io::Result<Listener> {
        self.network.set_door(hold.addr, None);
        Ok(Listener { socket: Arc::clone(&hold.socket), host: self.clone() })
    }

    async fn accept(&self, listener: &Listener) -> io::Result<(Stream, SocketAddr)> {
        self.accept_on(listener).await
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        self.connect_to(addr).await
    }

    async fn black_hole(&self, hold: &Hold, listener: Option<Listener>) -> io::Result<Listener> {
        let listener = match listener {
            Some(listener) => listener,
            None => testbed::net::Net::listen(self, hold).await?,
        };
        self.network.set_door(hold.addr, Some(Door::Silent));
        Ok(listener)
    }

    async fn reopen(&self, hold: &Hold, listener: Listener) -> io::Result<Listener> {
        self.network.set_door(hold.addr, None);
        Ok(listener)
    }

    async fn readable(&self, stream: &mut Stream) -> io::Result<usize> {
        let mut bytes = [0; 1024];
        poll_fn(|cx| stream.poll_peek(cx, &mut bytes)).await
    }

    fn is_quiet(&self, stream: &Stream) -> bool {
        self.is_silent(stream)
    }

    fn reset(&self, stream: Stream) {
        stream.resets.store(true, Ordering::Relaxed);
    }
}
