//! From the bytes of a client to those at the server, and back.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use testbed::{
    body::BodyDigest,
    fault::Fault,
    http1::{
        body::BodyDecoder,
        head::{Framing, RequestHead},
    },
};

use super::exchange::{Answer, Arrival, arrivals, cut, seed};
use crate::{
    sim::{Exchange, Outcome},
    strict,
};

/// Whatever a client writes, in whatever pieces: what is forwarded is what it
/// wrote as far as that has one meaning, each executed request has one answer,
/// and a refusal is the last.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut random = Rng::with_seed(seed(bytes));
    let pieces = cut(bytes, &mut random);
    let finishes = random.bool();
    let exchange = Exchange { pieces, finishes, fault: Fault::None, next: None };
    let outcome = exchange.carry_out(seed(bytes))?;
    let arrivals = arrivals(&outcome.events)?;
    for (meant, got) in meant(bytes).iter().zip(&arrivals) {
        compare(meant, got)?;
    }
    let read =
        || format!("read {:?}, finishes: {finishes}", String::from_utf8_lossy(&outcome.read));
    judge_answers(&outcome, &arrivals, finishes).with_context(read)
}

/// The requests at the beginning of `bytes` that nobody can read in two ways.
fn meant(mut bytes: &[u8]) -> Vec<Arrival> {
    let mut meant = Vec::new();
    while let Some(head) = strict::first_head(bytes) {
        let Ok(read) = strict::agreed_request(head) else { break };
        bytes = &bytes[head.len()..];
        let body = body_of(&read, &mut bytes);
        let is_last = body.is_none();
        meant.push(Arrival::of(read, body));
        if is_last {
            break;
        }
    }
    meant
}

/// The body behind `head`; none if it is not whole, or none at all.
fn body_of(head: &RequestHead, bytes: &mut &[u8]) -> Option<BodyDigest> {
    // A coding is HTTP/1.1's (RFC 9112 §6.1).
    if head.framing == Framing::Chunked && head.minor_version == 0 {
        return None;
    }
    let mut decoder = BodyDecoder::new(head.framing);
    let body = strict::take_body(&mut decoder, bytes).ok()?;
    decoder.is_done().then(|| BodyDigest::of(&body))
}

fn compare(meant: &Arrival, got: &Arrival) -> Result<()> {
    ensure!(meant.method == got.method, "{} became {}", meant.method, got.method);
    // An absolute target loses its authority on the way, which becomes the Host.
    if meant.target.starts_with('/') {
        ensure!(meant.target == got.target, "{} became {}", meant.target, got.target);
        ensure!(meant.host == got.host, "Host {:?} became {:?}", meant.host, got.host);
    }
    if let (Some(meant), Some(got)) = (meant.body, got.body) {
        ensure!(meant == got, "body {meant} became {got}");
    }
    Ok(())
}

/// A client that ends its direction may be taken for one that is gone.
fn judge_answers(outcome: &Outcome, arrivals: &[Arrival], finishes: bool) -> Result<()> {
    let mut rest = &outcome.read[..];
    let executed = arrivals.iter().filter(|arrival| arrival.body.is_some());
    for arrival in executed {
        let answer = Answer::take(&mut rest, &arrival.method, true)?;
        if finishes && answer.is_none() {
            return Ok(());
        }
        let whole = answer.is_some_and(|answer| answer.is_whole && !answer.is_lbs());
        ensure!(whole, "{} {} was executed and not answered", arrival.method, arrival.target);
    }
    // Half a head is no answer, and none was sent.
    if let Some(refusal) = Answer::take(&mut rest, "", true)? {
        ensure!(refusal.is_lbs(), "an answer that nobody asked for: {:?}", refusal.head);
        ensure!(refusal.head.fields.lists("connection", "close"), "a refusal that goes on");
    }
    ensure!(rest.is_empty(), "behind the last answer: {:?}", String::from_utf8_lossy(rest));
    Ok(())
}
