//! Runs scenarios in parallel, each in a world of its own.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::FutureExt;
use testbed::log::EventLog;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    World,
    report::{Progress, Reports},
};
use crate::programs::Programs;

/// No scenario takes this long; one that does hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A scenario under way.
pub(crate) type Future<'a> = Pin<Box<dyn std::future::Future<Output = Result<()>> + Send + 'a>>;

/// How a scenario judges time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Not at all: counted in probes, requests or events that were seen.
    Events,
    /// At quiescence.
    Quiescence,
    /// By the wall: lower bounds strict, upper bounds only a watchdog.
    Wall,
}

/// One behaviour, and the function that asserts it.
pub(crate) struct Scenario {
    /// Its number in the catalogue.
    pub(crate) number: u32,
    /// The behaviour's family.
    pub(crate) group: &'static str,
    /// Its name within the family.
    pub(crate) name: &'static str,
    /// How it judges time.
    pub(crate) clock: Clock,
    /// What it asserts, in a sentence.
    pub(crate) asserts: &'static str,
    /// The scenario.
    pub(crate) run: for<'a> fn(&'a mut World) -> Future<'a>,
}

impl Scenario {
    /// Family and name.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }
}

/// How one run of a scenario ended.
pub(crate) struct Outcome {
    /// The scenario.
    pub(crate) scenario: &'static Scenario,
    /// How long it took.
    pub(crate) took: Duration,
    /// What is to be thought of it.
    pub(crate) verdict: Verdict,
    /// What all parties did; empty if it passed and nobody wants to know.
    pub(crate) log: EventLog,
}

/// What is to be thought of a run.
#[allow(dead_code, reason = "lb itself is only ever passed or failed")]
pub(crate) enum Verdict {
    /// It does what is asserted.
    Pass,
    /// It does not.
    Fail(Failure),
    /// It does not, and the target is known for it.
    ExpectedFail(Failure, String),
    /// It does, though the target is known not to.
    StaleExpectation(String),
    /// It was not judged, for this reason.
    Skip(String),
    /// The balancer under test did not start or never answered.
    SetupFailed(Failure),
}

/// What went wrong.
pub(crate) struct Failure {
    /// The assertion that failed.
    pub(crate) message: String,
    /// Whether it is the scenario that is broken.
    pub(crate) panicked: bool,
}

impl Verdict {
    /// What went wrong, if anything did.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Verdict::Fail(failure)
            | Verdict::ExpectedFail(failure, _)
            | Verdict::SetupFailed(failure) => Some(failure),
            Verdict::Pass | Verdict::StaleExpectation(_) | Verdict::Skip(_) => None,
        }
    }

    /// Why it was expected to fail, or not judged.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Verdict::ExpectedFail(_, reason)
            | Verdict::StaleExpectation(reason)
            | Verdict::Skip(reason) => Some(reason),
            Verdict::Pass | Verdict::Fail(_) | Verdict::SetupFailed(_) => None,
        }
    }
}

impl Failure {
    /// An assertion that failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), panicked: false }
    }

    /// A scenario that panicked, with this.
    fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = format!("the scenario panicked: {}", text.unwrap_or("(no message)"));
        Failure { message, panicked: true }
    }
}

/// Runs each of `scenarios` `repeat` times, `jobs` at a time. The outcomes are
/// in the order of `scenarios`, the runs of each one after the other.
pub(crate) async fn run_all(
    programs: &Programs,
    scenarios: &[&'static Scenario],
    repeat: u32,
    jobs: usize,
    reports: &Reports,
) -> Vec<Outcome> {
    let runs = scenarios.len() as u64 * u64::from(repeat);
    let (progress, keep_logs) = (Progress::new(runs, reports.out()), reports.keep_logs());
    let progress = Arc::new(progress);
    let places = Arc::new(Semaphore::new(jobs));
    let mut running = JoinSet::new();
    for run in 0..repeat {
        for (place, scenario) in scenarios.iter().copied().enumerate() {
            let (places, programs) = (places.clone(), programs.clone());
            let progress = progress.clone();
            running.spawn(async move {
                let _place = places.acquire().await;
                let outcome = run_one(scenario, programs, keep_logs).await;
                progress.ended(&outcome);
                ((place, run), outcome)
            });
        }
    }
    let mut outcomes = running.join_all().await;
    progress.finish();
    outcomes.sort_by_key(|(order, _)| *order);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[allow(clippy::disallowed_methods, reason = "the time that a run took, for whoever waits for it")]
async fn run_one(scenario: &'static Scenario, programs: Programs, keep_log: bool) -> Outcome {
    let began = Instant::now();
    let mut world = World::new(scenario.full_name(), programs);
    let played = AssertUnwindSafe(play(scenario, &mut world)).catch_unwind();
    let verdict = match tokio::time::timeout(WATCHDOG, played).await {
        Ok(Ok(Ok(()))) => Verdict::Pass,
        Ok(Ok(Err(error))) => Verdict::Fail(Failure::new(format!("{error:#}"))),
        Ok(Err(panic)) => Verdict::Fail(Failure::panicked(&*panic)),
        Err(_) => {
            let message = format!("the scenario hangs: not over after {WATCHDOG:?}");
            Verdict::Fail(Failure::new(message))
        }
    };
    let wanted = keep_log || verdict.failure().is_some();
    let log = if wanted { world.log.clone() } else { EventLog::new() };
    Outcome { scenario, took: began.elapsed(), verdict, log }
}

/// The scenario, and what is asserted after every one.
async fn play(scenario: &Scenario, world: &mut World) -> Result<()> {
    (scenario.run)(world).await?;
    world.finish().await
}
