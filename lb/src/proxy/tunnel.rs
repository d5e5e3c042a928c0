//! A connection that speaks another protocol after a server's 101.
//!
//! Owns the server's connection and the exchange, which counts as in flight
//! until the tunnel ends. Bytes pass both ways, unlooked at; each side may end
//! its own direction alone (half-close). A tunnel may be silent for ever, as
//! long as its peers are there: that is the operating system's to ask. What has
//! come must be taken, though: a peer that takes nothing for the time of a body
//! without progress is broken off.

use std::{
    cell::{Cell, RefCell},
    io,
    time::Duration,
};

use hyper::{Response, header, http::response};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use super::{AnswerBody, Exchange, Lease};
use crate::{headers::prepare_response, net::Net};

/// How many bytes are on their way in each direction, at most.
const BUFFER_BYTES: usize = 16 * 1024;

/// Both ends of a tunnel, but for the client's socket.
pub struct Tunnel<N: Net> {
    lease: Lease<N>,
    exchange: Box<Exchange<N>>,
}

impl<N: Net> Tunnel<N> {
    /// The answer that opens the tunnel, and the tunnel.
    pub(super) fn open(
        mut exchange: Box<Exchange<N>>,
        (mut head, lease): (response::Parts, Lease<N>),
    ) -> (Response<AnswerBody<N>>, Box<Self>) {
        exchange.answered(head.status, head.version);
        let protocol = head.headers.remove(header::UPGRADE);
        prepare_response(&mut head.headers);
        let upgrade = header::HeaderValue::from_static("upgrade");
        head.headers.insert(header::CONNECTION, upgrade);
        if let Some(protocol) = protocol {
            head.headers.insert(header::UPGRADE, protocol);
        }
        head.version = hyper::Version::HTTP_11;
        let response = Response::from_parts(head, AnswerBody::None);
        (response, Box::new(Tunnel { lease, exchange }))
    }

    /// Joins the server with `client`, of which `ahead` has been read already,
    /// until both have ended. What one breaks off is broken off for both: who has
    /// not seen the other's orderly end sees a reset; so it is when `stop` resolves.
    ///
    /// # Errors
    /// One of them broke off.
    pub async fn run(
        mut self,
        net: &N,
        mut client: N::Stream,
        ahead: &[u8],
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let patience = self.exchange.settings().timeouts.body;
        let (mut server, beyond) = self.lease.connection.wire.into_parts();
        net.keep_alive(&client);
        net.keep_alive(&server.0.borrow());
        let (client_ended, server_ended) = (Cell::new(false), Cell::new(false));
        let exchange = RefCell::new(&mut self.exchange);
        let joined = async {
            let (from_client, to_client) = split(&mut client);
            let (from_server, to_server) = split(&mut server);
            let up = async {
                let count = |bytes| exchange.borrow().count_sent(bytes as u64);
                let first = (ahead, patience);
                pass((Side::Client, from_client), (Side::Server, to_server), first, count).await?;
                client_ended.set(true);
                Ok(())
            };
            let down = async {
                let count = |bytes| exchange.borrow_mut().count(bytes);
                let first = (&beyond[..], patience);
                pass((Side::Server, from_server), (Side::Client, to_client), first, count).await?;
                server_ended.set(true);
                Ok(())
            };
            tokio::try_join!(up, down)
        };
        let ended = tokio::select! {
            biased;
            ended = joined => ended,
            () = self.lease.pool.upstream.departure.until_cut() => {
                let why = "the server was removed, and its drain time is over";
                Err((Side::Server, io::Error::other(why)))
            }
            // Nobody's doing: how the log tells it is the exchange's to know.
            () = stop => Err((Side::Client, io::Error::other("the drain time is over"))),
        };
        let (side, error) = match ended {
            Ok(((), ())) => {
                self.exchange.complete();
                return Ok(());
            }
            Err(broken) => broken,
        };
        if side == Side::Server {
            self.exchange.break_off();
        }
        if !server_ended.get() {
            net.reset_on_close(&client);
        }
        if !client_ended.get() {
            net.reset_on_close(&server.0.borrow());
        }
        Err(error)
    }
}

/// Who is at an end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Writes what is first, then all that comes from one side to the other until it
/// ends. Tells `count` how many bytes have arrived.
///
/// # Errors
/// Which of them broke off, or took nothing for as long as `patience`.
async fn pass(
    (reading, mut from): (Side, impl AsyncRead + Unpin),
    (writing, mut to): (Side, impl AsyncWrite + Unpin),
    (first, patience): (&[u8], Duration),
    count: impl Fn(usize),
) -> Result<(), (Side, io::Error)> {
    write(&mut to, first, patience).await.map_err(|error| (writing, error))?;
    count(first.len());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.map_err(|error| (reading, error))?;
        if read == 0 {
            return to.shutdown().await.map_err(|error| (writing, error));
        }
        write(&mut to, &buffer[..read], patience).await.map_err(|error| (writing, error))?;
        count(read);
    }
}

/// Writes all of `bytes`, for as long as some are taken within `patience`.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    patience: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(patience, to.write(bytes)).await;
        match written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => bytes = &bytes[taken..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, time::Instant};

    use super::*;

    /// Whoever takes nothing is to blame, be it of what is first or of what comes later;
    /// who takes a byte now and then is not.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_in_time_breaks_the_tunnel_off() {
        let patience = Duration::from_secs(60);
        for (ahead, sent) in [(11, 0), (0, 11), (5, 6)] {
            let ((from, mut client), (to, mut server)) = (duplex(100), duplex(10));
            client.write_all(&[7; 100][..sent]).await.unwrap();
            let first = (&[7; 100][..ahead], patience);
            let passed = pass((Side::Client, from), (Side::Server, to), first, |_| ());
            let slow = async {
                for _ in 0..3 {
                    tokio::time::sleep(patience - Duration::from_millis(2)).await;
                    client.write_all(&[7; 1]).await.unwrap();
                    server.read_exact(&mut [0; 1]).await.unwrap();
                }
                std::future::pending::<()>().await
            };
            let began = Instant::now();
            let broken = tokio::select! { passed = passed => passed, () = slow => Ok(()) };
            let broken = broken.map_err(|(side, error)| (side, error.kind()));
            assert_eq!(broken, Err((Side::Server, io::ErrorKind::TimedOut)));
            let took = began.elapsed().as_millis();
            assert!((3 * 59_998 + 60_000..=3 * 59_998 + 60_002).contains(&took), "{took}");
        }
    }
}
