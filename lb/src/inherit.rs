//! A listening socket that whoever started `lb` has made.
//!
//! Owns the way from a descriptor's number to its socket, and the checks that
//! clients can be accepted from it. Which numbers there are is said by
//! [`cli`](crate::cli), or by a [`service`](crate::service) manager.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType, recvmsg,
    sockopt::{socket_acceptconn, socket_domain, socket_type},
};
use sendfd::SendWithFd;

/// A descriptor of its own for the listening TCP socket that is inherited as
/// number `fd`.
///
/// # Errors
/// It is not open, or no listening TCP socket: says which.
pub fn listening_socket(fd: RawFd) -> io::Result<OwnedFd> {
    let socket = claim(fd).map_err(|error| expected("is not open", &error))?;
    let kind = socket_type(&socket).map_err(|error| expected("is not a socket", &error.into()))?;
    let family = socket_domain(&socket)?;
    let internet = family == AddressFamily::INET || family == AddressFamily::INET6;
    if kind != SocketType::STREAM || !internet {
        return Err(unfit("is a socket, but not of TCP"));
    }
    if !socket_acceptconn(&socket)? {
        return Err(unfit("does not listen"));
    }
    Ok(socket)
}

/// A descriptor that is known by its number alone becomes one that is owned,
/// by a message to ourselves: nothing else is both safe and allowed in a
/// sandbox (that of containers forbids `pidfd_getfd`).
fn claim(fd: RawFd) -> io::Result<OwnedFd> {
    let (here, there) = UnixDatagram::pair()?;
    here.send_with_fd(&[0], &[fd])?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(&there, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    let descriptor = |message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    };
    // Without one, this process has no room for another.
    ancillary.drain().find_map(descriptor).ok_or(rustix::io::Errno::MFILE.into())
}

fn expected(what: &str, error: &io::Error) -> io::Error {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::BADF | Errno::NOTSOCK) => unfit(what),
        _ => io::Error::new(error.kind(), error.to_string()),
    }
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the descriptor {what}; expected a listening TCP socket"),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsRawFd, unix::net::UnixListener},
    };

    use super::*;

    #[track_caller]
    fn check(fd: RawFd, expected: &str) {
        let error = listening_socket(fd).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn listeners_of_both_ip_versions_are_taken() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let taken = TcpListener::from(listening_socket(listener.as_raw_fd()).unwrap());
            assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());
        }
    }

    #[test]
    fn anything_else_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let local = UnixListener::bind(folder.path().join("socket")).unwrap();
        check(connection.as_raw_fd(), "does not listen");
        check(UdpSocket::bind("127.0.0.1:0").unwrap().as_raw_fd(), "is a socket, but not of TCP");
        check(local.as_raw_fd(), "is a socket, but not of TCP");
        check(File::open("/dev/null").unwrap().as_raw_fd(), "is not a socket");
        check(1_000_000, "is not open");
    }
}
