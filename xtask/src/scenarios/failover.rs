//! What a client sees of a server that fails: nothing, if it can be helped.

use anyhow::{Context, Result, bail, ensure};
use testbed::{
    backend::Backend,
    client::{ClientError, Reply, Request},
    fault::{Fault, Health},
    log::{Event, EventKind},
};
use tokio::task::JoinSet;

use super::{raw::Raw, scenario};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        35,
        "failover",
        refused,
        Events,
        "a dead server costs no GET and no POST, bodies arrive intact"
    ).simulated().basic(&[], "a server that has just died costs no client anything: what cannot be delivered there goes to the next"),
    scenario!(
        37,
        "failover",
        post_at_most_once,
        Events,
        "a POST that reached a server is never sent again"
    ).simulated().basic(&[], "an order that a server may have taken must not be placed a second time: the client gets an error, and decides"),
    scenario!(
        38,
        "failover",
        get_retried_elsewhere,
        Events,
        "a GET that came to nothing is answered by another server"
    ).simulated().basic(&[], "a server may die with a request in its hands: reading it again elsewhere harms nobody, and the client never notices"),
    scenario!(
        38,
        "failover",
        listed_status_retried,
        Events,
        "with --retry-status a GET goes elsewhere, a POST does not; the last real answer stands"
    ).simulated(),
    scenario!(
        26,
        "failover",
        try_anyway,
        Events,
        "with --when-all-down try_anyway servers that fail their probes are the last resort"
    ).simulated(),
    scenario!(
        39,
        "failover",
        tries_exact,
        Events,
        "a GET reaches at most three servers once it was sent"
    ).simulated(),
    scenario!(
        39,
        "failover",
        budget_exact,
        Events,
        "at most three retries at a time with few requests in flight"
    ).simulated(),
    scenario!(
        39,
        "failover",
        budget_is_waited_for,
        Events,
        "a retry beyond the budget waits for a place in it, a moment, instead of failing"
    ).simulated(),
    scenario!(
        40,
        "failover",
        no_server_twice,
        Events,
        "no server is tried twice while another is untried"
    ).simulated(),
    scenario!(
        41,
        "failover",
        body_beyond_replay,
        Events,
        "a large PUT is not repeated once its beginning is gone; a small one is"
    ).simulated(),
    scenario!(
        42,
        "failover",
        truncation_shows_to_http10,
        Events,
        "an HTTP/1.0 client, who knows the end by the close, sees a reset"
    ).simulated().anybodys(&[]),
    scenario!(
        45,
        "failover",
        black_hole,
        Events,
        "connects that nobody answers: only the few that were under way wait, the rest go elsewhere"
    ).simulated(),
    scenario!(
        42,
        "failover",
        truncation_shows,
        Events,
        "an answer that breaks off never ends cleanly"
    ).simulated().basic(&[], "half a page that looks like a whole one is worse than an error: it is stored and acted upon"),
];

/// Whether an event is the arrival of a traffic request at `backend`.
pub(super) fn received(backend: &Backend) -> impl FnMut(&Event) -> bool + '_ {
    move |event| matches!(&event.kind, EventKind::Received { backend: name, .. } if **name == *backend.name())
}

async fn refused(w: &mut World) -> Result<()> {
    let [_, mortal @ ..] = w.backends(["A", "B", "C", "D", "E"]).await?;
    w.balance(&w.probing("2s")).await?;
    let mut client = w.client("c")?;
    for (server, method) in mortal.iter().zip(["POST", "GET", "PUT", "PATCH"]) {
        let mark = w.log.len();
        server.kill().await;
        // A whole round is on its way before a probe can tell of the death: one
        // of these requests is the dead server's.
        let round = (1..=5).map(|number| w.client(&format!("c{number}")));
        let mut round: Vec<_> = round.collect::<Result<_>>()?;
        let mut sent = Vec::new();
        // Clients that wait for each other are another scenario's.
        client.close();
        for client in &mut round {
            client.fresh(true);
            sent.push(client.start(sized(method, 1000)).await?);
        }
        for one in sent {
            expect_good(one.read().await?, server, method, 1000)?;
        }
        for size in [0, 1, 100_000].into_iter().flat_map(|size| [size; 5]) {
            expect_good(client.send(sized(method, size)).await?, server, method, size)?;
        }
        if w.is_ours() {
            w.lb()?.says(mark, server, "down").await?;
        }
        // Whether it gets requests again is for other scenarios.
        server.revive().await?;
    }
    Ok(())
}

/// Whether its body arrived as it was is the ledger's to say.
fn sized(method: &str, size: usize) -> Request {
    Request::new(method, "/").body(testbed::body::pattern(size as u64, size))
}

fn expect_good(reply: Reply, dead: &Backend, method: &str, size: usize) -> Result<()> {
    let (name, status) = (dead.name(), reply.status);
    let reason = reply.header("x-lb-reason").map(|reason| format!(", {reason}"));
    let reason = reason.unwrap_or_default();
    ensure!(status == 200, "{name} had died, and a {method} of {size} bytes got {status}{reason}");
    Ok(())
}

async fn post_at_most_once(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for fault in
        [Fault::ResetAfterRequest, Fault::CloseAfterRequest, Fault::ResetAfterHead, Fault::Garbage]
    {
        b.set_fault(fault.clone());
        let (mark, mut errors) = (w.log.len(), 0);
        for _ in 0..6 {
            let status = client.post("/", b"once".to_vec()).await.map(|reply| reply.status);
            errors += usize::from(!matches!(status, Ok(200)));
            ensure!(!w.is_ours() || matches!(status, Ok(200 | 502)), "{status:?}");
        }
        // One that puts B out at once breaks but one of them on it.
        let broken = if w.is_ours() { 2 } else { w.log.count(mark, received(&b)) };
        ensure!(
            errors == broken,
            "B took {broken} of 6 POSTs and went away ({fault:?}), and {errors} clients were told \
             of an error: the others' were executed a second time, or failed without need"
        );
        b.clear();
    }
    Ok(())
}

async fn get_retried_elsewhere(w: &mut World) -> Result<()> {
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for fault in [
        Fault::ResetAfterRequest,
        Fault::CloseAfterRequest,
        Fault::ResetAfterHead,
        Fault::Garbage,
        Fault::TwoContentLengths,
    ] {
        b.set_fault(fault.clone());
        if w.is_ours() {
            // B's requests are C's; the rotation of the others is undisturbed.
            w.expect_sequence(&mut client, "ACCACC").await?;
        } else if matches!(fault, Fault::ResetAfterRequest | Fault::CloseAfterRequest) {
            for _ in 0..6 {
                let reply = client.get("/").await.context("B went away without an answer")?;
                let status = reply.status;
                ensure!(status == 200, "B went away without an answer: a GET got {status}");
            }
        }
        b.clear();
    }
    Ok(())
}

async fn listed_status_retried(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&["--retry-status", "429,502-503"]).await?;
    let mut client = w.client("c")?;
    a.set_fault(Fault::Status(503));
    w.expect_sequence(&mut client, "BB").await?;
    let reply = client.post("/", b"once".to_vec()).await?;
    ensure!(reply.status == 503 && reply.backend() == "A", "the POST got {reply:?}");
    b.set_fault(Fault::Status(429));
    // B's turn: it says 429, then A says 503, and nobody else is left.
    let reply = client.get("/").await?;
    ensure!(reply.status == 503 && reply.backend() == "A", "the GET got {reply:?}");
    a.set_fault(Fault::Status(504));
    let reply = client.get("/").await?;
    ensure!(reply.status == 504 && reply.backend() == "A", "an unlisted 504 became {reply:?}");
    b.kill().await;
    a.set_fault(Fault::Status(502));
    // B's turn again: refused; A's 502 is the last real answer.
    let reply = client.get("/").await?;
    ensure!(reply.status == 502 && reply.backend() == "A", "the last real answer became {reply:?}");
    Ok(())
}

async fn try_anyway(w: &mut World) -> Result<()> {
    w.backend(Backend::builder("A").health(Health::Status(500))).await?;
    let b = w.backend(Backend::builder("B").health(Health::Status(500))).await?;
    w.balance(&["--when-all-down", "try_anyway", "--health-period", "300ms"]).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABAB").await?;
    let mark = w.log.len();
    b.set_health(Health::Status(200));
    w.lb()?.says(mark, &b, "up").await?;
    w.expect_sequence(&mut client, "BBB").await
}

async fn tries_exact(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C", "D", "E"]).await?;
    w.balance(&[]).await?;
    for backend in &all {
        backend.set_fault(Fault::CloseAfterRequest);
    }
    let mut client = w.client("c")?;
    for (method, expected) in [("GET", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)] {
        let mark = w.log.len();
        let reply = client.send(Request::new(method, "/").body("body")).await?;
        ensure!(reply.status == 502, "{method} got {}, expected 502", reply.status);
        let arrivals = w.log.count(mark, |e| matches!(e.kind, EventKind::Received { .. }));
        ensure!(arrivals == expected, "{method} reached {arrivals} servers, expected {expected}");
    }
    Ok(())
}

/// Ten GETs, of which five meet A, which closes; three of those may be repeated
/// at a time, and B parks whatever it gets. Returns B and the GETs under way.
async fn fill_budget(w: &mut World) -> Result<(Backend, JoinSet<Result<u16>>)> {
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::CloseAfterRequest);
    b.set_fault(Fault::Park);
    let mark = w.log.len();
    let mut running = JoinSet::new();
    for number in 0..10 {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move { Ok(client.get("/").await?.status) });
    }
    w.log.wait_count(mark, 8, "5 requests and 3 retries at B", received(&b)).await?;
    Ok((b, running))
}

async fn budget_exact(w: &mut World) -> Result<()> {
    w.expect_errors();
    let (b, running) = fill_budget(w).await?;
    let refused = |event: &Event| matches!(event.kind, EventKind::Answered { status: 502, .. });
    w.log.wait_count(0, 2, "2 answers 502", refused).await?;
    b.clear();
    b.release();
    let statuses = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let good = statuses.iter().filter(|status| **status == 200).count();
    ensure!(good == 8, "{good} of 10 were answered well, expected 8: {statuses:?}");
    Ok(())
}

async fn budget_is_waited_for(w: &mut World) -> Result<()> {
    let (b, running) = fill_budget(w).await?;
    b.clear();
    b.release();
    let statuses = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    Ok(())
}

async fn no_server_twice(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B", "C", "D", "E"]).await?;
    w.balance(&[]).await?;
    for backend in &all[..4] {
        backend.kill().await;
    }
    let mut client = w.client("c")?;
    let mark = w.log.len();
    let reply = client.post("/", b"body".to_vec()).await?;
    ensure!(reply.backend() == "E", "answered by {:?}, expected E", reply.backend());
    let tried: Vec<String> = all[..4].iter().map(|b| format!("{}:refused", b.addr())).collect();
    let line = w.lb()?.prints(mark, "failed=").await?.kind.to_string();
    let (_, list) = line.split_once("failed=").context("the list of attempts")?;
    let list = list.split(' ').next().unwrap_or_default();
    let got: Vec<&str> = list.split(',').filter_map(|a| a.split('@').next()).collect();
    ensure!(got == tried, "tried {got:?}, expected {tried:?}");
    Ok(())
}

async fn body_beyond_replay(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for (size, expected, arrivals) in [(60 * 1024, 200, 2), (1024 * 1024, 502, 1)] {
        a.arm(Fault::ResetAfterRequest, 1);
        let before = w.arrivals("PUT");
        let body = testbed::body::pattern(1, size);
        // Chunked, as half of it would look whole.
        let reply = client.send(Request::new("PUT", "/").body(body).chunked(true)).await?;
        ensure!(reply.status == expected, "{size} bytes: {}, expected {expected}", reply.status);
        let arrived = w.arrivals("PUT") - before;
        ensure!(arrived == arrivals, "{size} bytes reached {arrived} servers, expected {arrivals}");
        // Back to A's turn.
        w.expect_sequence(&mut client, "B").await?;
    }
    Ok(())
}

async fn truncation_shows_to_http10(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for fault in [Fault::TruncateChunked { after: 100 }, Fault::ResetMidBody { after: 100 }] {
        a.arm(fault.clone(), 1);
        let mut client = w.client("c")?;
        let got = client.send(Request::new("GET", "/?size=5000&chunked=1").http10()).await;
        expect_broken(w, &fault, got)?;
    }
    if w.is_ours() {
        // One that lb itself gives up, as nobody reads it.
        w.balance(&["--body-timeout", "1s"]).await?;
        let mark = w.log.len();
        a.arm(Fault::Flood(32 << 20), 1);
        let mut raw = Raw::connect(w).await?;
        raw.write("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await?;
        w.lb()?.prints(mark, " end=client_gone").await?;
        ensure!(raw.rest().await.is_err(), "half an answer looks whole");
    }
    Ok(())
}

/// That the client can see that an answer broke off. Whoever reads an answer
/// before passing it on may say 502 instead, or nothing.
fn expect_broken(w: &World, fault: &Fault, got: Result<Reply, ClientError>) -> Result<()> {
    let seen = match got {
        Err(ClientError::Truncated { status: 200, .. }) => return Ok(()),
        Err(ClientError::NoAnswer(_)) if !w.is_ours() => return Ok(()),
        Ok(reply) if !w.is_ours() && reply.status >= 500 => return Ok(()),
        Ok(reply) => format!("{} and {} bytes, as if whole", reply.status, reply.body.len()),
        Err(error) => error.to_string(),
    };
    bail!("an answer of 5000 bytes broke off ({fault}), expected a 200 that breaks off, got {seen}")
}

async fn black_hole(w: &mut World) -> Result<()> {
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    a.black_hole().await?;
    let mut running = JoinSet::new();
    for number in 0..60 {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move { anyhow::Ok(client.get("/").await?.status) });
    }
    let statuses = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    w.lb()?.first_attempts(60).await?;
    let waited = w.lb()?.said(0, &format!("failed={}:connect_timeout", a.addr()))?;
    ensure!(
        (1..=4).contains(&waited),
        "{waited} requests waited for a dead connect, expected 1 to 4"
    );
    Ok(())
}

async fn truncation_shows(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for fault in [
        Fault::Truncate { after: 100 },
        Fault::TruncateChunked { after: 100 },
        Fault::ResetMidBody { after: 100 },
    ] {
        a.arm(fault.clone(), 1);
        let mut client = w.client("c")?;
        let got = client.get("/?size=5000").await;
        expect_broken(w, &fault, got)?;
    }
    Ok(())
}
