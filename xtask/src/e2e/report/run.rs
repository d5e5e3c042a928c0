//! One run of a scenario in words and numbers.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use testbed::log::EventKind;

use crate::e2e::{
    Clock,
    runner::{Outcome, Verdict},
};

/// How many events and how many lines of the balancer are told.
const LAST_EVENTS: usize = 40;
const LAST_LINES: usize = 30;

/// One run of one scenario.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Run {
    /// The scenario's number in the catalogue.
    pub(crate) number: u32,
    /// The behaviour's family.
    pub(crate) family: &'static str,
    /// The scenario's name within the family.
    pub(crate) name: &'static str,
    /// Which of the scenario's runs, from 1.
    pub(crate) run: u32,
    /// Of how many.
    pub(crate) runs: u32,
    /// How it judges time.
    pub(crate) clock: ClockName,
    /// What it asserts, in a sentence.
    pub(crate) asserts: &'static str,
    /// What is to be thought of the run.
    pub(crate) verdict: VerdictName,
    /// Why it was expected to fail, or not judged.
    pub(crate) reason: Option<String>,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// What went wrong.
    pub(crate) message: Option<String>,
    /// Why what is asserted matters, in plain words.
    pub(crate) matters: Option<&'static str>,
    /// The command that repeats it.
    pub(crate) repeat_with: String,
    /// The last events, if it failed.
    pub(crate) events: Vec<String>,
    /// The balancer's last lines, if it failed.
    pub(crate) balancer: Vec<String>,
}

/// How a scenario judges time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClockName {
    /// Not at all: counted in probes, requests or events that were seen.
    Events,
    /// At quiescence.
    Quiescence,
    /// By the wall: lower bounds strict, upper bounds only a watchdog.
    Wall,
    /// Not at all; what is judged is chance, with a stated rate of false alarms.
    Statistics,
}

/// What is to be thought of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictName {
    /// It does what is asserted.
    Pass,
    /// It does not.
    Fail,
    /// It does not, and the target is known for it.
    ExpectedFail,
    /// It does, though the target is known not to.
    StaleExpectation,
    /// It was not judged.
    Skip,
    /// The balancer under test did not start or never answered.
    SetupFailed,
    /// The scenario itself is broken: it panicked.
    HarnessError,
}

impl Run {
    pub(crate) fn of(outcome: &Outcome, flags: &str) -> Self {
        let (scenario, verdict) = (outcome.scenario, &outcome.verdict);
        let failure = verdict.failure();
        let (mut events, mut balancer) = (Vec::new(), Vec::new());
        if failure.is_some() {
            let tail = outcome.log.tail(LAST_EVENTS);
            events = tail.lines().map(|line| line.trim_start().to_owned()).collect();
            balancer = last_lines(outcome);
        }
        let stale = matches!(verdict, Verdict::StaleExpectation(_));
        let stale = stale.then(|| "passes, though the target is known not to".to_owned());
        Run {
            number: scenario.number,
            family: scenario.group,
            name: scenario.name,
            run: 1,
            runs: 1,
            clock: scenario.clock.into(),
            asserts: scenario.asserts,
            verdict: verdict.into(),
            reason: verdict.reason().map(str::to_owned),
            seconds: rounded(outcome.took),
            message: failure.map(|failure| failure.message.clone()).or(stale),
            matters: scenario.matters(),
            repeat_with: format!("cargo xtask e2e --filter {}{flags}", scenario.full_name()),
            events,
            balancer,
        }
    }

    /// Family and name.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.family, self.name)
    }

    /// Family, name and, if it ran several times, which run.
    pub(crate) fn title(&self) -> String {
        match self.runs {
            1 => self.full_name(),
            runs => format!("{} [run {} of {runs}]", self.full_name(), self.run),
        }
    }

    /// All that shows a failure, for reports that have one text for it.
    pub(crate) fn evidence(&self) -> String {
        format!(
            "the last events:\n{}\n\nthe balancer's last lines:\n{}\n\nto repeat it: {}\n",
            self.events.join("\n"),
            self.balancer.join("\n"),
            self.repeat_with
        )
    }
}

/// The end of what the balancers printed.
fn last_lines(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.log.events().into_iter().filter_map(|event| match event.kind {
        EventKind::Output { source, line } => Some(format!("{source}: {line}")),
        _ => None,
    });
    let mut lines: Vec<String> = lines.collect();
    lines.drain(..lines.len().saturating_sub(LAST_LINES));
    lines
}

/// In seconds, to the millisecond.
pub(super) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

impl VerdictName {
    /// Whether the run as a whole has failed with it.
    pub(crate) fn is_bad(self) -> bool {
        use VerdictName::{
            ExpectedFail, Fail, HarnessError, Pass, SetupFailed, Skip, StaleExpectation,
        };
        match self {
            Fail | StaleExpectation | SetupFailed | HarnessError => true,
            Pass | ExpectedFail | Skip => false,
        }
    }

    /// In a word or two; what is bad is in capitals.
    pub(crate) fn word(self) -> &'static str {
        match self {
            VerdictName::Pass => "pass",
            VerdictName::Fail => "FAIL",
            VerdictName::ExpectedFail => "expected fail",
            VerdictName::StaleExpectation => "STALE EXPECTATION",
            VerdictName::Skip => "skip",
            VerdictName::SetupFailed => "SETUP FAILED",
            VerdictName::HarnessError => "HARNESS ERROR",
        }
    }
}

impl From<&Verdict> for VerdictName {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail(failure) if failure.panicked => Self::HarnessError,
            Verdict::Fail(_) => Self::Fail,
            Verdict::ExpectedFail(..) => Self::ExpectedFail,
            Verdict::StaleExpectation(_) => Self::StaleExpectation,
            Verdict::Skip(_) => Self::Skip,
            Verdict::SetupFailed(_) => Self::SetupFailed,
        }
    }
}

impl From<Clock> for ClockName {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Events => Self::Events,
            Clock::Quiescence => Self::Quiescence,
            Clock::Wall => Self::Wall,
            Clock::Statistics => Self::Statistics,
        }
    }
}
