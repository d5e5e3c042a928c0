//! Clients that take all they can get, and what the others notice of it: nothing.
//!
//! In each scenario a normal client asks before and while it is abused. Each of its
//! requests is answered well; the median of them takes no more than twenty times
//! what it took before, or [`LEAST`]; and none takes longer than a watchdog.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testbed::{
    fault::Fault,
    log::{Event, EventKind},
    net::{Loopback, Net},
};
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    raw::{Raw, ask, expect_refusal},
    scenario,
};
use crate::{
    bench::Processes,
    e2e::{Client, Scenario, World},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        67,
        "overload",
        slow_heads_and_bodies,
        Wall,
        "200 heads and bodies that never end are nobody's delay, and end at their timeouts"
    ),
    scenario!(
        67,
        "overload",
        slow_readers,
        Wall,
        "30 clients that do not read what they asked for are nobody's delay, and are given up"
    ),
    scenario!(
        66,
        "overload",
        connection_flood,
        Wall,
        "200 connections beyond --max-connections: who is connected is served, who is not gets a 503"
    ),
    scenario!(
        56,
        "overload",
        huge_heads,
        Wall,
        "heads without an end, over and over, are refused, and nobody's delay"
    ),
    scenario!(
        57,
        "overload",
        endless_bodies,
        Wall,
        "bodies without an end get 413 at --max-body, and are nobody's delay without"
    ),
    scenario!(
        61,
        "overload",
        endless_trailers,
        Wall,
        "trailers and chunk extensions without an end are refused, and nobody's delay"
    ),
    scenario!(
        61,
        "overload",
        endless_lines,
        Wall,
        "leading zeros, blanks and empty lines without an end are cut off, and nobody's delay"
    ),
    scenario!(
        57,
        "overload",
        endless_interim_answers,
        Wall,
        "interim answers without an end are a bad answer, and nobody's delay"
    ),
    scenario!(
        72,
        "overload",
        no_descriptors,
        Wall,
        "out of descriptors, who is connected is served, no core is burnt, and all is well after"
    ),
    scenario!(
        72,
        "overload",
        log_without_room,
        Wall,
        "an access log on a full disk is nobody's delay"
    ),
];

/// No median is too slow below this: two cores have other things to do as well.
const LEAST: Duration = Duration::from_millis(250);

/// How many requests make a median.
const ASKED: usize = 15;

/// A client like others, and how long it waits when nothing is the matter.
pub(super) struct Normal {
    client: Client,
    calm: Duration,
}

impl Normal {
    /// Asks while all is calm.
    pub(super) async fn calm(w: &mut World) -> Result<Normal> {
        let mut normal = Normal { client: w.client("normal")?, calm: Duration::ZERO };
        normal.calm = normal.median(w).await.context("while all was calm")?;
        Ok(normal)
    }

    /// That it is served as before.
    pub(super) async fn undisturbed(&mut self, w: &World) -> Result<()> {
        let (median, limit) = (self.median(w).await?, LEAST.max(20 * self.calm));
        w.log.note(format!("normal median={median:?} calm={:?} limit={limit:?}", self.calm));
        ensure!(median <= limit, "a normal request takes {median:?}, before {:?}", self.calm);
        Ok(())
    }

    /// That of GETs or that of POSTs, whichever is longer: they use other
    /// connections.
    async fn median(&mut self, w: &World) -> Result<Duration> {
        self.client.set_timeout(w.patience(self.calm)?);
        let mut times = [Vec::new(), Vec::new()];
        for number in 0..2 * ASKED {
            let began = w.stopwatch()?;
            let reply = match number % 2 {
                0 => self.client.get("/").await,
                _ => self.client.post("/", b"body".to_vec()).await,
            };
            let reply = reply.context("a normal request")?;
            ensure!(reply.status == 200, "a normal request got {}", reply.status);
            times[number % 2].push(began.elapsed());
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        Ok(times.iter().map(|times| times[ASKED / 2]).max().unwrap_or_default())
    }
}

/// So many connections of which each has said `text`.
async fn all_say(w: &mut World, count: usize, text: &str) -> Result<Vec<Raw>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(w).await?;
        raw.write(text).await?;
        all.push(raw);
    }
    Ok(all)
}

const HALF_HEAD: &str = "GET / HTTP/1.1\r\nHost: te";
const HALF_BODY: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf";

fn arrived(event: &Event) -> bool {
    matches!(event.kind, EventKind::Received { .. })
}

async fn slow_heads_and_bodies(w: &mut World) -> Result<()> {
    w.expect_no_change();
    w.backends(["A", "B", "C"]).await?;
    // Long enough for all of them to be there at one time.
    w.balance(&["--head-timeout", "1500ms", "--body-timeout", "1500ms"]).await?;
    let mut normal = Normal::calm(w).await?;
    let mark = w.log.len();
    let mut slow = all_say(w, 100, HALF_HEAD).await?;
    slow.extend(all_say(w, 100, HALF_BODY).await?);
    w.log.wait_count(mark, 100, "100 half bodies at the servers", arrived).await?;
    normal.undisturbed(w).await?;
    // One byte more each, which puts off no timeout of a head.
    for raw in &mut slow {
        let _ = raw.write("x").await;
    }
    normal.undisturbed(w).await?;
    for (number, raw) in slow.iter_mut().enumerate() {
        let reason = if number < 100 { "head_timeout" } else { "body_timeout" };
        expect_refusal(&raw.rest().await?, 408, reason)?;
    }
    Ok(())
}

async fn slow_readers(w: &mut World) -> Result<()> {
    const ANSWER: u64 = 64 << 20;
    const READERS: usize = 30;
    w.expect_errors();
    w.expect_no_change();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&["--body-timeout", "2s"]).await?;
    let mut normal = Normal::calm(w).await?;
    let mark = w.log.len();
    a.arm(Fault::Flood(ANSWER), READERS as u64);
    let mut readers = Vec::new();
    let floods = |event: &Event| arrived(event) && event.backend() == Some("A");
    while w.log.count(mark, floods) < READERS {
        // Every second one goes to B, and is read.
        let mut raw = Raw::connect(w).await?;
        let next = w.log.len();
        raw.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        w.log.wait_from(next, "the request to arrive", arrived).await?;
        readers.push(raw);
    }
    let stuck = |event: &Event| event.kind.to_string().contains("stuck written=");
    w.log.wait_count(mark, READERS, "the answers to be stuck", stuck).await?;
    normal.undisturbed(w).await?;
    let given_up = |event: &Event| matches!(&event.kind, EventKind::Closed { backend, .. } if **backend == *"A");
    w.log.wait_count(mark, READERS, "the servers to be rid of them", given_up).await?;
    normal.undisturbed(w).await
}

async fn connection_flood(w: &mut World) -> Result<()> {
    const ROOM: usize = 40;
    w.expect_errors();
    w.backends(["A", "B"]).await?;
    w.balance(&["--max-connections", "40"]).await?;
    let mut normal = Normal::calm(w).await?;
    let addr = w.lb()?.addr;
    let mut flood = JoinSet::new();
    for _ in 0..200 {
        flood.spawn(async move { TcpStream::connect(addr).await });
    }
    let flood: Vec<TcpStream> = flood.join_all().await.into_iter().collect::<Result<_, _>>()?;
    normal.undisturbed(w).await?;
    // All that there is room for is taken, and each of the others is told so.
    let refused = |event: &Event| matches!(&event.kind, EventKind::Output { line, .. } if line.contains("refused: too many connections"));
    w.log.wait_count(0, flood.len() + 1 - ROOM, "the others to be refused", refused).await?;
    let mut late = w.client("late")?;
    let reply = late.get("/").await?;
    ensure!(reply.status == 503, "one more got {}", reply.status);
    ensure!(reply.header("x-lb-reason") == Some("too_many_connections"), "{reply:?}");
    normal.undisturbed(w).await?;
    flood.into_iter().for_each(|stream| Loopback.reset(stream));
    ensure!(late.get("/").await?.status == 200, "no room after the flood");
    normal.undisturbed(w).await
}

async fn huge_heads(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    let field = format!("X-Long: {}\r\n", "v".repeat(1000));
    let fields = format!("GET / HTTP/1.1\r\nHost: test\r\n{}", field.repeat(200));
    let line = format!("GET /{}", "a".repeat(200_000));
    for (request, status, reason) in
        [(&fields, 431, "head_too_large"), (&line, 414, "uri_too_long")]
    {
        for _ in 0..20 {
            expect_refusal(&ask(w, request).await?, status, reason)?;
        }
        let _unread = all_say(w, 20, request).await?;
        normal.undisturbed(w).await?;
    }
    Ok(())
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A request whose chunked body goes on with `bytes`, for as long as they are taken.
async fn goes_on(w: &mut World, bytes: &str) -> Result<Raw> {
    let mut raw = Raw::connect(w).await?;
    raw.write(CHUNKED).await?;
    // Whoever refuses it may close as well.
    let _ = raw.write(bytes).await;
    Ok(raw)
}

async fn endless_bodies(w: &mut World) -> Result<()> {
    w.expect_no_change();
    w.backends(["A", "B"]).await?;
    let chunks = "5\r\nhello\r\n".repeat(40_000);
    w.balance(&["--max-body", "100k"]).await?;
    let mut normal = Normal::calm(w).await?;
    for _ in 0..8 {
        let mut raw = goes_on(w, &chunks).await?;
        expect_refusal(&raw.rest().await?, 413, "body_too_large")?;
        normal.undisturbed(w).await?;
    }
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    let mut allowed = Vec::new();
    for _ in 0..8 {
        allowed.push(goes_on(w, &chunks).await?);
        normal.undisturbed(w).await?;
    }
    for raw in &mut allowed {
        ensure!(raw.is_silent().await, "a body that is allowed was refused");
        raw.write("0\r\n\r\n").await?;
        ensure!(raw.answer("POST").await?.head.status == 200, "a body that is allowed was refused");
    }
    Ok(())
}

async fn endless_trailers(w: &mut World) -> Result<()> {
    w.expect_no_change();
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    let field = "X-More: and more\r\n".repeat(100_000);
    let value = "more".repeat(500_000);
    for bytes in [format!("0\r\n{field}"), format!("0\r\nX-Long: {value}"), format!("5;{value}")] {
        let mut raw = goes_on(w, &bytes).await?;
        expect_refusal(&raw.rest().await?, 400, "client_body")?;
        normal.undisturbed(w).await?;
    }
    Ok(())
}

/// Whoever sends for as long as it is taken, as fast as it is.
async fn floods(mut raw: Raw, head: String, piece: String) {
    let mut sent = raw.write(head).await;
    while sent.is_ok() {
        sent = raw.write(&piece).await;
    }
}

async fn endless_lines(w: &mut World) -> Result<()> {
    const FLOODS: usize = 8;
    w.expect_no_change();
    w.expect_errors();
    w.backends(["A"]).await?;
    w.balance(&["--workers", "1"]).await?;
    let mut normal = Normal::calm(w).await?;
    let blanks = format!("{CHUNKED}1");
    for (head, piece) in [(CHUNKED, "0"), (&blanks, " "), (&blanks, "\t"), ("", "\r\n")] {
        let began = w.stopwatch()?;
        let mut flood = JoinSet::new();
        for _ in 0..FLOODS {
            let piece = piece.repeat(64 * 1024 / piece.len());
            flood.spawn(floods(Raw::connect(w).await?, head.to_string(), piece));
        }
        normal.undisturbed(w).await?;
        let ended = w.unless_stuck(w.patience(normal.calm)?, flood.join_all()).await?;
        ensure!(ended.is_some(), "{piece:?} for ever is taken for {:?}", began.elapsed());
    }
    Ok(())
}

async fn endless_interim_answers(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&["--workers", "1"]).await?;
    let mut normal = Normal::calm(w).await?;
    for answer in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early\r\nA: b\r\n\r\n", "\r\n"] {
        let mark = w.log.len();
        a.arm(Fault::RawAnswer(answer.repeat(4_000_000 / answer.len()).into()), 1);
        let mut reply = None;
        while w.log.count(mark, |event| arrived(event) && event.backend() == Some("A")) == 0 {
            reply = Some(normal.client.post("/", "once").await?);
        }
        let reply = reply.context("nobody asked")?;
        ensure!(reply.status == 502, "{answer:?} over and over: a POST got {}", reply.status);
        ensure!(reply.header("x-lb-reason") == Some("bad_answer"), "{reply:?}");
        normal.undisturbed(w).await?;
    }
    Ok(())
}

/// Somebody takes descriptors away from the balancer as it runs: none that it has, and
/// all but a few of those that it counts on.
async fn no_descriptors(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    let addr = w.lb()?.addr;
    let pid = w.lb()?.pid()?.context("it has ended")?;
    let process = Processes::of(pid);
    let limit = Some(process.descriptors()? as u64 + 20);
    let pid = Pid::from_raw(pid.try_into()?).context("it is no process")?;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(addr).await?);
    }
    w.lb()?.prints(0, "cannot accept connections: ").await?;
    normal.undisturbed(w).await?;
    let (mark, before) = (w.log.len(), process.cpu_time()?);
    let began = w.stopwatch()?;
    w.pause(Duration::from_secs(1)).await?;
    let (used, time) = (process.cpu_time()?.saturating_sub(before), began.elapsed());
    ensure!(used < time / 4, "{used:?} of a core's time in {time:?}, with nothing to do");
    let said = w.lb()?.said(mark, "cannot accept connections: ")?;
    let most = 2 * time.as_millis() / 50 + 2;
    ensure!(said as u128 <= most, "said {said} times in {time:?}, expected {most} at most");
    normal.undisturbed(w).await?;
    drop(idle);
    let mut late = w.client("late")?;
    ensure!(late.get("/").await?.status == 200, "no room when there were descriptors again");
    normal.undisturbed(w).await
}

async fn log_without_room(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    normal.undisturbed(w).await?;
    w.balance(&["--access-log", "/dev/full"]).await?;
    normal.client = w.client("beside a full disk")?;
    normal.undisturbed(w).await?;
    w.lb()?.prints(0, "cannot write to /dev/full").await?;
    normal.undisturbed(w).await
}
