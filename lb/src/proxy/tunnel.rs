//! A connection that speaks another protocol after a server's 101.
//!
//! Owns the server's connection and the exchange, which counts as in flight
//! until the tunnel ends. Bytes pass both ways, unlooked at; each side may end
//! its own direction alone (half-close).

use std::io;

use hyper::{Response, header, http::response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};

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
    /// until both have ended.
    ///
    /// # Errors
    /// One of them broke off.
    pub async fn run<S>(mut self, mut client: S, ahead: &[u8]) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut server, beyond) = self.lease.connection.wire.into_parts();
        client.write_all(&beyond).await?;
        server.write_all(ahead).await?;
        let sizes = (BUFFER_BYTES, BUFFER_BYTES);
        let copied = copy_bidirectional_with_sizes(&mut client, &mut server, sizes.0, sizes.1);
        let (up, down) = tokio::select! {
            copied = copied => copied?,
            () = self.lease.pool.upstream.departure.until_cut() => {
                return Err(io::Error::other("the server was removed, and its drain time is over"));
            }
        };
        self.exchange.count_sent(ahead.len() as u64 + up);
        self.exchange.count(beyond.len() + usize::try_from(down).unwrap_or(usize::MAX));
        self.exchange.complete();
        Ok(())
    }
}
