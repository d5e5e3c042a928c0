//! Chunked bodies, up and down.

use anyhow::{Result, ensure};
use fastrand::Rng;
use testbed::{
    body::BodyDigest,
    fault::Fault,
    http1::{body::BodyDecoder, head::Framing},
};

use super::exchange::{Answer, arrivals, cut, seed};
use crate::{
    sim::{Exchange, Outcome},
    strict,
};

/// Whatever stands where chunks should: what arrives whole is what was meant,
/// if that has one meaning, and what was not whole never arrives as if it were.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut random = Rng::with_seed(seed(bytes));
    let meant = meant(bytes);
    up(bytes, meant.as_ref(), &mut random)?;
    down(bytes, meant.as_ref(), &mut random)
}

/// What chunks can be.
enum Meant {
    /// This body, and nothing behind it.
    Whole(Vec<u8>),
    /// The beginning of a body.
    Unfinished,
}

/// The body of which `bytes` are the chunks; none if a tolerant reader may find
/// another one.
fn meant(bytes: &[u8]) -> Option<Meant> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut rest = bytes;
    let body = strict::take_body(&mut decoder, &mut rest).ok()?;
    match (decoder.is_done(), rest.is_empty()) {
        (true, true) => Some(Meant::Whole(body)),
        (false, _) => Some(Meant::Unfinished),
        (true, false) => None,
    }
}

fn up(bytes: &[u8], meant: Option<&Meant>, random: &mut Rng) -> Result<()> {
    let head = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sent = [head, bytes].concat();
    let pieces = cut(&sent, random);
    let exchange = Exchange { pieces, finishes: true, fault: Fault::None, next: None };
    let Outcome { events, .. } = exchange.carry_out(seed(bytes))?;
    let arrivals = arrivals(&events)?;
    let Some(got) = arrivals.first().and_then(|arrival| arrival.body) else { return Ok(()) };
    match meant {
        Some(Meant::Whole(body)) => {
            ensure!(got == BodyDigest::of(body), "up: {} became {got}", BodyDigest::of(body));
        }
        Some(Meant::Unfinished) => anyhow::bail!("up: half a body arrived as {got}"),
        None => {}
    }
    Ok(())
}

fn down(bytes: &[u8], meant: Option<&Meant>, random: &mut Rng) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request =
        b"POST /down HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let exchange = Exchange {
        pieces: cut(request, random),
        finishes: false,
        fault: Fault::RawAnswer([head, bytes].concat()),
        next: None,
    };
    let Outcome { read, .. } = exchange.carry_out(seed(bytes))?;
    let mut rest = &read[..];
    let got = Answer::take(&mut rest, "POST", true)?;
    ensure!(rest.is_empty(), "down: behind the answer: {:?}", String::from_utf8_lossy(rest));
    let Some(got) = got.filter(|got| got.is_whole && !got.is_lbs()) else { return Ok(()) };
    match meant {
        Some(Meant::Whole(body)) => ensure!(got.body == *body, "down: another body"),
        Some(Meant::Unfinished) => anyhow::bail!("down: half a body ended well"),
        None => {}
    }
    Ok(())
}
