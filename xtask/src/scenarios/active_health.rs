//! What probes decide.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{
    backend::Backend,
    fault::Health,
    log::{Event, EventKind},
};
use tokio::time::interval;

use super::{changes::File, scenario};
use crate::e2e::{Bounds, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        19,
        "active_health",
        out_after_fall,
        Events,
        "a non-200 takes it out after exactly `fall` probes"
    ).simulated()
    .anybodys(&["active_health", "rise_fall"]),
    scenario!(
        20,
        "active_health",
        back_after_rise,
        Events,
        "back after exactly `rise` passed probes"
    ).simulated()
    .anybodys(&["active_health", "rise_fall"]),
    scenario!(
        21,
        "active_health",
        back_within_period,
        Events,
        "the first probe that passes brings it back, in its old place"
    ).simulated()
    .anybodys(&["active_health"]),
    scenario!(
        22,
        "active_health",
        hanging_probe,
        Wall,
        "a probe without an answer fails after the timeout, not before"
    ).simulated(),
    scenario!(
        24,
        "active_health",
        status_lists,
        Events,
        "only 200 is healthy, or what --health-expect says; redirects are not followed"
    ).simulated(),
    scenario!(
        25,
        "active_health",
        hanging_server_delays_no_other,
        Events,
        "a server that hangs delays the probes of no other"
    ).simulated(),
    scenario!(
        26,
        "active_health",
        all_down_and_back,
        Events,
        "all down: 503 at once; all back: the rotation goes on"
    ).simulated(),
    scenario!(
        26,
        "active_health",
        all_dead,
        Wall,
        "no server left: an error, soon; once they live again, answers"
    ).simulated()
    .basic(&[], "with nobody there to answer, an error at once beats a page that loads for ever; and nobody should have to start the balancer anew"),
    scenario!(
        19,
        "active_health",
        out_and_back,
        Events,
        "a server that fails its health checks gets nothing, until it passes them again"
    ).simulated()
    .basic(&["active_health"], "a server may listen and still be sick: whoever asks for its health must heed the answer's status"),
    scenario!(
        28,
        "active_health",
        nothing_before_the_first_pass,
        Events,
        "no request before the first passed probe"
    ).simulated(),
    scenario!(
        29,
        "active_health",
        period_and_path_of_each,
        Events,
        "each server is asked as often and for what its own entry of the file says"
    ),
];

/// When nobody is there to answer, an error takes about as long.
const SOON: Duration = Duration::from_millis(500);

/// From one request to the next while something is awaited.
const PACE: Duration = Duration::from_millis(10);

/// Whether an event is a probe of `backend` that was answered with `status`.
fn probed<'a>(backend: &'a Backend, status: u16) -> impl FnMut(&Event) -> bool + 'a {
    move |event| match &event.kind {
        EventKind::Probed { backend: name, status: got } => {
            **name == *backend.name() && *got == status
        }
        _ => false,
    }
}

/// How many probes of `backend` got `status` between `mark` and `end`.
fn probes_between(w: &World, backend: &Backend, status: u16, mark: u64, end: u64) -> usize {
    let mut matches = probed(backend, status);
    w.log.count(mark, |event| event.seq < end && matches(event))
}

/// How many probes of `backend` in a row, up to the event `end`, had the
/// `outcome`: of ours by its own word, whose order no stall can turn round.
fn probes_in_a_row(w: &mut World, backend: &Backend, outcome: &str, end: u64) -> Result<usize> {
    let lines = w.lb()?.lines_before(end, &format!("server={} probe=", backend.addr()))?;
    let outcome = format!(" probe={outcome} ");
    Ok(lines.iter().rev().take_while(|line| line.contains(&outcome)).count())
}

/// In virtual time: that it took so long from `mark` to `change`.
async fn expect_bounds(w: &World, mark: u64, change: &Event, bounds: [u64; 2]) -> Result<()> {
    let began = w.log.wait_from(mark, "the beginning", |_| true).await?;
    let [least, most] = bounds.map(Duration::from_millis);
    w.expect_within([&began, change], (least, most), "the change")
}

async fn out_after_fall(w: &mut World) -> Result<()> {
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.telling(&["--health-period", "200ms", "--fall", "3"])).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABC").await?;
    let mark = w.log.len();
    a.set_health(Health::Status(500));
    let out = w.lb()?.says(mark, &a, "down").await?;
    let failed = match w.is_ours() {
        true => probes_in_a_row(w, &a, "failed", out.seq)?,
        false => probes_between(w, &a, 500, mark, out.seq),
    };
    w.expect_count(failed, 3, "failing probes before it is out")?;
    expect_bounds(w, mark, &out, [2 * 200, 3 * 200]).await?;
    w.expect_sequence(&mut client, "BCBC").await
}

async fn back_after_rise(w: &mut World) -> Result<()> {
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.telling(&["--health-period", "200ms", "--rise", "3", "--fall", "3"])).await?;
    let mark = w.log.len();
    a.set_health(Health::Status(503));
    w.lb()?.says(mark, &a, "down").await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "BCBC").await?;
    let mark = w.log.len();
    a.set_health(Health::Status(200));
    let back = w.lb()?.says(mark, &a, "up").await?;
    let passed = match w.is_ours() {
        true => probes_in_a_row(w, &a, "passed", back.seq)?,
        false => probes_between(w, &a, 200, mark, back.seq),
    };
    w.expect_count(passed, 3, "passing probes before it is back")?;
    expect_bounds(w, mark, &back, [2 * 200, 3 * 200]).await?;
    w.expect_sequence(&mut client, "ABC").await
}

async fn back_within_period(w: &mut World) -> Result<()> {
    let [_, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.telling(&w.probing("300ms"))).await?;
    let mut client = w.client("c")?;
    let mark = w.log.len();
    b.kill().await;
    w.lb()?.says(mark, &b, "down").await?;
    w.expect_sequence(&mut client, "AC").await?;
    let mark = w.log.len();
    b.revive().await?;
    let back = w.lb()?.says(mark, &b, "up").await?;
    let passed = match w.is_ours() {
        true => probes_in_a_row(w, &b, "passed", back.seq)?,
        false => probes_between(w, &b, 200, mark, back.seq),
    };
    w.expect_count(passed, 1, "passing probes before it is back")?;
    expect_bounds(w, mark, &back, [0, 300]).await?;
    w.expect_sequence(&mut client, "ABC").await
}

async fn hanging_probe(w: &mut World) -> Result<()> {
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    let mark = w.log.note("the balancer does not run yet");
    w.balance(&["--health-period", "500ms", "--health-timeout", "200ms", "--fall", "2"]).await?;
    let hung = w.log.len();
    a.set_health(Health::Hang);
    let out = w.lb()?.says(mark, &a, "down").await?;
    expect_bounds(w, hung, &out, [500 + 200, 2 * 500 + 200]).await?;
    // The first probe passed; the second began nine tenths of a period after
    // it at the earliest, and had 200 ms. Whatever else may be late, none of
    // this can be early.
    let began = w.log.wait_from(mark, "the beginning", |_| true).await?;
    w.expect_between([&began, &out], Duration::from_millis(450 + 200), "the end of a probe")?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "BCBC").await?;
    let mark = w.log.len();
    a.set_health(Health::Status(200));
    w.lb()?.says(mark, &a, "up").await?;
    w.expect_sequence(&mut client, "ABC").await
}

/// Starts a balancer over `backends` and checks who of them gets requests.
async fn expect_healthy(w: &mut World, expected: &str, flags: &[&str]) -> Result<()> {
    w.balance(flags).await?;
    let mut client = w.client(&format!("for {expected}"))?;
    w.expect_sequence(&mut client, &expected.repeat(2)).await
}

async fn status_lists(w: &mut World) -> Result<()> {
    let answers = [("A", 200), ("B", 204), ("C", 399), ("D", 400), ("E", 404), ("F", 500)];
    for (name, status) in answers {
        w.backend(Backend::builder(name).health(Health::Status(status))).await?;
    }
    // Followed, this redirect would lead to a healthy page of its own.
    let elsewhere = Health::Redirect("/".into());
    w.backend(Backend::builder("G").health(elsewhere)).await?;
    expect_healthy(w, "A", &[]).await?;
    expect_healthy(w, "ABCG", &["--health-expect", "200-399"]).await?;
    expect_healthy(w, "BE", &["--health-expect", "204,404"]).await
}

async fn hanging_server_delays_no_other(w: &mut World) -> Result<()> {
    let a = w.backend(Backend::builder("A").health(Health::Hang)).await?;
    let [b, c] = w.backends(["B", "C"]).await?;
    w.balance(&["--health-period", "400ms"]).await?;
    // A's first probe takes all of its time; the others' results do not wait.
    let given_up = w.lb()?.says(0, &a, "down").await?;
    for other in [&b, &c] {
        let up = w.lb()?.says(0, other, "up").await?;
        ensure!(up.seq < given_up.seq, "{} waited for A", other.name());
    }
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "BCBC").await?;
    let mark = w.log.len();
    b.set_health(Health::Status(500));
    let out = w.lb()?.says(mark, &b, "down").await?;
    let failed = probes_between(w, &b, 500, mark, out.seq);
    ensure!(failed == 1, "out after {failed} failing probes, expected the first");
    w.expect_sequence(&mut client, "CC").await
}

async fn all_down_and_back(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&w.probing("300ms")).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABC").await?;
    let mark = w.log.len();
    for backend in &all {
        backend.kill().await;
    }
    for backend in &all {
        w.lb()?.says(mark, backend, "down").await?;
    }
    let reply = client.get("/").await?;
    ensure!(reply.status == 503, "status {}, expected 503", reply.status);
    ensure!(reply.header("retry-after").is_some(), "no Retry-After in {reply:?}");
    let mark = w.log.len();
    for backend in &all {
        backend.revive().await?;
    }
    for backend in &all {
        w.lb()?.says(mark, backend, "up").await?;
    }
    w.expect_sequence(&mut client, "ABCABC").await
}

async fn all_dead(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--health-period", "300ms"]).await?;
    let mut client = w.client("c")?;
    client.set_timeout(w.patience(SOON)?);
    for backend in &all {
        backend.kill().await;
    }
    let Bounds { out, back } = w.lb()?.notices_within();
    let mut pace = interval(PACE);
    // Before it has noticed, and when it must have.
    let since = w.stopwatch()?;
    for _ in 0..3 {
        loop {
            let late = since.elapsed() >= out;
            let reply = client.get("/").await.context("all servers are dead")?;
            ensure!(reply.status >= 500, "all servers are dead: a GET got {}", reply.status);
            pace.tick().await;
            if late {
                break;
            }
        }
    }
    for backend in &all {
        backend.revive().await?;
    }
    let (since, patience) = (w.stopwatch()?, w.patience(SOON.max(back))?);
    let mut answered = 0;
    while answered < 6 {
        let good = matches!(client.get("/").await, Ok(reply) if reply.status == 200);
        answered = if good { answered + 1 } else { 0 };
        ensure!(good || since.elapsed() < patience, "all servers are back, and GETs still fail");
        pace.tick().await;
    }
    Ok(())
}

async fn out_and_back(w: &mut World) -> Result<()> {
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--health-period", "300ms"]).await?;
    let mark = w.log.len();
    a.set_health(Health::Status(503));
    w.lb()?.says(mark, &a, "down").await?;
    let mut client = w.client("c")?;
    for _ in 0..6 {
        let got = client.get("/").await?.backend;
        ensure!(got.as_deref() != Some("A"), "A fails its health checks, and got a request");
    }
    client.close();
    let mark = w.log.len();
    a.set_health(Health::Status(200));
    w.lb()?.says(mark, &a, "up").await?;
    Ok(())
}

async fn nothing_before_the_first_pass(w: &mut World) -> Result<()> {
    let [_, b, _] = {
        let a = w.backend(Backend::builder("A")).await?;
        let b = w.backend(Backend::builder("B").health(Health::Status(503))).await?;
        let c = w.backend(Backend::builder("C")).await?;
        [a, b, c]
    };
    w.balance(&w.probing("300ms")).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ACAC").await?;
    let mark = w.log.len();
    b.set_health(Health::Status(200));
    w.lb()?.says(mark, &b, "up").await?;
    w.expect_sequence(&mut client, "ABC").await
}

async fn period_and_path_of_each(w: &mut World) -> Result<()> {
    let a = w.backend(Backend::builder("A").health_path("/often")).await?;
    let b = w.backend(Backend::builder("B").health_path("/health")).await?;
    let text = format!(
        "servers:\n  - {{url: '{}', health_check_path: /often, health_check_period: 50ms}}\n  - {}\n",
        a.url(),
        b.url()
    );
    let _file = File::balance(w, &text).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABAB").await?;
    w.log.wait_count(0, 10, "ten probes of A", probed(&a, 200)).await?;
    ensure!(w.log.count(0, probed(&b, 200)) == 1, "B was probed as often as A");
    Ok(())
}
