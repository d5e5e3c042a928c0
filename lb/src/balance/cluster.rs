//! All servers: what is wanted and observed of each, and who is eligible.
//!
//! Owns the members in configuration order and the current [`Snapshot`].
//! Called by the shell under one lock, off the request path; the request path
//! reads only snapshots.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Algorithm, Cause, Health, InFlight, Member, Observed, Snapshot, Thresholds};

/// Identifies a server for as long as the process lives; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u32);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the operator wants of a server, as opposed to what is observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// It shall get requests when it is healthy.
    #[default]
    Enabled,
    /// It shall finish what it has and get nothing new.
    Draining,
    /// It shall get nothing, and is not expected to come back soon.
    Disabled,
}

impl Wanted {
    /// All there are.
    pub const ALL: [Wanted; 3] = [Wanted::Enabled, Wanted::Draining, Wanted::Disabled];
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wanted::Enabled => "enabled",
            Wanted::Draining => "draining",
            Wanted::Disabled => "disabled",
        })
    }
}

/// A server's part in the dealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its share of the requests, in proportion to the weights of the others;
    /// with 0 it gets none, and is probed all the same. Default 1.
    pub weight: u32,
    /// Tells it from other servers when keys are hashed: the
    /// [`hash`](super::hash) of what it is known by, so that its keys are the
    /// same after a restart. Default 0.
    pub seed: u64,
}

impl Default for Share {
    fn default() -> Self {
        Share { weight: 1, seed: 0 }
    }
}

/// What to do with a request when no server is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAllDown {
    /// Answer 503 at once.
    #[default]
    Refuse,
    /// Send to unhealthy servers as a last resort.
    TryAnyway,
}

/// How a request's connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Refused or unreachable.
    Refused,
    /// No answer within the connect timeout.
    TimedOut,
}

/// A change of what is observed of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The server.
    pub id: ServerId,
    /// What was observed before.
    pub from: Observed,
    /// What is observed now.
    pub to: Observed,
    /// The evidence.
    pub cause: Cause,
    /// Servers eligible after the change.
    pub eligible: usize,
    /// Servers configured.
    pub total: usize,
}

/// What follows from evidence that a request gathered.
#[derive(Debug, Default)]
pub struct Reaction {
    /// The change, if any.
    pub transition: Option<Transition>,
    /// Effect: the server is to be probed at once.
    pub probe_now: bool,
}

#[derive(Debug)]
struct Entry<T> {
    id: ServerId,
    wanted: Wanted,
    health: Health,
    share: Share,
    in_flight: Arc<InFlight>,
    server: Arc<T>,
}

impl<T> Entry<T> {
    fn slot(&self) -> Slot<T> {
        Slot {
            id: Some(self.id),
            wanted: self.wanted,
            thresholds: self.health.thresholds(),
            share: self.share,
            server: self.server.clone(),
        }
    }
}

/// A server as a change of configuration wants it.
#[derive(Clone, Debug)]
pub struct Slot<T> {
    /// Which it has been so far; `None` for one that joins.
    pub id: Option<ServerId>,
    /// What the operator wants of it.
    pub wanted: Wanted,
    /// How many probes in a row change its state.
    pub thresholds: Thresholds,
    /// Its part in the dealing.
    pub share: Share,
    /// What the shell keeps for it.
    pub server: Arc<T>,
}

/// A server as it stands.
#[derive(Clone, Debug)]
pub struct State<T> {
    /// Its identity.
    pub id: ServerId,
    /// What the operator wants of it.
    pub wanted: Wanted,
    /// What is observed of it.
    pub observed: Observed,
    /// Its part in the dealing.
    pub share: Share,
    /// The requests that it has at the moment.
    pub in_flight: Arc<InFlight>,
    /// What the shell keeps for it.
    pub server: Arc<T>,
}

/// The servers of one balancer.
#[derive(Debug)]
pub struct Cluster<T> {
    /// In configuration order.
    entries: Vec<Entry<T>>,
    when_all_down: WhenAllDown,
    algorithm: Algorithm,
    /// The place in configuration order that is dealt next, as of the last
    /// change; may be one past the end.
    place: usize,
    next_id: u32,
    snapshot: Arc<Snapshot<T>>,
}

impl<T> Cluster<T> {
    /// A cluster without servers, that deals in turn.
    pub fn new(when_all_down: WhenAllDown) -> Self {
        Self::dealing(Algorithm::RoundRobin, when_all_down)
    }

    /// A cluster without servers, that deals by `algorithm`.
    pub fn dealing(algorithm: Algorithm, when_all_down: WhenAllDown) -> Self {
        Cluster {
            entries: Vec::new(),
            when_all_down,
            algorithm,
            place: 0,
            next_id: 0,
            snapshot: Arc::new(Snapshot::new(Vec::new(), 0, algorithm)),
        }
    }

    /// The current snapshot; every `handle_*`, `arrange`, `join`, `leave` and
    /// `set_wanted` may replace it.
    pub fn snapshot(&self) -> &Arc<Snapshot<T>> {
        &self.snapshot
    }

    /// How many servers are configured.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no server is configured.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The state of one server: wanted, observed, and the epoch to hand back
    /// with evidence. `None` if it is not (or no longer) configured.
    pub fn state(&self, id: ServerId) -> Option<(Wanted, Observed, u64)> {
        let entry = self.entries.iter().find(|e| e.id == id)?;
        Some((entry.wanted, entry.health.observed(), entry.health.epoch()))
    }

    /// All servers as they stand, in configuration order.
    pub fn states(&self) -> impl Iterator<Item = State<T>> {
        self.entries.iter().map(|e| State {
            id: e.id,
            wanted: e.wanted,
            observed: e.health.observed(),
            share: e.share,
            in_flight: e.in_flight.clone(),
            server: e.server.clone(),
        })
    }

    /// Whether the first results of all servers are in.
    pub fn is_checked(&self) -> bool {
        self.entries.iter().all(|e| e.health.observed() != Observed::Checking)
    }

    /// Adds a server of weight 1 at the end of configuration order. It gets no
    /// request before a probe passes.
    pub fn join(&mut self, server: Arc<T>, thresholds: Thresholds) -> ServerId {
        self.join_with(server, thresholds, Share::default())
    }

    /// The same with a share of its own.
    pub fn join_with(&mut self, server: Arc<T>, thresholds: Thresholds, share: Share) -> ServerId {
        let wanted = Wanted::Enabled;
        self.edit(|slots| slots.push(Slot { id: None, wanted, thresholds, share, server }));
        ServerId(self.next_id - 1)
    }

    /// Makes these the servers, in this order, and the algorithm and the last
    /// resort those that hold from now on; all at once. A server that stays
    /// keeps its health and what it has in flight, one that joins gets no
    /// request before a probe passes. The rotation goes on behind the server
    /// that was dealt last, or if that has left, behind the one before it; what
    /// does not concern those that are dealt to leaves it alone.
    /// Returns their identities.
    pub fn arrange(
        &mut self,
        slots: Vec<Slot<T>>,
        algorithm: Algorithm,
        when_all_down: WhenAllDown,
    ) -> Vec<ServerId> {
        let before = std::mem::take(&mut self.entries);
        let order: Vec<ServerId> = before.iter().map(|e| e.id).collect();
        let mut before: BTreeMap<ServerId, Entry<T>> =
            before.into_iter().map(|e| (e.id, e)).collect();
        for Slot { id, wanted, thresholds, share, server } in slots {
            let (id, mut health, in_flight) = match id.and_then(|id| before.remove(&id)) {
                Some(entry) => (entry.id, entry.health, entry.in_flight),
                None => (self.new_id(), Health::new(thresholds), Arc::default()),
            };
            health.set_thresholds(thresholds);
            self.entries.push(Entry { id, wanted, health, share, in_flight, server });
        }
        let deals_as_before = self.algorithm == algorithm;
        self.algorithm = algorithm;
        self.when_all_down = when_all_down;
        let members = self.eligible();
        let entries = &self.entries;
        let place_of = |id: &ServerId| entries.iter().position(|e| e.id == *id);
        let moved = |place: usize| {
            let last = order[..place].iter().rev().find(|id| !before.contains_key(id));
            last.and_then(place_of).map_or(0, |index| index + 1)
        };
        let goes_on = !members.is_empty()
            && deals_as_before
            && self.snapshot.still_holds(&members)
            && moved(self.place) == self.place;
        if !goes_on {
            let place = self.snapshot.freeze().unwrap_or(self.place);
            self.place = moved(place);
            self.snapshot = Arc::new(Snapshot::new(members, self.place, algorithm));
        }
        self.entries.iter().map(|e| e.id).collect()
    }

    fn new_id(&mut self) -> ServerId {
        let id = ServerId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Removes a server, if it is there; those behind it move up one place.
    pub fn leave(&mut self, id: ServerId) {
        self.edit(|slots| slots.retain(|slot| slot.id != Some(id)));
    }

    /// Sets what the operator wants of a server, if it is there.
    pub fn set_wanted(&mut self, id: ServerId, wanted: Wanted) {
        self.edit(|slots| {
            slots.iter_mut().filter(|s| s.id == Some(id)).for_each(|s| s.wanted = wanted);
        });
    }

    /// The servers as they were arranged, to be arranged anew.
    pub fn slots(&self) -> impl Iterator<Item = Slot<T>> {
        self.entries.iter().map(Entry::slot)
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Vec<Slot<T>>)) {
        let mut slots = self.slots().collect();
        edit(&mut slots);
        self.arrange(slots, self.algorithm, self.when_all_down);
    }

    /// The result of a probe that was begun in `epoch`. A result from an
    /// earlier epoch, or of a server that has left, changes nothing.
    pub fn handle_probe(&mut self, id: ServerId, epoch: u64, passed: bool) -> Option<Transition> {
        let cause = if passed { Cause::ProbePassed } else { Cause::ProbeFailed };
        self.handle(id, epoch, cause, |health| {
            if passed { health.handle_pass() } else { health.handle_fail() }
        })
    }

    /// A request's connect failed that was begun in `epoch`. Evidence from an
    /// earlier epoch, or of a server that has left, changes nothing.
    pub fn handle_connect_failure(
        &mut self,
        id: ServerId,
        epoch: u64,
        failure: ConnectFailure,
    ) -> Reaction {
        let transition = match failure {
            ConnectFailure::Refused => {
                self.handle(id, epoch, Cause::ConnectRefused, Health::handle_refused)
            }
            ConnectFailure::TimedOut => {
                self.handle(id, epoch, Cause::ConnectTimedOut, Health::handle_connect_timeout)
            }
        };
        let probe_now = transition.is_some()
            || (failure == ConnectFailure::TimedOut
                && self.state(id).is_some_and(|(_, _, current)| current == epoch));
        Reaction { transition, probe_now }
    }

    fn handle(
        &mut self,
        id: ServerId,
        epoch: u64,
        cause: Cause,
        evidence: impl FnOnce(&mut Health) -> Option<Observed>,
    ) -> Option<Transition> {
        let entry = self.entries.iter_mut().find(|e| e.id == id)?;
        if entry.health.epoch() != epoch {
            return None;
        }
        let from = entry.health.observed();
        let to = evidence(&mut entry.health)?;
        self.publish();
        let eligible = self.snapshot.members().len();
        Some(Transition { id, from, to, cause, eligible, total: self.entries.len() })
    }

    /// Filter first, pick then: the rotation only ever sees eligible servers.
    ///
    /// Enabled servers with a weight that are up; if there is none, suspects (evidence from
    /// requests alone never empties the rotation); if there is none and the
    /// operator says so, any of the enabled.
    fn eligible(&self) -> Vec<Member<T>> {
        let pass = |wanted: &dyn Fn(Observed) -> bool| -> Vec<Member<T>> {
            let enabled = |e: &&(usize, &Entry<T>)| {
                let gets_some = e.1.wanted == Wanted::Enabled && e.1.share.weight > 0;
                gets_some && wanted(e.1.health.observed())
            };
            self.entries
                .iter()
                .enumerate()
                .filter(|e| enabled(&e))
                .map(|(place, e)| Member {
                    id: e.id,
                    place,
                    epoch: e.health.epoch(),
                    weight: e.share.weight,
                    seed: e.share.seed,
                    in_flight: e.in_flight.clone(),
                    server: e.server.clone(),
                })
                .collect()
        };
        let mut members = pass(&|observed| observed == Observed::Up);
        if members.is_empty() {
            members = pass(&|observed| observed == Observed::Suspect);
        }
        if members.is_empty() && self.when_all_down == WhenAllDown::TryAnyway {
            members = pass(&|_| true);
        }
        members
    }

    /// Freezes the current snapshot and notes where its rotation stands.
    fn settle_place(&mut self) {
        if let Some(place) = self.snapshot.freeze() {
            self.place = place;
        }
    }

    /// Replaces the snapshot; the rotation keeps its place. One that would be
    /// the same is left: what does not concern the others must not begin a new
    /// period of their weights.
    fn publish(&mut self) {
        let members = self.eligible();
        if self.snapshot.still_holds(&members) {
            return;
        }
        self.settle_place();
        self.snapshot = Arc::new(Snapshot::new(members, self.place, self.algorithm));
    }
}
