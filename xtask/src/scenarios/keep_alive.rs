//! Connections that are used again, and those that die just then.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use testbed::{
    fault::Fault,
    log::{Event, EventKind},
};
use tokio::task::JoinSet;

use super::scenario;
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        46,
        "keep_alive",
        idle_close_then_request,
        Events,
        "a server that closes idle connections costs no request"
    ),
    scenario!(
        47,
        "keep_alive",
        race_1000,
        Events,
        "closed in the moment of the next request, 1 000 times: no GET fails, no POST twice"
    ),
    scenario!(
        48,
        "keep_alive",
        reuse_counted,
        Events,
        "one connection to each server serves a client's requests"
    ),
];

async fn idle_close_then_request(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    for backend in &all {
        backend.set_fault(Fault::CloseAfterAnswer);
    }
    let mut client = w.client("c")?;
    let closed = |event: &Event| matches!(event.kind, EventKind::Closed { .. });
    for round in 0..20 {
        let mark = w.log.len();
        let reply = match round % 4 {
            0 | 1 => client.get("/").await?,
            _ => client.post("/", b"once".to_vec()).await?,
        };
        ensure!(reply.status == 200, "status {}", reply.status);
        w.log.wait_from(mark, "the server to close", closed).await?;
    }
    Ok(())
}

async fn race_1000(w: &mut World) -> Result<()> {
    w.expect_errors();
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
    let changes = w.lb()?.said(0, " from=up ");
    ensure!(changes == 0, "{changes} changes of state, expected none");
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
