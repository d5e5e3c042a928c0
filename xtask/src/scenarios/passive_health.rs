//! What requests reveal of a server's health.

use anyhow::{Result, ensure};
use testbed::{
    client::Request,
    fault::Fault,
    log::{Event, EventKind},
};

use super::scenario;
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        30,
        "passive_health",
        one_refused_connect,
        Events,
        "one refused connect takes it out, a passed probe brings it back"
    )
    .simulated(),
    scenario!(
        31,
        "passive_health",
        poison_request_blames_nobody,
        Events,
        "a request that every server answers by closing puts nobody out"
    )
    .anybodys(&[]),
    scenario!(
        31,
        "passive_health",
        refused_post_blames_the_dead_alone,
        Events,
        "a POST with a body that meets a dead server puts out no other"
    )
    .simulated()
    .anybodys(&[]),
    scenario!(
        32,
        "passive_health",
        errors_blame_nobody,
        Events,
        "4xx and 5xx on the traffic put nobody out: health is what probes say"
    )
    .anybodys(&[]),
    scenario!(
        34,
        "passive_health",
        last_one_stays,
        Events,
        "the only server left is never put out by requests that fail"
    )
    .simulated(),
    scenario!(
        33,
        "passive_health",
        client_abort_blames_nobody,
        Events,
        "a client that goes away blames nobody and frees the server"
    )
    .anybodys(&[]),
];

async fn one_refused_connect(w: &mut World) -> Result<()> {
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--health-period", "1s"]).await?;
    let mut client = w.client("c")?;
    let mark = w.log.len();
    b.kill().await;
    for _ in 0..12 {
        client.get("/").await?;
    }
    w.lb()?.says(mark, &b, "down").await?;
    w.lb()?.first_attempts(12).await?;
    // None, if a probe happened to come first.
    let refused = w.lb()?.said(mark, &format!("failed={}:refused", b.addr()))?;
    ensure!(refused <= 1, "{refused} requests met the dead server, expected at most one");
    let mark = w.log.len();
    b.revive().await?;
    w.lb()?.says(mark, &b, "up").await?;
    // In its old place, wherever the rotation stands.
    let mut order = String::new();
    for _ in 0..6 {
        order.push_str(client.get("/").await?.backend());
    }
    ensure!("ABCABCABC".contains(&order), "dealt {order} after the return");
    Ok(())
}

async fn poison_request_blames_nobody(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for fault in [Fault::CloseAfterRequest, Fault::ResetAfterRequest, Fault::Garbage] {
        for backend in &all {
            backend.set_fault(fault.clone());
        }
        let reply = client.get("/poison").await?;
        ensure!(reply.status == 502, "status {}, expected 502", reply.status);
        all.iter().for_each(|backend| backend.clear());
        // The poison took A's place; the rotation goes on behind it.
        w.expect_sequence(&mut client, "BC").await?;
    }
    Ok(())
}

async fn refused_post_blames_the_dead_alone(w: &mut World) -> Result<()> {
    // Whether one of them is lost is for other scenarios.
    w.expect_errors();
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.probing("300ms")).await?;
    let mut client = w.client("c")?;
    b.kill().await;
    for _ in 0..3 {
        let _ = client.post("/", vec![7; 1000]).await;
    }
    let mut got = String::new();
    for _ in 0..6 {
        let name = client.get("/").await.ok().and_then(|reply| reply.backend);
        got.push_str(name.as_deref().unwrap_or("-"));
    }
    ensure!(
        got.contains('A') && got.contains('C'),
        "B died; A and C are well, and dealt was {got}"
    );
    Ok(())
}

async fn client_abort_blames_nobody(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    for fault in
        [Fault::Park, Fault::Drip { chunk: 1, every: std::time::Duration::from_millis(20) }]
    {
        a.arm(fault, 1);
        let received = |event: &Event| matches!(&event.kind, EventKind::Received { backend, .. } if **backend == *a.name());
        let before = w.log.len();
        let mut aborting = w.client("aborting")?;
        let pending = aborting.start(Request::new("GET", "/?size=100000")).await?;
        let request = w.log.wait_from(before, "the request to arrive", received).await?;
        drop(pending);
        aborting.close();
        let EventKind::Received { connection, .. } = request.kind else { continue };
        let freed = |event: &Event| {
            matches!(&event.kind, EventKind::Closed { connection: closed, backend }
                if *closed == connection && **backend == *a.name())
        };
        w.log.wait_from(before, "the server to be freed", freed).await?;
        let mut client = w.client("c")?;
        w.expect_sequence(&mut client, "BCABC").await?;
        w.expect_sequence(&mut client, "ABC").await?;
    }
    Ok(())
}

async fn errors_blame_nobody(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--fall", "1"]).await?;
    let mut client = w.client("c")?;
    for status in [400, 401, 404, 408, 429, 500, 502, 503, 504] {
        all.iter().for_each(|backend| backend.set_fault(Fault::Status(status)));
        for name in ["A", "B", "C"] {
            let reply = client.get("/").await?;
            ensure!((reply.status, reply.backend()) == (status, name), "{status}: {reply:?}");
        }
    }
    Ok(())
}

async fn last_one_stays(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&["--fall", "1"]).await?;
    let mut client = w.client("c")?;
    let mark = w.log.len();
    b.kill().await;
    while w.lb()?.said(mark, " to=down ")? == 0 {
        client.get("/").await?;
    }
    let mark = w.log.len();
    for fault in [Fault::ResetAfterRequest, Fault::CloseAfterRequest, Fault::Garbage] {
        a.set_fault(fault.clone());
        for method in ["GET", "POST"] {
            for _ in 0..5 {
                let reply = client.send(Request::new(method, "/")).await?;
                ensure!(reply.status == 502, "{method} with {fault:?}: {}", reply.status);
            }
        }
    }
    a.clear();
    w.expect_sequence(&mut client, "AAA").await?;
    ensure!(w.lb()?.said(mark, " from=up ")? == 0, "the last one was put out");
    Ok(())
}
