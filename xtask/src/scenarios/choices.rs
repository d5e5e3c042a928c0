//! Dealing by load or by key.

use anyhow::{Context, Result, ensure};
use testbed::{
    backend::Backend,
    client::Request,
    fairness,
    fault::Fault,
    log::{Event, EventKind},
    statistics::{check_shares, requests_needed},
};

use super::{failover::received, rotation::in_parallel, scenario, weights::balance_with};
use crate::e2e::{Client, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        14,
        "choices",
        parked_steer_away,
        Events,
        "least_connections: while A is busy the rest is dealt to B and C"
    )
    .simulated()
    .anybodys(&["least_connections", "ties_in_turn"]),
    scenario!(
        15,
        "choices",
        released_at_the_end,
        Events,
        "a request counts until the last byte of its answer, and no longer"
    )
    .simulated()
    .anybodys(&["least_connections", "ties_in_turn"]),
    scenario!(
        16,
        "choices",
        aborted_give_back,
        Events,
        "clients that go away before or amid the answer leave nothing in flight"
    ),
    scenario!(
        16,
        "choices",
        retried_give_back,
        Events,
        "a retry counts at the next server, not at the first any more"
    )
    .simulated(),
    scenario!(
        17,
        "choices",
        same_key_same_server,
        Events,
        "hash of a field, a cookie, an address: only the keys of a dead server move, and come back"
    )
    .simulated(),
    scenario!(
        18,
        "choices",
        two_choices_avoid_the_busy,
        Events,
        "two_choices: a server with parked requests gets nothing while the others are idle"
    )
    .simulated(),
    scenario!(
        18,
        "choices",
        random_by_weight,
        Statistics,
        "random: shares by weight; one that is off by 0.05 is found out, at 10^-9 false alarms"
    )
    .simulated(),
];

const LEAST: &[&str] = &["--algorithm", "least_connections"];

async fn parked_steer_away(w: &mut World) -> Result<()> {
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(LEAST).await?;
    a.set_fault(Fault::Park);
    let mut parked = w.client("parked")?;
    let pending = parked.start(Request::new("GET", "/")).await?;
    w.log.wait("the request at A", received(&a)).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "BCBCBCBC").await?;
    a.clear();
    a.release();
    pending.read().await?;
    w.expect_rounds(&mut client, "ABCABC", 3).await
}

async fn released_at_the_end(w: &mut World) -> Result<()> {
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(LEAST).await?;
    a.arm(Fault::Gate { chunk: 1_000 }, 1);
    let mut slow = w.client("slow")?;
    let pending = slow.start(Request::new("GET", "/?size=3000")).await?;
    w.log.wait("the request at A", received(&a)).await?;
    let mut client = w.client("c")?;
    for _ in 0..2 {
        w.expect_sequence(&mut client, "BB").await?;
        a.release();
    }
    w.expect_sequence(&mut client, "BB").await?;
    a.release();
    pending.read().await?;
    w.expect_rounds(&mut client, "ABAB", 2).await
}

/// One request of a client that goes away once `backend` has it. The connection
/// that it came on is closed, and the balancer says that it is over: its place is
/// given back by then, but not when the close is seen at the other end.
async fn abort(w: &mut World, backend: &Backend) -> Result<()> {
    let mark = w.log.len();
    let mut client = w.client("aborting")?;
    let pending = client.start(Request::new("GET", "/?size=100000")).await?;
    let arrived = w.log.wait_from(mark, "the request", received(backend)).await?;
    drop(pending);
    client.close();
    let EventKind::Received { connection: its, .. } = arrived.kind else { return Ok(()) };
    let closed = |event: &Event| matches!(&event.kind, EventKind::Closed { backend: name, connection } if **name == *backend.name() && *connection == its);
    w.log.wait_from(mark, "its connection to be closed", closed).await?;
    w.lb()?.prints(mark, " end=client_gone").await?;
    Ok(())
}

async fn aborted_give_back(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(LEAST).await?;
    let mut client = w.client("c")?;
    for fault in [Fault::Park, Fault::Gate { chunk: 1_000 }] {
        for _ in 0..3 {
            a.arm(fault.clone(), 1);
            abort(w, &a).await?;
            w.expect_sequence(&mut client, "BC").await?;
        }
    }
    // Were anything left in flight, A would have been passed over.
    w.expect_sequence(&mut client, "ABCABC").await
}

async fn retried_give_back(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(LEAST).await?;
    a.arm(Fault::CloseAfterRequest, 1);
    b.arm(Fault::Park, 1);
    let mut retried = w.client("retried")?;
    let pending = retried.start(Request::new("GET", "/")).await?;
    w.log.wait("the retry at B", received(&b)).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "AAA").await?;
    b.release();
    pending.read().await?;
    w.expect_sequence(&mut client, "BABA").await
}

/// Who answers each of the keys, asked by a client of its own.
async fn owners(w: &mut World, field: &str, before: &str) -> Result<Vec<String>> {
    let mut client: Client = w.client("keys")?;
    let mut owners = Vec::new();
    for key in 0..60 {
        let request = Request::new("GET", "/").header(field, &format!("{before}user-{key}"));
        owners.push(client.send(request).await?.backend().to_owned());
    }
    Ok(owners)
}

async fn same_key_same_server(w: &mut World) -> Result<()> {
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&[&["--algorithm", "hash:header=X-User"], &w.probing("300ms")[..]].concat()).await?;
    let first = owners(w, "X-User", "").await?;
    for name in ["A", "B", "C"] {
        ensure!(first.iter().any(|owner| owner == name), "{name} owns none of 60 keys");
    }
    ensure!(owners(w, "x-user", "").await? == first, "the same keys went elsewhere");
    let mark = w.log.len();
    b.kill().await;
    w.lb()?.says(mark, &b, "down").await?;
    for (key, (was, is)) in first.iter().zip(owners(w, "X-User", "").await?).enumerate() {
        ensure!(is != "B" && (*was == is || was == "B"), "key {key} moved from {was} to {is}");
    }
    let mark = w.log.len();
    b.revive().await?;
    w.lb()?.says(mark, &b, "up").await?;
    ensure!(owners(w, "X-User", "").await? == first, "keys did not come back");
    let mut keyless = w.client("keyless")?;
    w.expect_sequence(&mut keyless, "ABCABC").await?;
    w.balance(&["--algorithm", "hash:cookie=sid"]).await?;
    let by_cookie = owners(w, "Cookie", "theme=dark; sid=").await?;
    ensure!(by_cookie == first, "a cookie's value is another key than a field's");
    w.balance(&["--algorithm", "hash"]).await?;
    let by_address = owners(w, "X-User", "").await.context("by address")?;
    ensure!(by_address.iter().all(|owner| *owner == by_address[0]), "{by_address:?}");
    Ok(())
}

async fn two_choices_avoid_the_busy(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--algorithm", "two_choices"]).await?;
    all.iter().for_each(|backend| backend.set_fault(Fault::Park));
    let mark = w.log.len();
    let mut parked = w.client("parked")?;
    let pending = parked.start(Request::new("GET", "/")).await?;
    let arrived = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    let busy = w.log.wait_from(mark, "the parked request", arrived).await?;
    let busy = busy.backend().unwrap_or_default().to_owned();
    all.iter().for_each(Backend::clear);
    // Any two servers have one that is idle.
    let mut client = w.client("c")?;
    for _ in 0..50 {
        let reply = client.get("/").await?;
        ensure!(reply.backend() != busy, "{busy} was chosen while it was the busiest");
    }
    all.iter().for_each(Backend::release);
    pending.read().await?;
    Ok(())
}

async fn random_by_weight(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B"]).await?;
    for weights in [[7, 3], [1, 1]] {
        balance_with(w, &all, &weights, &["--algorithm", "random"]).await?;
        let total = f64::from(weights[0] + weights[1]);
        let needed = requests_needed(f64::from(weights[0]) / total, 0.05, 2);
        let mark = w.log.len();
        in_parallel(w, 8, needed.div_ceil(8) as usize).await?;
        let counts = fairness::counts(&w.log.events_from(mark));
        let counts = ["A", "B"].map(|name| counts.get(name).map_or(0, |count| *count as u64));
        check_shares(&counts, &weights.map(u64::from))
            .with_context(|| format!("weights {weights:?}"))?;
    }
    Ok(())
}
