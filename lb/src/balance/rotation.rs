//! The rotation: whose turn it is, by weight, from any thread.
//!
//! Owns the cursor and its end. Picking is one atomic increment, the same for 3
//! and for 1 000 servers and whatever their weights; only a period that is too
//! long to lay out is dealt under a lock. Deals indices: whose they are is the
//! [snapshot](super::snapshot)'s.

use super::schedule::{Chairman, lay_out};
use crate::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Set in the cursor once a newer snapshot is about to replace this one.
const FROZEN: u64 = 1 << 63;

/// Deals indices in turn until it is frozen.
#[derive(Debug)]
pub(super) struct Rotation {
    order: Order,
    /// Turns so far, plus `first`; with [`FROZEN`] set when replaced.
    cursor: AtomicU64,
    /// Where the rotation began: a position within the period.
    first: u64,
}

#[derive(Debug)]
enum Order {
    /// So many servers of equal weight, in turn.
    Even(u64),
    /// One period.
    LaidOut(Box<[u32]>),
    /// A period that is too long to lay out.
    Long(Mutex<Long>),
}

#[derive(Debug)]
struct Long {
    chairman: Chairman,
    /// The index of the chairman's first; it counts from there.
    shift: usize,
    last: usize,
}

impl Rotation {
    /// Begins with the first entry of the period whose index is `begin` or
    /// more. `weights` are reduced and not 0.
    pub(super) fn new(weights: &[u32], begin: usize) -> Self {
        let even = weights.iter().all(|weight| *weight == 1);
        let laid_out = if even { None } else { lay_out(weights) };
        let (order, first) = match laid_out {
            Some(period) => {
                let first = period.iter().position(|index| *index as usize >= begin);
                (Order::LaidOut(period), first.unwrap_or(0))
            }
            None if even => (Order::Even(weights.len() as u64), begin),
            None => {
                let mut turned = weights.to_vec();
                turned.rotate_left(begin);
                let chairman = Chairman::new(&turned);
                (Order::Long(Mutex::new(Long { chairman, shift: begin, last: 0 })), 0)
            }
        };
        let first = first as u64;
        Rotation { order, cursor: AtomicU64::new(first), first }
    }

    /// Whose turn it is; `None` once frozen. There must be a server.
    pub(super) fn turn(&self) -> Option<usize> {
        match &self.order {
            Order::Even(count) => Some((self.advance()? % count) as usize),
            Order::LaidOut(period) => {
                let position = self.advance()? % period.len() as u64;
                Some(period[position as usize] as usize)
            }
            Order::Long(long) => {
                let mut long = lock(long);
                self.advance()?;
                Some(long.deal())
            }
        }
    }

    fn advance(&self) -> Option<u64> {
        let position = self.cursor.fetch_add(1, Ordering::AcqRel);
        (position & FROZEN == 0).then_some(position)
    }

    /// Whether a newer snapshot is about to replace this one.
    pub(super) fn is_frozen(&self) -> bool {
        self.cursor.load(Ordering::Acquire) & FROZEN != 0
    }

    /// Ends the rotation: nothing is dealt afterwards. Returns the index that
    /// was dealt last, or `None` if there was none or it had ended before.
    pub(super) fn freeze(&self) -> Option<usize> {
        // Held, so that no turn is counted and not yet dealt.
        let long = match &self.order {
            Order::Long(long) => Some(lock(long)),
            _ => None,
        };
        let cursor = self.cursor.fetch_or(FROZEN, Ordering::AcqRel);
        // Frozen before: what the cursor says beyond that was not dealt.
        if cursor & FROZEN != 0 || cursor == self.first {
            return None;
        }
        let last = cursor - 1;
        Some(match &self.order {
            Order::Even(count) => (last % count) as usize,
            Order::LaidOut(period) => period[(last % period.len() as u64) as usize] as usize,
            Order::Long(_) => long.map_or(0, |long| long.last),
        })
    }
}

impl Long {
    fn deal(&mut self) -> usize {
        self.last = (self.chairman.deal() + self.shift) % self.chairman.len();
        self.last
    }
}

/// A thread that died under the lock left nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
