//! Runs scenarios in parallel, each in a world of its own.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::ValueEnum;
use futures_util::FutureExt;
use testbed::log::{Event, EventKind, EventLog};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Clock, World,
    balancer::UNHEEDED,
    report::{Out, Progress, Reports},
    simulated,
    targets::{SetupFailed, Target, Unsupported},
    world::Place,
};
use crate::{programs::Programs, sim::hear_panics};

/// No scenario takes this long; one that does hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A scenario under way.
pub(crate) type Future<'a> = Pin<Box<dyn std::future::Future<Output = Result<()>> + Send + 'a>>;

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

/// Where scenarios are played.
#[derive(Clone)]
pub(crate) enum Where {
    /// On real sockets, with our `lb` program.
    Local,
    /// In virtual time, with our `lb` in process.
    Sim,
    /// On real sockets, with another balancer.
    Target(Arc<Target>),
}

impl Where {
    /// Whose balancer is judged; ours if there is none.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Where::Target(target) => Some(target),
            Where::Local | Where::Sim => None,
        }
    }
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
    /// Whether it is played in virtual time too: it needs no process, signal,
    /// file or socket of the operating system.
    pub(crate) simulated: bool,
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

    /// It is played in virtual time too.
    pub(crate) const fn simulated(self) -> Scenario {
        Scenario { simulated: true, ..self }
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

    /// Whether it can be played there.
    ///
    /// # Errors
    /// [`Unsupported`], with the reason why not.
    fn can_judge(&self, place: &Where) -> Result<()> {
        match (place, self.judges) {
            (Where::Sim, _) if !self.simulated => {
                Err(Unsupported("it needs a process, a file or real sockets".into()).into())
            }
            (Where::Local | Where::Sim, _) => Ok(()),
            (Where::Target(_), Judges::Ours) => {
                Err(Unsupported("it is about what only lb promises".into()).into())
            }
            (Where::Target(target), Judges::Anybodys(needs) | Judges::Basic(needs, _)) => {
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
    /// What all parties did; empty if it passed and nobody wants to know.
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

impl Verdict {
    /// The same of a target that is `known` to fail, each time or not.
    fn expecting(self, known: Option<(&str, bool)>) -> Verdict {
        match (self, known) {
            (Verdict::Fail(failure), Some((reason, _))) if !failure.panicked => {
                Verdict::ExpectedFail(failure, reason.to_owned())
            }
            (Verdict::Pass, Some((reason, true))) => Verdict::StaleExpectation(reason.to_owned()),
            (verdict, _) => verdict,
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
    place: &Where,
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
        for (number, scenario) in scenarios.iter().copied().enumerate() {
            let (places, programs, at) = (places.clone(), programs.clone(), place.clone());
            let progress = progress.clone();
            running.spawn(async move {
                let _place = places.acquire().await;
                let outcome = run_one(scenario, programs, at, keep_logs).await;
                progress.ended(&outcome);
                ((number, run), outcome)
            });
        }
    }
    let mut outcomes = running.join_all().await;
    progress.finish();
    outcomes.sort_by_key(|(order, _)| *order);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Starts and ends `target` once. What cannot be started is told of once, not by
/// every scenario.
///
/// # Errors
/// It does not come to the point of being judged: why, and what it printed.
pub(crate) async fn rehearse(
    programs: &Programs,
    target: &Arc<Target>,
    out: Out,
) -> Result<(), String> {
    let mut world = World::new(
        "rehearsal".into(),
        Clock::Events,
        programs.clone(),
        Place::Target(target.clone()),
    );
    let rehearsed = async {
        world.backends(["A", "B", "C"]).await?;
        world.balance(&[]).await?;
        world.end().await
    };
    let result: Result<()> = rehearsed.await;
    let unheeded = |event: &Event| matches!(&event.kind, EventKind::Note(text) if text == UNHEEDED);
    if world.log.count(0, unheeded) > 0 {
        out.line(UNHEEDED);
    }
    result.map_err(|error| {
        let printed = |event: Event| match event.kind {
            EventKind::Output { line, .. } => Some(line),
            _ => None,
        };
        let lines: Vec<String> = world.log.events().into_iter().filter_map(printed).collect();
        match lines.len() {
            0 => format!("{error:#}\nit printed nothing"),
            all => {
                let last = lines[all.saturating_sub(30)..].join("\n");
                format!("{error:#}\nwhat it printed last:\n{last}")
            }
        }
    })
}

#[allow(clippy::disallowed_methods, reason = "the time that a run took, for whoever waits for it")]
pub(crate) async fn run_one(
    scenario: &'static Scenario,
    programs: Programs,
    place: Where,
    keep_log: bool,
) -> Outcome {
    let began = Instant::now();
    let played = match (scenario.can_judge(&place), &place) {
        (Err(no), _) => (judge(no), EventLog::new()),
        (Ok(()), Where::Local) => in_place(scenario, programs, Place::Local).await,
        (Ok(()), Where::Target(target)) => {
            in_place(scenario, programs, Place::Target(target.clone())).await
        }
        (Ok(()), Where::Sim) => in_virtual_time(scenario, programs).await,
    };
    let (verdict, log) = played;
    let known = place.target().and_then(|target| target.known(&scenario.full_name()));
    let verdict = verdict.expecting(known);
    let wanted = keep_log || verdict.failure().is_some();
    let log = if wanted { log } else { EventLog::new() };
    Outcome { scenario, took: began.elapsed(), verdict, log }
}

/// Plays the scenario in a world of its own.
async fn in_place(
    scenario: &'static Scenario,
    programs: Programs,
    place: Place,
) -> (Verdict, EventLog) {
    let target = place.target().cloned();
    let simulated = matches!(place, Place::Simulated(_));
    let mut world = World::new(scenario.full_name(), scenario.clock, programs, place);
    if simulated {
        // The thread is this world's alone.
        hear_panics(&world.log);
    }
    let verdict = watched(scenario, &mut world, target.as_deref()).await;
    (verdict, world.log.clone())
}

/// The same on a thread and in a runtime of its own.
async fn in_virtual_time(scenario: &'static Scenario, programs: Programs) -> (Verdict, EventLog) {
    let played = tokio::task::spawn_blocking(move || {
        simulated::run(&scenario.full_name(), async move |site| {
            in_place(scenario, programs, Place::Simulated(site)).await
        })
    });
    let failed = |error: String| (Verdict::Fail(Failure::new(error)), EventLog::new());
    match played.await {
        Ok(Ok(played)) => played,
        Ok(Err(error)) => failed(format!("{error:#}")),
        Err(error) => failed(error.to_string()),
    }
}

/// Plays the scenario, which may neither hang nor panic, and ends its balancers.
async fn watched(scenario: &Scenario, world: &mut World, target: Option<&Target>) -> Verdict {
    let watchdog = WATCHDOG + target.map_or(Duration::ZERO, Target::patience);
    let played = AssertUnwindSafe(play(scenario, world)).catch_unwind();
    let verdict = match tokio::time::timeout(watchdog, played).await {
        Ok(Ok(Ok(()))) => return Verdict::Pass,
        Ok(Ok(Err(error))) => judge(error),
        Ok(Err(panic)) => Verdict::Fail(Failure::panicked(&*panic)),
        Err(_) => {
            let message = format!("the scenario hangs: not over after {watchdog:?}");
            Verdict::Fail(Failure::new(message))
        }
    };
    // What went wrong is worth more than how the balancers end after that.
    let _ = world.end().await;
    verdict
}

/// What an error of a scenario means.
fn judge(error: anyhow::Error) -> Verdict {
    if let Some(Unsupported(reason)) = error.downcast_ref() {
        return Verdict::Skip(reason.clone());
    }
    let failure = Failure::new(format!("{error:#}"));
    match error.downcast_ref() {
        Some(SetupFailed(_)) => Verdict::SetupFailed(failure),
        None => Verdict::Fail(failure),
    }
}

/// The scenario, and what is asserted after every one.
async fn play(scenario: &Scenario, world: &mut World) -> Result<()> {
    (scenario.run)(world).await?;
    world.finish().await
}
