//! Servers that are killed under load: no GET fails, no POST is executed twice.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use testbed::{
    client::Client,
    keeper::PortKeeper,
    log::{Event, EventKind, EventLog},
    process::Process,
};
use tokio::task::JoinSet;

use super::{failover::received, scenario};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        36,
        "failover",
        killed_under_load,
        Events,
        "killed and revived under 8 clients: no GET fails, no POST is executed twice"
    ).basic(&[], "servers die while they work: a client that only reads must never notice, and no order is placed twice"),
    scenario!(
        36,
        "failover",
        sigkilled_processes,
        Events,
        "the same with processes and SIGKILL, 5 times; back at the first probe, in the old place"
    ),
];

/// GETs and POSTs in turn until `stop`; a GET must succeed, a POST may fail.
async fn mixed_load(mut client: Client, stop: tokio::sync::watch::Receiver<bool>) -> Result<()> {
    while !*stop.borrow() {
        let reply = client.get("/?size=2000").await.context("a GET failed")?;
        ensure!(reply.status == 200, "a GET got {}", reply.status);
        // What came of it is the ledger's to judge.
        let _ = client.post("/", b"once".to_vec()).await;
    }
    Ok(())
}

/// Keeps `clients` clients busy while `during` runs, then collects them.
async fn under_load(
    w: &mut World,
    clients: usize,
    during: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(mixed_load(w.client(&format!("c{number}"))?, stopped.clone()));
    }
    let happened = during.await;
    stop.send_replace(true);
    running.join_all().await.into_iter().collect::<Result<()>>()?;
    happened
}

async fn killed_under_load(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    // Ours is not to be helped by probes.
    let flags = ["--health-period", "200ms", "--fall", "5"];
    w.balance(if w.is_ours() { &flags } else { &flags[..2] }).await?;
    let log = w.log.clone();
    let backend = b.clone();
    under_load(w, 8, async move {
        for _ in 0..4 {
            log.wait_count(log.len(), 20, "traffic", received(&backend)).await?;
            backend.kill().await;
            let mark = log.len();
            backend.revive().await?;
            log.wait_from(mark, "traffic after the revival", received(&backend)).await?;
        }
        Ok(())
    })
    .await?;
    ensure!(w.arrivals("POST") > 0, "no POST was executed at all");
    Ok(())
}

/// A sample backend in a process of its own, on a port that it keeps.
struct ServerProcess {
    name: &'static str,
    port: PortKeeper,
    program: std::path::PathBuf,
    log: EventLog,
}

impl ServerProcess {
    async fn start(&self) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg(self.port.port().to_string());
        command.args(["--reuse-port", "--events", "--health-path", "/health", "--name", self.name]);
        let mark = self.log.len();
        let process = Process::spawn(command, self.name, &self.log)?;
        self.log.wait_from(mark, "the server to listen", self.prints("listening on")).await?;
        Ok(process)
    }

    /// Whether an event is a line of this server that begins with `text`.
    fn prints<'a>(&'a self, text: &'a str) -> impl FnMut(&Event) -> bool + 'a {
        move |event| match &event.kind {
            EventKind::Output { source, line } => **source == *self.name && line.starts_with(text),
            _ => false,
        }
    }
}

/// A server that is killed again and again.
struct Victim<'a> {
    server: &'a ServerProcess,
    process: &'a mut Process,
}

impl Victim<'_> {
    /// Kills it in the middle of the traffic, and starts it again when the
    /// balancer has noticed; it must be back at its first probe.
    async fn die_and_return(&mut self) -> Result<()> {
        let Victim { server, process } = self;
        let log = &server.log;
        log.wait_count(log.len(), 20, "traffic", server.prints("received")).await?;
        let mark = log.len();
        process.kill9()?;
        process.wait().await?;
        let addr = server.port.addr();
        let notices = "the balancer to notice the death";
        log.wait_from(mark, notices, balancer_says(addr, " from=up ")).await?;
        let mark = log.len();
        **process = server.start().await?;
        let alive = "the balancer to notice the return";
        let back = log.wait_from(mark, alive, balancer_says(addr, " to=up ")).await?;
        let probes = log.count(mark, |e| e.seq < back.seq && server.prints("probed")(e));
        ensure!(probes <= 1, "back after {probes} probes, expected the first");
        Ok(())
    }
}

/// A line on the state of the server at `addr` that has `text`.
fn balancer_says(addr: SocketAddr, text: &'static str) -> impl FnMut(&Event) -> bool {
    let server = format!("server={addr} ");
    move |event: &Event| match &event.kind {
        EventKind::Output { line, .. } => line.contains(&server) && line.contains(text),
        _ => false,
    }
}

async fn sigkilled_processes(w: &mut World) -> Result<()> {
    w.expect_errors();
    let mut servers = Vec::new();
    let mut processes = Vec::new();
    for name in ["A", "B", "C"] {
        let (program, log) = (w.programs.be.clone(), w.log.clone());
        let server = ServerProcess { name, port: PortKeeper::reserve()?, program, log };
        processes.push(server.start().await?);
        servers.push(server);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.port.addr()).collect();
    w.balance_over(&addresses, &["--health-period", "500ms", "--fall", "3"]).await?;
    let mut victim = Victim { server: &servers[1], process: &mut processes[1] };
    under_load(w, 8, async {
        for _ in 0..5 {
            victim.die_and_return().await?;
        }
        Ok(())
    })
    .await?;
    // All at rest: the revived server stands in its old place.
    let mut client = w.client("after")?;
    let mut order = String::new();
    for _ in 0..6 {
        order.push_str(client.get("/").await?.backend());
    }
    ensure!("ABCABCABC".contains(&order), "dealt {order} after the revivals");
    ensure!(w.arrivals("POST") > 0, "no POST was executed at all");
    survivors_undisturbed(w, addresses[0], addresses[2]).await
}

/// Within an epoch each server's turns differ by one at most, so over all of
/// them by no more than there were changes, whatever was retried.
async fn survivors_undisturbed(w: &mut World, a: SocketAddr, c: SocketAddr) -> Result<()> {
    let answered = w.log.count(0, |e| matches!(e.kind, EventKind::Answered { .. }));
    let turns = w.lb()?.first_attempts(answered).await?;
    let changes = w.lb()?.said(0, " from=")?;
    let apart = turns.get(&a).unwrap_or(&0).abs_diff(*turns.get(&c).unwrap_or(&0));
    ensure!(apart <= changes, "turns {turns:?} are {apart} apart after {changes} changes");
    Ok(())
}
