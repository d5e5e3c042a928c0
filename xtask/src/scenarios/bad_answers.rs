//! Servers that answer nonsense.

use anyhow::{Context, Result, ensure};
use testbed::{
    client::{ClientError, Reply, Request},
    fault::Fault,
    http1::{body::BodyDecoder, head::AnswerHead},
};

use super::{Found, raw::Raw, scenario};
use crate::e2e::{Client, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        65,
        "bad_answers",
        heads,
        Events,
        "what is no answer: a GET goes elsewhere, a POST gets 502; nobody is put out"
    ),
    scenario!(
        65,
        "bad_answers",
        heads_in_pieces,
        Events,
        "the same where it comes three bytes at a time"
    )
    .simulated(),
    scenario!(
        65,
        "bad_answers",
        on_a_kept_connection,
        Events,
        "nonsense on a kept connection is a bad answer too, and costs no GET"
    ),
    scenario!(
        65,
        "bad_answers",
        other_protocols,
        Events,
        "who speaks no HTTP/1 and waits for us to speak on is a bad answer at once"
    )
    .simulated(),
    scenario!(
        65,
        "bad_answers",
        chunks,
        Events,
        "an answer whose chunks are nonsense breaks off, and never ends cleanly"
    ),
    scenario!(65, "bad_answers", chunks_in_pieces, Events, "the same where it comes byte by byte")
        .simulated(),
    scenario!(
        65,
        "bad_answers",
        other_codings,
        Events,
        "an answer in another transfer coding is a bad one: its coding would be lost on the way"
    ),
    scenario!(
        65,
        "bad_answers",
        equal_lengths,
        Events,
        "lengths that agree become one, or make a bad answer; no list reaches a client"
    ),
    scenario!(
        65,
        "bad_answers",
        huge_heads,
        Events,
        "a huge head passes or is a bad answer: it never hangs and puts nobody out"
    ),
    scenario!(
        65,
        "bad_answers",
        splitting,
        Events,
        "no line end within a field reaches a client, and one answer stays one"
    ),
];

/// What is no answer, and the reason that a POST is told. The status line: RFC
/// 9112 §4; fields: §5, §5.1, §5.2, RFC 9110 §5.5; lengths: RFC 9112 §6.3; what
/// breaks off: §8.
const HEADS: &[(&str, &str)] = &[
    ("\x16\x03\x01\x02 no HTTP\r\n\r\n", "bad_answer"),
    ("ICY 200 OK\r\n\r\n", "bad_answer"),
    ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 -20 OK\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", "bad_answer"),
    ("HTTP/1.1 200 OK\r\nContent-Le", "server_closed"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "server_closed"),
    ("HTTP/1.1 100 Continue\r\n\r\n", "server_closed"),
    ("H", "server_closed"),
    ("", "server_closed"),
];

/// How TLS, SMTP, SSH and others begin, whose servers then wait (RFC 9112 §4: a status
/// line begins with `HTTP/1.`).
const OTHER_PROTOCOLS: &[&[u8]] = &[
    b"\x15\x03\x01\0\x02\x02\x46",
    b"220 mail ready\r\n",
    b"SSH-2.0-server\r\n",
    b"\0\0\x12\x04\0\0\0\0\0",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n",
    b"http/1.1 200 OK\r\n",
    b"\r\n\r<html>",
];

async fn post(client: &mut Client) -> Result<Reply> {
    Ok(client.send(Request::new("POST", "/").body("once")).await?)
}

/// An answer in one packet, or in as many as there can be.
#[derive(Clone, Copy)]
enum Cut {
    Whole,
    /// So many bytes each.
    Pieces(usize),
}

impl Cut {
    fn raw(self, answer: &str) -> Fault {
        match self {
            Cut::Whole => Fault::RawAnswer(answer.into()),
            Cut::Pieces(size) => {
                let pieces = answer.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
                Fault::RawPieces { pieces, closes: true }
            }
        }
    }
}

async fn heads(w: &mut World) -> Result<()> {
    heads_cut(w, Cut::Whole).await
}

async fn heads_in_pieces(w: &mut World) -> Result<()> {
    heads_cut(w, Cut::Pieces(3)).await
}

async fn heads_cut(w: &mut World, cut: Cut) -> Result<()> {
    refused(w, HEADS.iter().map(|(answer, reason)| (cut.raw(answer), *reason))).await
}

async fn other_protocols(w: &mut World) -> Result<()> {
    let begun = OTHER_PROTOCOLS.iter().map(|begin| Fault::RawKeepAlive(begin.to_vec()));
    refused(w, begun.map(|answer| (answer, "bad_answer"))).await
}

/// A POST is told the reason, a GET goes elsewhere.
async fn refused(
    w: &mut World,
    answers: impl Iterator<Item = (Fault, &'static str)>,
) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for (answer, reason) in answers {
        a.set_fault(answer.clone());
        let reply = post(&mut client).await?;
        ensure!(reply.status == 502, "{answer:?}: a POST got {reply:?}");
        ensure!(reply.header("x-lb-reason") == Some(reason), "{answer:?}: {reply:?}");
        let reply = client.get("/").await?;
        ensure!(reply.backend() == "B", "{answer:?}: B's turn went to {reply:?}");
        let reply = client.get("/").await?;
        ensure!(reply.backend() == "B", "{answer:?}: a GET got {reply:?}");
        let reply = post(&mut client).await?;
        ensure!(reply.backend() == "B", "{answer:?}: B's turn went to {reply:?}");
    }
    Ok(())
}

/// Tries every such answer on whatever balancer the world has, and says which
/// came to the client as if nothing were wrong.
pub(crate) async fn survey(w: &mut World, patience: impl AsyncFn()) -> Result<Vec<Found>> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let heads = HEADS.iter().map(|(answer, _)| ("No answer", (*answer).to_owned()));
    let coded = CODINGS.iter().map(|(coding, body)| {
        ("Other codings", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n{body}"))
    });
    let chunked = CHUNKS.iter().map(|body| {
        ("Chunks", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
    });
    let mut found = Vec::new();
    for (rule, answer) in heads.chain(coded).chain(chunked) {
        a.set_fault(Fault::RawAnswer(answer.clone().into()));
        let mut raw = Raw::connect(w).await?;
        raw.write(
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .await?;
        let got = raw.read_while(patience()).await;
        let wrong = is_whole(got.as_bytes()).then(|| format!("got {got:?}"));
        found.push(Found { case: format!("{answer:?}"), rule, wrong });
    }
    Ok(found)
}

/// Whether this is an answer that a client takes for a good one.
fn is_whole(got: &[u8]) -> bool {
    let Ok(Some(head)) = AnswerHead::parse(got) else { return false };
    let Ok(framing) = head.framing("POST") else { return false };
    let mut decoder = BodyDecoder::new(framing);
    let decoded = decoder.decode(&got[head.len..], &mut Vec::new());
    head.status < 400 && decoded.is_ok() && (decoder.is_done() || decoder.end().is_ok())
}

async fn on_a_kept_connection(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for _ in 0..3 {
        ensure!(client.get("/").await?.status == 200, "before");
        a.arm(Fault::Garbage, 1);
        ensure!(client.get("/").await?.status == 200, "repeated on a fresh connection");
        a.arm(Fault::Garbage, 1);
        let reply = post(&mut client).await?;
        ensure!(reply.status == 502, "a POST got {reply:?}");
        let reason = reply.header("x-lb-reason");
        ensure!(reason == Some("bad_answer"), "the reason is {reason:?}, expected bad_answer");
    }
    Ok(())
}

/// What are no chunks, or not all: RFC 9112 §7.1 and §8.
const CHUNKS: &[&str] = &[
    "x\r\nok\r\n0\r\n\r\n",
    "-2\r\nok\r\n0\r\n\r\n",
    "2\r\nokay\r\n0\r\n\r\n",
    "2\r\nok0\r\n\r\n",
    "2\r\nok\r\n",
    "2\r\nok\r\n0\r\n",
    "3\r\nok",
    "fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "\r\n2\r\nok\r\n0\r\n\r\n",
    "",
];

async fn chunks(w: &mut World) -> Result<()> {
    chunks_cut(w, Cut::Whole).await
}

async fn chunks_in_pieces(w: &mut World) -> Result<()> {
    chunks_cut(w, Cut::Pieces(1)).await
}

async fn chunks_cut(w: &mut World, cut: Cut) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for body in CHUNKS {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        a.set_fault(cut.raw(&answer));
        for request in [Request::new("GET", "/"), Request::new("GET", "/").http10()] {
            let got = w.client("c")?.send(request).await;
            match &got {
                Ok(reply) if reply.status == 502 => {}
                // The head may not have been written yet.
                Err(ClientError::Truncated { status: 200, .. } | ClientError::NoAnswer(_)) => {}
                _ => anyhow::bail!("{body:?}: expected a break or 502, got {got:?}"),
            }
        }
    }
    Ok(())
}

/// Transfer codings that `lb` would have to undo: RFC 9112 §6.1 and §7.
const CODINGS: &[(&str, &str)] = &[
    ("gzip, chunked", "2\r\nok\r\n0\r\n\r\n"),
    ("gzip", "ok"),
    ("chunked, gzip", "2\r\nok\r\n0\r\n\r\n"),
    ("xchunked", "ok"),
];

async fn other_codings(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for (coding, body) in CODINGS {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n{body}");
        a.set_fault(Fault::RawAnswer(answer.into()));
        let reply = post(&mut client).await?;
        ensure!(reply.status == 502, "{coding}: a POST got {reply:?}");
        ensure!(post(&mut client).await?.backend() == "B", "{coding}: B's turn");
    }
    Ok(())
}

/// RFC 9110 §8.6, RFC 9112 §6.3.
async fn equal_lengths(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for lengths in ["Content-Length: 2\r\nContent-Length: 2\r\n", "Content-Length: 2, 2\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\nok");
        a.arm(Fault::RawAnswer(answer.into()), 1);
        // The client refuses anything but one number.
        let reply = client.send(Request::new("POST", "/").body("once")).await;
        let reply = reply.with_context(|| format!("{lengths:?}"))?;
        ensure!(reply.status == 502 || reply.body == b"ok", "{lengths:?}: {reply:?}");
    }
    Ok(())
}

async fn huge_heads(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for size in [10_000, 100_000, 1 << 20, 4 << 20] {
        a.set_fault(Fault::HugeHead(size));
        let reply = post(&mut client).await?;
        match reply.status {
            200 => ensure!(reply.header("x-huge").is_some_and(|v| v.len() == size), "{size}"),
            502 => ensure!(reply.header("x-lb-reason").is_some(), "{size}: {reply:?}"),
            other => anyhow::bail!("{size}: a POST got {other}"),
        }
        // Small ones pass, and the largest never do.
        ensure!(size > 10_000 || reply.status == 200, "{size}: a POST got {}", reply.status);
        ensure!(size < 1 << 20 || reply.status == 502, "{size}: a POST got {}", reply.status);
        let passes = reply.status == 200;
        for server in ["B", if passes { "A" } else { "B" }, "B"] {
            let reply = client.get("/").await?;
            ensure!(reply.status == 200 && reply.backend() == server, "{size}: {}", reply.status);
        }
    }
    Ok(())
}

/// RFC 9112 §2.2 and §11.1, RFC 9110 §5.5.
async fn splitting(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    for evil in [
        "X-A: a\rX-B: b",
        "X-A: a\nX-B: b",
        "X-A: a\n\nHTTP/1.1 200 OK",
        "X-A: a\r\rHTTP/1.1 200 OK\r\r",
        "X-A: a\0\r\nX-B: b",
        "X-A: a\x0b\x0cb",
        "X-A: a\u{10a}\u{10d}b",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{evil}\r\nContent-Length: 2\r\n\r\nok");
        a.set_fault(Fault::RawAnswer(answer.into()));
        for _ in 0..2 {
            let mut raw = Raw::connect(w).await?;
            raw.write("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
            let got = raw.answer("GET").await?;
            let broken = |line: &str| line.contains(['\r', '\n', '\0']);
            ensure!(!got.text.split("\r\n").any(broken), "{evil:?}: {:?}", got.text);
            let rest = raw.rest().await?;
            ensure!(rest.is_empty(), "{evil:?}: a second answer {rest:?} behind {:?}", got.text);
        }
    }
    Ok(())
}
