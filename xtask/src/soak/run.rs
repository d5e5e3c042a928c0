//! The course of a run: the load begins, all of it happens, all of it ends.
//!
//! Owns the order, and the looks at the balancer; what is seen is judged elsewhere.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use fastrand::Rng;
use testbed::{backend::Backend, log::Event};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Evidence, Options, Sample,
    books::{Books, Inbox, Totals},
    churn::{Counts, Done, NAMES, Stage},
    clients::{self, Times},
    disruptions::Disruptions,
    progress::Progress,
    servers::Mortal,
    service::{Look, Service},
};

/// How long what was asked of `lb` may take to be over, when nothing more is.
const REST: Duration = Duration::from_secs(30);

/// How long clients may take for what they have begun.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// Lets it all happen.
pub(super) async fn observe(options: &Options, lb: &Path, be: &Path) -> Result<Evidence> {
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
        clients: options.clients.into(),
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

/// Looks for as long as it takes until nothing is in flight, and there are no more
/// descriptors and tasks than `before`; what it comes to in [`REST`].
async fn at_rest(stage: &Stage, before: Option<Look>) -> Result<Look> {
    let mut least = stage.service.look().await?;
    let (began, few) = (Instant::now(), |look: Look| {
        let few =
            |before: Look| look.descriptors <= before.descriptors && look.tasks <= before.tasks;
        before.is_some_and(few) && look.connections == 0 && look.in_flight == 0
    });
    // Probes come and go: what is looked for is the moment between them.
    let patience = if before.is_some() { REST } else { Duration::from_secs(2) };
    while !few(least) && began.elapsed() < patience {
        sleep(Duration::from_millis(20)).await;
        let look = stage.service.look().await?;
        let (descriptors, tasks) =
            (look.descriptors.min(least.descriptors), look.tasks.min(least.tasks));
        least = Look { descriptors, tasks, ..look };
    }
    Ok(least)
}

/// From one look at the balancer to the next. Drawn: what somebody does once a second as
/// well, as giving memory back, would show its one end for minutes, and then the other
/// (aliasing).
fn pause(random: &mut Rng) -> Duration {
    Duration::from_millis(random.u64(500..=1500))
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
        let mut random = Rng::with_seed(self.evidence.plan.seed);
        let mut next = began + pause(&mut random);
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
                () = sleep_until(next) => {
                    if let Err(error) = self.sample(began).await {
                        return self.failed(&error).await;
                    }
                    next = Instant::now() + pause(&mut random);
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
        let before = self.books.catch_up();
        let look = self.stage.service.look().await.context("lb cannot be watched")?;
        self.books.round(self.executed());
        let after = self.books.totals().seen;
        let times = self.times.take();
        let quantile = |share: f64| {
            let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        let seconds = began.elapsed().as_secs_f64();
        let before_it = self.evidence.samples.last().map_or(0.0, |sample| sample.seconds);
        let sample = Sample {
            seconds,
            life: look.life,
            resident_kib: look.resident_kib,
            heap_kib: look.heap_kib,
            descriptors: look.descriptors,
            threads: look.threads,
            in_flight: look.in_flight,
            connections: look.connections,
            counted: look.counted,
            seen: [before, after],
            requests_per_second: times.len() as f64 / (seconds - before_it),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        };
        self.evidence.samples.push(sample);
        let (totals, counts) = (self.books.totals(), self.stage.done.counts());
        self.progress.show(self.evidence.plan.time, &sample, totals, counts);
        Ok(())
    }

    /// What the mortal servers have said.
    fn executed(&self) -> Vec<Event> {
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

/// Resolves when somebody wants the run to end, with how that is said.
async fn asked_to_end() -> &'static str {
    asked(1).await
}

/// Resolves when somebody does not want to wait for the end either.
pub(super) async fn insisted() -> &'static str {
    asked(2).await
}

async fn asked(times: usize) -> &'static str {
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(interrupt), signal(terminate)) else {
        return std::future::pending().await;
    };
    let mut why = "";
    for _ in 0..times {
        why = tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
        };
    }
    why
}
