//! Bounds the connects under way to one server.
//!
//! A short listen backlog (Python's is 5) makes the kernel drop connects to a
//! healthy server. So connects start few, grow by one with each success (which
//! doubles them in a round trip, as TCP's slow start does) and fall back when a
//! SYN was lost. Owns the window and the patience with a silent connect; never
//! connects itself.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// Connects under way to one server at first, and after a timeout.
const INITIAL: usize = 4;
/// Connects under way to one server at most.
const MAX: usize = 1024;

/// The least and the most patience with a silent connect: the kernel sends a
/// lost SYN again after a second (RFC 6298 §2).
const PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The patience before any connect has succeeded (RFC 8305 §5).
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(250);

/// The window of connects under way to one server, shared by all workers.
#[derive(Debug)]
pub struct Governor {
    permits: Semaphore,
    window: Mutex<Window>,
    /// Connects that have succeeded, ever.
    successes: AtomicU64,
    /// The fastest of them, in microseconds; `u64::MAX` before the first.
    fastest_us: AtomicU64,
}

#[derive(Debug)]
struct Window {
    /// Permits that exist, free or held.
    existing: usize,
    /// Permits that should exist; held ones above it vanish when given back.
    target: usize,
}

impl Default for Governor {
    fn default() -> Self {
        Governor {
            permits: Semaphore::new(INITIAL),
            window: Mutex::new(Window { existing: INITIAL, target: INITIAL }),
            successes: AtomicU64::new(0),
            fastest_us: AtomicU64::new(u64::MAX),
        }
    }
}

/// Leave to have one connect under way; given back when dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    governor: &'a Governor,
    permit: Option<SemaphorePermit<'a>>,
    successes_before: u64,
    began: Instant,
}

impl Governor {
    /// Waits for leave to connect, first come, first served.
    pub async fn acquire(&self) -> Permit<'_> {
        // The semaphore is never closed; if it were, connecting ungoverned
        // would be the lesser evil.
        let permit = self.permits.acquire().await.ok();
        let successes_before = self.successes.load(Ordering::Relaxed);
        Permit { governor: self, permit, successes_before, began: Instant::now() }
    }

    fn slow_down(&self, took_us: u64) {
        let fastest = self.fastest_us.load(Ordering::Relaxed);
        self.fastest_us.store(fastest.saturating_mul(2).min(took_us), Ordering::Relaxed);
    }

    fn fall_back(&self) {
        let mut window = self.window();
        window.target = INITIAL;
        let surplus = window.existing.saturating_sub(INITIAL);
        window.existing -= self.permits.forget_permits(surplus);
    }

    /// How long a connect to this server may be silent before its SYN may be
    /// taken for lost: several times what the fastest took.
    pub fn patience(&self) -> Duration {
        match self.fastest_us.load(Ordering::Relaxed) {
            u64::MAX => UNKNOWN_PATIENCE,
            fastest => {
                Duration::from_micros(fastest.saturating_mul(8)).clamp(PATIENCE.0, PATIENCE.1)
            }
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// How long the connect may be silent: see [`Governor::patience`].
    pub fn patience(&self) -> Duration {
        self.governor.patience()
    }

    /// The connect succeeded: one more may be under way, unless it took so long
    /// that its SYN must have been lost on a full backlog.
    pub fn succeeded(self) {
        let took = self.began.elapsed();
        let lost_syn = took >= self.patience();
        self.governor.successes.fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.governor.fastest_us.fetch_min(took_us, Ordering::Relaxed);
        if lost_syn {
            // Or the way has become longer for good: be more patient next time.
            self.governor.slow_down(took_us);
            return self.governor.fall_back();
        }
        let mut window = self.governor.window();
        if window.target < MAX {
            window.target += 1;
        }
        if window.existing < window.target {
            self.governor.permits.add_permits(window.target - window.existing);
            window.existing = window.target;
        }
    }

    /// The connect timed out: back to the beginning. Returns whether that
    /// speaks against the server: it does not if another connect succeeded
    /// meanwhile.
    pub fn timed_out(self) -> bool {
        self.governor.fall_back();
        self.governor.successes.load(Ordering::Relaxed) == self.successes_before
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut window = self.governor.window();
        if window.existing > window.target
            && let Some(permit) = self.permit.take()
        {
            window.existing -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(governor: &Governor) -> usize {
        governor.permits.available_permits()
    }

    #[tokio::test]
    async fn doubles_in_a_round_of_successes() {
        let governor = Governor::default();
        let mut round = Vec::new();
        for _ in 0..INITIAL {
            round.push(governor.acquire().await);
        }
        assert_eq!(free(&governor), 0);
        round.into_iter().for_each(Permit::succeeded);
        assert_eq!(free(&governor), 2 * INITIAL);
    }

    #[tokio::test]
    async fn falls_back_to_the_beginning_after_a_timeout() {
        let governor = Governor::default();
        for _ in 0..20 {
            governor.acquire().await.succeeded();
        }
        let held: Vec<_> = [governor.acquire().await, governor.acquire().await].into();
        assert!(governor.acquire().await.timed_out());
        drop(held);
        assert_eq!(free(&governor), INITIAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_syn_falls_back_too() {
        let governor = Governor::default();
        for _ in 0..20 {
            governor.acquire().await.succeeded();
        }
        let slow = governor.acquire().await;
        tokio::time::advance(PATIENCE.0).await;
        slow.succeeded();
        assert_eq!(free(&governor), INITIAL);
    }

    #[tokio::test]
    async fn a_timeout_beside_a_success_blames_nobody() {
        let governor = Governor::default();
        let slow = governor.acquire().await;
        governor.acquire().await.succeeded();
        assert!(!slow.timed_out());
    }
}
