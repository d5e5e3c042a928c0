//! One rotation at scale: many requests, many clients, several workers.

use std::time::Duration;

use testbed::{
    backend::Backend,
    client::Client,
    fairness,
    history::observations,
    ledger,
    log::{Event, EventLog},
    process::Process,
    rotation::check_strict_from,
};
use tokio::task::JoinSet;

use crate::programs::lb;

const NAMES: [&str; 3] = ["A", "B", "C"];

/// Sends `total` GETs from `clients` keep-alive clients through `lb` with
/// `workers` workers; returns what everybody saw.
async fn play(total: usize, clients: usize, workers: usize) -> Vec<Event> {
    let log = EventLog::with_watchdog(Duration::from_secs(60));
    let mut command = lb();
    command.args(["--bind", "127.0.0.1", "--port", "0", "--health-period", "60s"]);
    command.args(["--health-path", "/health", "--workers", &workers.to_string()]);
    let mut backends = Vec::new();
    for name in NAMES {
        let backend = Backend::builder(name).start(&log).await.unwrap();
        command.arg(format!("--backend={}", backend.addr()));
        backends.push(backend);
    }
    let _lb = Process::spawn(command, "lb", &log).unwrap();
    let ready = |event: &Event| event.kind.to_string().contains("ready proxy=");
    let line = log.wait("the balancer", ready).await.unwrap().kind.to_string();
    let addr = line.split("proxy=").nth(1).unwrap().trim_matches('"').parse().unwrap();
    let mut running = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::new(&format!("c{number}"), addr, &log);
        running.spawn(async move {
            for _ in 0..total / clients {
                assert_eq!(client.get("/").await.unwrap().status, 200);
            }
        });
    }
    running.join_all().await;
    log.events()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_are_one_rotation() {
    let events = play(100_000, 32, 2).await;
    let counts = fairness::counts(&events);
    fairness::check_even(&counts, &NAMES).unwrap();
    assert_eq!(counts.values().sum::<usize>(), 100_000);
    check_strict_from(&observations(&events, &NAMES), 3, 0).unwrap();
    ledger::check(&events).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_clients_make_the_check_sharp() {
    let events = play(6_000, 4, 3).await;
    check_strict_from(&observations(&events, &NAMES), 3, 0).unwrap();
}
