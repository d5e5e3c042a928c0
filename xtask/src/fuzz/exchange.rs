//! What the fuzz targets have in common that send bytes through `lb`.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use testbed::{
    body::BodyDigest,
    http1::{
        body::BodyDecoder,
        head::{AnswerHead, RequestHead},
    },
    log::{Event, EventKind},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::strict;

/// Where everything random comes from that `bytes` do not say: from `bytes`.
pub(super) fn seed(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// `bytes` in up to four pieces, cut anywhere.
pub(super) fn cut<'a>(bytes: &'a [u8], random: &mut Rng) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> =
        (0..random.usize(..4)).map(|_| random.usize(..=bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).filter(|piece| !piece.is_empty()).collect()
}

/// One answer as a client takes it out of what it reads.
pub(super) struct Answer {
    pub(super) head: AnswerHead,
    pub(super) body: Vec<u8>,
    /// Whether all of it is there.
    pub(super) is_whole: bool,
}

impl Answer {
    /// Whether `lb` said it itself.
    pub(super) fn is_lbs(&self) -> bool {
        self.head.fields.get("x-lb-reason").is_some()
    }

    /// Takes the next final answer to a request of this method out of `bytes`,
    /// and the interim ones before it; none if there is no whole head.
    /// `is_over` says that nothing more comes.
    ///
    /// # Errors
    /// It is not what may be sent.
    pub(super) fn take(bytes: &mut &[u8], method: &str, is_over: bool) -> Result<Option<Answer>> {
        loop {
            let Some(head) = strict::first_head(bytes) else { return Ok(None) };
            *bytes = &bytes[head.len()..];
            let head = strict::agreed_answer(head)
                .with_context(|| format!("answered {:?}", String::from_utf8_lossy(head)))?;
            if head.is_interim() {
                continue;
            }
            let mut decoder = BodyDecoder::new(head.framing(method)?);
            let body = strict::take_body(&mut decoder, bytes)?;
            let is_whole = decoder.is_done() || is_over && decoder.end().is_ok();
            return Ok(Some(Answer { head, body, is_whole }));
        }
    }
}

/// A request as the server got it.
pub(super) struct Arrival {
    pub(super) method: String,
    pub(super) target: String,
    /// Its `Host`, if it has one.
    pub(super) host: Option<String>,
    /// Its body; none if it never came to its end.
    pub(super) body: Option<BodyDigest>,
}

impl Arrival {
    pub(super) fn of(head: RequestHead, body: Option<BodyDigest>) -> Self {
        let host = head.fields.get("host").map(str::to_owned);
        Arrival { method: head.method.to_string(), target: head.target, host, body }
    }
}

/// The requests that arrived at the server, of which each head is read in one
/// way only.
///
/// # Errors
/// Two parsers differ about one.
pub(super) fn arrivals(events: &[Event]) -> Result<Vec<Arrival>> {
    let mut arrivals: Vec<Arrival> = Vec::new();
    for event in events {
        match &event.kind {
            EventKind::Received { head, .. } => {
                let head = strict::agreed_request(head)
                    .with_context(|| format!("forwarded {:?}", String::from_utf8_lossy(head)))?;
                arrivals.push(Arrival::of(head, None));
            }
            EventKind::Executed { body, .. } => {
                let last = arrivals.last_mut().context("executed before it arrived")?;
                ensure!(last.body.is_none(), "executed twice");
                last.body = Some(*body);
            }
            _ => {}
        }
    }
    Ok(arrivals)
}
