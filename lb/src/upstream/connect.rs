//! One governed connect, and the HTTP connection on top of it.

use std::{cell::RefCell, io, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{Upstream, governor::Permit};
use crate::{
    net::{Net, Shared, is_local},
    proxy::AttemptBody,
};

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Refused or unreachable at every address.
    Refused(io::Error),
    /// This machine could not even try: out of descriptors, ports or memory.
    Local(io::Error),
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
    let addresses = upstream.addresses.load_full();
    let stream = match connect_any(net, &addresses, limit).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(ConnectError::TimedOut { evidence: permit.timed_out() });
        }
        Err(error) if is_local(&error) => return Err(ConnectError::Local(error)),
        Err(error) => return Err(ConnectError::Refused(error)),
    };
    permit.succeeded();
    let stream = Rc::new(RefCell::new(stream));
    let (sender, driver) = http1::Builder::new()
        .handshake(TokioIo::new(Shared(stream.clone())))
        .await
        .map_err(|error| ConnectError::Local(io::Error::other(error)))?;
    tokio::task::spawn_local(async move {
        // Errors reach the request that they concern through its sender.
        let _ = driver.await;
    });
    let now = Instant::now();
    Ok(Connection { sender, stream, epoch, used: now, deadline: Box::pin(sleep_until(now)) })
}

/// Connects to the first of `addresses` that takes it; each has its share of
/// `limit`, so that one that is silent does not hide the next.
///
/// # Errors
/// The last one's, `TimedOut` if it did not answer.
pub async fn connect_any<N: Net>(
    net: &N,
    addresses: &[SocketAddr],
    limit: Duration,
) -> io::Result<N::Stream> {
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(share, net.connect(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
