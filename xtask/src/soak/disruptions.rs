//! What was done to servers, and which errors of clients that excuses.
//!
//! Owns the limits of what `lb` promises (README: what happens when a server
//! dies). An error that nothing here excuses is `lb`'s fault.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use testbed::ledger::is_idempotent;
use tokio::time::Instant;

/// The largest body that `lb` keeps to send it again.
const KEPT_BODY: u64 = 64 * 1024;

/// How many servers a request that can be repeated is sent to.
const TRIES: usize = 3;

/// For how long after it is over a disruption may still be met: connections that
/// it has broken lie in pools.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What a disruption does to the requests that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// None that a client may notice.
    None,
    /// They get no answer.
    Cuts,
    /// They get none, or one that breaks off.
    Truncates,
    /// They get this status.
    Says(u16),
}

#[derive(Clone, Copy, Debug)]
struct Disruption {
    server: &'static str,
    effect: Effect,
    from: Duration,
    /// None while it lasts.
    until: Option<Duration>,
}

/// All disruptions of a run, in its time; clones share them.
#[derive(Clone)]
pub(super) struct Disruptions {
    began: Instant,
    all: Arc<Mutex<Vec<Disruption>>>,
}

/// A disruption that lasts until it is dropped.
#[must_use = "it ends when it is dropped"]
pub(super) struct Lasting {
    of: Disruptions,
    place: usize,
}

/// What is known of a request that came to no good answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss<'a> {
    pub(super) method: &'a str,
    pub(super) body_bytes: u64,
    pub(super) began: Duration,
    pub(super) ended: Duration,
    pub(super) outcome: Outcome<'a>,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome<'a> {
    /// An answer by this server; by `lb` itself if there is none.
    Answer { status: u16, server: Option<&'a str> },
    /// The answer of this server broke off.
    BrokeOff { server: Option<&'a str> },
    /// It did not come to an end in the client's time.
    Stalled,
    /// The connection was refused, or ended without an answer.
    Nothing,
    /// The client itself went away.
    Abandoned,
}

impl Disruptions {
    /// None so far; the run begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), all: Arc::default() }
    }

    /// How long the run has lasted.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something is about to be done to `server`.
    pub(super) fn begin(&self, server: &'static str, effect: Effect) -> Lasting {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Disruption { server, effect, from: self.now(), until: None });
        Lasting { of: self.clone(), place: all.len() - 1 }
    }

    /// Why it is nobody's fault; none if it is `lb`'s.
    pub(super) fn excuse(&self, loss: &Loss<'_>) -> Option<&'static str> {
        let met = self.met_by(loss);
        let broken = |effect| matches!(effect, Effect::Cuts | Effect::Truncates);
        match loss.outcome {
            Outcome::Abandoned => Some("the client went away"),
            Outcome::Nothing | Outcome::Stalled => None,
            Outcome::BrokeOff { server } => {
                let cut = |met: &Disruption| {
                    met.effect == Effect::Truncates && Some(met.server) == server
                };
                let cut = met.iter().any(cut);
                cut.then_some("its server broke off in the middle of the answer")
            }
            Outcome::Answer { status, server: Some(server) } => {
                let said = |met: &&Disruption| met.server == server;
                let said = met.iter().filter(said).any(|met| met.effect == Effect::Says(status));
                said.then_some("its server answered so")
            }
            Outcome::Answer { status: 502, server: None } => {
                let lost = met.iter().filter(|met| broken(met.effect)).map(|met| met.server);
                let lost = lost.collect::<BTreeSet<_>>().len();
                let once = !is_idempotent(loss.method) || loss.body_bytes > KEPT_BODY;
                match once {
                    true if lost > 0 => Some("it could not be repeated when its server broke"),
                    false if lost >= TRIES => Some("as many servers as it may try broke"),
                    _ => None,
                }
            }
            Outcome::Answer { .. } => None,
        }
    }

    /// What it may have met on its way.
    fn met_by(&self, loss: &Loss<'_>) -> Vec<Disruption> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let met = |disruption: &&Disruption| {
            let over = disruption.until.map(|until| until + AFTERMATH);
            disruption.from <= loss.ended && over.is_none_or(|over| over >= loss.began)
        };
        all.iter().filter(met).copied().collect()
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let now = self.of.now();
        let mut all = self.of.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(disruption) = all.get_mut(self.place) {
            disruption.until = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Outcome<'_> = Outcome::Answer { status: 502, server: None };

    fn loss<'a>(method: &'a str, began: u64, outcome: Outcome<'a>) -> Loss<'a> {
        let [began, ended] = [began, began + 1].map(Duration::from_secs);
        Loss { method, body_bytes: 5, began, ended, outcome }
    }

    /// Each lasts from second 10 to second 20.
    fn disruptions(all: &[(&'static str, Effect)]) -> Disruptions {
        let disruptions = Disruptions::new();
        for (server, effect) in all {
            let (from, until) = (Duration::from_secs(10), Some(Duration::from_secs(20)));
            let one = Disruption { server, effect: *effect, from, until };
            disruptions.all.lock().unwrap().push(one);
        }
        disruptions
    }

    #[test]
    fn only_what_was_under_way_meanwhile_is_excused() {
        let one = disruptions(&[("A", Effect::Cuts)]);
        for (began, excused) in [(5, false), (9, true), (15, true), (21, true), (22, false)] {
            assert_eq!(one.excuse(&loss("POST", began, REFUSED)).is_some(), excused, "{began}");
        }
    }

    #[test]
    fn what_can_be_repeated_is_lost_with_three_servers_only() {
        let [a, b, c] = ["A", "B", "C"].map(|server| (server, Effect::Cuts));
        for (broken, excused) in [(&[a, b, b, b][..], false), (&[a, b, c], true)] {
            let loss = loss("GET", 15, REFUSED);
            assert_eq!(disruptions(broken).excuse(&loss).is_some(), excused);
        }
        let large = Loss { body_bytes: KEPT_BODY + 1, ..loss("PUT", 15, REFUSED) };
        assert!(disruptions(&[a]).excuse(&large).is_some());
    }

    #[test]
    fn each_effect_excuses_its_own() {
        let all = disruptions(&[("A", Effect::Says(500)), ("B", Effect::Cuts)]);
        let answer = |status, server| Outcome::Answer { status, server };
        for (outcome, excused) in [
            (answer(500, Some("A")), true),
            (answer(500, Some("B")), false),
            (answer(503, None), false),
            (Outcome::BrokeOff { server: Some("A") }, false),
            (Outcome::Nothing, false),
            (Outcome::Stalled, false),
            (Outcome::Abandoned, true),
        ] {
            let got = all.excuse(&loss("GET", 15, outcome));
            assert_eq!(got.is_some(), excused, "{outcome:?}: {got:?}");
        }
        let cut = disruptions(&[("A", Effect::Truncates)]);
        for (server, excused) in [(Some("A"), true), (Some("B"), false), (None, false)] {
            let got = cut.excuse(&loss("GET", 15, Outcome::BrokeOff { server }));
            assert_eq!(got.is_some(), excused, "{server:?}");
        }
    }
}
