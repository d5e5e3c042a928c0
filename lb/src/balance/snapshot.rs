//! What the request path reads: the eligible servers and how they are dealt.
//!
//! A snapshot is immutable but for the place of its rotation. When the cluster
//! changes it *freezes* the snapshot before it reads that place, so that every
//! turn belongs to exactly one snapshot: nothing is dealt twice and no place
//! is skipped while a change is being published.

use std::sync::Arc;

use super::{
    Algorithm, Ask, ServerId,
    choice::{Shares, Turns, less_loaded, rendezvous},
    rotation::{Rotation, lock},
    schedule::reduce,
};
use crate::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

/// The requests in flight at one server, over all threads and snapshots.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct InFlight(AtomicU32);

impl InFlight {
    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// One more. Whoever says so owes an [`end`](Self::end).
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less. Returns whether none is left.
    pub fn end(&self) -> bool {
        // As the load: whoever waits for the last must not miss it.
        self.0.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

/// One eligible server.
#[derive(Debug)]
pub struct Member<T> {
    /// Its identity, never reused within a process.
    pub id: ServerId,
    /// Its place in configuration order.
    pub place: usize,
    /// The [epoch](super::Health::epoch) of its health when the snapshot was
    /// made: to be handed back with evidence.
    pub epoch: u64,
    /// Its share of the requests, as configured; never 0.
    pub weight: u32,
    /// Tells it from others when keys are hashed: see
    /// [`Share::seed`](super::Share::seed).
    pub seed: u64,
    /// The requests that it has at the moment.
    pub in_flight: Arc<InFlight>,
    /// What the shell keeps for it.
    pub server: Arc<T>,
}

/// The answer to [`Snapshot::pick`] and [`Snapshot::deal`].
#[derive(Debug)]
pub enum Pick<M> {
    /// The server that was picked.
    Server(M),
    /// No server is eligible.
    Nobody,
    /// This snapshot has been replaced: load the current one and pick again.
    Stale,
}

/// The eligible servers in configuration order, and the rotation over them.
#[derive(Debug)]
pub struct Snapshot<T> {
    members: Box<[Member<T>]>,
    rotation: Rotation,
    means: Means,
}

/// How servers are dealt, with what that needs.
#[derive(Debug)]
enum Means {
    Rotation,
    /// Held while a server is picked.
    Least(Mutex<Turns>),
    TwoChoices(Shares),
    Random(Shares),
    Hash,
}

impl<T> Snapshot<T> {
    /// A snapshot whose first turn is the first member's at or after `place`
    /// in configuration order, or the first of all if there is none.
    pub(super) fn new(members: Vec<Member<T>>, place: usize, algorithm: Algorithm) -> Self {
        let begin = members.iter().position(|m| m.place >= place).unwrap_or(0);
        let mut weights: Vec<u32> = members.iter().map(|m| m.weight).collect();
        reduce(&mut weights);
        let means = match algorithm {
            Algorithm::RoundRobin => Means::Rotation,
            Algorithm::LeastConnections => Means::Least(Mutex::new(Turns::new(&weights, begin))),
            Algorithm::TwoChoices => Means::TwoChoices(Shares::new(&weights)),
            Algorithm::Random => Means::Random(Shares::new(&weights)),
            Algorithm::Hash => Means::Hash,
        };
        Snapshot { members: members.into(), rotation: Rotation::new(&weights, begin), means }
    }

    /// Deals the next server in turn.
    pub fn pick(&self) -> Pick<&Member<T>> {
        if self.members.is_empty() {
            return self.empty();
        }
        match self.rotation.turn() {
            Some(index) => Pick::Server(&self.members[index]),
            None => Pick::Stale,
        }
    }

    /// Deals a server by the cluster's algorithm and returns what `take` makes
    /// of it. `take` begins what the server then has in flight: with
    /// [`Algorithm::LeastConnections`] nobody else picks before it returns, so
    /// that requests at one moment do not all go to the same server.
    pub fn deal<R>(&self, ask: Ask, take: impl FnOnce(&Member<T>) -> R) -> Pick<R> {
        if self.members.is_empty() {
            return self.empty();
        }
        let index = match (&self.means, ask.key) {
            (Means::Rotation, _) | (Means::Hash, None) => self.rotation.turn(),
            (Means::Least(turns), _) => return self.deal_least(turns, take),
            _ if self.rotation.is_frozen() => None,
            (Means::TwoChoices(shares), _) => {
                Some(less_loaded(&self.members, shares.two(ask.draw)))
            }
            (Means::Random(shares), _) => Some(shares.one(ask.draw)),
            (Means::Hash, Some(key)) => Some(rendezvous(&self.members, key)),
        };
        index.map_or(Pick::Stale, |index| Pick::Server(take(&self.members[index])))
    }

    fn deal_least<R>(&self, turns: &Mutex<Turns>, take: impl FnOnce(&Member<T>) -> R) -> Pick<R> {
        let mut turns = lock(turns);
        if self.rotation.is_frozen() {
            return Pick::Stale;
        }
        let index = turns.deal(&self.members);
        Pick::Server(take(&self.members[index]))
    }

    fn empty<M>(&self) -> Pick<M> {
        if self.rotation.is_frozen() { Pick::Stale } else { Pick::Nobody }
    }

    /// The next member after `place`, in configuration order, that is not in
    /// `tried`. Moves no cursor: retries leave the rotation of others alone.
    pub fn next_untried(&self, place: usize, tried: &[ServerId]) -> Option<&Member<T>> {
        let split = self.members.partition_point(|m| m.place <= place);
        let (before, after) = self.members.split_at(split);
        after.iter().chain(before).find(|m| !tried.contains(&m.id))
    }

    /// The eligible servers in configuration order.
    pub fn members(&self) -> &[Member<T>] {
        &self.members
    }

    /// Whether it has not ended, and deals to just these.
    pub(super) fn still_holds(&self, members: &[Member<T>]) -> bool {
        let key = |m: &Member<T>| (m.id, m.place, m.epoch, m.weight, m.seed);
        let same = self.members.iter().map(key).eq(members.iter().map(key));
        same && !self.rotation.is_frozen()
    }

    /// Ends this snapshot: no pick succeeds afterwards. Returns the place in
    /// configuration order that is to be dealt next, or `None` if nothing was
    /// dealt in turn from this snapshot or it had ended before.
    pub(super) fn freeze(&self) -> Option<usize> {
        let last = match &self.means {
            Means::Least(turns) => {
                // Held, so that nobody is in the middle of a pick.
                let mut turns = lock(turns);
                self.rotation.freeze();
                turns.end()
            }
            _ => self.rotation.freeze(),
        };
        last.map(|index| self.members[index].place + 1)
    }
}
