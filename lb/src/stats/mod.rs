//! What is counted while requests pass, at next to no cost.
//!
//! Owns the counters, and the bounds of the histograms. Each is written by one
//! thread alone, on cache lines that no other thread writes to: a count is a
//! load and a store, no read-modify-write. Whoever reads sums up over the
//! threads, at any time. What the counts are called is
//! [`metrics`](crate::metrics)'.

mod histogram;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use hyper::StatusCode;

use crate::{
    access_log::{Outcome, wall_clock},
    balance::{Failure, Observed},
    error::Reason,
};

pub use histogram::{BOUNDS, BUCKETS, Histogram};

/// A number that one thread at a time writes and all may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds to it; begins again at 0 after 2^64, as those who read it expect.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Makes it another number.
    pub fn set(&self, number: u64) {
        self.0.store(number, Relaxed);
    }
}

/// The classes of statuses.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Which class a request counts in. None at all, as the client went away, is
/// 499 in the log; what is no valid status is a 5xx (RFC 9110 §15).
fn class_of(status: Option<StatusCode>) -> usize {
    let hundreds = status.map_or(4, |status| status.as_u16() / 100);
    usize::from(hundreds.clamp(1, 5)) - 1
}

/// The ways in which an attempt fails, one of each that counts apart.
pub const FAILURES: [Failure; 11] = [
    Failure::ConnectRefused,
    Failure::ConnectTimedOut,
    Failure::NoResources,
    Failure::WentOut,
    Failure::BodyTimedOut,
    Failure::Unsent { reused: true },
    Failure::Sent { reused: true },
    Failure::Sent { reused: false },
    Failure::HeadTimedOut,
    Failure::BadAnswer { reused: false },
    Failure::RetriedStatus(503),
];

/// The place of a failure among [`FAILURES`].
fn place_of(failure: Failure) -> usize {
    match failure {
        Failure::ConnectRefused => 0,
        Failure::ConnectTimedOut => 1,
        Failure::NoResources => 2,
        Failure::WentOut => 3,
        Failure::BodyTimedOut => 4,
        Failure::Unsent { .. } => 5,
        Failure::Sent { reused: true } => 6,
        Failure::Sent { reused: false } => 7,
        Failure::HeadTimedOut => 8,
        Failure::BadAnswer { .. } => 9,
        Failure::RetriedStatus(_) => 10,
    }
}

/// What one worker counts of one server, or of the requests that got none.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    /// Attempts that brought an answer to be passed on.
    pub answered: Counter,
    /// Bytes of body passed on to clients.
    pub body_bytes: Counter,
    /// Requests sent on a kept connection.
    pub reused: Counter,
    /// Connections made for a request.
    pub opened: Counter,
    /// Connections that wait for a request at the moment.
    pub idle: Counter,
    /// Requests that are over, by class of status.
    pub requests: [Counter; CLASSES.len()],
    /// From a request's head to the head of its answer.
    pub first_byte: Histogram,
    /// From a request's head to the end of its answer; tunnels are none of it.
    pub duration: Histogram,
    /// Attempts that came to nothing, as [`FAILURES`] has them.
    pub failed: [Counter; FAILURES.len()],
    /// Requests whose client went away before the end of the answer.
    pub client_gone: Counter,
    /// Answers in which the server broke off.
    pub broke_off: Counter,
}

impl Tally {
    /// An attempt came to nothing.
    pub fn attempt_failed(&self, failure: Failure) {
        self.failed[place_of(failure)].add(1);
    }
}

/// What one worker counts of its clients, whichever server they got.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Requests that are over, by class of status.
    pub requests: [Counter; CLASSES.len()],
    /// Bytes of body read from clients.
    pub body_bytes: Counter,
    /// `lb`'s own answers, as [`Reason::ALL`] has them.
    pub errors: [Counter; Reason::ALL.len()],
    /// The requests that no server answered.
    pub serverless: Tally,
}

impl WorkerStats {
    /// A request is over that took this long; `tally` is that of its server.
    pub fn request_over(
        &self,
        tally: Option<&Tally>,
        status: Option<StatusCode>,
        took: Duration,
        outcome: Outcome,
    ) {
        let (class, tally) = (class_of(status), tally.unwrap_or(&self.serverless));
        self.requests[class].add(1);
        tally.requests[class].add(1);
        if status != Some(StatusCode::SWITCHING_PROTOCOLS) {
            tally.duration.observe(took);
        }
        match outcome {
            // After a stop nobody asks for metrics.
            Outcome::Complete | Outcome::Stopped => {}
            Outcome::ClientGone => tally.client_gone.add(1),
            Outcome::ServerBrokeOff => tally.broke_off.add(1),
        }
    }

    /// `lb` answers itself.
    pub fn refused(&self, reason: Reason) {
        if let Some(error) = self.errors.get(reason as usize) {
            error.add(1);
        }
    }
}

/// What is counted of one server by all threads.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// One for each worker that has had a request for it.
    tallies: Mutex<Vec<Arc<Tally>>>,
    /// Changes of what is observed, by what it became; written under the
    /// cluster's lock.
    transitions: [Counter; Observed::ALL.len()],
}

impl ServerStats {
    /// The tally of one more worker.
    pub fn enlist(&self) -> Arc<Tally> {
        let tally = Arc::<Tally>::default();
        lock(&self.tallies).push(tally.clone());
        tally
    }

    /// The tallies so far.
    pub fn tallies(&self) -> Vec<Arc<Tally>> {
        lock(&self.tallies).clone()
    }

    /// It has become `to`. One thread at a time may say so.
    pub fn became(&self, to: Observed) {
        self.transitions[to as usize].add(1);
    }

    /// How often it has become `to`.
    pub fn transitions(&self, to: Observed) -> u64 {
        self.transitions[to as usize].get()
    }
}

/// What became of the attempts to load the configuration anew.
#[derive(Debug)]
pub struct Reloads(Mutex<ReloadCounts>);

/// The same at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ReloadCounts {
    /// Configurations that took the place of the one before.
    pub succeeded: u64,
    /// Those that could not be read, and changed nothing.
    pub failed: u64,
    /// Whether the last failed; false before the first.
    pub last_failed: bool,
    /// When the configuration that holds was loaded.
    pub loaded: SystemTime,
}

impl Default for Reloads {
    fn default() -> Self {
        let loaded = wall_clock();
        Reloads(Mutex::new(ReloadCounts { succeeded: 0, failed: 0, last_failed: false, loaded }))
    }
}

impl Reloads {
    /// A new configuration holds.
    pub fn succeeded(&self) {
        let mut counts = lock(&self.0);
        counts.succeeded += 1;
        counts.last_failed = false;
        counts.loaded = wall_clock();
    }

    /// A new configuration could not be read: the one before goes on.
    pub fn failed(&self) {
        let mut counts = lock(&self.0);
        counts.failed += 1;
        counts.last_failed = true;
    }

    /// What became of them so far.
    pub fn counts(&self) -> ReloadCounts {
        *lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_place() {
        for (place, failure) in FAILURES.into_iter().enumerate() {
            assert_eq!(place_of(failure), place);
        }
    }

    #[test]
    fn statuses_have_classes() {
        let class = |status: u16| CLASSES[class_of(StatusCode::from_u16(status).ok())];
        let statuses = [101, 200, 299, 304, 404, 499, 500, 599, 600, 999];
        assert_eq!(
            statuses.map(class),
            ["1xx", "2xx", "2xx", "3xx", "4xx", "4xx", "5xx", "5xx", "5xx", "5xx"]
        );
        assert_eq!(CLASSES[class_of(None)], "4xx");
    }
}
