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

use super::{raw::Raw, scenario, upgrades::OFFER};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        69,
        "stop",
        sigterm_finishes,
        Events,
        "SIGTERM: what is in flight is answered, idle connections close, exit code 0"
    ),
    scenario!(
        69,
        "stop",
        cut_off_at_last,
        Events,
        "what is not over at the end of the drain time ends, and its line says that lb stopped"
    )
    .simulated(),
];

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

async fn cut_off_at_last(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    for workers in ["1", "2"] {
        w.balance(&["--drain-timeout", "1s", "--workers", workers]).await?;
        let mark = w.log.len();
        let received = |event: &Event| matches!(event.kind, EventKind::Received { .. });
        a.arm(Fault::Hang, 2);
        let mut hung = [Raw::connect(w).await?, Raw::connect(w).await?];
        for raw in &mut hung {
            raw.write(GET).await?;
        }
        w.log.wait_count(mark, 2, "the requests to arrive", received).await?;
        // Of an answer to HTTP/1.0 that ends with the connection, some.
        a.arm(Fault::Gate { chunk: 100 }, 1);
        let mut half = Raw::connect(w).await?;
        half.write("GET /?size=1000&chunked=1 HTTP/1.0\r\nHost: test\r\n\r\n").await?;
        half.until("\r\n\r\n").await?;
        a.arm(Fault::SwitchProtocols(Vec::new()), 1);
        let mut tunnel = Raw::connect(w).await?;
        tunnel.write(OFFER).await?;
        tunnel.until("\r\n\r\n").await?;
        w.lb()?.terminate()?;
        w.lb()?.exited().await?;
        for mut raw in hung {
            ensure!(raw.rest().await?.is_empty(), "something was answered");
        }
        ensure!(half.rest().await.is_err(), "half an answer looks whole");
        ensure!(tunnel.rest().await.is_err(), "a tunnel that was cut off ended cleanly");
        let lines = w.lb()?.lines_before(u64::MAX, " total_ms=")?;
        for (status, count) in [("503", 2), ("200", 1), ("101", 1)] {
            let stopped = lines.iter().filter(|line| {
                line.contains(&format!(" status={status} ")) && line.ends_with(" end=stopped")
            });
            ensure!(stopped.count() == count, "{count} with {status} were cut off: {lines:?}");
        }
    }
    Ok(())
}
