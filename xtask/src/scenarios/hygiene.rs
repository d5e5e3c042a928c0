//! Requests that mean something else to the next parser.
//!
//! Each case is the bytes of one connection. Whatever `lb` makes of them: a
//! status that is allowed, a reason with every refusal, the connection closed
//! after it, nothing forwarded that was refused, and what was forwarded means
//! the same to two parsers.

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use testbed::log::{Event, EventKind};

use super::{
    Found,
    raw::{Raw, ask, expect_refusal},
    scenario,
};
use crate::{
    e2e::{Scenario, World},
    strict,
};

mod cases;

use cases::{Case, Forwarded, GROUPS};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        63,
        "hygiene",
        raw_requests,
        Events,
        "156 ambiguous requests: refused with a reason, or forwarded so that two parsers agree"
    )
    .simulated(),
    scenario!(
        63,
        "hygiene",
        raw_requests_byte_by_byte,
        Events,
        "the same when each byte comes by itself"
    )
    .simulated(),
    scenario!(
        63,
        "hygiene",
        raw_requests_cut_anywhere,
        Events,
        "the same when they are cut in two at random, behind a request that is in order"
    )
    .simulated(),
    scenario!(
        63,
        "hygiene",
        authority_as_target,
        Events,
        "a target that is an authority is CONNECT's alone: 400, and it never becomes the Host"
    )
    .simulated(),
];

/// How the bytes of a case come.
#[derive(Clone, Copy)]
enum Pieces {
    Whole,
    Bytes,
    /// In two, cut at random. The first one has a whole request before it.
    Two,
}

async fn raw_requests(w: &mut World) -> Result<()> {
    try_all(w, Pieces::Whole).await
}

async fn raw_requests_byte_by_byte(w: &mut World) -> Result<()> {
    try_all(w, Pieces::Bytes).await
}

async fn raw_requests_cut_anywhere(w: &mut World) -> Result<()> {
    try_all(w, Pieces::Two).await
}

/// All cases, and the rule that decides each.
fn cases() -> impl Iterator<Item = (&'static str, &'static Case)> {
    GROUPS.iter().flat_map(|group| group.cases.iter().map(|case| (group.rule, case)))
}

async fn try_all(w: &mut World, pieces: Pieces) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    w.backends(["A", "B"]).await?;
    // What stops is waited for, and only where no pieces come slowly.
    let whole = matches!(pieces, Pieces::Whole);
    let patience = if whole { "300ms" } else { "10s" };
    w.balance(&["--head-timeout", patience, "--body-timeout", patience]).await?;
    let before = usize::from(matches!(pieces, Pieces::Two));
    let mut random = Rng::with_seed(63);
    let mut wrong = Vec::new();
    for (number, (rule, case)) in cases().enumerate() {
        if case.allowed.contains(&408) && !whole {
            continue;
        }
        let target = format!("/case/{number}");
        let bytes = case.bytes(&target);
        let mark = w.log.len();
        let cut = random.usize(..=bytes.len());
        let judged = match send(w, &bytes, pieces, cut).await {
            Ok(answer) => judge(w, case, (mark, &target), before, &answer),
            Err(error) => Err(error),
        };
        if let Err(error) = judged {
            let sent = String::from_utf8_lossy(&bytes);
            wrong.push(format!("{}: {sent:?}, cut at {cut}: {error:#}; {rule}", case.name));
        }
    }
    ensure!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Tries every case on whatever balancer the world has, and says what came of
/// each. Who closes is read to the end, others for as long as `patience` takes.
pub(crate) async fn survey(w: &mut World, patience: impl AsyncFn()) -> Result<Vec<Found>> {
    w.expect_errors();
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut found = Vec::new();
    for (number, (rule, case)) in cases().enumerate() {
        let target = format!("/case/{number}");
        let mark = w.log.len();
        let mut raw = Raw::connect(w).await?;
        // Whoever answers before the end may close as well.
        let _ = raw.write(case.bytes(&target)).await;
        let wrong = match raw.read_while(patience()).await {
            answer if answer.is_empty() && case.allowed.contains(&408) => None,
            answer => judge(w, case, (mark, &target), 0, &answer).err(),
        };
        let wrong = wrong.map(|error| format!("{error:#}"));
        found.push(Found { case: case.name.to_owned(), rule, wrong });
    }
    Ok(found)
}

/// Sends a case on a connection of its own, and reads until it is closed.
async fn send(w: &mut World, bytes: &[u8], pieces: Pieces, cut: usize) -> Result<String> {
    let mut raw = match pieces {
        Pieces::Whole => return ask(w, bytes).await,
        Pieces::Bytes | Pieces::Two => Raw::connect(w).await?,
    };
    // Whoever answers before the end may close as well.
    match pieces {
        Pieces::Two => {
            let (before, after) = bytes.split_at(cut);
            let first = b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n";
            raw.write([first, before].concat()).await?;
            ensure!(raw.answer("GET").await?.head.status == 200, "the request before it");
            let _ = raw.write(after).await;
        }
        _ => drop(raw.write_in_pieces(bytes, 1).await),
    }
    raw.rest().await
}

async fn authority_as_target(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for target in ["case", "other.example", "other:80", "127.0.0.1:80"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        expect_refusal(&ask(w, &request).await?, 400, "bad_request").context(request)?;
    }
    ensure!(w.arrivals("GET") == 0, "forwarded all the same");
    Ok(())
}

/// Judges what came back and, since `mark`, what went on to `target`, behind so
/// many requests `before` it.
fn judge(
    w: &World,
    case: &Case,
    (mark, target): (u64, &str),
    before: usize,
    answer: &str,
) -> Result<()> {
    let status: u16 = match answer.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)) {
        Some(digits) => digits.parse()?,
        None => bail!("no answer but {answer:?}"),
    };
    ensure!(case.allowed.contains(&status), "expected {:?}, got {answer:?}", case.allowed);
    let heads = answer.matches("HTTP/1.1 ").count() + answer.matches("HTTP/1.0 ").count();
    ensure!(heads == 1, "{heads} answers: {answer:?}");
    let lower = answer.to_ascii_lowercase();
    // What everybody else says of a refusal is their own affair.
    if status >= 400 && w.is_ours() {
        ensure!(lower.contains("\r\nx-lb-reason: "), "no reason in {answer:?}");
        ensure!(lower.contains("\r\nconnection: close\r\n"), "not closed: {answer:?}");
    }
    let events = w.log.events_from(mark);
    let executed = events.iter().filter(|e| matches!(e.kind, EventKind::Executed { .. })).count();
    let expected = before + usize::from(status < 400);
    ensure!(executed == expected, "executed {executed} times, expected {expected}: {answer:?}");
    let forwarded: Vec<&[u8]> =
        events.iter().filter(|event| !is_late(event, target)).filter_map(forwarded_head).collect();
    match (status, case.forwarded) {
        (..400, _) => ensure!(forwarded.len() == 1, "forwarded {} heads", forwarded.len()),
        (_, Forwarded::PerhapsItsHead) => {}
        _ => ensure!(forwarded.is_empty(), "refused, and forwarded all the same"),
    }
    for head in forwarded {
        let head = strict::agreed_request(head)
            .with_context(|| format!("forwarded {:?}", String::from_utf8_lossy(head)))?;
        let got = head.target;
        ensure!(got == target, "forwarded a request for {got:?}, expected {target:?}");
    }
    Ok(())
}

/// Whether an event is about an earlier case, whose head may be forwarded: the
/// client may know of the refusal before the server knows of the request.
fn is_late(event: &Event, target: &str) -> bool {
    let EventKind::Received { target: other, .. } = &event.kind else { return false };
    let number = other.strip_prefix("/case/").and_then(|number| number.parse::<usize>().ok());
    let case = number.and_then(|number| cases().nth(number));
    let late = |(_, case): (_, &Case)| case.forwarded == Forwarded::PerhapsItsHead;
    other == "/before" || other != target && case.is_some_and(late)
}

fn forwarded_head(event: &Event) -> Option<&[u8]> {
    match &event.kind {
        EventKind::Received { head, .. } => Some(head),
        _ => None,
    }
}
