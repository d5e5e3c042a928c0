//! The event log: one sequence of numbered, timed events of all parties.
//!
//! Owns the order of what happened and the only way to wait: for an event,
//! with a watchdog that only ever produces a failure report. Never decides
//! whether what happened was right: see [`crate::ledger`]. Called by every
//! backend, client and child process, and by the scenarios.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub use crate::event::{Event, EventKind};
use crate::sync::lock;

/// How long a wait takes at most, unless told otherwise.
pub const DEFAULT_WATCHDOG: Duration = Duration::from_secs(10);

/// How many events a fired watchdog shows.
const TAIL: usize = 25;

/// How notes about panics begin.
const PANIC: &str = "panic: ";

/// A handle on the log; clones share it.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use testbed::log::{EventKind, EventLog};
///
/// let log = EventLog::new();
/// let mark = log.len();
/// let other = log.clone();
/// tokio::spawn(async move { other.note("under way") });
/// let noted = log.wait_from(mark, "the note", |event| {
///     matches!(&event.kind, EventKind::Note(text) if text == "under way")
/// });
/// assert_eq!(noted.await?.seq, mark);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

/// What was awaited did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {after:?} for {what}; the last events were:\n{tail}")]
pub struct WatchdogFired {
    /// What was awaited, in the words of whoever waited.
    pub what: String,
    /// For how long.
    pub after: Duration,
    /// The last events, a line each.
    pub tail: String,
}

type Tap = Box<dyn Fn(&Event) + Send + Sync>;

struct Inner {
    began: Instant,
    watchdog: Duration,
    written: Mutex<Written>,
    /// Notified after each event, with `written` unlocked.
    news: Notify,
    nonces: AtomicU64,
    tap: Option<Tap>,
}

struct Written {
    next: u64,
    /// The events 0..next; empty for ever if the log has a tap.
    events: Vec<Event>,
}

impl EventLog {
    /// An empty log that begins now.
    pub fn new() -> Self {
        Self::build(DEFAULT_WATCHDOG, None)
    }

    /// An empty log whose waits take at most `watchdog`.
    pub fn with_watchdog(watchdog: Duration) -> Self {
        Self::build(watchdog, None)
    }

    /// A log that keeps nothing and hands each event to `tap` before `record`
    /// returns: for a process that prints what happens and runs for long.
    /// Nothing can be awaited on it.
    pub fn forwarding(tap: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self::build(DEFAULT_WATCHDOG, Some(Box::new(tap)))
    }

    fn build(watchdog: Duration, tap: Option<Tap>) -> Self {
        let written = Mutex::new(Written { next: 0, events: Vec::new() });
        Self {
            inner: Arc::new(Inner {
                began: Instant::now(),
                watchdog,
                written,
                news: Notify::new(),
                nonces: AtomicU64::new(1),
                tap,
            }),
        }
    }

    /// Appends an event and wakes whoever waits. Returns its number.
    pub fn record(&self, kind: EventKind) -> u64 {
        let seq = self.inner.append(kind);
        self.inner.news.notify_waiters();
        seq
    }

    /// Appends a note.
    pub fn note(&self, text: impl Into<String>) -> u64 {
        self.record(EventKind::Note(text.into()))
    }

    /// Appends a note about a panic, for [`EventLog::panics`] to find.
    pub fn note_panic(&self, text: impl fmt::Display) -> u64 {
        self.note(format!("{PANIC}{text}"))
    }

    /// The notes about panics. A scenario with any of them has failed.
    pub fn panics(&self) -> Vec<String> {
        let is_panic = |event: &Event| match &event.kind {
            EventKind::Note(text) if text.starts_with(PANIC) => Some(text.clone()),
            _ => None,
        };
        let written = lock(&self.inner.written);
        written.events.iter().filter_map(is_panic).collect()
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events_from(0)
    }

    /// The events from number `mark` on.
    pub fn events_from(&self, mark: u64) -> Vec<Event> {
        lock(&self.inner.written).from(mark).to_vec()
    }

    /// The number that the next event gets: a mark to wait from.
    pub fn len(&self) -> u64 {
        lock(&self.inner.written).next
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that no other request of this log has.
    pub fn next_nonce(&self) -> u64 {
        self.inner.nonces.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for the first event that `pred` accepts; past ones count. `pred`
    /// runs under the log's lock and must not use the log.
    ///
    /// # Errors
    /// [`WatchdogFired`] if there is none in time.
    pub async fn wait(
        &self,
        what: &str,
        pred: impl FnMut(&Event) -> bool,
    ) -> Result<Event, WatchdogFired> {
        self.wait_count(0, 1, what, pred).await
    }

    /// As [`EventLog::wait`], with only the events from number `mark` on.
    ///
    /// # Errors
    /// [`WatchdogFired`] if there is none in time.
    pub async fn wait_from(
        &self,
        mark: u64,
        what: &str,
        pred: impl FnMut(&Event) -> bool,
    ) -> Result<Event, WatchdogFired> {
        self.wait_count(mark, 1, what, pred).await
    }

    /// As [`EventLog::wait_from`], for the `n`-th such event; 0 is taken as 1.
    ///
    /// # Errors
    /// [`WatchdogFired`] if there are fewer in time.
    pub async fn wait_count(
        &self,
        mark: u64,
        n: usize,
        what: &str,
        mut pred: impl FnMut(&Event) -> bool,
    ) -> Result<Event, WatchdogFired> {
        let mut missing = n.max(1);
        let nth = |event: &Event| {
            missing -= usize::from(pred(event));
            missing == 0
        };
        let found = timeout(self.inner.watchdog, self.inner.find(mark, nth)).await;
        found.map_err(|_| WatchdogFired {
            what: what.to_owned(),
            after: self.inner.watchdog,
            tail: self.tail(TAIL),
        })
    }

    /// How many events from number `mark` on `pred` accepts.
    pub fn count(&self, mark: u64, mut pred: impl FnMut(&Event) -> bool) -> usize {
        let written = lock(&self.inner.written);
        written.from(mark).iter().filter(|e| pred(e)).count()
    }

    /// The last `n` events, a line each.
    pub fn tail(&self, n: usize) -> String {
        let written = lock(&self.inner.written);
        let from = written.events.len().saturating_sub(n);
        let lines = written.events[from..].iter().map(|e| format!("  {e}\n"));
        lines.collect()
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventLog({} events)", self.len())
    }
}

impl Inner {
    fn append(&self, kind: EventKind) -> u64 {
        let mut written = lock(&self.written);
        let seq = written.next;
        let at = self.began.elapsed();
        let event = Event { seq, at, kind };
        written.next += 1;
        match &self.tap {
            Some(tap) => tap(&event),
            None => written.events.push(event),
        }
        seq
    }

    /// Looks at each event from `mark` on once, until `pred` accepts one.
    async fn find(&self, mark: u64, mut pred: impl FnMut(&Event) -> bool) -> Event {
        let mut seen = mark;
        loop {
            // Registered before looking: what is recorded in between wakes us.
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(event) = self.look(&mut seen, &mut pred) {
                return event;
            }
            news.await;
        }
    }

    fn look(&self, seen: &mut u64, pred: &mut impl FnMut(&Event) -> bool) -> Option<Event> {
        let written = lock(&self.written);
        let found = written.from(*seen).iter().find(|e| pred(e)).cloned();
        *seen = (*seen).max(written.next);
        found
    }
}

impl Written {
    fn from(&self, mark: u64) -> &[Event] {
        let from = usize::try_from(mark).unwrap_or(usize::MAX);
        self.events.get(from..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_note(event: &Event, text: &str) -> bool {
        matches!(&event.kind, EventKind::Note(t) if t == text)
    }

    #[tokio::test]
    async fn a_wait_sees_the_past_and_wait_from_does_not() {
        let log = EventLog::with_watchdog(Duration::from_millis(20));
        log.note("x");
        let found = log.wait("x", |e| is_note(e, "x")).await.unwrap();
        assert_eq!(found.seq, 0);
        let fired = log.wait_from(log.len(), "a second x", |e| is_note(e, "x")).await;
        let text = fired.unwrap_err().to_string();
        assert!(text.contains("for a second x"), "{text}");
        assert!(text.contains("event=note text=\"x\""), "{text}");
    }

    #[tokio::test]
    async fn a_mark_beyond_the_end_waits_for_that_number() {
        let log = EventLog::new();
        let waiting = log.wait_from(2, "event 2", |_| true);
        let writing = async {
            for _ in 0..3 {
                log.note("x");
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(tokio::join!(waiting, writing).0.unwrap().seq, 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_and_each_event_is_looked_at_once() {
        const N: usize = 50_000;
        let log = EventLog::new();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    for i in 0..N {
                        log.note("x");
                        if i % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        let mut looked = 0;
        let last = log
            .wait_count(0, 2 * N, "all of them", |_| {
                looked += 1;
                true
            })
            .await;
        assert_eq!(last.unwrap().seq as usize, 2 * N - 1);
        assert_eq!(looked, 2 * N);
        for writer in writers {
            writer.await.unwrap();
        }
    }

    #[test]
    fn a_forwarding_log_keeps_nothing() {
        let seen = Arc::new(AtomicU64::new(0));
        let tally = Arc::clone(&seen);
        let log = EventLog::forwarding(move |_| {
            tally.fetch_add(1, Ordering::Relaxed);
        });
        log.note("x");
        assert_eq!((seen.load(Ordering::Relaxed), log.events().len()), (1, 0));
    }
}
