//! The port keeper: a killed backend's port stays its own.
//!
//! Owns a socket that is bound with SO_REUSEPORT to a port and never listens.
//! While no listener stands next to it, connects get ECONNREFUSED, nobody else
//! can take the port, a client cannot be given it as its own port and so
//! connect to itself, and revival is immediate. Called by
//! [`crate::net::Loopback`], and by whoever starts servers as processes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Keeps one TCP port until dropped.
///
/// Only sockets of the same user that also set SO_REUSEPORT can bind to it.
#[derive(Debug)]
pub struct PortKeeper {
    /// Bound, and never listening: a listener here would take connections.
    _socket: Socket,
    addr: SocketAddr,
}

impl PortKeeper {
    /// Keeps any free port of 127.0.0.1.
    ///
    /// # Errors
    /// If the system has no free port or socket.
    pub fn reserve() -> io::Result<Self> {
        Self::reserve_on(Ipv4Addr::LOCALHOST.into())
    }

    /// Keeps any free port of `ip`.
    ///
    /// # Errors
    /// If `ip` is not an address of this machine, or nothing is free.
    pub fn reserve_on(ip: IpAddr) -> io::Result<Self> {
        Self::reserve_at(SocketAddr::new(ip, 0))
    }

    /// Keeps exactly `addr`; port 0 means any free one.
    ///
    /// # Errors
    /// If a socket without SO_REUSEPORT has it.
    pub fn reserve_at(addr: SocketAddr) -> io::Result<Self> {
        let socket = shared_socket(addr)?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { _socket: socket, addr })
    }

    /// The kept address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The kept port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Opens a non-blocking listener on the kept port. `backlog` is listen(2)'s:
    /// Linux queues one connection more than that.
    ///
    /// # Errors
    /// If the system has no socket left.
    pub fn listen(&self, backlog: i32) -> io::Result<TcpListener> {
        let socket = shared_socket(self.addr)?;
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

/// A socket that shares its port with others of its kind.
fn shared_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Not SO_REUSEADDR: on Linux any socket that sets it too, as servers do,
    // could then bind to the port of one that does not listen.
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_kept_port_refuses_until_somebody_listens_and_again_after() {
        let keeper = PortKeeper::reserve().unwrap();
        let refused = || TcpStream::connect(keeper.addr()).unwrap_err().kind();
        assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            let listener = keeper.listen(16).unwrap();
            TcpStream::connect(keeper.addr()).unwrap();
            drop(listener);
            assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn nobody_else_can_take_a_kept_port() {
        let keeper = PortKeeper::reserve().unwrap();
        let taken = TcpListener::bind(keeper.addr()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
