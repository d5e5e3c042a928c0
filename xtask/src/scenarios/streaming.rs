//! Bodies on their way: nobody keeps them, nobody waits for their end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{
    body::{BodyDigest, pattern},
    client::Request,
    fault::Fault,
    log::{Event, EventKind},
};

use super::{
    raw::{Raw, expect_refusal},
    scenario,
};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        60,
        "streaming",
        best_answer_to_half_a_request,
        Events,
        "the last real answer stays whole when the request's end has not come yet"
    )
    .simulated(),
    scenario!(
        58,
        "streaming",
        download,
        Events,
        "each piece of an answer is here before the server writes the next"
    )
    .simulated(),
    scenario!(
        58,
        "streaming",
        upload,
        Events,
        "each piece of a request is there, and back, before the client writes the next"
    )
    .simulated(),
    scenario!(
        59,
        "streaming",
        slow_reader,
        Wall,
        "a client that does not read stops the server, and costs no memory"
    ),
    scenario!(
        59,
        "streaming",
        slow_server,
        Wall,
        "a server that does not read stops the client, and costs no memory"
    ),
    scenario!(
        60,
        "streaming",
        early_answer,
        Events,
        "an answer that comes before the upload's end arrives whole"
    )
    .simulated(),
    scenario!(
        60,
        "streaming",
        upload_behind_its_answer,
        Events,
        "what is sent behind an answer that is no refusal arrives whole, and both connections are kept"
    )
    .simulated(),
    scenario!(
        60,
        "streaming",
        half_an_upload_behind_its_answer,
        Events,
        "who breaks it off, or says no more, is told as gone, and holds nothing up"
    )
    .simulated(),
    scenario!(
        60,
        "streaming",
        expect_continue,
        Events,
        "100 comes once a server is connected, and never where there is none"
    )
    .simulated(),
    scenario!(60, "streaming", informational, Events, "a server's 100 and 103 are swallowed")
        .simulated(),
];

/// More than all socket buffers on the way hold together.
const LARGE: usize = 64 << 20;

/// How much of it may be on its way at most.
const BUFFERED: usize = 48 << 20;

/// How much memory one stuck request may cost, in KiB.
const MEMORY_KIB: u64 = 8 * 1024;

/// Who takes nothing for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_millis(200);

async fn download(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::Gate { chunk: 700 });
    let mut raw = Raw::connect(w).await?;
    for _ in 0..3 {
        raw.write("GET /?size=6300 HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        raw.until("\r\n\r\n").await?;
        for piece in 0..9 {
            ensure!(raw.is_silent().await, "piece {piece} came before its time");
            a.release();
            raw.exactly(700).await?;
        }
    }
    Ok(())
}

async fn upload(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    for method in ["POST", "PUT", "POST", "PUT"] {
        let head = format!("{method} /?echo=1 HTTP/1.1\r\nHost: test\r\n");
        raw.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await?;
        raw.until("\r\n\r\n").await?;
        for _ in 0..20 {
            raw.write("5\r\nhello\r\n").await?;
            raw.until("5\r\nhello\r\n").await?;
        }
        raw.write("0\r\n\r\n").await?;
        raw.until("0\r\n\r\n").await?;
        raw.write(format!("{head}Content-Length: 100\r\n\r\n")).await?;
        raw.until("\r\n\r\n").await?;
        for _ in 0..20 {
            raw.write("hello").await?;
            raw.until("hello").await?;
        }
    }
    Ok(())
}

/// The balancer's resident memory in KiB; none where the system does not tell.
fn resident(w: &mut World) -> Result<Option<u64>> {
    let pid = w.lb()?.pid()?.context("the balancer has ended")?;
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        w.log.note("resident memory is not judged: no /proc");
        return Ok(None);
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(Some(number.context("no VmRSS")?.parse()?))
}

/// That the balancer has not grown by much since it had `before` KiB.
fn expect_small(w: &mut World, before: Option<u64>) -> Result<()> {
    if let (Some(before), Some(now)) = (before, resident(w)?) {
        let more = now.saturating_sub(before);
        ensure!(more <= MEMORY_KIB, "{more} KiB more than before, limit {MEMORY_KIB}");
        w.log.note(format!("grown_kib={more}"));
    }
    Ok(())
}

/// A connection that has carried large bodies both ways: buffers that are
/// allocated once are there, each in a huge page of 2 MiB perhaps.
async fn warmed_up(w: &mut World) -> Result<Raw> {
    let mut raw = Raw::connect(w).await?;
    for _ in 0..8 {
        raw.write("GET /?size=1000000 HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        raw.answer("GET").await?;
        let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n";
        raw.write([head.as_bytes(), &vec![7; 1_000_000]].concat()).await?;
        raw.answer("POST").await?;
    }
    Ok(raw)
}

async fn slow_reader(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = warmed_up(w).await?;
    let before = resident(w)?;
    a.arm(Fault::Flood(LARGE as u64), 1);
    let mark = w.log.len();
    raw.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await?;
    let stuck = |event: &Event| matches!(&event.kind, EventKind::Note(text) if text.contains("stuck written="));
    let stuck = w.log.wait_from(mark, "the server to be stuck", stuck).await?.kind.to_string();
    let written = stuck.rsplit_once("written=").map(|(_, text)| text.trim_end_matches('"'));
    let written: usize = written.context("how much was written")?.parse()?;
    ensure!(written < BUFFERED, "{written} bytes were taken from the server");
    expect_small(w, before)?;
    let answer = raw.answer("GET").await?;
    ensure!(answer.body.len() == LARGE, "{} bytes arrived", answer.body.len());
    expect_small(w, before)
}

async fn slow_server(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = warmed_up(w).await?;
    let before = resident(w)?;
    a.arm(Fault::ReadLater, 1);
    raw.write(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n")).await?;
    let (piece, mut written) = (vec![7; 64 * 1024], 0);
    while let Some(taken) = w.unless_stuck(STUCK_AFTER, raw.write_some(&piece)).await? {
        written += taken?;
        ensure!(written < BUFFERED, "{written} bytes were taken from the client");
    }
    expect_small(w, before)?;
    a.release();
    while written < LARGE {
        written += raw.write_some(&piece[..piece.len().min(LARGE - written)]).await?;
    }
    let answer = raw.answer("POST").await?;
    let received = answer.field("x-received");
    ensure!(received.starts_with(&format!("{LARGE}:")), "the server read {received}");
    expect_small(w, before)
}

async fn early_answer(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    for fault in [Fault::EarlyAnswer, Fault::EarlyAnswerThenClose] {
        a.set_fault(fault.clone());
        b.set_fault(fault);
        for (size, chunked) in
            [10, 100_000, 8 << 20].into_iter().flat_map(|size| [(size, false), (size, true)])
        {
            for method in ["POST", "PUT"] {
                let mut client = w.client("c")?;
                let request = Request::new(method, "/").body(vec![7; size]).chunked(chunked);
                let reply = client.send(request).await?;
                ensure!(reply.status == 413, "{method} {size} chunked={chunked}: {reply:?}");
                ensure!(reply.text() == format!("Hello From {}\n", reply.backend()), "{reply:?}");
            }
        }
    }
    Ok(())
}

/// The beginning of an upload of `body`, one half of it, and the other; in chunks
/// with this behind them, if any.
fn halves(status: u16, trailers: Option<&str>, body: &[u8]) -> [Vec<u8>; 2] {
    let head = format!("POST /?status={status} HTTP/1.1\r\nHost: test\r\n");
    let (first, second) = body.split_at(body.len() / 2);
    let Some(trailers) = trailers else {
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        return [[head.as_bytes(), first].concat(), second.to_vec()];
    };
    let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", first.len());
    let between = format!("\r\n{:x}\r\n", second.len());
    let first = [head.as_bytes(), first].concat();
    let end = format!("\r\n0\r\n{trailers}\r\n");
    [first, [between.as_bytes(), second, end.as_bytes()].concat()]
}

async fn upload_behind_its_answer(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::EarlyAnswer);
    let mut raw = Raw::connect(w).await?;
    let framings = [None, Some(""), Some("X-T: 1\r\n")];
    let all = framings.into_iter().cycle().zip([200, 204, 302, 302, 200, 204, 204, 302, 200]);
    for (number, (trailers, status)) in all.enumerate() {
        let body = pattern(number as u64, 300_000);
        let [first, second] = halves(status, trailers, &body);
        let mark = w.log.len();
        raw.write(first).await?;
        let answer = raw.answer("POST").await?;
        ensure!(answer.text.starts_with(&format!("HTTP/1.1 {status} ")), "got {:?}", answer.text);
        ensure!(answer.field("connection").is_empty(), "got {:?}", answer.text);
        raw.write(second).await?;
        let executed = |event: &Event| matches!(event.kind, EventKind::Executed { .. });
        let event = w.log.wait_from(mark, "the whole upload at the server", executed).await?;
        let EventKind::Executed { body: arrived, .. } = event.kind else { continue };
        ensure!(arrived == BodyDigest::of(&body), "{arrived} arrived");
        w.lb()?.prints(mark, " end=complete").await?;
    }
    let opened = |event: &Event| matches!(event.kind, EventKind::Accepted { .. });
    let before = w.log.count(0, opened);
    raw.write("GET /?status=200 HTTP/1.1\r\nHost: test\r\n\r\n").await?;
    raw.answer("GET").await?;
    ensure!(w.log.count(0, opened) == before, "no connection of an upload was used again");
    Ok(())
}

async fn half_an_upload_behind_its_answer(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&["--body-timeout", "1s"]).await?;
    a.set_fault(Fault::EarlyAnswer);
    for (trailers, leaves) in [(None, true), (Some(""), true), (None, false), (Some(""), false)] {
        let mark = w.log.len();
        let mut raw = Raw::connect(w).await?;
        let [first, _] = halves(200, trailers, &[7; 1000]);
        raw.write(first).await?;
        let answer = raw.answer("POST").await?;
        ensure!(answer.text.starts_with("HTTP/1.1 200 "), "got {:?}", answer.text);
        if leaves {
            drop(raw);
        } else {
            ensure!(raw.rest().await?.is_empty(), "something follows the answer");
        }
        let line = w.lb()?.prints(mark, " status=200").await?.kind.to_string();
        ensure!(line.contains(" end=client_gone"), "got {line}");
        let closed = |event: &Event| matches!(event.kind, EventKind::Closed { .. });
        w.log.wait_from(mark, "the server's side to be closed", closed).await?;
    }
    Ok(())
}

const EXPECT: &str =
    "POST /?echo=1 HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// That the next thing to come is this answer of the balancer's own.
async fn expect_own(raw: &mut Raw, status: u16, reason: &str) -> Result<()> {
    expect_refusal(&raw.answer("POST").await?.text, status, reason)
}

async fn expect_continue(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    for _ in 0..5 {
        raw.write(EXPECT).await?;
        let go = raw.until("\r\n\r\n").await?;
        ensure!(go.starts_with("HTTP/1.1 100 "), "got {go:?}");
        raw.write("hello").await?;
        let answer = raw.answer("POST").await?;
        ensure!(answer.body == b"hello", "got {:?}", answer.text);
    }
    // No connection comes about: no 100 either.
    a.kill().await;
    raw = Raw::connect(w).await?;
    raw.write(EXPECT).await?;
    expect_own(&mut raw, 502, "connect_failed").await?;
    let [b] = w.backends(["B"]).await?;
    w.balance_over(&[b.addr()], &["--connect-timeout", "300ms"]).await?;
    b.black_hole().await?;
    raw = Raw::connect(w).await?;
    raw.write(EXPECT).await?;
    expect_own(&mut raw, 504, "connect_timeout").await?;
    w.balance_over(&[], &[]).await?;
    raw = Raw::connect(w).await?;
    raw.write(EXPECT).await?;
    expect_own(&mut raw, 503, "no_server").await
}

async fn informational(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for status in [100, 102, 103] {
        a.set_fault(Fault::Informational(status));
        b.set_fault(Fault::Informational(status));
        for method in ["GET", "POST", "GET", "POST"] {
            let reply = client.send(Request::new(method, "/").body("body")).await?;
            ensure!(reply.status == 200 && !reply.backend().is_empty(), "{status}: {reply:?}");
            ensure!(reply.interim.is_empty(), "{status} was relayed: {:?}", reply.interim);
        }
    }
    Ok(())
}

async fn best_answer_to_half_a_request(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&["--retry-status", "413"]).await?;
    for _ in 0..4 {
        a.arm(Fault::EarlyAnswer, 1);
        b.arm(Fault::ResetAfterHead, 1);
        let mut raw = Raw::connect(w).await?;
        raw.write("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf.").await?;
        let answer = raw.answer("PUT").await?;
        ensure!(answer.text.starts_with("HTTP/1.1 413 "), "got {:?}", answer.text);
        ensure!(answer.body == b"Hello From A\n", "got {:?}", answer.body);
    }
    Ok(())
}
