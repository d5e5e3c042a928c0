//! Clients' connections: used ahead of time, in pieces, and after a pause.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{
    body::pattern,
    fault::Fault,
    log::{Event, EventKind},
};
use tokio::task::JoinSet;

use super::{raw::Raw, scenario};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        48,
        "clients",
        slow_pipeliner,
        Events,
        "a request sent ahead is answered when a stuck answer before it has been read"
    ).simulated(),
    scenario!(
        33,
        "clients",
        gone_behind_an_empty_line,
        Events,
        "an empty line behind a request does not hide that the client has gone"
    ),
    scenario!(
        33,
        "clients",
        gone_behind_what_it_sent_ahead,
        Events,
        "nor do bytes of the next request, or many of them, which nobody gets to see"
    )
    .simulated(),
    scenario!(
        67,
        "clients",
        idle_blocks_nobody,
        Wall,
        "twenty clients that say nothing, or half a request, hold up nobody"
    ).simulated()
    .basic(&[], "browsers open connections ahead of time, and keep them: who serves one client after the other stands still with the first of them"),
    scenario!(
        57,
        "clients",
        own_answers,
        Events,
        "8 clients at once: each gets its own answers, to the last byte"
    ).simulated()
    .basic(&[], "one client's page in another one's browser is the worst that a balancer can do"),
    scenario!(
        61,
        "clients",
        bodiless,
        Events,
        "HEAD, 204 and 304 have no body, and the connection goes on behind them"
    ).simulated()
    .basic(&[], "an answer to HEAD has the length of a body that never comes: who waits for it hangs, who sends one spoils the next answer"),
    scenario!(
        48,
        "clients",
        pipelined,
        Events,
        "requests sent ahead, with bodies and however cut, are answered in order by the rotation"
    ).simulated()
    .anybodys(&["full_duplex"]),
    scenario!(
        48,
        "clients",
        pipeline_ends,
        Events,
        "behind a request that ends the connection, or is refused, nothing is answered or forwarded"
    ).simulated(),
    scenario!(
        48,
        "clients",
        byte_by_byte,
        Events,
        "requests that come in single bytes are requests like others"
    )
    .anybodys(&["full_duplex"]),
    scenario!(
        48,
        "clients",
        after_a_pause,
        Wall,
        "a connection that was idle for 1.2 s works as before, whole, in pieces or pipelined"
    ).simulated()
    .anybodys(&["full_duplex"]),
    scenario!(
        48,
        "clients",
        pause_in_a_head,
        Wall,
        "a request whose head pauses for 1.2 s, on a new and on a used connection"
    ).simulated()
    .anybodys(&[]),
];

/// Longer than it takes until an idle connection is parked.
const PAUSE: Duration = Duration::from_millis(1200);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A request's method and bytes, and the body of its answer.
type Exchange = (&'static str, Vec<u8>, Vec<u8>);

/// The `number`-th of a mixture of requests, each with an answer of its own.
fn exchange(number: usize) -> Exchange {
    let body = pattern(number as u64, number * 37);
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    match number % 4 {
        0 => {
            let size = 1 + number * 13;
            let bytes = [head(&format!("GET /?size={size}")), b"\r\n".to_vec()].concat();
            ("GET", bytes, pattern(0, size))
        }
        1 => {
            let length = format!("Content-Length: {}\r\n\r\n", body.len());
            ("POST", [head("POST /?echo=1"), length.into_bytes(), body.clone()].concat(), body)
        }
        2 => {
            let mut bytes = head("PUT /?echo=1");
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(100) {
                bytes.extend_from_slice(format!("{:x};x=\"0\"\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            ("PUT", bytes, body)
        }
        _ => ("HEAD", [head("HEAD /"), b"\r\n".to_vec()].concat(), Vec::new()),
    }
}

/// Reads the answers to `all`; the rotation goes on with the server `turn`.
async fn expect_answers(raw: &mut Raw, all: &[Exchange], turn: &mut usize) -> Result<()> {
    for (number, (method, _, body)) in all.iter().enumerate() {
        let answer = raw.answer(method).await?;
        let server = ["A", "B", "C"][*turn % 3];
        *turn += 1;
        let got = (answer.head.status, answer.field("x-backend"));
        ensure!(got == (200, server), "request {number}: {got:?}, expected 200 of {server}");
        ensure!(answer.body == *body, "request {number}: another body, {}", answer.body.len());
    }
    ensure!(raw.is_silent().await, "more came than was asked for");
    Ok(())
}

/// That no request lost bytes on the way to its server: GET would become ET.
fn expect_whole_methods(w: &World) -> Result<()> {
    for event in w.log.events() {
        if let EventKind::Received { method, .. } = event.kind {
            ensure!(["GET", "HEAD", "POST", "PUT"].contains(&&*method), "a server got {method}");
        }
    }
    Ok(())
}

async fn idle_blocks_nobody(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut idle = Vec::new();
    for number in 0..20 {
        let mut raw = Raw::connect(w).await?;
        raw.write(&GET[..number % 2 * 20]).await?;
        idle.push(raw);
    }
    let mut client = w.client("c")?;
    client.set_timeout(w.patience(Duration::ZERO)?);
    for _ in 0..4 {
        let reply = client.get("/").await.context("20 others are connected, and say nothing")?;
        ensure!(reply.status == 200, "20 others are connected: a GET got {}", reply.status);
    }
    Ok(())
}

async fn own_answers(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut running = JoinSet::new();
    for number in 0..8 {
        let mut client = w.client(&format!("c{number}"))?;
        running.spawn(async move {
            for _ in 0..10 {
                // Each body is unlike any other: the ledger knows whose it is.
                client.get("/?size=20000").await.context("8 clients at once")?;
            }
            Ok(())
        });
    }
    running.join_all().await.into_iter().collect()
}

async fn bodiless(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
        a.arm(Fault::Status(status), 1);
        let mut raw = Raw::connect(w).await?;
        raw.write(GET.replace("GET", method)).await?;
        let head = raw.answer(method).await?.head;
        ensure!(head.status == status, "{method}: {} instead of {status}", head.status);
        if !head.fields.keep_alive(head.minor_version) {
            continue;
        }
        raw.write(GET).await?;
        let next = raw.answer("GET").await;
        let next = next.with_context(|| format!("the request behind a {method} with {status}"))?;
        let got = String::from_utf8_lossy(&next.body);
        ensure!(got == "Hello From A\n", "behind a {method} with {status} came {got:?}");
    }
    Ok(())
}

async fn pipelined(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let all: Vec<Exchange> = (0..40).map(exchange).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
    let mut turn = 0;
    let mut raw = Raw::connect(w).await?;
    for size in [bytes.len(), 1, 2, 3, 61, 1000, 1024, 4096, 8192] {
        raw.write_in_pieces(&bytes, size).await?;
        expect_answers(&mut raw, &all, &mut turn).await?;
    }
    // Cut at places that follow from a seed.
    let places = pattern(43, bytes.len());
    for begin in 0..10 {
        let mut rest = &bytes[..];
        for cut in places.iter().skip(begin * 50).take(100) {
            let (piece, behind) = rest.split_at(usize::from(*cut).min(rest.len()));
            raw.write(piece).await?;
            tokio::task::yield_now().await;
            rest = behind;
        }
        raw.write(rest).await?;
        expect_answers(&mut raw, &all, &mut turn).await?;
    }
    expect_whole_methods(w)
}

async fn pipeline_ends(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for (last, status) in [
        ("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", 200),
        ("GET / HTTP/1.0\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\nX : 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n", 400),
    ] {
        let mut raw = Raw::connect(w).await?;
        let behind = GET.replace("GET /", "DELETE /behind");
        raw.write(format!("{GET}{GET}{last}{behind}{behind}")).await?;
        for expected in [200, 200, status] {
            let answer = raw.answer("GET").await?;
            ensure!(answer.head.status == expected, "{last:?}: {:?}", answer.text);
        }
        let rest = raw.rest().await?;
        ensure!(rest.is_empty(), "{last:?}: answered all the same: {rest:?}");
    }
    ensure!(w.arrivals("DELETE") == 0, "forwarded all the same");
    Ok(())
}

async fn byte_by_byte(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut turn = 0;
    let mut raw = Raw::connect(w).await?;
    for number in [8, 9, 10, 11, 5, 6] {
        let one = [exchange(number)];
        raw.write_in_pieces(&one[0].1, 1).await?;
        expect_answers(&mut raw, &one, &mut turn).await?;
    }
    expect_whole_methods(w)
}

async fn after_a_pause(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut turn = 0;
    let mut idle = Vec::new();
    // One that has never asked, and four that have.
    idle.push(Raw::connect(w).await?);
    for _ in 0..4 {
        let mut raw = Raw::connect(w).await?;
        raw.write(GET).await?;
        ensure!(raw.answer("GET").await?.head.status == 200, "before the pause");
        turn += 1;
        idle.push(raw);
    }
    w.pause(PAUSE).await?;
    let all: Vec<Exchange> = (8..20).map(exchange).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
    // Of every second one the first byte comes alone: both workers have seen
    // theirs when they have answered others.
    for raw in idle.iter_mut().skip(1).step_by(2) {
        raw.write(&bytes[..1]).await?;
    }
    let mut other = w.client("other")?;
    other.fresh(true);
    for _ in 0..4 {
        other.get("/").await?;
        turn += 1;
    }
    for (number, raw) in idle.iter_mut().enumerate() {
        let size = [bytes.len(), bytes.len(), 1, 1, 700][number];
        raw.write_in_pieces(&bytes[number % 2..], size).await?;
        expect_answers(raw, &all, &mut turn).await?;
    }
    expect_whole_methods(w)
}

async fn pause_in_a_head(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut turn = 0;
    let mut begun = Vec::new();
    for used in [false, true] {
        for cut in [1, 14, 16, GET.len() - 1] {
            let mut raw = Raw::connect(w).await?;
            if used {
                raw.write(GET).await?;
                ensure!(raw.answer("GET").await?.head.status == 200, "before the pause");
                turn += 1;
            }
            raw.write(&GET[..cut]).await?;
            begun.push((raw, cut));
        }
    }
    w.pause(PAUSE).await?;
    for (raw, cut) in &mut begun {
        raw.write(&GET[*cut..]).await?;
        let answer = raw.answer("GET").await?;
        let server = ["A", "B", "C"][turn % 3];
        turn += 1;
        ensure!(answer.field("x-backend") == server, "cut at {cut}: {:?}", answer.text);
    }
    expect_whole_methods(w)
}

async fn slow_pipeliner(w: &mut World) -> Result<()> {
    const LARGE: u64 = 32 << 20;
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    a.arm(Fault::Flood(LARGE), 1);
    let mut raw = Raw::connect(w).await?;
    raw.write(GET).await?;
    raw.write(GET).await?;
    let stuck = |event: &Event| event.kind.to_string().contains("stuck");
    w.log.wait("the first answer to be stuck", stuck).await?;
    let first = raw.answer("GET").await?;
    ensure!(first.body.len() as u64 == LARGE, "got {} bytes", first.body.len());
    let second = raw.answer("GET").await?;
    ensure!(second.body == b"Hello From A\n", "got {:?}", second.text);
    Ok(())
}

async fn gone_behind_an_empty_line(w: &mut World) -> Result<()> {
    gone_behind(w, ["", "\r\n", "\r\n\n\r\n"].map(String::from)).await
}

async fn gone_behind_what_it_sent_ahead(w: &mut World) -> Result<()> {
    let ahead = ["G".into(), GET.into(), format!("\r\n{GET}G"), GET.repeat(1000)];
    gone_behind(w, ahead).await?;
    w.expect_count(w.arrivals("GET"), 4, "requests at the server")
}

/// That the server's place is given back when a client has gone that had sent
/// a request and any of these behind it.
async fn gone_behind<const N: usize>(w: &mut World, ahead: [String; N]) -> Result<()> {
    w.expect_no_change();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for bytes in ahead {
        a.arm(Fault::Park, 1);
        let mark = w.log.len();
        let mut raw = Raw::connect(w).await?;
        raw.write(format!("{GET}{bytes}")).await?;
        let arrived = |event: &Event| matches!(event.kind, EventKind::Received { .. });
        w.log.wait_from(mark, "the request", arrived).await?;
        drop(raw);
        let closed = |event: &Event| matches!(event.kind, EventKind::Closed { .. });
        w.log.wait_from(mark, "the server's side to be closed", closed).await?;
        w.lb()?.prints(mark, "status=499").await?;
    }
    Ok(())
}
