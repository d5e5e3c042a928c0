//! Chunked bodies, up and down.

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use testbed::{
    body::BodyDigest,
    fault::Fault,
    http1::{body::BodyDecoder, head::Framing},
};

use super::exchange::{Answer, arrivals, cut, seed};
use crate::sim::{Exchange, Outcome};

/// Whatever stands where chunks should: what arrives whole is what was meant,
/// if that has one meaning, and what was not whole never arrives as if it were.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let mut random = Rng::with_seed(seed(bytes));
    let meant = meant(bytes);
    up(bytes, &meant, &mut random)?;
    down(bytes, &meant, &mut random)
}

/// What chunks can be.
enum Meant {
    /// This body and nothing behind it; whether nobody may refuse it.
    Whole(Vec<u8>, bool),
    /// All chunks, and something behind them that may be read in several ways.
    Open,
    /// The beginning of a body, or none at all.
    Nothing,
}

/// The body of which `bytes` are the chunks: to the letter, but for blanks behind
/// a size, which many tolerate (RFC 9112 §7.1.1 has them before an extension).
fn meant(bytes: &[u8]) -> Meant {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut body, mut rest) = (Vec::new(), bytes);
    while let Some((size, line)) = take_size(&mut rest) {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let data = if size == 0 { 0 } else { length.saturating_add(2).min(rest.len()) };
        let chunk = [&line, &rest[..data]].concat();
        rest = &rest[data..];
        if decoder.decode(&chunk, &mut body).is_err() {
            return Meant::Nothing;
        }
        if size == 0 {
            return match decoder.decode(rest, &mut body) {
                Ok(used) if decoder.is_done() && used == rest.len() => {
                    Meant::Whole(body, is_plain(bytes))
                }
                // Lines may end in LF alone (RFC 9112 §2.2).
                _ if rest.contains(&b'\n') => Meant::Open,
                _ => Meant::Nothing,
            };
        }
    }
    Meant::Nothing
}

/// Whether `bytes` are chunks to the letter without trailers: those have limits.
fn is_plain(bytes: &[u8]) -> bool {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let used = decoder.decode(bytes, &mut Vec::new());
    used.is_ok_and(|used| used == bytes.len())
        && decoder.is_done()
        && decoder.trailers().0.is_empty()
}

/// The size of the next chunk, and its line without blanks and extensions.
fn take_size(rest: &mut &[u8]) -> Option<(u64, Vec<u8>)> {
    let end = rest.windows(2).position(|two| two == b"\r\n")? + 2;
    let line = &rest[..end];
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let blanks = line[digits..].iter().take_while(|byte| b" \t".contains(byte)).count();
    let size = u64::from_str_radix(str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
    // What is in an extension matters to nobody, as it is dropped.
    let behind = match &line[digits + blanks..end - 2] {
        [b';', extension @ ..] if !extension.contains(&b'\r') && !extension.contains(&b'\n') => b"",
        other => other,
    };
    let line = [&line[..digits], behind, b"\r\n"].concat();
    *rest = &rest[end..];
    Some((size, line))
}

fn up(bytes: &[u8], meant: &Meant, random: &mut Rng) -> Result<()> {
    let head = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sent = [head, bytes].concat();
    let pieces = cut(&sent, random);
    let exchange = Exchange { pieces, finishes: false, fault: Fault::None, next: None };
    let Outcome { events, .. } = exchange.carry_out(seed(bytes))?;
    let arrivals = arrivals(&events)?;
    let Some(got) = arrivals.first().and_then(|arrival| arrival.body) else {
        ensure!(!matches!(meant, Meant::Whole(_, true)), "up: the body never arrived");
        return Ok(());
    };
    match meant {
        Meant::Whole(body, _) => {
            ensure!(got == BodyDigest::of(body), "up: {} became {got}", BodyDigest::of(body));
        }
        Meant::Nothing => bail!("up: what is no body arrived as {got}"),
        Meant::Open => {}
    }
    Ok(())
}

fn down(bytes: &[u8], meant: &Meant, random: &mut Rng) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request =
        b"POST /down HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let sent = [head, bytes].concat();
    let pieces = cut(&sent, random).into_iter().map(<[u8]>::to_vec).collect();
    let exchange = Exchange {
        pieces: cut(request, random),
        finishes: false,
        fault: Fault::RawPieces { pieces, closes: true },
        next: None,
    };
    let Outcome { read, .. } = exchange.carry_out(seed(bytes))?;
    let mut rest = &read[..];
    let got = Answer::take(&mut rest, "POST", true)?;
    ensure!(rest.is_empty(), "down: behind the answer: {:?}", String::from_utf8_lossy(rest));
    let Some(got) = got.filter(|got| got.is_whole && !got.is_lbs()) else {
        ensure!(!matches!(meant, Meant::Whole(_, true)), "down: the body never arrived");
        return Ok(());
    };
    match meant {
        Meant::Whole(body, _) => ensure!(got.body == *body, "down: another body"),
        Meant::Nothing => bail!("down: what is no body ended well"),
        Meant::Open => {}
    }
    Ok(())
}
