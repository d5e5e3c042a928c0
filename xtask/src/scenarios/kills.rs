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
    ),
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
    w.balance(&["--health-period", "200ms", "--fall", "5"]).await?;
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

async fn sigkilled_processes(w: &mut World) -> Result<()> {
    w.expect_errors();
    let mut servers = Vec::new();
    for name in ["A", "B", "C"] {
        let (program, log) = (w.programs.be.clone(), w.log.clone());
        servers.push(ServerProcess { name, port: PortKeeper::reserve()?, program, log });
    }
    let mut processes = Vec::new();
    for server in &servers {
        processes.push(server.start().await?);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.port.addr()).collect();
    w.balance_over(&addresses, &["--health-period", "200ms", "--fall", "5"]).await?;
    let log = w.log.clone();
    let victim = &servers[1];
    let server = format!("server={} ", addresses[1]);
    let says = |text: &'static str| {
        let server = server.clone();
        move |event: &Event| match &event.kind {
            EventKind::Output { line, .. } => line.contains(&server) && line.contains(text),
            _ => false,
        }
    };
    under_load(w, 8, async {
        for _ in 0..5 {
            log.wait_count(log.len(), 20, "traffic", victim.prints("received")).await?;
            let mark = log.len();
            processes[1].kill9()?;
            processes[1].wait().await?;
            let notices = "the balancer to notice the death";
            log.wait_from(mark, notices, says(" from=up ")).await?;
            let mark = log.len();
            processes[1] = victim.start().await?;
            let alive = "the balancer to notice the return";
            let back = log.wait_from(mark, alive, says(" to=up ")).await?;
            let probes =
                log.count(mark, |event| event.seq < back.seq && victim.prints("probed")(event));
            ensure!(probes <= 1, "back after {probes} probes, expected the first");
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
    // Within an epoch each server's turns differ by one at most, so over all of
    // them by no more than there were changes: the rotation of A and C is
    // undisturbed, whatever was retried.
    let answered = w.log.count(0, |e| matches!(e.kind, EventKind::Answered { .. }));
    let turns = w.lb()?.first_attempts(answered).await?;
    let changes = w.lb()?.said(0, " from=");
    let (a, c) = (turns.get(&addresses[0]), turns.get(&addresses[2]));
    let apart = a.unwrap_or(&0).abs_diff(*c.unwrap_or(&0));
    ensure!(apart <= changes, "turns {turns:?} are {apart} apart after {changes} changes");
    Ok(())
}
