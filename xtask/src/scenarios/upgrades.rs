//! Connections that become tunnels.

use std::fs;

use anyhow::{Context, Result, ensure};
use testbed::{
    fault::Fault,
    log::{Event, EventKind},
};

use super::{
    raw::{Raw, ask},
    scenario,
};
use crate::e2e::{Scenario, World, seen};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        62,
        "upgrades",
        tunnel,
        Events,
        "after a 101: 10 000 frames both ways, then a half-close"
    ),
    scenario!(
        62,
        "upgrades",
        sent_ahead,
        Events,
        "bytes that either side sends with its head arrive"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        declined,
        Events,
        "a server that answers 200 instead is relayed, and kept"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        not_asked_for,
        Events,
        "a 101 that nobody asked for is a bad answer; a body, or HTTP/1.0, asks for none"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        survives_drain,
        Events,
        "a tunnel goes on through the drain, and its end ends it"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        client_gone,
        Events,
        "a client that goes away takes the server's side along"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        client_breaks_off,
        Events,
        "what went through a tunnel is counted also when its client does not see it to its end"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        silent_peers_are_asked,
        Events,
        "both sides of a tunnel are asked whether they are still there"
    ),
    scenario!(
        62,
        "upgrades",
        takes_nothing,
        Events,
        "a peer that takes nothing is broken off after --body-timeout, one that is silent is not"
    )
    .simulated(),
    scenario!(
        62,
        "upgrades",
        server_breaks_off,
        Events,
        "a server that breaks off: the client sees no clean end, and the log tells whose doing it was"
    )
    .simulated(),
];

pub(super) const OFFER: &str =
    "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Opens a tunnel; returns it, and the head of the 101.
async fn open(w: &mut World) -> Result<(Raw, String)> {
    let mut raw = Raw::connect(w).await?;
    raw.write(OFFER).await?;
    let head = raw.until("\r\n\r\n").await?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "got {head:?}");
    Ok((raw, head))
}

async fn tunnel(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let (mut raw, head) = open(w).await?;
    let lower = head.to_ascii_lowercase();
    ensure!(lower.contains("\r\nupgrade: echo\r\n"), "got {head:?}");
    ensure!(lower.contains("\r\nconnection: upgrade\r\n"), "got {head:?}");
    for frame in 0..10_000_u32 {
        raw.write(frame.to_be_bytes()).await?;
        let back = raw.exactly(4).await?;
        ensure!(back == frame.to_be_bytes(), "frame {frame} came back as {back:?}");
    }
    raw.write(vec![7; 1 << 20]).await.and(Ok(()))?;
    raw.finish().await?;
    let rest = raw.rest().await?;
    ensure!(rest.len() == (1 << 20) + 3 && rest.ends_with("bye"), "{} bytes", rest.len());
    w.lb()?.prints(0, "status=101").await?;
    Ok(())
}

async fn sent_ahead(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(b"welcome".to_vec()));
    let mut raw = Raw::connect(w).await?;
    raw.write(format!("{OFFER}early")).await?;
    raw.until("\r\n\r\n").await?;
    raw.until("welcomeearly").await?;
    raw.finish().await?;
    ensure!(raw.rest().await? == "bye", "the end is missing");
    Ok(())
}

async fn declined(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    for _ in 0..4 {
        raw.write(OFFER).await?;
        let head = raw.until("\r\n\r\n").await?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "got {head:?}");
        let length = head.to_ascii_lowercase();
        let length =
            length.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
        raw.exactly(length.unwrap_or("0").parse()?).await?;
    }
    let opened = |event: &Event| matches!(event.kind, EventKind::Accepted { .. });
    let connections = w.log.count(0, opened);
    ensure!(connections <= 4, "{connections} connections for 2 servers and their probes");
    Ok(())
}

async fn not_asked_for(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    for request in [
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nUpgrade: echo\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: upgrade, close\r\nUpgrade: echo\r\nContent-Length: 1\r\n\r\nx",
        "POST / HTTP/1.0\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
    ] {
        let answer = ask(w, request).await?;
        ensure!(
            answer.contains(" 502 ") && answer.contains("bad_answer"),
            "{request:?}: {answer:?}"
        );
    }
    Ok(())
}

async fn survives_drain(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let (mut raw, _) = open(w).await?;
    let mark = w.log.len();
    w.lb()?.terminate()?;
    w.lb()?.prints(mark, "stopping").await?;
    raw.write("still here").await?;
    raw.until("still here").await?;
    raw.finish().await?;
    ensure!(raw.rest().await? == "bye", "the end is missing");
    w.lb()?.exited().await
}

async fn client_gone(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let mark = w.log.len();
    let (raw, _) = open(w).await?;
    drop(raw);
    let closed = |event: &Event| matches!(event.kind, EventKind::Closed { .. });
    w.log.wait_from(mark, "the server's side to be closed", closed).await?;
    Ok(())
}

async fn takes_nothing(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&["--body-timeout", "1s"]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let (mut silent, _) = open(w).await?;
    // More than fits into all the buffers on the way.
    a.set_fault(Fault::SwitchProtocols(vec![7; 64 << 20]));
    let mark = w.log.len();
    let (mut stuck, _) = open(w).await?;
    let line = w.lb()?.prints(mark, " status=101").await?.kind.to_string();
    ensure!(line.contains(" end=client_gone"), "got {line}");
    ensure!(stuck.rest().await.is_err(), "a tunnel that was broken off ended cleanly");
    silent.write("still here").await?;
    silent.until("still here").await?;
    Ok(())
}

async fn server_breaks_off(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let (mut raw, _) = open(w).await?;
    let mark = w.log.len();
    raw.write(vec![7; 100_000]).await?;
    raw.exactly(100_000).await?;
    a.kill().await;
    ensure!(raw.rest().await.is_err(), "a tunnel that broke off ended cleanly");
    let line = w.lb()?.prints(mark, " status=101").await?.kind.to_string();
    ensure!(line.contains(" bytes=100000 "), "got {line}");
    ensure!(line.contains(" end=server_broke_off"), "got {line}");
    Ok(())
}

async fn client_breaks_off(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let mark = w.log.len();
    let (mut raw, _) = open(w).await?;
    raw.write(vec![7; 100_000]).await?;
    raw.exactly(50_000).await?;
    drop(raw);
    let line = w.lb()?.prints(mark, " status=101").await?.kind.to_string();
    ensure!(!line.contains("server_broke_off"), "got {line}");
    let bytes = line.split_once(" bytes=").and_then(|(_, rest)| rest.split(' ').next());
    let bytes: usize = bytes.context("no bytes")?.parse()?;
    ensure!(bytes >= 50_000, "{bytes} bytes are logged of 50000 and more");
    Ok(())
}

async fn silent_peers_are_asked(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::SwitchProtocols(Vec::new()));
    let _tunnel = open(w).await?;
    let (lb, server) = (w.lb()?.addr.port(), a.addr().port());
    // A timer of another kind may run first, until what was written is
    // acknowledged.
    seen("both peers to be asked", || Ok(is_kept_alive(1, lb)? && is_kept_alive(2, server)?)).await
}

/// Whether the keep-alive timer runs of an established connection whose own
/// (1) or remote (2) port this is.
fn is_kept_alive(column: usize, port: u16) -> Result<bool> {
    const ESTABLISHED: &str = "01";
    let (port, table) = (format!(":{port:04X}"), fs::read_to_string("/proc/net/tcp")?);
    Ok(table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        fields[column].ends_with(&port) && fields[3] == ESTABLISHED && fields[5].starts_with("02:")
    }))
}
