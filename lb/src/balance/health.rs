//! What is observed of one server, and the evidence that changes it.
//!
//! Owns the rise and fall counters. Never decides who is eligible (that is
//! [`Cluster`](super::Cluster)) and never measures time: evidence arrives as
//! calls, in the order in which it was seen.

use std::{fmt, num::NonZeroU32};

/// What is observed of a server, as opposed to what the operator wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// No probe has been answered or has failed yet. Gets no requests.
    Checking,
    /// Probes pass. Gets requests.
    Up,
    /// Requests met trouble that a probe has not confirmed yet. Gets requests
    /// only while no server is up.
    Suspect,
    /// Probes fail. Gets no requests.
    Down,
}

impl Observed {
    /// All there are, in the order of their discriminants.
    pub const ALL: [Observed; Observed::Down as usize + 1] =
        [Observed::Checking, Observed::Up, Observed::Suspect, Observed::Down];
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Observed::Checking => "checking",
            Observed::Up => "up",
            Observed::Suspect => "suspect",
            Observed::Down => "down",
        })
    }
}

/// The evidence behind a change of [`Observed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A probe got an expected status.
    ProbePassed,
    /// A probe got another status, no answer in time, or no connection.
    ProbeFailed,
    /// A request's connect was refused, or the server was unreachable.
    ConnectRefused,
    /// Connects timed out, `fall` times without a success in between.
    ConnectTimedOut,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::ProbePassed => "probe passed",
            Cause::ProbeFailed => "probe failed",
            Cause::ConnectRefused => "connect refused",
            Cause::ConnectTimedOut => "connect timed out",
        })
    }
}

/// How many probes in a row change the observed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes in a row that bring a server back from [`Observed::Down`]. Default 1.
    pub rise: NonZeroU32,
    /// Failures in a row that take an up server out. Default 1.
    pub fall: NonZeroU32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { rise: NonZeroU32::MIN, fall: NonZeroU32::MIN }
    }
}

/// The health state machine of one server.
///
/// Every call returns the new state if, and only if, the state changed.
#[derive(Clone, Debug)]
pub struct Health {
    thresholds: Thresholds,
    observed: Observed,
    /// Consecutive results that speak against `observed`; 0 after any that speaks for it.
    against: u32,
    /// Changes with `observed`: evidence gathered in an earlier epoch is stale.
    epoch: u64,
}

impl Health {
    /// A server of which nothing is known yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Health { thresholds, observed: Observed::Checking, against: 0, epoch: 0 }
    }

    /// The thresholds that hold.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// From now on other thresholds hold; what was counted so far stays.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// What is observed now.
    pub fn observed(&self) -> Observed {
        self.observed
    }

    /// A number that changes whenever [`observed`](Self::observed) does.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A probe passed. The first pass ever and a pass while suspect count at
    /// once; a server that is down needs `rise` in a row.
    pub fn handle_pass(&mut self) -> Option<Observed> {
        match self.observed {
            Observed::Up => {
                self.against = 0;
                None
            }
            Observed::Checking | Observed::Suspect => self.become_observed(Observed::Up),
            Observed::Down => self.count(self.thresholds.rise, Observed::Up),
        }
    }

    /// A probe failed. An up server needs `fall` in a row; a suspect is
    /// confirmed by the first.
    pub fn handle_fail(&mut self) -> Option<Observed> {
        match self.observed {
            Observed::Down => {
                self.against = 0;
                None
            }
            Observed::Checking | Observed::Suspect => self.become_observed(Observed::Down),
            Observed::Up => self.count(self.thresholds.fall, Observed::Down),
        }
    }

    /// A request's connect was refused: strong evidence, at once.
    pub fn handle_refused(&mut self) -> Option<Observed> {
        match self.observed {
            Observed::Up => self.become_observed(Observed::Suspect),
            _ => None,
        }
    }

    /// A request's connect timed out: counts as a failed probe does, but only
    /// probes may declare a server down.
    pub fn handle_connect_timeout(&mut self) -> Option<Observed> {
        match self.observed {
            Observed::Up => self.count(self.thresholds.fall, Observed::Suspect),
            _ => None,
        }
    }

    fn count(&mut self, needed: NonZeroU32, then: Observed) -> Option<Observed> {
        self.against = self.against.saturating_add(1);
        if self.against >= needed.get() { self.become_observed(then) } else { None }
    }

    fn become_observed(&mut self, observed: Observed) -> Option<Observed> {
        self.observed = observed;
        self.against = 0;
        self.epoch += 1;
        Some(observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays evidence (`+` pass, `-` fail, `r` refused, `t` timed out) and
    /// returns the first letter of the state after each.
    #[track_caller]
    fn check(rise: u32, fall: u32, evidence: &str, expected: &str) {
        let nonzero = |n| NonZeroU32::new(n).unwrap();
        let mut health = Health::new(Thresholds { rise: nonzero(rise), fall: nonzero(fall) });
        let mut seen = String::new();
        for kind in evidence.chars() {
            match kind {
                '+' => health.handle_pass(),
                '-' => health.handle_fail(),
                'r' => health.handle_refused(),
                _ => health.handle_connect_timeout(),
            };
            seen.push(health.observed().to_string().chars().next().unwrap());
        }
        assert_eq!(seen, expected, "evidence {evidence}, rise {rise}, fall {fall}");
    }

    #[test]
    fn first_result_counts_at_once() {
        check(3, 3, "+", "u");
        check(3, 3, "-", "d");
    }

    #[test]
    fn falls_after_exactly_fall_failures_in_a_row() {
        check(1, 3, "+--+---", "uuuuuud");
    }

    #[test]
    fn rises_after_exactly_rise_passes_in_a_row() {
        check(3, 1, "+-++-+++", "uddddddu");
    }

    #[test]
    fn refused_connect_suspects_at_once_and_one_probe_decides() {
        check(3, 3, "+r+", "usu");
        check(3, 3, "+r-", "usd");
        check(1, 1, "rr+", "ccu");
    }

    #[test]
    fn timed_out_connects_count_through_fall_and_only_suspect() {
        check(1, 2, "+tt+", "uusu");
        check(1, 2, "+t+t", "uuuu");
    }
}
