//! What occurred in the runs, and what never did.

use std::{collections::BTreeMap, fmt};

use testbed::log::EventKind;

use super::{
    plan::{Plan, What},
    requests::{Outcome, collect, word},
    run::Run,
    view::{Said, heard},
};

/// From how many runs on it is worth saying that something never occurred.
const ENOUGH: u64 = 1000;

/// Whatever must occur sooner or later. Not that a kept connection dies before
/// a byte of the request is written: nothing happens here between the look at
/// it and the first byte.
const EXPECTED: &[&str] = &[
    "operation kill",
    "operation crash",
    "operation stop",
    "operation black_hole",
    "operation health",
    "operation fault",
    "operation close_idle",
    "operation partition",
    "operation slow",
    "operation lossy",
    "operation abort",
    "operation drain",
    "operation disable",
    "operation delete",
    "operation add",
    "operation reload",
    "server checking to up, probe passed",
    "server checking to down, probe failed",
    "server up to down, probe failed",
    "server up to suspect, connect refused",
    "server up to suspect, connect timed out",
    "server suspect to down, probe failed",
    "server suspect to up, probe passed",
    "server down to up, probe passed",
    "server removed and drained",
    "server removed and cut off",
    "attempt refused",
    "attempt connect_timeout",
    "attempt went_out",
    "attempt reused_closed",
    "attempt closed",
    "attempt response_timeout",
    "attempt bad_answer",
    "answer 503 no_server",
    "answer 502 connect_failed",
    "answer 502 server_closed",
    "answer 502 bad_answer",
    "answer 504 connect_timeout",
    "answer 504 response_timeout",
    "answer of a server, 503",
    "answer broken off",
];

/// How often what occurred.
#[derive(Default)]
pub(crate) struct Coverage {
    runs: u64,
    /// In how many runs, and how often.
    seen: BTreeMap<String, (u64, u64)>,
}

impl Coverage {
    /// Counts a run.
    pub(crate) fn add(&mut self, plan: &Plan, run: &Run) {
        self.runs += 1;
        let mut here: BTreeMap<String, u64> = BTreeMap::new();
        let mut count = |what: String| *here.entry(what).or_default() += 1;
        for done in run.done.iter().filter(|done| done.begins) {
            let what = &plan.operations[done.operation].what;
            count(format!("operation {}", what.word()));
            if let What::Fault { fault, .. } = what {
                count(format!("fault {fault:?}"));
            }
            if let What::Health { answer, .. } = what {
                count(format!("probes {answer:?}"));
            }
        }
        for event in &run.events {
            match heard(plan, event) {
                Some((_, Said::Became { from, to, cause })) => {
                    count(format!("server {from} to {to}, {cause}"));
                }
                Some((_, Said::Drained)) => count("server removed and drained".into()),
                Some((_, Said::CutOff)) => count("server removed and cut off".into()),
                _ => {}
            }
            if let EventKind::Output { line, .. } = &event.kind
                && line.starts_with("WARN")
                && word(line, "server=").is_none()
            {
                count(format!("warning {line}"));
            }
        }
        for request in collect(&run.events, &run.access) {
            request.failed.iter().for_each(|(_, how, _)| count(format!("attempt {how}")));
            match request.outcome {
                Some((_, Outcome::Refused(status, reason))) => {
                    count(format!("answer {status} {reason}"))
                }
                Some((_, Outcome::Answered(_, 200))) => count("answer of a server, 200".into()),
                Some((_, Outcome::Answered(_, status))) => {
                    count(format!("answer of a server, {status}"))
                }
                Some((_, Outcome::Broken(..))) => count("answer broken off".into()),
                Some((_, Outcome::Aborted)) => count("request given up".into()),
                None => {}
            }
        }
        for (what, times) in here {
            let seen = self.seen.entry(what).or_default();
            *seen = (seen.0 + 1, seen.1 + times);
        }
    }

    /// What never occurred, if there were runs enough for it.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        if self.runs < ENOUGH {
            return Vec::new();
        }
        EXPECTED.iter().copied().filter(|what| !self.seen.contains_key(*what)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<48} {:>8} {:>10}", "what occurred", "in runs", "times")?;
        for (what, (runs, times)) in &self.seen {
            writeln!(f, "{what:<48} {runs:>8} {times:>10}")?;
        }
        self.never().iter().try_for_each(|what| writeln!(f, "{what:<48}    never"))
    }
}

impl What {
    /// Its word in plans.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            What::Kill { .. } => "kill",
            What::Crash { .. } => "crash",
            What::Stop { .. } => "stop",
            What::BlackHole { .. } => "black_hole",
            What::Health { .. } => "health",
            What::Fault { .. } => "fault",
            What::CloseIdle { .. } => "close_idle",
            What::Partition { .. } => "partition",
            What::Slow { .. } => "slow",
            What::Lossy { .. } => "lossy",
            What::Abort { .. } => "abort",
            What::Drain { .. } => "drain",
            What::Disable { .. } => "disable",
            What::Delete { .. } => "delete",
            What::Add { .. } => "add",
            What::Reload { .. } => "reload",
        }
    }
}
