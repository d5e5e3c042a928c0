//! Carries out a plan in virtual time: `lb`, backends and clients on hosts of
//! their own, all on this thread.
//!
//! Owns the hosts, and `lb` as a task. Judges nothing: see [`super::judge`]. The
//! phases are [`super::phases`]'s, the network [`super::network`]'s.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lb::{
    access_log::{AccessLog, Format},
    balance::Wanted,
    config::Config,
    control::Control,
    output::Output,
};
use testbed::{
    backend::Backend,
    log::{Event, EventLog},
};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::oneshot,
    task::{JoinHandle, spawn_local},
    time::{Instant, timeout},
};

use super::{
    config::{self, Check, PORT},
    crowd::{self, Crowd},
    host::Host,
    network::{Link, Network},
    operations::{Done, Stage},
    phases::{Played, play},
    plan::{Plan, millis},
    random::{Stream, stream},
    voice,
    watch::hear_panics,
};

/// Where `lb` is.
pub(crate) const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// How long healing and the end may take: more than all that has a limit of
/// its own.
const PATIENCE: Duration = Duration::from_secs(600);

/// What became of a plan.
pub(crate) struct Run {
    /// All that happened.
    pub(crate) events: Vec<Event>,
    /// The operations as they were carried out.
    pub(crate) done: Vec<Done>,
    /// `lb`'s line of each request.
    pub(crate) access: String,
    /// The number of the first event of the time when all is as at first.
    pub(crate) strict: u64,
    /// What was still there when nobody had asked for anything for a while.
    pub(crate) left: Vec<String>,
    /// What piled up in `lb`, where that can be seen.
    pub(crate) crowd: Crowd,
    /// How long it took, in virtual time.
    pub(crate) took: Duration,
    /// By how much something may be seen later than it happens; in virtual time
    /// nothing is.
    pub(crate) late: Duration,
}

/// Carries out `plan`.
///
/// # Errors
/// The harness itself fails.
pub(crate) fn run(plan: &Plan) -> Result<Run> {
    // lb's workers fork their generators from the thread's.
    fastrand::seed(stream(plan.seed, Stream::Balancer, 0).u64(..));
    let addresses = addresses(plan);
    let random = stream(plan.seed, Stream::Network, 0);
    let link = Link {
        latency: millis(plan.network.latency_ms),
        jitter: millis(plan.network.jitter_ms),
        loss: 0,
        cuts: 0,
    };
    // The network outlives the sockets, which the runtime owns.
    let (network, hosts) = Network::new(&addresses, link, plan.network.mtu, random);
    let runtime = virtual_time()?;
    let world = World { plan, network: network.clone(), hosts, addresses };
    let limit = millis(plan.faults_ms) + PATIENCE;
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = network.stands_still() => bail!("it never ends: time stands still"),
            ran = timeout(limit, world.run()) => {
                ran.with_context(|| format!("it does not end within {limit:?}"))?
            }
        }
    })
}

/// A runtime of this thread in which waiting takes no time.
pub(super) fn virtual_time() -> Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    builder.build_local(LocalOptions::default()).context("cannot start a runtime")
}

/// `lb`, then servers, then clients.
fn addresses(plan: &Plan) -> Vec<IpAddr> {
    let of = |kind: u8, count: usize| {
        (1..=count).map(move |index| IpAddr::V4(Ipv4Addr::new(10, 0, kind, index as u8)))
    };
    let others = of(1, plan.servers.len()).chain(of(2, plan.clients.len()));
    std::iter::once(LB).chain(others).collect()
}

struct World<'a> {
    plan: &'a Plan,
    network: Arc<Network>,
    hosts: Vec<Host>,
    addresses: Vec<IpAddr>,
}

impl World<'_> {
    async fn run(self) -> Result<Run> {
        let began = Instant::now();
        let log = EventLog::new();
        let _voice = voice::listen(&log);
        hear_panics(&log);
        spawn_local(self.network.clone().run());
        let backends = self.backends(&log).await?;
        let output = Output::in_memory();
        let (host, config) = (self.hosts[0].clone(), config::first(self.plan));
        let mut balancer = Balancer::start(host, config, &output).await?;
        let control = balancer.control.clone();
        let names = hosts_by_name(self.plan, &self.addresses[1..]);
        let stage = Simulated { control, network: self.network.clone(), names };
        let clients = self.hosts[1 + self.plan.servers.len()..].to_vec();
        let lb = SocketAddr::new(LB, PORT);
        let servers = &self.addresses[1..=self.plan.servers.len()];
        let (mut crowd, watched) = (Crowd::default(), balancer.control.clone());
        let played = tokio::select! {
            biased;
            played = play(self.plan, (&log, began), (lb, clients), &backends, &stage) => played?,
            never = crowd.watch(&watched, servers) => never,
        };
        let left = self.left(&balancer.control);
        balancer.stop().await?;
        let access = String::from_utf8_lossy(&output.take()).into_owned();
        let Played { done, strict } = played;
        let (events, took, late) = (log.events(), began.elapsed(), Duration::ZERO);
        Ok(Run { events, done, access, strict, left, crowd, took, late })
    }

    async fn backends(&self, log: &EventLog) -> Result<Vec<Backend>> {
        let mut backends = Vec::new();
        for (index, server) in self.plan.servers.iter().enumerate() {
            let builder = Backend::builder(&server.name).bind(config::address(index));
            backends.push(builder.start_on(self.hosts[1 + index].clone(), log).await?);
        }
        Ok(backends)
    }

    /// What is still there that should not be.
    fn left(&self, control: &Control) -> Vec<String> {
        let mut left = Vec::new();
        for status in control.cluster.status() {
            if status.in_flight != 0 {
                left.push(format!(
                    "{} has {} in flight",
                    status.upstream.name.load(),
                    status.in_flight
                ));
            }
        }
        let servers = &self.addresses[1..=self.plan.servers.len()];
        let kept: usize = crowd::connections(servers).values().sum();
        // Probes come and go.
        if kept > servers.len() {
            left.push(format!("{kept} connections to servers"));
        }
        left
    }
}

/// Where each server and client is.
fn hosts_by_name(plan: &Plan, addresses: &[IpAddr]) -> BTreeMap<String, IpAddr> {
    let servers = plan.servers.iter().map(|server| server.name.clone());
    let names = servers.chain(plan.clients.iter().map(|client| client.name.clone()));
    names.zip(addresses.iter().copied()).collect()
}

/// `lb` in process, on the simulated network.
struct Simulated {
    control: Arc<Control>,
    network: Arc<Network>,
    names: BTreeMap<String, IpAddr>,
}

impl Stage for Simulated {
    async fn reload(&self, plan: &Plan, weights: &[u32], check: &Check) -> Result<()> {
        self.control.replace(config::of(plan, weights, check), "plan");
        Ok(())
    }

    async fn want(&self, server: usize, wanted: Wanted) -> Result<()> {
        let _ = self.control.want(&config::authority(server), wanted, "plan");
        Ok(())
    }

    async fn add(&self, plan: &Plan, server: usize, check: &Check) -> Result<()> {
        let weight = plan.servers[server].weight;
        let _ = self.control.add(config::server(plan, server, weight, check), "plan");
        Ok(())
    }

    async fn delete(&self, server: usize) -> Result<()> {
        let _ = self.control.delete(&config::authority(server), "plan");
        Ok(())
    }

    fn link(&self, host: &str, change: &mut dyn FnMut(&mut Link, bool)) {
        let Some(address) = self.names.get(host) else { return };
        self.network.change(LB, *address, |link| change(link, true));
        self.network.change(*address, LB, |link| change(link, false));
    }

    fn heal(&self) {
        self.network.heal();
    }
}

/// `lb`, running.
pub(super) struct Balancer {
    pub(super) control: Arc<Control>,
    stop: Option<oneshot::Sender<()>>,
    run: JoinHandle<Result<()>>,
}

impl Balancer {
    /// Starts it on `host`; ready when this returns.
    pub(super) async fn start(host: Host, config: Config, output: &Output) -> Result<Balancer> {
        let log = AccessLog::new(output.clone(), Some(output.clone()), Format::Text);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let run =
            spawn_local(lb::server::run(host, config, Arc::new(log), stopped, async |control| {
                let _ = ready.send(control);
                std::future::pending().await
            }));
        let control = is_ready.await.context("lb was never ready")?;
        Ok(Balancer { control, stop: Some(stop), run })
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        drop(self.stop.take());
        let ended = timeout(Duration::from_secs(60), &mut self.run).await;
        ended.context("lb did not end")?.context("lb panicked")?.context("lb ended with an error")
    }
}
