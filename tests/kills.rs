//! A hundred SIGKILLs of one of three servers under load.

use std::{net::SocketAddr, time::Duration};

use testbed::{
    client::Client,
    keeper::PortKeeper,
    log::{Event, EventKind, EventLog},
    process::Process,
};
use tokio::{sync::watch, task::JoinSet};

use crate::programs::{be, lb};

const NAMES: [&str; 3] = ["A", "B", "C"];

/// A line of the process `source` that contains all of `texts`.
fn printed<'a>(source: &'a str, texts: &'a [&'a str]) -> impl FnMut(&Event) -> bool + 'a {
    move |event| match &event.kind {
        EventKind::Output { source: name, line } => {
            **name == *source && texts.iter().all(|text| line.contains(text))
        }
        _ => false,
    }
}

async fn start(name: &'static str, port: &PortKeeper, log: &EventLog) -> Process {
    let mut command = be();
    command.arg(port.port().to_string());
    command.args(["--reuse-port", "--events", "--health-path", "/health", "--name", name]);
    let mark = log.len();
    let process = Process::spawn(command, name, log).unwrap();
    log.wait_from(mark, "the server", printed(name, &["listening on"])).await.unwrap();
    process
}

/// GETs, which must succeed, and POSTs, which must not come twice, until told.
async fn load(mut client: Client, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let reply = client.get("/").await.unwrap();
        assert_eq!(reply.status, 200, "{:?}", reply.header("x-lb-reason"));
        let _ = client.post("/", b"once".to_vec()).await;
    }
}

/// The servers' own words: how many POSTs they executed, none of them twice.
fn executed_once(events: &[Event]) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    for event in events {
        let EventKind::Output { line, .. } = &event.kind else { continue };
        let Some(words) = line.strip_prefix("received ") else { continue };
        let nonce = words.split(' ').find_map(|word| word.strip_prefix("nonce="));
        if words.contains("method=POST") {
            assert!(seen.insert(nonce.unwrap()), "executed twice: {line}");
        }
    }
    seen.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sigkills_under_eight_clients() {
    let log = EventLog::with_watchdog(Duration::from_secs(60));
    let ports = NAMES.map(|_| PortKeeper::reserve().unwrap());
    let addresses: Vec<SocketAddr> = ports.iter().map(PortKeeper::addr).collect();
    let mut processes = Vec::new();
    for (name, port) in NAMES.iter().zip(&ports) {
        processes.push(start(name, port, &log).await);
    }
    let mut command = lb();
    command.args(["--bind", "127.0.0.1", "--port", "0", "--workers", "2"]);
    // A starved machine may answer a probe late; a death shows by a refusal.
    command.args(["--health-path", "/health", "--health-period", "100ms", "--fall", "5"]);
    command.args(addresses.iter().map(|address| format!("--backend={address}")));
    let mut balancer = Process::spawn(command, "lb", &log).unwrap();
    let ready = log.wait("lb", printed("lb", &["ready proxy="])).await.unwrap().kind.to_string();
    let addr = ready.split("proxy=").nth(1).unwrap().trim_matches('"').parse().unwrap();
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let client = Client::new(&format!("c{number}"), addr, &log);
        clients.spawn(load(client, stopped.clone()));
    }
    let victim = format!("server={} ", addresses[1]);
    let mut absences = Vec::new();
    for _ in 0..100 {
        let mark = log.len();
        processes[1].kill9().unwrap();
        processes[1].wait().await.unwrap();
        let out = [&*victim, " from=up "];
        log.wait_from(mark, "the death to be noticed", printed("lb", &out)).await.unwrap();
        let mark = log.len();
        processes[1] = start(NAMES[1], &ports[1], &log).await;
        let back = [&*victim, " to=up "];
        let back = log.wait_from(mark, "the return to be noticed", printed("lb", &back)).await;
        let alive = log.wait_from(mark, "the start", printed(NAMES[1], &["listening"])).await;
        absences.push(back.unwrap().at.saturating_sub(alive.unwrap().at));
    }
    // Rise times period plus timeout is the bound. The median, as one of a
    // hundred may be late on a loaded machine for no fault of the balancer.
    absences.sort();
    assert!(absences[50] <= Duration::from_millis(200), "{absences:?}");
    stop.send_replace(true);
    clients.join_all().await;
    // At rest, the server that died a hundred times stands in its old place.
    let mut client = Client::new("after", addr, &log);
    let mut order = String::new();
    for _ in 0..6 {
        order.push_str(client.get("/").await.unwrap().backend());
    }
    assert!("ABCABCABC".contains(&order), "dealt {order}");
    balancer.terminate().unwrap();
    assert!(balancer.wait().await.unwrap().success());
    assert!(executed_once(&log.events()) > 100);
}
