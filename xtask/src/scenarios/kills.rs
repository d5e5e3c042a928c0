//! Servers that are killed under load: no GET fails, no POST is executed twice.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use testbed::{
    backend::Backend,
    fault::Fault,
    keeper::PortKeeper,
    log::{Event, EventKind, EventLog},
    process::Process,
};
use tokio::{sync::watch, task::JoinSet};

use super::{failover::received, scenario};
use crate::e2e::{Client, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        36,
        "failover",
        killed_under_load,
        Events,
        "killed and revived under 8 clients: no GET fails, no POST is executed twice"
    )
    .simulated()
    .basic(&[], "servers die while they work, and a client that only reads must never notice"),
    scenario!(
        36,
        "failover",
        posts_under_kills,
        Events,
        "killed with POSTs in flight: none is executed twice"
    )
    .simulated()
    .anybodys(&[]),
    scenario!(
        36,
        "failover",
        sigkilled_processes,
        Events,
        "the same with processes and SIGKILL, 5 times; back at the first probe, in the old place"
    ),
];

/// What clients send.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Gets,
    /// GETs and POSTs in turn.
    Mixed,
}

/// Requests until `stop`; a GET must succeed, a POST may fail.
async fn load(mut client: Client, load: Load, stop: watch::Receiver<bool>) -> Result<()> {
    while !*stop.borrow() {
        let reply = client.get("/?size=2000").await.context("a server died, and a GET failed")?;
        ensure!(reply.status == 200, "a server died, and a GET got {}", reply.status);
        if load == Load::Mixed {
            // What came of it is the ledger's to judge.
            let _ = client.post("/", b"once".to_vec()).await;
        }
    }
    Ok(())
}

/// Keeps `clients` clients busy while `during` runs, then collects them.
async fn under_load(
    w: &mut World,
    clients: usize,
    requests: Load,
    during: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    for number in 0..clients {
        running.spawn(load(w.client(&format!("c{number}"))?, requests, stopped.clone()));
    }
    let happened = tokio::select! {
        biased;
        happened = during => happened,
        // Nobody ends before the stop but with an error.
        Some(ended) = running.join_next() => ended?,
    };
    stop.send_replace(true);
    running.join_all().await.into_iter().collect::<Result<()>>()?;
    happened
}

async fn killed_under_load(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C", "D"]).await?;
    if !w.is_ours() {
        w.balance(&["--health-period", "200ms"]).await?;
        let log = w.log.clone();
        return under_load(w, 8, Load::Gets, die_in_turn(all, log)).await;
    }
    // It is not to be helped by probes.
    w.balance(&["--health-period", "200ms", "--fall", "5"]).await?;
    let log = w.log.clone();
    under_load(w, 8, Load::Mixed, async move {
        let [_, backend, ..] = &all;
        for _ in 0..4 {
            log.wait_count(log.len(), 20, "traffic", received(backend)).await?;
            backend.kill().await;
            let mark = log.len();
            backend.revive().await?;
            log.wait_from(mark, "traffic after the revival", received(backend)).await?;
        }
        die_in_turn(all, log).await
    })
    .await?;
    ensure!(w.arrivals("POST") > 0, "no POST was executed at all");
    Ok(())
}

/// All but the first die one after the other, each with a request in its hands,
/// stay dead for a while, and come back.
async fn die_in_turn(all: [Backend; 4], log: EventLog) -> Result<()> {
    let [first, mortal @ ..] = all;
    for backend in mortal {
        backend.set_fault(Fault::Park);
        log.wait_from(log.len(), "a request in its hands", received(&backend)).await?;
        backend.kill().await;
        backend.clear();
        log.wait_count(log.len(), 20, "traffic after the death", received(&first)).await?;
        backend.revive().await?;
    }
    Ok(())
}

async fn posts_under_kills(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C", "D"]).await?;
    w.balance(&["--health-period", "200ms"]).await?;
    let log = w.log.clone();
    under_load(w, 8, Load::Mixed, die_in_turn(all, log)).await?;
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
    under_load(w, 8, Load::Mixed, async {
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
