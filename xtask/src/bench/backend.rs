//! The servers behind every target: one listener in this process.
//!
//! Linux delivers the whole of 127.0.0.0/8 to the loopback interface, so one
//! listener is as many servers as there are addresses. It is ours, not nginx,
//! because it reads an upload to its end before it answers (nginx's `return`
//! answers first, which each proxy takes differently), and because the command
//! then needs no peer to work. It runs on the load's core: its own time is in
//! nobody's figures.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
    task::LocalSet,
};

use super::workloads::LARGE;

/// The small answer's body.
pub(crate) const HELLO: &str = "hello world\n";

/// The path of the large answer.
pub(crate) const LARGE_PATH: &str = "/large";

/// The path of an answer of a page's size.
pub(crate) const PAGE_PATH: &str = "/page";

/// That size.
const PAGE: usize = 128 * 1024;

/// Connections that may wait for being accepted.
const BACKLOG: u32 = 4096;

/// The running servers; they end with this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    port: u16,
}

impl Backend {
    /// Starts them, on a thread of their own.
    ///
    /// # Errors
    /// No port, or no thread.
    pub(crate) fn start() -> Result<Backend> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
            socket.listen(BACKLOG).context("cannot listen for the proxies")?
        };
        let port = listener.local_addr()?.port();
        thread::Builder::new()
            .name("backend".into())
            .spawn(move || LocalSet::new().block_on(&runtime, accept(listener)))
            .context("cannot start the backend's thread")?;
        Ok(Backend { port })
    }

    /// The addresses of `count` servers.
    pub(crate) fn servers(self, count: u32) -> Vec<SocketAddr> {
        let first = u32::from(Ipv4Addr::new(127, 0, 1, 0));
        let server = |n| SocketAddr::from((Ipv4Addr::from(first + n), self.port));
        (1..=count).map(server).collect()
    }
}

async fn accept(listener: TcpListener) {
    let large = Bytes::from(vec![b'x'; LARGE]);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if is_loopback(peer.ip()) => {
                tokio::task::spawn_local(serve(stream, large.clone()));
            }
            // Out of descriptors, say: the load reports what comes of it.
            Ok(_) | Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The listener has every address; what is not from this machine is dropped.
fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

async fn serve(stream: TcpStream, large: Bytes) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, large.clone()));
    // A proxy that goes away in the middle is no news.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    large: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        LARGE_PATH if request.method() == Method::GET => large,
        PAGE_PATH => large.slice(..PAGE),
        _ => Bytes::from_static(HELLO.as_bytes()),
    };
    let mut upload = request.into_body();
    while let Some(Ok(_)) = upload.frame().await {}
    Ok(Response::new(Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_servers_have_addresses_of_their_own() {
        let servers = Backend { port: 7 }.servers(1000);
        assert_eq!(servers.first().map(ToString::to_string).unwrap(), "127.0.1.1:7");
        assert_eq!(servers.last().map(ToString::to_string).unwrap(), "127.0.4.232:7");
    }
}
