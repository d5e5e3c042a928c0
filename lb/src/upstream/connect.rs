//! One governed connect, and the HTTP connection on top of it.

use std::{cell::RefCell, io, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

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
    let stream = match connect_any(net, &addresses, permit.patience(), limit).await {
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

/// Connects to one of `addresses` within `limit`. When one fails the next is
/// tried; when nobody answers for `patience` the next, or the same again, is
/// tried beside it (RFC 8305 §5), and then with twice the patience. So an
/// address that is silent does not hide another, and a SYN that was lost on a
/// full backlog is not waited for until the kernel repeats it after a second.
///
/// # Errors
/// The last one's; `TimedOut` if one of them did not answer in time.
pub async fn connect_any<N: Net>(
    net: &N,
    addresses: &[SocketAddr],
    patience: Duration,
    limit: Duration,
) -> io::Result<N::Stream> {
    let connected = timeout(limit, race(net, addresses, patience)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn race<N: Net>(
    net: &N,
    addresses: &[SocketAddr],
    mut patience: Duration,
) -> io::Result<N::Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut under_way = FuturesUnordered::new();
    let mut next = addresses.iter().cycle();
    for tried in 1.. {
        let Some(address) = next.next() else { break };
        under_way.push(net.connect(*address));
        let silence = sleep(patience);
        tokio::pin!(silence);
        loop {
            tokio::select! {
                biased;
                ended = under_way.next() => match ended {
                    Some(Ok(stream)) => return Ok(stream),
                    Some(Err(error)) => last = error,
                    None => return Err(last),
                },
                () = &mut silence => {
                    patience *= 2;
                    break;
                }
            }
            if tried < addresses.len() {
                break;
            }
        }
    }
    Err(last)
}
