//! What the status page shows of requests while they pass.
//!
//! Owns one [`Tap`] for each worker. While nobody watches, a request costs one
//! load of a flag. While somebody does, a worker counts every request and keeps
//! the first few of a window; it never waits for whoever reads. No path, query,
//! field or client address comes this far.

mod sum;

use std::{
    collections::BTreeMap,
    mem::take,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::StatusCode;
use tokio::time::Instant;

use crate::{access_log::Outcome, balance::Failure};

pub use sum::Sum;

/// How many requests a worker keeps of one window; the others are only counted.
pub const KEPT: usize = 32;

/// A request that is over.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The [number](crate::upstream::Upstream::number) of the server that
    /// answered; `None` if none did.
    pub server: Option<u64>,
    /// The status that the client got, if any.
    pub status: Option<StatusCode>,
    /// Whether its method is safe (RFC 9110 §9.2.1).
    pub safe: bool,
    /// When its head had been read.
    pub began: Instant,
    /// How long it took, to the last byte of the answer.
    pub took: Duration,
    /// The attempts that came to nothing: at which server, and how.
    pub failed: Vec<(u64, Failure)>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Passed {
    /// Whether the client got no good answer: a 5xx, or one that broke off.
    pub fn is_error(&self) -> bool {
        self.outcome == Outcome::ServerBrokeOff
            || self.status.is_some_and(|status| status.is_server_error())
    }
}

/// Where a worker's requests are seen.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tap {
    watched: AtomicBool,
    /// Requests that came while the window was being taken.
    missed: AtomicU64,
    window: Mutex<Window>,
}

impl Tap {
    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    /// A request is over.
    pub fn record(&self, passed: Passed) {
        match self.window.try_lock() {
            Ok(mut window) => window.record(passed),
            Err(TryLockError::Poisoned(window)) => window.into_inner().record(passed),
            Err(TryLockError::WouldBlock) => {
                self.missed.fetch_add(1, Relaxed);
            }
        }
    }
}

/// What passed since somebody last looked.
#[derive(Debug, Default)]
pub struct Window {
    /// The first requests of it, in the order in which they began.
    pub kept: Vec<Passed>,
    /// How many more there were.
    pub left_out: u64,
    /// The sums, by the server's number; `None` where no server answered.
    pub sums: BTreeMap<Option<u64>, Sum>,
    /// From here on not all that passed is kept.
    whole_until: Option<Instant>,
}

impl Window {
    fn record(&mut self, passed: Passed) {
        for (server, _) in &passed.failed {
            self.sums.entry(Some(*server)).or_default().failed_attempts += 1;
        }
        self.sums.entry(passed.server).or_default().count(&passed);
        if self.kept.len() < KEPT {
            self.kept.push(passed);
        } else {
            self.left_out += 1;
            self.whole_until.get_or_insert(passed.began);
        }
    }

    /// Takes in what another worker saw. What is kept stays without a gap: it
    /// ends where the first worker had no more room.
    fn merge(&mut self, other: Window) {
        self.left_out += other.left_out;
        self.kept.extend(other.kept);
        for (server, sum) in other.sums {
            self.sums.entry(server).or_default().merge(&sum);
        }
        self.whole_until = match (self.whole_until, other.whole_until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    fn arrange(&mut self, since: Instant) {
        self.kept.sort_by_key(|passed| passed.began);
        let all = self.kept.len();
        if let Some(until) = self.whole_until {
            self.kept.retain(|passed| (since..until).contains(&passed.began));
        }
        self.kept.truncate(KEPT);
        self.left_out += (all - self.kept.len()) as u64;
    }
}

/// The taps of all workers.
#[derive(Debug, Default)]
pub struct Feed {
    taps: Mutex<Taps>,
}

#[derive(Debug, Default)]
struct Taps {
    all: Vec<Arc<Tap>>,
    watched: bool,
}

impl Feed {
    /// The tap of one more worker. Somebody may watch already: workers start while
    /// the admin API answers.
    pub fn tap(&self) -> Arc<Tap> {
        let mut taps = lock(&self.taps);
        let tap = Arc::new(Tap { watched: taps.watched.into(), ..Tap::default() });
        taps.all.push(tap.clone());
        tap
    }

    /// From now on somebody watches, or nobody does. What was seen before is
    /// forgotten.
    pub fn watch(&self, watched: bool) {
        let mut taps = lock(&self.taps);
        taps.watched = watched;
        for tap in &taps.all {
            tap.watched.store(watched, Relaxed);
            tap.missed.store(0, Relaxed);
            take(&mut *lock(&tap.window));
        }
    }

    /// What has passed at all workers since this was last called, at `since`.
    /// If that is more than is kept, what had begun before is only counted:
    /// others that began with it had passed before.
    pub fn take(&self, since: Instant) -> Window {
        let mut all = Window::default();
        for tap in &lock(&self.taps).all {
            let window = take(&mut *lock(&tap.window));
            all.merge(window);
            all.left_out += tap.missed.swap(0, Relaxed);
        }
        all.arrange(since);
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(began: Instant, millis: u64, server: u64) -> Passed {
        let took = Duration::from_millis(millis);
        let outcome = Outcome::Complete;
        let (server, status) = (Some(server), Some(StatusCode::OK));
        Passed { server, status, safe: true, began, took, failed: Vec::new(), outcome }
    }

    #[test]
    fn what_is_kept_has_no_gap_and_what_is_left_out_is_counted() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let feed = Feed::default();
        let (busy, calm) = (feed.tap(), feed.tap());
        feed.watch(true);
        for millis in 0..KEPT as u64 + 10 {
            busy.record(passed(at(2 * millis), 1, 0));
        }
        for millis in 0..30 {
            calm.record(passed(at(4 * millis + 1), 1, 1));
        }
        calm.record(passed(began - Duration::from_millis(1), 1, 1));
        let window = feed.take(began);
        let expected = (0..22).flat_map(|n| [at(4 * n), at(4 * n + 1), at(4 * n + 2)]);
        let expected: Vec<_> = expected.take(window.kept.len()).collect();
        assert_eq!(window.kept.iter().map(|p| p.began).collect::<Vec<_>>(), expected);
        assert_eq!(window.kept.len(), KEPT);
        assert_eq!(window.left_out, 73 - KEPT as u64);
        assert_eq!(window.sums.values().map(|sum| sum.requests).sum::<u64>(), 73);
        assert!(feed.take(began).kept.is_empty());
        // With room for all, the slow ones are kept too.
        calm.record(passed(began, 1000, 1));
        assert_eq!(feed.take(began + Duration::from_secs(1)).kept.len(), 1);
    }

    #[test]
    fn errors_and_failed_attempts_count_where_they_were() {
        let mut window = Window::default();
        let mut request = passed(Instant::now(), 1, 2);
        request.failed = vec![(1, Failure::ConnectRefused)];
        request.outcome = Outcome::ServerBrokeOff;
        window.record(request);
        let of = |server| window.sums[&Some(server)].clone();
        assert_eq!((of(1).requests, of(1).errors, of(1).failed_attempts), (0, 0, 1));
        assert_eq!((of(2).requests, of(2).errors, of(2).failed_attempts), (1, 1, 0));
    }

    #[test]
    fn nobody_watches_at_first() {
        let feed = Feed::default();
        let tap = feed.tap();
        assert!(!tap.is_watched());
        feed.watch(true);
        assert!(tap.is_watched());
        feed.watch(false);
        assert!(!tap.is_watched());
    }

    #[test]
    fn a_worker_that_starts_while_somebody_watches_is_watched() {
        let feed = Feed::default();
        feed.watch(true);
        let late = feed.tap();
        assert!(late.is_watched());
        feed.watch(false);
        assert!(!late.is_watched() && !feed.tap().is_watched());
    }
}
