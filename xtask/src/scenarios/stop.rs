//! The end of the balancer.

use std::{io::ErrorKind, net::SocketAddr};

use anyhow::{Result, ensure};
use testbed::{
    client::Request,
    fault::Fault,
    log::{Event, EventKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::scenario;
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[scenario!(
    69,
    "stop",
    sigterm_finishes,
    Events,
    "SIGTERM: what is in flight is answered, idle connections close, exit code 0"
)];

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A connection that has had one answer and is kept open.
async fn idle_connection(addr: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(GET).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") || !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut answer).await? > 0, "closed in its first answer");
    }
    Ok(stream)
}

async fn sigterm_finishes(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let addr = w.lb()?.addr;
    let mut idle = idle_connection(addr).await?;
    all.iter().for_each(|backend| backend.set_fault(Fault::Park));
    let (mut parked, mut uploading) = (w.client("parked")?, w.client("uploading")?);
    let mark = w.log.len();
    let get = parked.start(Request::new("GET", "/?size=100000")).await?;
    let post = uploading.start(Request::new("POST", "/").body(vec![7; 100_000])).await?;
    let mut pipelined = TcpStream::connect(addr).await?;
    pipelined.write_all(&[GET, GET].concat()).await?;
    let arrived = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    w.log.wait_count(mark, 3, "the requests to arrive", arrived).await?;
    w.lb()?.terminate()?;
    w.lb()?.prints(mark, "stopping").await?;
    let mut rest = Vec::new();
    ensure!(idle.read_to_end(&mut rest).await? == 0, "the idle connection got {rest:?}");
    all.iter().for_each(|backend| backend.clear());
    all.iter().for_each(|backend| backend.release());
    let (get, post) = tokio::join!(get.read(), post.read());
    ensure!(get?.status == 200 && post?.status == 200, "the requests in flight were cut off");
    pipelined.read_to_end(&mut rest).await?;
    ensure!(rest.starts_with(b"HTTP/1.1 200"), "the pipelined request was cut off");
    w.lb()?.exited().await?;
    let late = TcpStream::connect(addr).await.map_err(|error| error.kind());
    ensure!(late.is_err_and(|kind| kind == ErrorKind::ConnectionRefused), "still listening");
    Ok(())
}
