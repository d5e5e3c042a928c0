//! Runs scenarios in parallel, each in a world of its own.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use futures_util::FutureExt;
use testbed::log::{Event, EventKind, EventLog};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    World,
    balancer::UNHEEDED,
    report::Progress,
    targets::{SetupFailed, Target, Unsupported},
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

/// Whose balancer a scenario judges.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judges {
    /// Ours: it asks for what only `lb` promises, or looks into its log.
    Ours,
    /// Any that can do this.
    Anybodys(&'static [&'static str]),
    /// Any at all that can do this; and why it matters, in plain words.
    Basic(&'static [&'static str], &'static str),
}

/// Which scenarios are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// What any load balancer should pass.
    Basic,
    /// All that can judge it.
    Full,
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
    /// Whose balancer it judges.
    pub(crate) judges: Judges,
    /// The scenario.
    pub(crate) run: for<'a> fn(&'a mut World) -> Future<'a>,
}

impl Scenario {
    /// Family and name.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// It judges any balancer that can do this.
    pub(crate) const fn anybodys(self, needs: &'static [&'static str]) -> Scenario {
        Scenario { judges: Judges::Anybodys(needs), ..self }
    }

    /// Every balancer that can do this should pass it, as it matters.
    pub(crate) const fn basic(
        self,
        needs: &'static [&'static str],
        matters: &'static str,
    ) -> Scenario {
        Scenario { judges: Judges::Basic(needs, matters), ..self }
    }

    /// Whether it belongs to a run of this level, against whatever balancer.
    pub(crate) fn is_of(&self, level: Level) -> bool {
        level == Level::Full || matches!(self.judges, Judges::Basic(..))
    }

    /// Why it matters, in plain words.
    pub(crate) fn matters(&self) -> Option<&'static str> {
        match self.judges {
            Judges::Basic(_, matters) => Some(matters),
            _ => None,
        }
    }

    /// Whether it can judge `target`; ours if there is none.
    ///
    /// # Errors
    /// [`Unsupported`], with the reason why not.
    fn can_judge(&self, target: Option<&Target>) -> Result<()> {
        match (target, self.judges) {
            (None, _) => Ok(()),
            (Some(_), Judges::Ours) => {
                Err(Unsupported("it is about what only lb promises".into()).into())
            }
            (Some(target), Judges::Anybodys(needs) | Judges::Basic(needs, _)) => {
                target.offers(needs.iter().copied())
            }
        }
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
    /// What all parties did.
    pub(crate) log: EventLog,
}

/// What is to be thought of a run.
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
    /// The end of the balancer's log.
    pub(crate) balancer: String,
}

impl Verdict {
    /// In a word or two.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "FAIL",
            Verdict::ExpectedFail(..) => "expected fail",
            Verdict::StaleExpectation(_) => "STALE EXPECTATION",
            Verdict::Skip(_) => "skip",
            Verdict::SetupFailed(_) => "SETUP FAILED",
        }
    }

    /// Whether the run as a whole has failed with it.
    pub(crate) fn is_bad(&self) -> bool {
        match self {
            Verdict::Fail(_) | Verdict::StaleExpectation(_) | Verdict::SetupFailed(_) => true,
            Verdict::Pass | Verdict::ExpectedFail(..) | Verdict::Skip(_) => false,
        }
    }

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

/// Runs each of `scenarios` `repeat` times, `jobs` at a time.
pub(crate) async fn run_all(
    programs: &Programs,
    target: Option<&Arc<Target>>,
    scenarios: &[&'static Scenario],
    repeat: u32,
    jobs: usize,
) -> Vec<Outcome> {
    let progress = Arc::new(Progress::new(scenarios.len() as u64 * u64::from(repeat)));
    let places = Arc::new(Semaphore::new(jobs));
    let mut running = JoinSet::new();
    for _ in 0..repeat {
        for scenario in scenarios.iter().copied() {
            let (places, programs, target) = (places.clone(), programs.clone(), target.cloned());
            let progress = progress.clone();
            running.spawn(async move {
                let _place = places.acquire().await;
                let outcome = run_one(scenario, programs, target).await;
                progress.ended(&outcome);
                outcome
            });
        }
    }
    let outcomes = running.join_all().await;
    progress.finish();
    outcomes
}

/// Starts and ends `target` once. What cannot be started is told of once, not by
/// every scenario.
///
/// # Errors
/// It does not come to the point of being judged.
pub(crate) async fn rehearse(programs: &Programs, target: &Arc<Target>) -> Result<(), Failure> {
    let mut world = World::new("rehearsal".into(), programs.clone(), Some(target.clone()));
    let rehearsed = async {
        world.backends(["A", "B", "C"]).await?;
        world.balance(&[]).await?;
        world.end().await
    };
    let result = rehearsed.await;
    let unheeded = |event: &Event| matches!(&event.kind, EventKind::Note(text) if text == UNHEEDED);
    if world.log.count(0, unheeded) > 0 {
        println!("{UNHEEDED}");
    }
    result.map_err(|error: anyhow::Error| Failure {
        message: format!("{error:#}"),
        balancer: world.balancer_log(30),
    })
}

#[allow(clippy::disallowed_methods, reason = "the time that a run took, for whoever waits for it")]
async fn run_one(
    scenario: &'static Scenario,
    programs: Programs,
    target: Option<Arc<Target>>,
) -> Outcome {
    let began = Instant::now();
    let mut world = World::new(scenario.full_name(), programs, target.clone());
    let result = match scenario.can_judge(target.as_deref()) {
        Ok(()) => watched(scenario, &mut world, target.as_deref()).await,
        no => no,
    };
    let known = target.as_ref().and_then(|target| target.known(&scenario.full_name()));
    let verdict = judge(result, known, &world);
    Outcome { scenario, took: began.elapsed(), verdict, log: world.log.clone() }
}

/// Plays the scenario, which may neither hang nor panic, and ends its balancers.
async fn watched(scenario: &Scenario, world: &mut World, target: Option<&Target>) -> Result<()> {
    let watchdog = WATCHDOG + target.map_or(Duration::ZERO, Target::patience);
    let played = AssertUnwindSafe(play(scenario, world)).catch_unwind();
    let result = match tokio::time::timeout(watchdog, played).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(anyhow!("the scenario panicked")),
        Err(_) => Err(anyhow!("the scenario hangs: not over after {watchdog:?}")),
    };
    match result {
        Ok(()) => Ok(()),
        Err(error) => {
            // What it says itself is worth more than how it ends after that.
            let _ = world.end().await;
            Err(error)
        }
    }
}

/// What a result means, for a target that is `known` to fail, each time or not.
fn judge(result: Result<()>, known: Option<(&str, bool)>, world: &World) -> Verdict {
    let error = match (result, known) {
        (Ok(()), None | Some((_, false))) => return Verdict::Pass,
        (Ok(()), Some((reason, true))) => return Verdict::StaleExpectation(reason.to_owned()),
        (Err(error), _) => error,
    };
    if let Some(Unsupported(reason)) = error.downcast_ref() {
        return Verdict::Skip(reason.clone());
    }
    let failure = Failure { message: format!("{error:#}"), balancer: world.balancer_log(30) };
    match known {
        _ if error.downcast_ref::<SetupFailed>().is_some() => Verdict::SetupFailed(failure),
        Some((reason, _)) => Verdict::ExpectedFail(failure, reason.to_owned()),
        None => Verdict::Fail(failure),
    }
}

/// The scenario, and what is asserted after every one.
async fn play(scenario: &Scenario, world: &mut World) -> Result<()> {
    (scenario.run)(world).await?;
    world.finish().await
}
