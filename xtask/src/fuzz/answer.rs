//! From the bytes of a server to those at the client.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use testbed::{body::BodyDigest, fault::Fault};

use super::exchange::{Answer, cut, seed};
use crate::sim::{Exchange, Next, Outcome};

/// Whatever a server answers: the client gets one answer that it can read in
/// one way, that very answer if it has one meaning; and the next request on the
/// connection gets its own.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut random = Rng::with_seed(seed(bytes));
    let method = ["GET", "HEAD", "POST"][random.usize(..3)];
    let closes = random.bool();
    let outcome = ask(bytes, method, closes, &mut random)?;
    let mut rest = &outcome.read[..];
    let got = Answer::take(&mut rest, method, true)?.context("no answer")?;
    if let (Some(meant), false) = (meant(bytes, method, closes), got.is_lbs()) {
        ensure!(
            got.head.status == meant.head.status,
            "status {} {}",
            meant.head.status,
            got.head.status
        );
        ensure!(
            got.is_whole && got.body == meant.body,
            "another body: {got_body:?}",
            got_body = got.body
        );
    }
    let Some(first) = outcome.first else {
        ensure!(rest.is_empty(), "behind the answer: {:?}", String::from_utf8_lossy(rest));
        return Ok(());
    };
    let end = outcome.read.len() - rest.len();
    ensure!(end == first, "an answer of {end} bytes came with {} more", first - end);
    judge_second(rest)
}

fn ask(bytes: &[u8], method: &str, closes: bool, random: &mut Rng) -> Result<Outcome> {
    let pieces = cut(bytes, random).into_iter().map(<[u8]>::to_vec).collect();
    let fault = Fault::RawPieces { pieces, closes };
    let head = format!("{method} /first HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let is_whole = |read: &[u8]| {
        let mut rest = read;
        let answer = Answer::take(&mut rest, method, false);
        answer.is_ok_and(|answer| answer.is_some_and(|answer| answer.is_whole))
    };
    let second = b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    Exchange {
        pieces: cut(head.as_bytes(), random),
        finishes: false,
        fault,
        next: Some(Next { when: &is_whole, bytes: second }),
    }
    .carry_out(seed(bytes))
}

/// The answer in `bytes`, if nobody can read it in two ways. It may end with the
/// connection where the server closes that.
fn meant(bytes: &[u8], method: &str, closes: bool) -> Option<Answer> {
    let mut rest = bytes;
    let answer = Answer::take(&mut rest, method, closes).ok()??;
    (answer.is_whole && answer.head.status != 101).then_some(answer)
}

/// What follows the first answer is the server's answer to the second request,
/// or the end.
fn judge_second(mut rest: &[u8]) -> Result<()> {
    let Some(answer) = Answer::take(&mut rest, "GET", true)? else {
        ensure!(rest.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(rest));
        return Ok(());
    };
    let promised = answer.head.fields.get("x-body").context("not the server's answer")?;
    ensure!(answer.head.status == 200, "the second request got {}", answer.head.status);
    ensure!(promised.parse::<BodyDigest>()? == BodyDigest::of(&answer.body), "another's body");
    ensure!(rest.is_empty(), "behind the second answer: {:?}", String::from_utf8_lossy(rest));
    Ok(())
}
