//! One governed connect, and the HTTP connection on top of it.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{Upstream, governor::Permit};
use crate::{net::Net, proxy::AttemptBody};

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Refused or unreachable at every address.
    Refused(io::Error),
    /// No answer in time; `evidence` says whether that speaks against the server.
    TimedOut {
        /// False if another connect to the server succeeded meanwhile.
        evidence: bool,
    },
}

/// A connection to a server: the handle for requests, and the socket for a
/// look at its state. hyper drives the socket in a task of its own.
#[derive(Debug)]
pub struct Connection<S> {
    /// hyper's handle; one request at a time.
    pub sender: SendRequest<AttemptBody>,
    /// The socket, shared with hyper's task.
    pub stream: Rc<RefCell<S>>,
    /// The epoch of the server's health when it was opened.
    pub epoch: u64,
    /// When it was last in use.
    pub used: Instant,
    /// By when the answer under way must have begun. Kept for the life of the
    /// connection: putting a timer off is far cheaper than making one.
    pub deadline: Pin<Box<Sleep>>,
}

/// Connects to `upstream` within `limit`.
///
/// # Errors
/// No address of the server took the connection.
pub async fn connect<N: Net>(
    net: &N,
    upstream: &Upstream,
    permit: Permit<'_>,
    limit: Duration,
    epoch: u64,
) -> Result<Connection<N::Stream>, ConnectError> {
    let stream = match timeout(limit, connect_any(net, upstream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(ConnectError::TimedOut { evidence: permit.timed_out() });
        }
        Ok(Err(error)) => return Err(ConnectError::Refused(error)),
        Err(_) => {
            return Err(ConnectError::TimedOut { evidence: permit.timed_out() });
        }
    };
    permit.succeeded();
    let stream = Rc::new(RefCell::new(stream));
    let (sender, driver) = http1::Builder::new()
        .handshake(TokioIo::new(Shared(stream.clone())))
        .await
        .map_err(|error| ConnectError::Refused(io::Error::other(error)))?;
    tokio::task::spawn_local(async move {
        // Errors reach the request that they concern through its sender.
        let _ = driver.await;
    });
    let now = Instant::now();
    Ok(Connection { sender, stream, epoch, used: now, deadline: Box::pin(sleep_until(now)) })
}

/// Tries the server's addresses in order; the last error stands.
async fn connect_any<N: Net>(net: &N, upstream: &Upstream) -> io::Result<N::Stream> {
    let addresses = upstream.addresses.load_full();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.iter() {
        match net.connect(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A socket that hyper drives and the pool looks at, on one thread.
struct Shared<S>(Rc<RefCell<S>>);

impl<S: AsyncRead + Unpin> AsyncRead for Shared<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shared<S> {
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
