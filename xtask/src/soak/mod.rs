//! `cargo xtask soak`: does `lb` keep its promises for as long as it runs?
//!
//! The real program stands under load for minutes or days, while its servers are
//! killed and misbehave, its configuration is changed in every way, and it is
//! itself replaced by another on the same listening socket. Every request is in
//! the ledger; memory, descriptors, threads and requests in flight are watched.
//!
//! Reading order: `churn` (what happens), `servers` and `service` (to whom),
//! `clients` (the load), `disruptions` and `books` (what is an error), `verdict`
//! with `trend`, `report` with `plot`.

mod books;
mod churn;
mod clients;
mod disruptions;
mod plot;
mod report;
mod servers;
mod service;
mod trend;
mod verdict;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use testbed::{backend::Backend, process::raise_descriptor_limit};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::programs;
use books::{Books, Inbox, Totals};
use churn::{Counts, Done, NAMES, Plan, Stage};
use clients::Times;
use disruptions::Disruptions;
use report::Report;
use servers::Mortal;
use service::{Look, Service};

/// How long what was asked of `lb` may take to be over, when nothing more is.
const REST: Duration = Duration::from_secs(30);

/// How long clients may take for what they have begun.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// Without a terminal there is a line each so many samples.
const QUIET: usize = 10;

/// What to run, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how long; memory is judged from six minutes behind the restarts on.
    #[arg(long, value_name = "N", default_value = "30", value_parser = minutes)]
    minutes: f64,
    /// How many clients there are.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// How often a server is killed with SIGKILL, evenly spread.
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u16,
    /// How often the configuration file is changed and SIGHUP sent.
    #[arg(long, value_name = "N", default_value_t = 100)]
    reloads: u16,
    /// How often another `lb` takes over on the listening socket, in the first
    /// third of the time.
    #[arg(long, value_name = "N", default_value_t = 20)]
    restarts: u16,
    /// What happens when follows from it.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Watch the unoptimised build.
    #[arg(long, conflicts_with = "lb")]
    dev: bool,
    /// Watch this `lb` program instead of building one.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    /// Write a page with the figures over time.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write all figures.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=100_000.0).contains(minutes));
    minutes.ok_or_else(|| "expected 0.1 to 100000".into())
}

/// One second of the run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sample {
    /// Since the load began.
    seconds: f64,
    /// Which balancer was in service, from 1.
    life: usize,
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    in_flight: u64,
    /// Of clients.
    connections: u64,
    /// Small GETs on kept connections that were answered.
    requests: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// What was seen in a run.
struct Evidence {
    plan: Plan,
    counts: Counts,
    totals: Totals,
    samples: Vec<Sample>,
    /// The first balancer before its first request.
    before: Option<Look>,
    /// The last one when all is over.
    after: Option<Look>,
    /// What broke by itself.
    failures: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The programs cannot be built, or the reports not be written; what is broken is
/// an exit code.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let [html, json] = [&options.html, &options.json].map(create);
    let (html, json) = (html?, json?);
    let mut programs = programs::build(!options.dev)?;
    if let Some(file) = &options.lb {
        programs.lb = file.canonicalize().with_context(|| format!("no {}", file.display()))?;
    }
    raise_descriptor_limit();
    let evidence = observe(&options, &programs.lb, &programs.be).await?;
    let checks = verdict::judge(&evidence);
    let report = Report::new(options.command(), &evidence, &checks);
    for check in &checks {
        println!("{:<6} {}: {}", report::mark(check).1, check.what, check.seen);
    }
    evidence.totals.errors.iter().for_each(|error| println!("  {error}"));
    for (why, count) in &evidence.totals.excused {
        println!("excused {count}: {why}");
    }
    if let Some(mut file) = html {
        file.write_all(report.html().as_bytes()).context("cannot write the page")?;
    }
    if let Some(mut file) = json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        file.write_all(text.as_bytes()).context("cannot write the JSON")?;
    }
    if report::holds(&checks) {
        return Ok(ExitCode::SUCCESS);
    }
    println!("again: {}", options.command());
    Ok(ExitCode::FAILURE)
}

/// The file, before anything is run for it.
fn create(path: &Option<PathBuf>) -> Result<Option<File>> {
    let create = |path: &PathBuf| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    path.as_ref().map(create).transpose()
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            time: Duration::from_secs_f64(60.0 * self.minutes),
            kills: self.kills.into(),
            reloads: self.reloads.into(),
            restarts: self.restarts.into(),
        }
    }

    /// What runs the same again.
    fn command(&self) -> String {
        let Options { minutes, clients, kills, reloads, restarts, seed, .. } = self;
        let mut command = format!(
            "cargo xtask soak --minutes {minutes} --clients {clients} --kills {kills} \
             --reloads {reloads} --restarts {restarts} --seed {seed}"
        );
        if self.dev {
            command.push_str(" --dev");
        }
        if let Some(file) = &self.lb {
            command.push_str(&format!(" --lb {}", shell_words::quote(&file.to_string_lossy())));
        }
        command
    }
}

/// Lets it all happen.
async fn observe(options: &Options, lb: &Path, be: &Path) -> Result<Evidence> {
    let (inbox, disruptions) = (Inbox::default(), Disruptions::new());
    let log = inbox.log();
    let mut backends = Vec::new();
    for name in NAMES {
        backends.push(Backend::builder(name).start(&log).await?);
    }
    let backends: [Backend; 3] = backends.try_into().ok().context("three servers")?;
    let mortals = [Mortal::new("P")?, Mortal::new("Q")?, Mortal::new("R")?];
    for mortal in &mortals {
        mortal.start(be).await.with_context(|| format!("cannot start {}", be.display()))?;
    }
    let service = Service::start(lb, &Stage::whole(&mortals, &backends)).await?;
    let books = Books::new(inbox, disruptions.clone());
    let (done, be) = (Done::default(), be.to_owned());
    let stage = Arc::new(Stage { service, mortals, backends, disruptions, done, be });
    let evidence = Evidence {
        plan: options.plan(),
        counts: Counts::default(),
        totals: Totals::default(),
        samples: Vec::new(),
        before: Some(at_rest(&stage, None).await?),
        after: None,
        failures: Vec::new(),
    };
    let (stop, stopped) = watch::channel(false);
    let (times, load) = (Times::default(), (options.clients.into(), options.seed));
    let clients = clients::start((stage.service.addr()?, &log), load, &times, &stopped);
    let mut run = Run { stage, books, times, evidence, progress: Progress::new() };
    run.load().await;
    run.settle(stop, clients).await;
    Ok(run.end().await)
}

/// Looks for as long as it takes until nothing is in flight, and no more
/// descriptors are open than `before`; what it comes to in [`REST`].
async fn at_rest(stage: &Stage, before: Option<Look>) -> Result<Look> {
    let mut least = stage.service.look().await?;
    let (began, few) = (Instant::now(), |look: Look| {
        let few = before.is_some_and(|before| look.descriptors <= before.descriptors);
        few && look.connections == 0 && look.in_flight == 0
    });
    // Probes come and go: what is looked for is the moment between them.
    let patience = if before.is_some() { REST } else { Duration::from_secs(2) };
    while !few(least) && began.elapsed() < patience {
        sleep(Duration::from_millis(20)).await;
        let look = stage.service.look().await?;
        least = Look { descriptors: look.descriptors.min(least.descriptors), ..look };
    }
    Ok(least)
}

/// A run under way.
struct Run {
    stage: Arc<Stage>,
    books: Books,
    times: Times,
    evidence: Evidence,
    progress: Progress,
}

impl Run {
    /// Until everything planned has happened, something fails, or somebody asks
    /// for the end.
    async fn load(&mut self) {
        let began = Instant::now();
        let mut churn = self.stage.churn(self.evidence.plan);
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        seconds.tick().await;
        let mut end = std::pin::pin!(asked_to_end());
        loop {
            tokio::select! {
                ended = churn.join_next() => match ended {
                    None => return,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => return self.failed(&error).await,
                    Some(Err(error)) => return self.failed(&error.into()).await,
                },
                why = &mut end => {
                    return self.evidence.failures.push(why.into());
                }
                _ = seconds.tick() => {
                    if let Err(error) = self.sample(began).await {
                        return self.failed(&error).await;
                    }
                }
            }
        }
    }

    async fn failed(&mut self, error: &anyhow::Error) {
        let last_words = self.stage.service.last_words().await;
        self.progress.print(&format!("{error:#}; lb said last:\n{last_words}"));
        self.evidence.failures.push(format!("{error:#}"));
    }

    async fn sample(&mut self, began: Instant) -> Result<()> {
        let look = self.stage.service.look().await.context("lb cannot be watched")?;
        let times = self.times.take();
        let quantile = |share: f64| {
            let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let sample = Sample {
            seconds: began.elapsed().as_secs_f64(),
            life: look.life,
            resident_kib: look.resident_kib,
            descriptors: look.descriptors,
            threads: look.threads,
            in_flight: look.in_flight,
            connections: look.connections,
            requests: times.len(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        };
        self.books.round(self.executed());
        self.evidence.samples.push(sample);
        let (totals, counts) = (self.books.totals(), self.stage.done.counts());
        self.progress.show(self.evidence.plan.time, &sample, totals, counts);
        Ok(())
    }

    /// What the mortal servers have said.
    fn executed(&self) -> Vec<testbed::log::Event> {
        self.stage.mortals.iter().flat_map(Mortal::take).collect()
    }

    /// All servers come back, the clients finish, and `lb` comes to rest.
    async fn settle(&mut self, stop: watch::Sender<bool>, mut clients: JoinSet<()>) {
        if self.evidence.failures.is_empty()
            && let Err(error) = self.stage.heal().await
        {
            self.failed(&error.context("after healing")).await;
        }
        stop.send_replace(true);
        let ended = timeout(LAST_REQUESTS, async { while clients.join_next().await.is_some() {} });
        if ended.await.is_err() {
            let text = format!("clients wait for answers for {LAST_REQUESTS:?}");
            self.evidence.failures.push(text);
        }
        clients.shutdown().await;
        match at_rest(&self.stage, self.evidence.before).await {
            Ok(after) => self.evidence.after = Some(after),
            Err(error) => self.evidence.failures.push(format!("at rest: {error:#}")),
        }
    }

    async fn end(mut self) -> Evidence {
        if let Err(error) = self.stage.service.end().await {
            self.failed(&error).await;
        }
        for backend in &self.stage.backends {
            self.evidence.failures.extend(backend.panics());
        }
        self.progress.finish();
        self.evidence.counts = self.stage.done.counts();
        let executed = self.executed();
        self.evidence.totals = self.books.end(executed);
        self.evidence
    }
}

/// Resolves when somebody wants the run to end, with who.
async fn asked_to_end() -> &'static str {
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(interrupt), signal(terminate)) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    }
}

/// What whoever waits sees: a line that changes, or one now and then.
struct Progress {
    bar: ProgressBar,
    samples: usize,
}

impl Progress {
    fn new() -> Progress {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Progress { bar, samples: 0 }
    }

    fn show(&mut self, time: Duration, sample: &Sample, totals: &Totals, counts: Counts) {
        let line = format!(
            "{:.0} of {} s: {} requests, {} errors, p99 {:.1} ms, {:.1} MiB, {} descriptors, {} in flight; {} kills, {} reloads, {} restarts",
            sample.seconds,
            time.as_secs(),
            totals.ledger.requests,
            totals.error_count + totals.violations.len(),
            sample.p99_ms,
            sample.resident_kib as f64 / 1024.0,
            sample.descriptors,
            sample.in_flight,
            counts.kills,
            counts.reloads,
            counts.restarts
        );
        if self.bar.is_hidden() && self.samples.is_multiple_of(QUIET) {
            eprintln!("{line}");
        }
        self.samples += 1;
        self.bar.set_message(line);
        self.bar.tick();
    }

    fn print(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use testbed::ledger::Summary;

    use super::*;

    /// A good run of half an hour.
    pub(super) fn evidence() -> Evidence {
        let mut random = Rng::with_seed(1);
        let sample = |second: u32| Sample {
            seconds: second.into(),
            life: 1,
            resident_kib: 20_000 + random.u64(0..1000),
            descriptors: 60,
            threads: 5,
            in_flight: 7,
            connections: 12,
            requests: 100,
            p50_ms: 1.0,
            p99_ms: 5.0,
        };
        let time = Duration::from_secs(1800);
        let look =
            Look { life: 1, resident_kib: 9000, descriptors: 20, threads: 5, ..Look::default() };
        Evidence {
            plan: Plan { seed: 1, time, kills: 3, reloads: 2, restarts: 1 },
            counts: Counts { kills: 3, reloads: 2, restarts: 1, ..Counts::default() },
            totals: Totals {
                ledger: Summary { requests: 10, answered: 10, ..Summary::default() },
                ..Totals::default()
            },
            samples: (0..1800).map(sample).collect(),
            before: Some(look),
            after: Some(look),
            failures: Vec::new(),
        }
    }
}
