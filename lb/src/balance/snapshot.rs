//! What the request path reads: the eligible servers and the one cursor.
//!
//! A snapshot is immutable but for its cursor. Picking is one atomic
//! increment, the same cost for 3 and for 1 000 servers, from any thread.
//! When the cluster changes it *freezes* the cursor before it reads it, so
//! that every pick belongs to exactly one snapshot: nothing is dealt twice and
//! no place is skipped while a change is being published.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::ServerId;

/// Set in the cursor once a newer snapshot is about to replace this one.
const FROZEN: u64 = 1 << 63;

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
    /// What the shell keeps for it.
    pub server: Arc<T>,
}

impl<T> Clone for Member<T> {
    fn clone(&self) -> Self {
        Member { id: self.id, place: self.place, epoch: self.epoch, server: self.server.clone() }
    }
}

/// The answer to [`Snapshot::pick`].
#[derive(Debug)]
pub enum Pick<'a, T> {
    /// The next server in the rotation.
    Server(&'a Member<T>),
    /// No server is eligible.
    Nobody,
    /// This snapshot has been replaced: load the current one and pick again.
    Stale,
}

/// The eligible servers in configuration order, and the rotation over them.
#[derive(Debug)]
pub struct Snapshot<T> {
    members: Box<[Member<T>]>,
    /// Picks so far, plus `first`; with [`FROZEN`] set when replaced.
    cursor: AtomicU64,
    /// Where the rotation began in this snapshot: an index into `members`.
    first: u64,
}

impl<T> Snapshot<T> {
    /// A snapshot whose first pick is the first member at or after `place` in
    /// configuration order, or the first of all if there is none.
    pub(super) fn new(members: Vec<Member<T>>, place: usize) -> Self {
        let first = members.iter().position(|m| m.place >= place).unwrap_or(0) as u64;
        Snapshot { members: members.into(), cursor: AtomicU64::new(first), first }
    }

    /// Deals the next server. Wait-free.
    pub fn pick(&self) -> Pick<'_, T> {
        let count = self.members.len() as u64;
        if count == 0 {
            return match self.cursor.load(Ordering::Acquire) & FROZEN {
                0 => Pick::Nobody,
                _ => Pick::Stale,
            };
        }
        let position = self.cursor.fetch_add(1, Ordering::AcqRel);
        if position & FROZEN != 0 {
            return Pick::Stale;
        }
        Pick::Server(&self.members[(position % count) as usize])
    }

    /// The next member after `place`, in rotation order, that is not in
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

    /// Ends this snapshot: no pick succeeds afterwards. Returns the place in
    /// configuration order that is to be dealt next, or `None` if nothing was
    /// dealt from this snapshot or it had ended before.
    pub(super) fn freeze(&self) -> Option<usize> {
        let cursor = self.cursor.fetch_or(FROZEN, Ordering::AcqRel);
        // Frozen before: what the cursor says beyond that was not dealt.
        if cursor & FROZEN != 0 || cursor == self.first || self.members.is_empty() {
            return None;
        }
        let last = (cursor - 1) % self.members.len() as u64;
        Some(self.members[last as usize].place + 1)
    }
}
