//! Who gets the next request.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use testbed::{
    backend::Backend, client::Request, fairness, fault::Fault, history::observations,
    rotation::check_strict,
};
use tokio::task::JoinSet;

use super::scenario;
use crate::e2e::{Client, Routing, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(1, "rotation", sequential, Events, "one connection: A,B,C,A,B,C").simulated().basic(&[], "the first thing that anybody tries: requests one after the other go to each server in turn"),
    scenario!(2, "rotation", connection_each, Events, "a connection each: A,B,C,A,B,C").simulated().basic(&[], "each curl or browser tab is a connection of its own, and the turns go on over all of them"),
    scenario!(
        3,
        "rotation",
        parallel_balance,
        Quiescence,
        "8 clients: counts differ by at most one"
    ).simulated().basic(&[], "under load each server gets its share, or one of them is overrun"),
    scenario!(
        4,
        "rotation",
        parallel_strict,
        Events,
        "8 clients: one counter explains who got which request"
    ).simulated().basic(&[], "equal counts can hide races: two clients at the same moment must not be dealt the same turn"),
    scenario!(
        5,
        "rotation",
        methods,
        Events,
        "every method takes a place in the one rotation"
    ).simulated().anybodys(&[]),
    scenario!(
        5,
        "rotation",
        refused_methods,
        Events,
        "TRACE and CONNECT get 405 and take no place"
    ).simulated(),
    scenario!(
        6,
        "rotation",
        one_or_none,
        Events,
        "one backend gets all; with none, 503 at once and Retry-After"
    ).simulated(),
    scenario!(
        7,
        "rotation",
        errors_skip_no_place,
        Events,
        "4xx and 5xx pass unchanged and skip no place"
    ).simulated().basic(&[], "a 404 or a 500 is an answer like any other: it is passed on, and costs nobody a turn"),
    scenario!(
        8,
        "rotation",
        leave_and_return,
        Events,
        "after a leave A,C,A,C; after the return A,B,C"
    ).simulated().basic(&[], "a server that dies leaves the rotation, and is back in its old place once it lives again"),
    scenario!(
        8,
        "rotation",
        strict_in_each_epoch,
        Events,
        "8 clients at once: one strict rotation over two servers, over three, and again"
    ).simulated().anybodys(&[]),
    scenario!(9, "rotation", two_thousand, Events, "2 000 servers are dealt in the order given"),
];

async fn sequential(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABCABCABCABC").await
}

async fn connection_each(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    client.fresh(true);
    w.expect_sequence(&mut client, "ABCABCABCABC").await
}

/// `clients` clients send `each` GETs at the same time, a connection each.
pub(super) async fn in_parallel(w: &mut World, clients: usize, each: usize) -> Result<()> {
    let mut running = JoinSet::new();
    for number in 0..clients {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move {
            for _ in 0..each {
                client.get("/").await?;
            }
            anyhow::Ok(())
        });
    }
    running.join_all().await.into_iter().collect()
}

async fn parallel_balance(w: &mut World) -> Result<()> {
    w.expect_routing(Routing::Balanced)?;
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mark = w.log.len();
    // One even count may be luck.
    for _ in 0..4 {
        in_parallel(w, 8, 10).await?;
        fairness::check_even(&fairness::counts(&w.log.events_from(mark)), &["A", "B", "C"])?;
    }
    Ok(())
}

async fn parallel_strict(w: &mut World) -> Result<()> {
    w.expect_routing(Routing::Cyclic)?;
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mark = w.log.len();
    let each = if w.is_ours() { 200 } else { 100 };
    in_parallel(w, 8, each).await?;
    let first = check_strict(&observations(&w.log.events_from(mark), &["A", "B", "C"]), 3)?;
    ensure!(first == 0, "the rotation began with server {first}, expected the first");
    Ok(())
}

async fn methods(w: &mut World) -> Result<()> {
    w.expect_routing(Routing::Cyclic)?;
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"];
    for (method, server) in methods.iter().cycle().zip(["A", "B", "C"].iter().cycle()).take(24) {
        let reply = client.send(Request::new(method, "/")).await?;
        let got = (reply.status, reply.backend());
        ensure!(got == (200, server), "{method}: got {got:?}, expected 200 of {server}");
    }
    Ok(())
}

async fn refused_methods(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for server in ["A", "B", "C", "A"] {
        w.expect_sequence(&mut client, server).await?;
        for (refused, target) in [("TRACE", "/"), ("CONNECT", "test:80")] {
            let reply = client.send(Request::new(refused, target)).await?;
            ensure!(reply.status == 405, "{refused}: {}", reply.status);
            ensure!(reply.header("x-lb-reason") == Some("method_not_allowed"), "{reply:?}");
            ensure!(reply.header("allow").is_some_and(|list| list.contains("GET")), "{reply:?}");
        }
    }
    Ok(())
}

async fn one_or_none(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("one")?;
    w.expect_sequence(&mut client, "AAA").await?;
    w.balance_over(&[], &["--health-period", "7s"]).await?;
    let mut client = w.client("none")?;
    for _ in 0..3 {
        let reply = client.post("/", b"body".to_vec()).await?;
        ensure!(reply.status == 503, "status {}, expected 503", reply.status);
        ensure!(reply.header("x-lb-reason") == Some("no_server"), "reason {reply:?}");
        let seconds = reply.header("retry-after").and_then(|text| text.parse::<u32>().ok());
        ensure!(seconds.is_some_and(|s| s > 0), "Retry-After is {seconds:?}");
    }
    Ok(())
}

async fn errors_skip_no_place(w: &mut World) -> Result<()> {
    w.expect_routing(Routing::Cyclic)?;
    w.expect_errors();
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for status in [400, 404, 429, 500, 502, 503] {
        b.arm(Fault::Status(status), 1);
        let got = statuses(&mut client, 3).await?;
        let expected = [("A", 200), ("B", status), ("C", 200)].map(named);
        ensure!(got == expected, "B said {status}: clients got {got:?}, expected {expected:?}");
    }
    Ok(())
}

fn named((name, status): (&str, u16)) -> (Arc<str>, u16) {
    (name.into(), status)
}

async fn statuses(client: &mut Client, count: usize) -> Result<Vec<(Arc<str>, u16)>> {
    let mut got = Vec::new();
    for _ in 0..count {
        let reply = client.get("/").await?;
        got.push(named((reply.backend(), reply.status)));
    }
    Ok(got)
}

async fn leave_and_return(w: &mut World) -> Result<()> {
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.probing("300ms")).await?;
    let mut client = w.client("c")?;
    if !w.is_ours() {
        // It is asked who is out: requests that meet the dead server, and clients
        // that wait for each other, are for other scenarios.
        w.expect_errors();
        client.fresh(true);
    }
    // The rotation goes on behind the last one dealt, wherever that is: it does
    // not begin anew.
    for (before, without, after) in
        [("ABC", "ACACA", "BCABCA"), ("BCA", "CACAC", "ABCABC"), ("AB", "CACA", "BCABCA")]
    {
        w.expect_sequence(&mut client, before).await?;
        let mark = w.log.len();
        b.kill().await;
        w.lb()?.says(mark, &b, "down").await?;
        w.expect_sequence(&mut client, without).await?;
        let mark = w.log.len();
        b.revive().await?;
        w.lb()?.says(mark, &b, "up").await?;
        w.expect_sequence(&mut client, after).await?;
    }
    Ok(())
}

async fn strict_in_each_epoch(w: &mut World) -> Result<()> {
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.probing("300ms")).await?;
    for _ in 0..2 {
        let mark = w.log.len();
        b.kill().await;
        w.lb()?.says(mark, &b, "down").await?;
        expect_strict(w, &["A", "C"]).await?;
        let mark = w.log.len();
        b.revive().await?;
        w.lb()?.says(mark, &b, "up").await?;
        expect_strict(w, &["A", "B", "C"]).await?;
    }
    Ok(())
}

/// Every server is the same backend, each at an address of its own.
async fn two_thousand(w: &mut World) -> Result<()> {
    let all = Backend::builder("all").bind((Ipv4Addr::UNSPECIFIED, 0).into());
    let port = w.backend(all).await?.port();
    let address = |n: u32| SocketAddr::from((Ipv4Addr::from(0x7f01_0000 + n), port));
    let servers: Vec<SocketAddr> = (1..=2_000).map(address).collect();
    w.balance_over(&servers, &[]).await?;
    let mut client = w.client("c")?;
    for _ in 0..2_100 {
        client.get("/").await?;
    }
    let dealt = w.lb()?.dealt(2_100).await?;
    let expected = servers.iter().cycle().map(|server| Some(*server));
    for (turn, (got, expected)) in dealt.into_iter().zip(expected).enumerate() {
        ensure!(got == expected, "turn {turn}: dealt to {got:?}, expected {expected:?}");
    }
    Ok(())
}

/// One rotation over exactly these servers explains what 8 clients get now.
pub(super) async fn expect_strict(w: &mut World, servers: &[&str]) -> Result<()> {
    w.expect_routing(Routing::Cyclic)?;
    let mark = w.log.len();
    in_parallel(w, 8, 50).await?;
    let history = observations(&w.log.events_from(mark), servers);
    ensure!(history.len() == 400, "{} of 400 requests reached {servers:?}", history.len());
    check_strict(&history, servers.len()).with_context(|| format!("among {servers:?}"))?;
    Ok(())
}
