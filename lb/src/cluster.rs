//! The shell around the core's [`Cluster`]: one lock for changes, one
//! published snapshot for the request path, one log line for every change.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
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
    /// Somebody has no descriptor.
    shortage: Notify,
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
    /// What it was before: `up`, `enabled`, `weight 1`; `-` if it was not there.
    pub from: String,
    /// What it is now: the same, or `removed`.
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
            shortage: Notify::new(),
            retry_after: AtomicU64::new(DEFAULT_RETRY_AFTER),
        }
    }

    /// Makes these the servers, all at once. One whose address is configured
    /// already keeps its health, its connections and what it has in flight.
    /// `cause` says why, in the log; without one nothing is said.
    pub fn arrange(
        &self,
        servers: &[Server],
        settings: &Settings,
        cause: Option<&str>,
    ) -> Arranged {
        let mut core = self.core();
        let before = core.states().map(|state| (state.server.authority.to_string(), state));
        let mut plan = Plan { before: before.collect(), ..Plan::default() };
        servers.iter().for_each(|server| plan.keep_or_join(server));
        let left: Vec<_> = std::mem::take(&mut plan.before)
            .into_values()
            .map(|state| (state.server, state.in_flight))
            .collect();
        let joins: Vec<_> =
            plan.slots.iter().map(|slot| slot.id.is_none().then(|| slot.server.clone())).collect();
        let ids = core.arrange(plan.slots, settings.dealing.algorithm, settings.when_all_down);
        self.published.store(core.snapshot().clone());
        let period = servers.iter().map(|server| server.health.period).min();
        let seconds = period.map_or(DEFAULT_RETRY_AFTER, |period| period.as_secs().max(1));
        self.retry_after.store(seconds, Ordering::Relaxed);
        for (upstream, _) in &left {
            upstream.departure.begin();
            upstream.probe_now.notify_one();
            plan.notes.push((upstream.clone(), "configured".into(), "removed".into()));
        }
        for (upstream, from, to) in plan.notes {
            upstream.changed.notify_waiters();
            if let Some(cause) = cause {
                let change = Change::new(&upstream, (&from, &to), (cause, ""));
                self.note(change, core.snapshot().members().len(), core.len());
            }
        }
        plan.checks_changed.iter().for_each(|upstream| upstream.probe_now.notify_one());
        self.changes.send_modify(|changes| *changes += 1);
        let joined = ids.into_iter().zip(joins);
        let joined = joined.filter_map(|(id, joins)| Some((id, joins?))).collect();
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

    /// Asks each worker to close a connection that idles: somebody has no descriptor,
    /// and tries again soon.
    pub fn want_descriptors(&self) {
        self.shortage.notify_waiters();
    }

    /// Resolves the next time that somebody has no descriptor.
    pub async fn shortage(&self) {
        self.shortage.notified().await;
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
    fn note(&self, change: Change, eligible: usize, total: usize) {
        let Change { server, from, to, cause, .. } = &change;
        let (from, to) = (one_word(from), one_word(to));
        info!("server={server} from={from} to={to} cause=\"{cause}\" eligible={eligible}/{total}");
        self.remember(Arc::new(change));
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

/// The servers as they are to be arranged, and what that changes.
#[derive(Default)]
struct Plan {
    /// Those that are configured so far, by address; in the end those that leave.
    before: BTreeMap<String, State<Upstream>>,
    slots: Vec<Slot<Upstream>>,
    /// What changes, for the log: from and to.
    notes: Vec<(Arc<Upstream>, String, String)>,
    checks_changed: Vec<Arc<Upstream>>,
}

impl Plan {
    fn keep_or_join(&mut self, server: &Server) {
        let address = server.authority.to_string();
        let share = Share { weight: server.weight, seed: hash(address.as_bytes()) };
        let thresholds = server.health.thresholds;
        let stays = self.before.remove(&address);
        let (id, was) = (stays.as_ref().map(|s| s.id), stays.as_ref().map(|s| s.wanted));
        let wanted = server.wanted.or(was).unwrap_or_default();
        let upstream = match stays {
            Some(state) => self.keep(state, server),
            None => Arc::new(Upstream::new(server)),
        };
        if was != Some(wanted) {
            let from = was.map_or("-".into(), |was| was.to_string());
            self.notes.push((upstream.clone(), from, wanted.to_string()));
        }
        self.slots.push(Slot { id, wanted, thresholds, share, server: upstream });
    }

    /// Takes over what may change of a server, and notes it.
    fn keep(&mut self, state: State<Upstream>, server: &Server) -> Arc<Upstream> {
        let upstream = state.server;
        let mut note = |what: &str, from: &dyn Display, to: &dyn Display| {
            let (from, to) = (format!("{what} {from}"), format!("{what} {to}"));
            self.notes.push((upstream.clone(), from, to));
        };
        if state.share.weight != server.weight {
            note("weight", &state.share.weight, &server.weight);
        }
        if **upstream.name.load() != server.name {
            let before = upstream.name.swap(Arc::new(server.name.clone()));
            note("name", &before, &server.name);
        }
        if **upstream.check.load() != server.health {
            let before = upstream.check.swap(Arc::new(server.health.clone()));
            note("probe", &before, &server.health);
            self.checks_changed.push(upstream.clone());
        }
        upstream
    }
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

/// A value of a log line: between quotes if it is more than a word.
fn one_word(text: &str) -> Cow<'_, str> {
    if text.contains(' ') { format!("\"{text}\"").into() } else { text.into() }
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
