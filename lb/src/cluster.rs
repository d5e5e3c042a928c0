//! The shell around the core's [`Cluster`]: one lock for changes, one
//! published snapshot for the request path, one log line for every change.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::info;

use crate::{
    balance::{
        Algorithm, Ask, Cluster, ConnectFailure, Member, Observed, Pick, ServerId, Share, Snapshot,
        Transition, WhenAllDown, hash,
    },
    config::Server,
    upstream::Upstream,
};

/// The servers of the process, shared by all threads.
#[derive(Debug)]
pub struct LiveCluster {
    core: Mutex<Cluster<Upstream>>,
    published: ArcSwap<Snapshot<Upstream>>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
}

impl LiveCluster {
    /// The configured servers, none of them checked yet.
    pub fn new(servers: &[Server], algorithm: Algorithm, when_all_down: WhenAllDown) -> Self {
        let mut core = Cluster::dealing(algorithm, when_all_down);
        for server in servers {
            let seed = hash(server.authority.to_string().as_bytes());
            let share = Share { weight: server.weight, seed };
            core.join_with(Arc::new(Upstream::new(server)), server.health.thresholds, share);
        }
        let published = ArcSwap::new(core.snapshot().clone());
        LiveCluster { core: Mutex::new(core), published, changes: watch::Sender::new(0) }
    }

    /// Deals a server by the algorithm and returns what `take` makes of it,
    /// which begins what the server has in flight; `None` if none is eligible.
    pub fn pick<T>(&self, ask: Ask, take: impl Fn(&Member<Upstream>) -> T) -> Option<T> {
        loop {
            match self.published.load().deal(ask, &take) {
                Pick::Server(taken) => return Some(taken),
                Pick::Nobody => return None,
                // The next snapshot is a few instructions away, in a thread
                // that may have lost its processor.
                Pick::Stale => std::thread::yield_now(),
            }
        }
    }

    /// The same for the next eligible server behind `after` that is not in
    /// `tried`; the rotation does not move.
    pub fn next_untried<T>(
        &self,
        after: usize,
        tried: &[ServerId],
        take: impl FnOnce(&Member<Upstream>) -> T,
    ) -> Option<T> {
        self.published.load().next_untried(after, tried).map(take)
    }

    /// Whether requests are dealt to this server at this moment.
    pub fn deals(&self, id: ServerId) -> bool {
        self.published.load().members().iter().any(|member| member.id == id)
    }

    /// Whether this server's first result is still awaited.
    pub fn is_unchecked(&self, id: ServerId) -> bool {
        self.core().state(id).is_some_and(|(_, observed, _)| observed == Observed::Checking)
    }

    /// The epoch to hand back with evidence; `None` if the server has left.
    pub fn epoch(&self, id: ServerId) -> Option<u64> {
        self.core().state(id).map(|(_, _, epoch)| epoch)
    }

    /// The first results of all servers are in.
    pub async fn checked(&self) {
        let mut changes = self.changes.subscribe();
        while !self.core().is_checked() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes the result of a probe that was begun in `epoch`. `detail` says
    /// what came back: a status code or an error; `latency` how long it took.
    pub fn handle_probe(
        &self,
        (id, upstream): (ServerId, &Upstream),
        epoch: u64,
        passed: bool,
        detail: &str,
        latency: Duration,
    ) {
        let mut core = self.core();
        if let Some(transition) = core.handle_probe(id, epoch, passed) {
            self.publish(&core, upstream, &transition, (detail, latency));
        }
    }

    /// Takes the evidence of a request whose connect, begun in `epoch`, failed.
    pub fn handle_connect_failure(
        &self,
        (id, upstream): (ServerId, &Upstream),
        epoch: u64,
        failure: ConnectFailure,
        detail: &str,
        latency: Duration,
    ) {
        let mut core = self.core();
        let reaction = core.handle_connect_failure(id, epoch, failure);
        if let Some(transition) = &reaction.transition {
            self.publish(&core, upstream, transition, (detail, latency));
        }
        drop(core);
        if reaction.probe_now {
            upstream.probe_now.notify_one();
        }
    }

    /// The servers in configuration order, with their ids.
    pub fn servers(&self) -> Vec<(ServerId, Arc<Upstream>)> {
        self.core().servers().map(|(id, server)| (id, server.clone())).collect()
    }

    fn publish(
        &self,
        core: &MutexGuard<'_, Cluster<Upstream>>,
        upstream: &Upstream,
        transition: &Transition,
        (detail, latency): (&str, Duration),
    ) {
        self.published.store(core.snapshot().clone());
        self.changes.send_modify(|changes| *changes += 1);
        upstream.changed.notify_waiters();
        let Transition { from, to, cause, eligible, total, .. } = transition;
        info!(
            "server={} from={from} to={to} cause=\"{cause}\" detail=\"{detail}\" latency_ms={:.3} eligible={eligible}/{total}",
            upstream.name,
            latency.as_secs_f64() * 1000.0,
        );
    }

    fn core(&self) -> MutexGuard<'_, Cluster<Upstream>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
