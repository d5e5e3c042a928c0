//! The world `sim`: scenarios as they are, in virtual time, over a simulated
//! network, with `lb` in process.
//!
//! Owns the site (three hosts: `lb`'s, the servers', the clients'), `lb` as
//! something that is started with flags and told to end, and the thread and
//! runtime of a run. The network itself is [`crate::sim`]'s.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use fastrand::Rng;
use lb::{
    access_log::{AccessLog, Destination},
    cli::{Cli, Task},
    config::Config,
    output::Output,
};
use testbed::log::{EventKind, EventLog};
use tokio::{
    runtime::Builder,
    sync::Notify,
    task::{JoinHandle, LocalSet, spawn_local},
    time::timeout,
};
use tracing::instrument::WithSubscriber;

use super::targets::Unsupported;
use crate::sim::{self, Link, voice};

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SERVERS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));

/// How long a packet takes, always.
const LATENCY: Duration = Duration::from_millis(1);

/// By how much virtual time may be longer than what bounds it: the round trips
/// of a connect to `lb`, one to a server, the request and the answer.
pub(crate) const SLACK: Duration = Duration::from_millis(12);

/// The largest packet.
const MTU: u32 = 65_000;

/// Connections that `lb` may have.
const DESCRIPTORS: usize = 100_000;

/// How much time of a processor a run may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long `lb` may take to end, in virtual time: more than any drain.
const END: Duration = Duration::from_secs(120);

/// Where everybody is.
#[derive(Clone)]
pub(crate) struct Site {
    lb: sim::Host,
    servers: sim::Host,
    clients: sim::Host,
}

impl Site {
    /// Where backends are.
    pub(crate) fn servers(&self) -> sim::Host {
        self.servers.clone()
    }

    /// Any free address for one of them.
    pub(crate) fn server_address(&self) -> SocketAddr {
        SocketAddr::new(SERVERS, 0)
    }

    /// Where clients are.
    pub(crate) fn clients(&self) -> sim::Host {
        self.clients.clone()
    }
}

/// Runs `scene` in virtual time on a thread of its own. Whatever is random
/// follows from a seed that is always the same.
///
/// # Errors
/// It hangs, or the harness itself fails.
pub(super) fn run<T: Send + 'static>(
    name: &str,
    scene: impl AsyncFnOnce(Site) -> T + Send + 'static,
) -> Result<T> {
    sim::watched(name, LIMIT, move || {
        fastrand::seed(1);
        let link = Link { latency: LATENCY, jitter: Duration::ZERO, loss: 0, cuts: 0 };
        let addresses = [LB, SERVERS, CLIENTS];
        let (network, hosts) = sim::Network::new(&addresses, link, MTU, Rng::with_seed(1));
        let mut hosts = hosts.into_iter();
        let mut host = || hosts.next().context("a host for everybody");
        let site = Site { lb: host()?, servers: host()?, clients: host()? };
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        // Not a runtime that is local as a whole: each balancer has a set of
        // tasks of its own, by which it is known who says what.
        LocalSet::new().block_on(&runtime, async {
            spawn_local(network.clone().run());
            tokio::select! {
                biased;
                () = network.stands_still() => bail!("it never ends: time stands still"),
                done = scene(site) => Ok(done),
            }
        })
    })
}

/// `lb`, running.
pub(super) struct Process {
    stop: Arc<Notify>,
    run: JoinHandle<Result<()>>,
}

impl Process {
    /// Starts `lb` with `flags`; what it says is told as lines of `name`.
    ///
    /// # Errors
    /// [`Unsupported`] if the flags ask for what is not simulated; or they are
    /// wrong.
    pub(super) fn start(
        site: &Site,
        name: &str,
        flags: Vec<String>,
        log: &EventLog,
    ) -> Result<Process> {
        if flags.iter().any(|flag| flag == "--api-port") {
            bail!(Unsupported("the admin API listens on real sockets alone".into()));
        }
        let place = ["lb", "--bind", "10.0.0.1", "--port", "0", "--no-api"].map(String::from);
        let cli = Cli::try_parse_from(place.into_iter().chain(flags))?;
        let Task::Listen(loader) = cli.into_task()? else { bail!("flags of another command") };
        let config = loader.load()?;
        let output = Output::in_memory();
        let access = (config.logs.access != Destination::Off).then(|| output.clone());
        let access = Arc::new(AccessLog::new(output.clone(), access, config.logs.format));
        let says = voice::subscriber(log, name, config.logs.level.into());
        let config = Config { workers: 1, descriptors: DESCRIPTORS, ..config };
        let stop = Arc::new(Notify::new());
        let (host, stopped) = (site.lb.clone(), stop.clone());
        let run = async move {
            let stopped = async move { stopped.notified().await };
            let never = async |_| std::future::pending().await;
            LocalSet::new().run_until(lb::server::run(host, config, access, stopped, never)).await
        };
        let told = Told { run: Box::pin(run), output, name: name.into(), log: log.clone() };
        Ok(Process { stop, run: spawn_local(told.with_subscriber(says)) })
    }

    /// As SIGTERM does.
    pub(super) fn terminate(&self) {
        self.stop.notify_one();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end, it panics, or it ends with an error.
    pub(super) async fn wait(&mut self) -> Result<()> {
        let ended = timeout(END, &mut self.run).await;
        ended.context("lb does not end")?.context("lb panicked")?
    }
}

/// `lb` and all its tasks: what they print is told as soon as they pause.
struct Told<F> {
    run: Pin<Box<F>>,
    output: Output,
    name: Arc<str>,
    log: EventLog,
}

impl<F: Future> Future for Told<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.run.as_mut().poll(cx);
        for line in String::from_utf8_lossy(&self.output.take()).lines() {
            let source = self.name.clone();
            self.log.record(EventKind::Output { source, line: line.to_owned() });
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        e2e::{
            Scenario,
            runner::{Verdict, Where, run_one},
        },
        programs, scenarios,
    };

    /// What happened in a run, but for the time of day that lines of requests
    /// begin with.
    fn told(runtime: &tokio::runtime::Runtime, scenario: &'static Scenario) -> Vec<String> {
        let ran = run_one(scenario, programs::places(false), Where::Sim, true);
        let outcome = runtime.block_on(ran);
        let name = scenario.full_name();
        assert!(matches!(outcome.verdict, Verdict::Pass), "{name}: {}", outcome.log.tail(30));
        let timeless = |line: String| match line.split_once(" line=\"2") {
            Some((before, rest)) => format!("{before} {}", rest.split_once(' ').unwrap().1),
            None => line,
        };
        outcome.log.events().iter().map(|event| timeless(event.to_string())).collect()
    }

    #[test]
    fn a_scenario_gives_the_same_events_twice() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let all: Vec<_> = scenarios::all().filter(|scenario| scenario.simulated).collect();
        assert!(all.len() >= 40, "{} scenarios", all.len());
        for scenario in all {
            let (first, second) = (told(&runtime, scenario), told(&runtime, scenario));
            let differs = first.iter().zip(&second).find(|(first, second)| first != second);
            assert_eq!(differs, None, "{}", scenario.full_name());
            assert_eq!(first.len(), second.len(), "{}", scenario.full_name());
        }
    }

    #[test]
    fn a_scenario_for_which_time_stands_still_is_ended() {
        let ended = run("busy", async |site| {
            let clients = site.clients();
            loop {
                let nobody = SocketAddr::new(CLIENTS, 1);
                let connect = testbed::net::Net::connect(&clients, nobody);
                let _ = futures_util::FutureExt::now_or_never(connect);
                tokio::task::yield_now().await;
            }
        });
        let error: Result<()> = ended;
        assert!(error.unwrap_err().to_string().contains("time stands still"));
    }
}
