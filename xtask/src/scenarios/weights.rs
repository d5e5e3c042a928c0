//! Servers of different weights.

use anyhow::{Context, Result, ensure};
use testbed::{
    backend::Backend,
    fairness,
    log::{Event, EventKind},
};

use super::{rotation::in_parallel, scenario};
use crate::e2e::{Routing, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(10, "weights", exact_in_each_period, Events, "3,2,1: each period is exact")
        .simulated()
        .anybodys(&["weights"]),
    scenario!(
        10,
        "weights",
        exact_in_parallel,
        Quiescence,
        "8 clients: whole periods are exact, also one that is too long to lay out"
    )
    .simulated(),
    scenario!(11, "weights", smooth, Events, "3,1 is AABA; 3,2,1 is ABACBA; 5,1,1 is AABACAA")
        .simulated()
        .anybodys(&["weights", "golden_order"]),
    scenario!(
        12,
        "weights",
        zero,
        Events,
        "a server of weight 0 is probed and gets nothing, even as the only one"
    )
    .simulated(),
    scenario!(
        13,
        "weights",
        change_at_run_time,
        Events,
        "weights changed by the admin API hold exactly from the next request on"
    ),
];

/// Starts a balancer over `backends` with these weights.
async fn balance(w: &mut World, backends: &[Backend], weights: &[u32]) -> Result<()> {
    balance_with(w, backends, weights, &[]).await
}

/// The same, with these flags.
pub(super) async fn balance_with(
    w: &mut World,
    backends: &[Backend],
    weights: &[u32],
    more: &[&str],
) -> Result<()> {
    let weighted = |(backend, weight): (&Backend, &u32)| {
        format!("--backend={},weight={weight}", backend.addr())
    };
    let servers: Vec<String> = backends.iter().zip(weights).map(weighted).collect();
    let flags = servers.iter().map(String::as_str).chain(more.iter().copied());
    w.balance_over(&[], &flags.collect::<Vec<_>>()).await?;
    Ok(())
}

async fn exact_in_each_period(w: &mut World) -> Result<()> {
    w.expect_routing(Routing::Window)?;
    let all = w.backends(["A", "B", "C"]).await?;
    balance(w, &all, &[30, 20, 10]).await?;
    let mark = w.log.len();
    let mut client = w.client("c")?;
    for _ in 0..60 {
        client.get("/").await?;
    }
    let answerers = fairness::answerers(&w.log.events_from(mark));
    ensure!(answerers.len() == 60, "{} of 60 requests were answered", answerers.len());
    fairness::check_weighted(&answerers, &[("A", 3), ("B", 2), ("C", 1)])?;
    Ok(())
}

async fn exact_in_parallel(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B", "C"]).await?;
    // The first 400 of a period of 400 000 are within one of their shares.
    for (weights, tolerance) in [([2, 1, 1], 0), ([200_000, 100_001, 99_999], 1)] {
        balance(w, &all, &weights).await?;
        let mark = w.log.len();
        in_parallel(w, 8, 50).await?;
        let counts = fairness::counts(&w.log.events_from(mark));
        for (name, expected) in [("A", 200), ("B", 100), ("C", 100)] {
            let got: usize = counts.get(name).copied().unwrap_or(0);
            let shown = fairness::show(&counts);
            ensure!(got.abs_diff(expected) <= tolerance, "{name}: expected {expected}: {shown}");
        }
    }
    Ok(())
}

async fn smooth(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B", "C"]).await?;
    for (weights, order) in [
        (&[3, 1][..], "AABAAABA"),
        (&[3, 2, 1], "ABACBAABACBA"),
        (&[5, 1, 1], "AABACAAAABACAA"),
        (&[u32::MAX, u32::MAX, u32::MAX], "ABCABC"),
    ] {
        balance(w, &all, weights).await?;
        let mut client = w.client("c")?;
        w.expect_sequence(&mut client, order)
            .await
            .with_context(|| format!("weights {weights:?}"))?;
    }
    Ok(())
}

async fn zero(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C"]).await?;
    balance(w, &all, &[1, 0, 1]).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ACACAC").await?;
    let probed = |event: &Event| matches!(&event.kind, EventKind::Probed { backend, .. } if **backend == *"B");
    ensure!(w.log.count(0, probed) > 0, "a server of weight 0 was not probed");
    balance(w, &all[1..2], &[0]).await?;
    let reply = w.client("nobody")?.get("/").await?;
    ensure!(reply.status == 503, "status {}, expected 503", reply.status);
    Ok(())
}

async fn change_at_run_time(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--api-port", "0"]).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABCABC").await?;
    // Each change begins a period at the place behind the server dealt last.
    for (backend, weight, order) in [
        (&all[0], "3", "ABACAABACA"),
        (&all[1], "2", "BACBAABACBAABACBA"),
        (&all[2], "0", "BABAABABA"),
        (&all[0], "4294967295", "AAAAAA"),
        (&all[0], "1", "BABBABB"),
    ] {
        let body = format!("{{\"url\":\"http://{}\",\"weight\":{weight}}}", backend.addr());
        let (status, text) = w.lb()?.api("POST", "/update", &body).await?;
        ensure!(status == 200, "weight {weight}: {status} {text}");
        w.expect_sequence(&mut client, order)
            .await
            .with_context(|| format!("{} has weight {weight} now", backend.name()))?;
    }
    Ok(())
}
