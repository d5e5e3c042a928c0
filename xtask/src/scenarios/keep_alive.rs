//! Connections that are used again, and those that die just then.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use testbed::{
    client::Request,
    fault::Fault,
    log::{Event, EventKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{failover::received, raw::Raw, scenario};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        47,
        "keep_alive",
        closes_without_notice,
        Events,
        "a server that closes each connection without notice costs one POST at most, not each"
    )
    .simulated()
    .anybodys(&[]),
    scenario!(
        46,
        "keep_alive",
        idle_close_then_request,
        Events,
        "a server that closes idle connections costs no request"
    )
    .simulated()
    .anybodys(&[]),
    scenario!(
        46,
        "keep_alive",
        idle_close_with_408,
        Events,
        "a 408 to an idle connection is no request's answer, but a fresh one's is"
    )
    .simulated(),
    scenario!(
        47,
        "keep_alive",
        race_1000,
        Events,
        "closed in the moment of the next request, 1 000 times: no GET fails, no POST twice"
    )
    .anybodys(&[]),
    scenario!(
        47,
        "keep_alive",
        fresh_posts,
        Events,
        "with --fresh-posts no POST meets a kept connection, dying or not"
    )
    .simulated(),
    scenario!(
        47,
        "keep_alive",
        large_upload_on_fresh,
        Events,
        "an upload too large to repeat does not meet a dying connection"
    )
    .simulated()
    .anybodys(&[]),
    scenario!(
        49,
        "keep_alive",
        stalled_upload,
        Events,
        "a connection whose request is not over is not used again"
    ),
    scenario!(
        49,
        "keep_alive",
        poisoned,
        Events,
        "bytes behind an answer, with it or later, are never the next answer"
    )
    .simulated()
    .anybodys(&["keep_alive"]),
    scenario!(
        50,
        "keep_alive",
        after_a_restart,
        Events,
        "no request meets a connection from before the server's restart"
    )
    .anybodys(&[]),
    scenario!(
        46,
        "keep_alive",
        server_says_how_long,
        Events,
        "Keep-Alive: timeout=1 is kept for no time, timeout=5 is kept"
    )
    .simulated(),
    scenario!(
        48,
        "keep_alive",
        reuse_counted,
        Events,
        "one connection to each server serves a client's requests"
    )
    .simulated(),
    scenario!(
        48,
        "keep_alive",
        distrust_piles_up_nothing,
        Events,
        "POSTs to a server that has closed a kept connection leave no connection each"
    ),
    scenario!(
        48,
        "keep_alive",
        slow_connect_looks_back,
        Events,
        "who waits for a connect that hangs takes a connection that comes back"
    ),
];

async fn slow_connect_looks_back(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&["--workers", "1"]).await?;
    let (mut first, mut second) = (w.client("c1")?, w.client("c2")?);
    first.get("/").await?;
    a.arm(Fault::Delay(Duration::from_millis(500)), 1);
    let mark = w.log.len();
    let slow = tokio::spawn(async move { first.get("/").await });
    w.log.wait_count(mark, 1, "the slow request at A", received(&a)).await?;
    a.black_hole().await?;
    let status = second.get("/").await?.status;
    ensure!(status == 200, "got {status}, expected 200: A's one connection came back");
    ensure!(slow.await??.status == 200, "the slow request failed");
    Ok(())
}

async fn distrust_piles_up_nothing(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&["--workers", "1"]).await?;
    let mut client = w.client("c")?;
    a.arm(Fault::CloseAfterAnswer, 1);
    for _ in 0..2 {
        client.get("/").await?;
    }
    for _ in 0..100 {
        ensure!(client.post("/", b"once".to_vec()).await?.status == 200, "a POST failed");
    }
    // Those that it gives up are closed by the time that the next one is asked.
    let closed = |event: &Event| matches!(event.kind, EventKind::Closed { .. });
    let opened = w.log.count(0, |event| matches!(event.kind, EventKind::Accepted { .. }));
    w.log
        .wait_count(0, opened.saturating_sub(10), "all but ten connections to close", closed)
        .await?;
    client.get("/").await?;
    let elsewhere = w.log.count(0, |event| matches!(event.kind, EventKind::Accepted { .. }));
    ensure!(elsewhere == opened, "a GET found no kept connection");
    Ok(())
}

async fn idle_close_then_request(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    for backend in &all {
        backend.set_fault(Fault::CloseAfterAnswer);
    }
    let mut client = w.client("c")?;
    for round in 0..20 {
        let mark = w.log.len();
        let reply = match round % 4 {
            0 | 1 => client.get("/").await?,
            _ => client.post("/", b"once".to_vec()).await?,
        };
        ensure!(reply.status == 200, "status {}", reply.status);
        let its = connection_since(w, mark)?;
        let closed = |event: &Event| {
            matches!(&event.kind, EventKind::Closed { backend, connection }
                if **backend == *reply.backend() && *connection == its)
        };
        w.log.wait_from(mark, "the server to close", closed).await?;
    }
    Ok(())
}

async fn idle_close_with_408(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a] = w.backends(["A"]).await?;
    w.balance(&["--workers", "1"]).await?;
    let mut client = w.client("c")?;
    let answer = |end: &str| {
        let head = format!("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n{end}\r\n");
        head.into_bytes()
    };
    let last = Fault::RawAnswer(answer("Connection: close\r\n"));
    let kept = Fault::RawKeepAlive(answer(""));
    for method in ["GET", "PUT", "HEAD"] {
        client.get("/").await?;
        a.arm(last.clone(), 1);
        let reply = client.send(Request::new(method, "/")).await?;
        ensure!(reply.status == 200, "{method} on a kept connection got {}", reply.status);
    }
    // One that keeps its connection means it, and so does one on a fresh connection.
    for (fault, times) in [(kept, 1), (last.clone(), 2)] {
        client.get("/").await?;
        a.arm(fault, times);
        let reply = client.get("/").await?;
        ensure!(reply.status == 408, "got {}, expected A's 408", reply.status);
    }
    // Nor does it answer what is still on its way.
    client.get("/").await?;
    a.arm(Fault::EarlyAnswerThenClose, 1);
    let mark = w.log.len();
    let mut raw = Raw::connect(w).await?;
    raw.write("PUT /?status=408 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n1").await?;
    w.log.wait_count(mark, 2, "the PUT to be repeated", received(&a)).await?;
    raw.write("2").await?;
    raw.until("\r\n\r\n").await?;
    // What may not be sent twice is not, and the next does not meet a kept connection.
    client.get("/").await?;
    a.arm(last, 1);
    let mark = w.log.len();
    let reply = client.post("/", b"once".to_vec()).await?;
    ensure!(reply.status == 408, "a POST got {}, expected A's 408", reply.status);
    let received = w.log.count(mark, received(&a));
    ensure!(received == 1, "the POST was received {received} times");
    client.get("/").await?;
    let mark = w.log.len();
    client.get("/").await?;
    let kept = connection_since(w, mark)?;
    client.post("/", b"once".to_vec()).await?;
    ensure!(
        connection_since(w, mark)? != kept,
        "a POST met a kept connection of a distrusted server"
    );
    Ok(())
}

async fn race_1000(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    for backend in &all {
        backend.set_fault(Fault::CloseWhenNext);
    }
    let mut running = JoinSet::new();
    for number in 0..4 {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move {
            for round in 0..250 {
                if round % 5 == 4 {
                    // May fail; whether it came twice is the ledger's to say.
                    let _ = client.post("/", b"once".to_vec()).await;
                } else {
                    let reply = client.get("/").await?;
                    ensure!(reply.status == 200, "a GET got {}", reply.status);
                }
            }
            Ok(())
        });
    }
    running.join_all().await.into_iter().collect::<Result<()>>()?;
    let posts = w.log.count(
        0,
        |event| matches!(&event.kind, EventKind::Executed { method, .. } if **method == *"POST"),
    );
    // Each that met a kept connection was lost with it, by construction.
    ensure!(posts > 0, "no POST was executed at all");
    Ok(())
}

async fn fresh_posts(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B"]).await?;
    w.balance(&["--fresh-posts"]).await?;
    // Every kept connection is closed in the moment of its next request.
    all.iter().for_each(|backend| backend.set_fault(Fault::CloseWhenNext));
    let mut client = w.client("c")?;
    for _ in 0..50 {
        client.get("/").await?;
        for method in ["POST", "PATCH"] {
            let reply = client.send(Request::new(method, "/").body(b"once".to_vec())).await?;
            ensure!(reply.status == 200, "{method}: {}", reply.status);
        }
    }
    Ok(())
}

async fn large_upload_on_fresh(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    all.iter().for_each(|backend| backend.set_fault(Fault::CloseWhenNext));
    let mut client = w.client("c")?;
    for (method, chunked) in [("PUT", false), ("PUT", true), ("POST", false), ("POST", true)] {
        for _ in 0..4 {
            client.get("/").await?;
            let upload = Request::new(method, "/").body(vec![7; 300_000]).chunked(chunked);
            let reply = client.send(upload).await?;
            ensure!(reply.status == 200, "{method} chunked={chunked}: {}", reply.status);
        }
    }
    Ok(())
}

/// Sends the beginning of an upload to `target`, and reads the answer that comes
/// before the end. Returns the client's connection, and the server's.
async fn stall(w: &mut World, target: &str, status: u16) -> Result<(TcpStream, u64)> {
    let mark = w.log.len();
    let mut stalled = TcpStream::connect(w.lb()?.addr).await?;
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\nonly this");
    stalled.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"Hello From A\n") {
        ensure!(stalled.read_buf(&mut answer).await? > 0, "the answer broke off");
    }
    let shown = String::from_utf8_lossy(&answer);
    ensure!(shown.starts_with(&format!("HTTP/1.1 {status} ")), "{target} was answered {shown}");
    Ok((stalled, connection_since(w, mark)?))
}

async fn stalled_upload(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    // One worker: the next request looks into the pool of the one before.
    w.balance(&["--workers", "1"]).await?;
    let mut client = w.client("c")?;
    // After an error `lb` hangs up, after a success it goes on with the rest:
    // then nothing but the pool's care keeps the next request out of the upload.
    for (target, status) in [("/", 413), ("/?status=200", 200)] {
        a.arm(Fault::EarlyAnswer, 1);
        let mark = w.log.len();
        let (stalled, first) = stall(w, target, status).await?;
        w.expect_sequence(&mut client, "AAA").await?;
        drop(stalled);
        let closed = |event: &Event| matches!(event.kind, EventKind::Closed { connection, .. } if connection == first);
        w.log.wait_from(mark, "the upload's connection to be closed", closed).await?;
    }
    Ok(())
}

async fn reuse_counted(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, &"AB".repeat(20)).await?;
    let mut used: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
    for event in w.log.events() {
        if let EventKind::Received { backend, connection, .. } = event.kind {
            used.entry(backend).or_default().insert(connection);
        }
    }
    for (backend, connections) in used {
        ensure!(
            connections.len() == 1,
            "20 requests to {backend} took {} connections",
            connections.len()
        );
    }
    Ok(())
}

/// The connection on which the last request at or after `mark` arrived.
fn connection_since(w: &World, mark: u64) -> Result<u64> {
    let events = w.log.events_from(mark);
    let last = events.iter().rev().find_map(|event| match event.kind {
        EventKind::Received { connection, .. } => Some(connection),
        _ => None,
    });
    last.context("no request arrived")
}

async fn poisoned(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    let forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged".to_vec();
    for fault in [Fault::ExtraBytes(forged.clone()), Fault::ExtraBytesLater(forged)] {
        for method in ["GET", "POST", "PUT", "HEAD"].repeat(5) {
            a.arm(fault.clone(), 1);
            let mark = w.log.len();
            let first = client.get("/").await?;
            ensure!(first.text() == "Hello From A\n", "{fault:?}: the answer was {first:?}");
            let poisoned = connection_since(w, mark)?;
            if matches!(fault, Fault::ExtraBytesLater(_)) {
                a.release();
                let written = |event: &Event| matches!(&event.kind, EventKind::Note(text) if text.contains("extra_bytes="));
                w.log.wait_from(mark, "the bytes behind the answer", written).await?;
            }
            let mark = w.log.len();
            let next = client.send(Request::new(method, "/")).await?;
            ensure!(next.backend() == "A" && next.status == 200, "{method}: {next:?}");
            ensure!(connection_since(w, mark)? != poisoned, "{method} on a poisoned connection");
        }
    }
    Ok(())
}

async fn after_a_restart(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for round in 0..12 {
        client.get("/").await?;
        let mark = w.log.len();
        match round % 2 {
            0 => a.kill().await,
            _ => a.stop().await,
        }
        a.revive().await?;
        let methods = if round % 4 < 2 { ["POST", "GET"] } else { ["GET", "POST"] };
        for method in methods {
            let before = w.log.len();
            let reply = client.send(Request::new(method, "/")).await?;
            ensure!(reply.status == 200, "round {round}: {method} got {reply:?}");
            let used = connection_since(w, before)?;
            let opened = |event: &Event| matches!(event.kind, EventKind::Accepted { connection, .. } if connection == used);
            ensure!(w.log.count(mark, opened) == 1, "{method} on an old connection");
        }
    }
    Ok(())
}

async fn server_says_how_long(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for (said, kept) in
        [("timeout=1", false), ("timeout=5, max=9", true), ("max=9, timeout=0", false)]
    {
        let answer =
            format!("HTTP/1.1 200 OK\r\nKeep-Alive: {said}\r\nContent-Length: 2\r\n\r\nok");
        a.arm(Fault::RawKeepAlive(answer.into_bytes()), 1);
        let mark = w.log.len();
        let reply = client.get("/").await?;
        ensure!(reply.header("keep-alive").is_none(), "relayed: {reply:?}");
        let first = connection_since(w, mark)?;
        client.get("/").await?;
        let same = connection_since(w, mark)? == first;
        ensure!(same == kept, "{said}: used again {same}, expected {kept}");
    }
    Ok(())
}

async fn closes_without_notice(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::CloseWhenNext);
    let mut client = w.client("c")?;
    let mut lost = 0;
    for _ in 0..50 {
        ensure!(client.get("/").await?.status == 200, "a GET failed");
        lost += u32::from(client.post("/", b"once".to_vec()).await?.status != 200);
    }
    ensure!(lost <= 1, "{lost} of 50 POSTs were lost");
    Ok(())
}
