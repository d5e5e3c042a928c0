//! The shell around the core's [`Cluster`]: one lock for changes, one
//! published snapshot for the request path, one log line for every change.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::info;

use crate::{
    access_log::wall_clock,
    balance::{
        Algorithm, Ask, Cluster, ConnectFailure, InFlight, Member, Observed, Pick, ServerId, Share,
        Slot, Snapshot, State, Transition, Wanted, WhenAllDown, hash,
    },
    config::{Authority, Server, Settings},
    upstream::Upstream,
};

/// How many changes are remembered.
const HISTORY: usize = 100;

/// The servers of the process, shared by all threads.
#[derive(Debug)]
pub struct LiveCluster {
    core: Mutex<Cluster<Upstream>>,
    published: ArcSwap<Snapshot<Upstream>>,
    /// Counts changes, for those who wait for one.
    changes: watch::Sender<u64>,
    /// The last changes, the latest last.
    history: Mutex<VecDeque<Arc<Change>>>,
    /// Tells the workers that connections to a removed server end now.
    cuts: watch::Sender<()>,
    /// The shortest period of a probe, in seconds.
    retry_after: AtomicU64,
}

/// A change of one server, as the log tells it.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it was.
    pub at: SystemTime,
    /// The server's name.
    pub server: String,
    /// Where the server is: host and port.
    pub authority: String,
    /// What it was before: `up`, `enabled`; `-` if it was not there.
    pub from: String,
    /// What it is now; `-` if it is no longer there.
    pub to: String,
    /// What it comes from: `probe failed`, `admin API`.
    pub cause: String,
    /// More of the cause: a status code or an error.
    pub detail: String,
}

/// A server as it stands: what is wanted and what is observed apart.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the operator wants of it.
    pub wanted: Wanted,
    /// What is observed of it.
    pub observed: Observed,
    /// Whether requests are dealt to it at this moment.
    pub eligible: bool,
    /// Its share of the requests.
    pub weight: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Its name, its address, its check, its last change.
    pub upstream: Arc<Upstream>,
}

/// What a change of configuration leaves to be done.
#[derive(Debug, Default)]
pub struct Arranged {
    /// Servers to be probed from now on.
    pub joined: Vec<(ServerId, Arc<Upstream>)>,
    /// Servers that are no longer configured, and what they have in flight.
    pub left: Vec<(Arc<Upstream>, Arc<InFlight>)>,
}

impl Default for LiveCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl LiveCluster {
    /// No servers.
    pub fn new() -> Self {
        let core = Cluster::dealing(Algorithm::default(), WhenAllDown::default());
        LiveCluster {
            published: ArcSwap::new(core.snapshot().clone()),
            core: Mutex::new(core),
            changes: watch::Sender::new(0),
            history: Mutex::default(),
            cuts: watch::Sender::new(()),
            retry_after: AtomicU64::new(DEFAULT_RETRY_AFTER),
        }
    }

    /// Makes these the servers, all at once. One whose address is configured
    /// already keeps its health, its connections and what it has in flight.
    /// `cause` says why, in the log.
    pub fn arrange(&self, servers: &[Server], settings: &Settings, cause: &str) -> Arranged {
        let mut core = self.core();
        let mut before: BTreeMap<String, State<Upstream>> =
            core.states().map(|state| (state.server.authority.to_string(), state)).collect();
        let mut notes = Vec::new();
        let mut slots = Vec::new();
        let mut checks_changed = Vec::new();
        for server in servers {
            let share = Share {
                weight: server.weight,
                seed: hash(server.authority.to_string().as_bytes()),
            };
            let thresholds = server.health.thresholds;
            let stays = before.remove(&server.authority.to_string());
            let (id, was, upstream) = match stays {
                None => (None, None, Arc::new(Upstream::new(server))),
                Some(state) => {
                    let mut note = |what: &str, from: &dyn Display, to: &dyn Display| {
                        let (from, to) = (format!("{what} {from}"), format!("{what} {to}"));
                        notes.push((state.server.clone(), from, to));
                    };
                    if state.share.weight != server.weight {
                        note("weight", &state.share.weight, &server.weight);
                    }
                    if update(&state.server, server, note) {
                        checks_changed.push(state.server.clone());
                    }
                    (Some(state.id), Some(state.wanted), state.server)
                }
            };
            let wanted = server.wanted.or(was).unwrap_or_default();
            if was != Some(wanted) {
                let from = was.map_or("-".into(), |was| was.to_string());
                notes.push((upstream.clone(), from, wanted.to_string()));
            }
            slots.push(Slot { id, wanted, thresholds, share, server: upstream });
        }
        let joins: Vec<bool> = slots.iter().map(|slot| slot.id.is_none()).collect();
        let upstreams: Vec<_> = slots.iter().map(|slot| slot.server.clone()).collect();
        let ids = core.arrange(slots, settings.dealing.algorithm, settings.when_all_down);
        self.published.store(core.snapshot().clone());
        let period = servers.iter().map(|server| server.health.period).min();
        let seconds = period.map_or(DEFAULT_RETRY_AFTER, |period| period.as_secs().max(1));
        self.retry_after.store(seconds, Ordering::Relaxed);

        let left: Vec<_> = before.into_values().map(|gone| (gone.server, gone.in_flight)).collect();
        for (upstream, _) in &left {
            upstream.departure.begin();
            upstream.probe_now.notify_one();
            notes.push((upstream.clone(), "configured".into(), "-".into()));
        }
        for (upstream, from, to) in notes {
            let change = Change::new(&upstream, (&from, &to), (cause, ""));
            self.note(&change, core.snapshot().members().len(), core.len());
            upstream.changed.notify_waiters();
        }
        checks_changed.iter().for_each(|upstream| upstream.probe_now.notify_one());
        self.changes.send_modify(|changes| *changes += 1);
        let joined = ids.into_iter().zip(upstreams).zip(joins);
        let joined = joined.filter(|(_, joins)| *joins).map(|(joined, _)| joined).collect();
        Arranged { joined, left }
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

    /// The servers in configuration order, as they stand.
    pub fn status(&self) -> Vec<Status> {
        let core = self.core();
        let eligible: BTreeSet<_> = core.snapshot().members().iter().map(|m| m.id).collect();
        core.states().map(|state| Status::new(eligible.contains(&state.id), state)).collect()
    }

    /// One server, as it stands; `None` if it is not configured.
    pub fn status_of(&self, authority: &Authority) -> Option<Status> {
        let core = self.core();
        let state = core.states().find(|state| state.server.authority == *authority)?;
        let eligible = core.snapshot().members().iter().any(|member| member.id == state.id);
        Some(Status::new(eligible, state))
    }

    /// The last changes, the latest last.
    pub fn history(&self) -> Vec<Arc<Change>> {
        self.remembered().iter().cloned().collect()
    }

    /// Counts the changes, for those who wait for one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// In how many seconds a client may ask again that found no server.
    pub fn retry_after(&self) -> u64 {
        self.retry_after.load(Ordering::Relaxed)
    }

    /// Ends what a removed server still has in flight.
    pub fn cut(&self, upstream: &Upstream) {
        upstream.departure.cut();
        self.cuts.send_replace(());
    }

    /// For the workers: all their connections are to be polled at each of these.
    pub fn cuts(&self) -> watch::Receiver<()> {
        self.cuts.subscribe()
    }

    fn publish(
        &self,
        core: &MutexGuard<'_, Cluster<Upstream>>,
        upstream: &Upstream,
        transition: &Transition,
        (detail, latency): (&str, Duration),
    ) {
        self.published.store(core.snapshot().clone());
        let Transition { from, to, cause, eligible, total, .. } = transition;
        let (from, to, cause) = (from.to_string(), to.to_string(), cause.to_string());
        let change = Arc::new(Change::new(upstream, (&from, &to), (&cause, detail)));
        info!(
            "server={} from={from} to={to} cause=\"{cause}\" detail=\"{detail}\" latency_ms={:.3} eligible={eligible}/{total}",
            change.server,
            latency.as_secs_f64() * 1000.0,
        );
        upstream.stats.became(transition.to);
        upstream.last_change.store(Some(change.clone()));
        self.remember(change);
        self.changes.send_modify(|changes| *changes += 1);
        upstream.changed.notify_waiters();
    }

    /// A change that the operator made.
    fn note(&self, change: &Change, eligible: usize, total: usize) {
        let Change { server, from, to, cause, .. } = change;
        info!(
            "server={server} from=\"{from}\" to=\"{to}\" cause=\"{cause}\" eligible={eligible}/{total}"
        );
        self.remember(Arc::new(change.clone()));
    }

    fn remember(&self, change: Arc<Change>) {
        let mut history = self.remembered();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(change);
    }

    fn remembered(&self) -> MutexGuard<'_, VecDeque<Arc<Change>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn core(&self) -> MutexGuard<'_, Cluster<Upstream>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client is told that found no server, while there is none to probe.
const DEFAULT_RETRY_AFTER: u64 = 10;

/// Takes over what may change of a server, and notes it. Returns whether its
/// check did.
fn update(
    upstream: &Upstream,
    server: &Server,
    mut note: impl FnMut(&str, &dyn Display, &dyn Display),
) -> bool {
    if **upstream.name.load() != server.name {
        let before = upstream.name.swap(Arc::new(server.name.clone()));
        note("name", &before, &server.name);
    }
    let changed = **upstream.check.load() != server.health;
    if changed {
        let before = upstream.check.swap(Arc::new(server.health.clone()));
        note("probe", &before, &server.health);
    }
    changed
}

impl Status {
    fn new(eligible: bool, state: State<Upstream>) -> Status {
        Status {
            wanted: state.wanted,
            observed: state.observed,
            eligible,
            weight: state.share.weight,
            in_flight: state.in_flight.get(),
            upstream: state.server,
        }
    }
}

impl Change {
    fn new(upstream: &Upstream, (from, to): (&str, &str), (cause, detail): (&str, &str)) -> Change {
        Change {
            at: wall_clock(),
            server: upstream.name.load().to_string(),
            authority: upstream.authority.to_string(),
            from: from.into(),
            to: to.into(),
            cause: cause.into(),
            detail: detail.into(),
        }
    }
}
