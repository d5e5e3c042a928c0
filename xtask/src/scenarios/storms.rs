//! Many requests that fail at once.

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
        43,
        "failover",
        storm,
        Events,
        "every server resets every GET: three servers each at most, and all is well at once after"
    ),
    scenario!(
        43,
        "failover",
        storm_budget,
        Events,
        "of 60 GETs in flight 20 fail in one moment: a fifth of 60, exactly, is repeated"
    ),
];

fn arrived(event: &Event) -> bool {
    matches!(event.kind, EventKind::Received { .. })
}

async fn storm(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let all = w.backends(["A", "B", "C", "D"]).await?;
    w.balance(&[]).await?;
    all.iter().for_each(|backend| backend.set_fault(Fault::ResetAfterRequest));
    let mut running = JoinSet::new();
    for number in 0..30 {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move {
            for _ in 0..4 {
                let reply = client.get("/").await?;
                ensure!(reply.status == 502, "a GET got {}", reply.status);
            }
            Ok(())
        });
    }
    running.join_all().await.into_iter().collect::<Result<()>>()?;
    let mut reached: BTreeMap<Option<u64>, (BTreeSet<_>, usize)> = BTreeMap::new();
    for event in w.log.events() {
        if let EventKind::Received { backend, nonce, .. } = event.kind {
            let (servers, arrivals) = reached.entry(nonce).or_default();
            servers.insert(backend);
            *arrivals += 1;
        }
    }
    ensure!(reached.len() == 120, "{} of 120 requests reached a server", reached.len());
    for (nonce, (servers, arrivals)) in reached {
        ensure!(arrivals <= 3, "nonce {nonce:?} arrived {arrivals} times");
        ensure!(servers.len() == arrivals, "nonce {nonce:?} arrived twice at one of {servers:?}");
    }
    all.iter().for_each(|backend| backend.clear());
    let mut client = w.client("after")?;
    w.expect_sequence(&mut client, "ABCD").await
}

async fn storm_budget(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, b, c] = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::ResetWhenReleased);
    b.set_fault(Fault::Park);
    c.set_fault(Fault::Park);
    let mut running = JoinSet::new();
    for number in 0..60 {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move { anyhow::Ok(client.get("/").await?.status) });
    }
    w.log.wait_count(0, 60, "60 requests at three servers", arrived).await?;
    // All of them are read by then: from here on nothing is under way.
    let executed = |event: &Event| matches!(event.kind, EventKind::Executed { .. });
    w.log.wait_count(0, 60, "60 requests to be read", executed).await?;
    let mark = w.log.len();
    a.release();
    let refused = |event: &Event| matches!(event.kind, EventKind::Answered { status: 502, .. });
    w.log.wait_count(mark, 8, "8 answers 502", refused).await?;
    let retries = w.log.count(mark, arrived);
    ensure!(retries == 12, "{retries} of 20 were repeated at one time, expected 60 / 5");
    b.clear();
    c.clear();
    b.release();
    c.release();
    let statuses = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let good = statuses.iter().filter(|status| **status == 200).count();
    ensure!(good == 52, "{good} of 60 were answered well, expected 52: {statuses:?}");
    Ok(())
}
