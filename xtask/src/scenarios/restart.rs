//! One balancer takes over from another, on a listening socket that both have
//! inherited.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use testbed::{
    client::Request,
    log::{Event, EventKind},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    raw::{Answer, Raw},
    scenario,
};
use crate::e2e::{Client, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        70,
        "stop",
        restart_with_inherited_listener,
        Events,
        "restarts under load on an inherited listener: no connection is refused or reset"
    ),
    scenario!(
        70,
        "stop",
        kept_connections_are_told,
        Events,
        "after the signal to stop, connections that are new or were just used get an answer that says it is the last"
    ),
];

/// How often the balancer is restarted.
const RESTARTS: usize = 4;

/// Requests that go through each balancer before the next takes over.
const REQUESTS: usize = 100;

/// Sends requests until told to stop: every one must be answered.
async fn ask_on(mut client: Client, enough: watch::Receiver<bool>) -> Result<()> {
    for number in 0.. {
        if *enough.borrow() {
            break;
        }
        let request = match number % 3 {
            0 => Request::new("POST", "/").body(vec![7; 1000]),
            _ => Request::new("GET", "/?size=2000"),
        };
        ensure!(client.send(request).await?.status == 200, "request {number} was refused");
    }
    Ok(())
}

async fn restart_with_inherited_listener(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut old = w.balance_on(&listener, &[]).await?;
    let (enough, told) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let mut client = w.client(&format!("client{number}"))?;
        client.fresh(number % 2 == 0);
        clients.spawn(ask_on(client, told.clone()));
    }
    let answered = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    for _ in 0..RESTARTS {
        w.log.wait_count(w.log.len(), REQUESTS, "requests to the old one", answered).await?;
        let new = w.balance_on(&listener, &[]).await?;
        let old = std::mem::replace(&mut old, new);
        w.balancer(old)?.terminate()?;
        w.balancer(old)?.exited().await?;
    }
    w.log.wait_count(w.log.len(), REQUESTS, "requests to the last one", answered).await?;
    enough.send_replace(true);
    clients.join_all().await.into_iter().collect()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn is_last(answer: &Answer) -> bool {
    answer.field("connection").eq_ignore_ascii_case("close")
}

async fn kept_connections_are_told(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Of one worker, so that an answer to one connection tells of the other.
    let old = w.balance_on(&listener, &["--drain-timeout", "5s", "--workers", "1"]).await?;
    let mut fresh = Raw::connect(w).await?;
    let mut kept = Raw::connect(w).await?;
    // Connections are accepted in their order: this answer says that both are.
    kept.write(GET).await?;
    ensure!(!is_last(&kept.answer("GET").await?), "it says too early that it closes");
    w.balance_on(&listener, &[]).await?;
    // Just used, however long the start took.
    kept.write(GET).await?;
    ensure!(!is_last(&kept.answer("GET").await?), "it says too early that it closes");
    let mark = w.log.len();
    w.balancer(old)?.terminate()?;
    w.balancer(old)?.prints(mark, "stopping").await?;
    for raw in [&mut kept, &mut fresh] {
        // The signal reaches a worker a moment after the line.
        let mut last = false;
        while !last {
            raw.write(GET).await?;
            let answer = raw.answer("GET").await?;
            ensure!(answer.head.status == 200, "refused");
            last = is_last(&answer);
        }
    }
    w.balancer(old)?.exited().await
}
