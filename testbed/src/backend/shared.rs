//! What a backend's handle, supervisor and connections share.
//!
//! Owns the faults and the health that the next request meets, and the gate of
//! the parked requests. Does no I/O.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::fault::{Fault, Health};
use crate::log::{EventKind, EventLog};
use crate::sync::{Board, lock};

/// One backend's settings and counters.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) log: EventLog,
    pub(crate) health_path: String,
    /// The body of a normal answer.
    pub(crate) body: Vec<u8>,
    faults: Mutex<Faults>,
    health: Mutex<Health>,
    /// Counts the calls of `release`.
    releases: Arc<Board<u64>>,
    parked: Arc<AtomicUsize>,
    panics: Mutex<Vec<String>>,
}

/// Which fault comes next.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Met by whoever no armed fault is left for.
    standing: Fault,
    /// Each with how many requests are still to meet it, which is never 0.
    armed: VecDeque<(Fault, u64)>,
}

/// Lets its holder wait for the first release after it was drawn.
#[derive(Debug)]
pub(crate) struct Ticket {
    releases: Arc<Board<u64>>,
    drawn_at: u64,
    /// While it exists, its holder is counted as parked.
    _counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Shared {
    pub(crate) fn new(name: Arc<str>, log: EventLog, health_path: String, body: Vec<u8>) -> Self {
        Self {
            name,
            log,
            health_path,
            body,
            faults: Mutex::default(),
            health: Mutex::default(),
            releases: Arc::default(),
            parked: Arc::default(),
            panics: Mutex::default(),
        }
    }

    pub(crate) fn record(&self, kind: EventKind) {
        self.log.record(kind);
    }

    pub(crate) fn note(&self, what: impl fmt::Display) {
        self.log.note(format!("backend={} {what}", self.name));
    }

    pub(crate) fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    // What changes is logged first: what follows from it is logged later.

    pub(crate) fn set_health(&self, health: Health) {
        self.record(EventKind::HealthSet { backend: self.named(), health: health.clone() });
        *lock(&self.health) = health;
    }

    /// Meets whoever no armed fault is left for.
    pub(crate) fn stand(&self, fault: Fault) {
        self.armed(&fault, None);
        self.faults(|faults| faults.standing = fault);
    }

    /// Meets the next `times` requests, after those armed before.
    pub(crate) fn arm(&self, fault: Fault, times: u64) {
        self.armed(&fault, Some(times));
        self.faults(|faults| faults.arm(fault, times));
    }

    pub(crate) fn clear(&self) {
        self.record(EventKind::Cleared { backend: self.named() });
        self.faults(Faults::clear);
    }

    fn armed(&self, fault: &Fault, times: Option<u64>) {
        self.record(EventKind::Armed { backend: self.named(), fault: fault.clone(), times });
    }

    fn named(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut lock(&self.faults))
    }

    /// Lets go whoever drew a ticket before.
    pub(crate) fn release(&self) {
        self.releases.change(|n| *n += 1);
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked.load(Ordering::SeqCst)
    }

    /// A ticket of a parked request.
    pub(crate) fn park(&self) -> Ticket {
        self.parked.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(Arc::clone(&self.parked));
        self.draw(Some(counted))
    }

    /// A ticket that counts for nothing.
    pub(crate) fn ticket(&self) -> Ticket {
        self.draw(None)
    }

    fn draw(&self, counted: Option<Counted>) -> Ticket {
        let releases = Arc::clone(&self.releases);
        let drawn_at = releases.get();
        Ticket { releases, drawn_at, _counted: counted }
    }

    pub(crate) fn panicked(&self, what: &str) {
        lock(&self.panics).push(what.to_owned());
        self.log.note_panic(format!("backend={} {what}", self.name));
    }

    pub(crate) fn panics(&self) -> Vec<String> {
        lock(&self.panics).clone()
    }
}

impl Faults {
    /// The next `times` requests meet `fault`, after those armed before.
    fn arm(&mut self, fault: Fault, times: u64) {
        if times > 0 {
            self.armed.push_back((fault, times));
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// The fault that this request meets.
    pub(crate) fn for_request(&mut self) -> Fault {
        self.take(|fault| *fault != Fault::ResetOnAccept).unwrap_or_default()
    }

    /// Whether this connection is to be reset before it says anything.
    pub(crate) fn reset_on_accept(&mut self) -> bool {
        self.take(|fault| *fault == Fault::ResetOnAccept).is_some()
    }

    fn take(&mut self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let Some(at) = self.armed.iter().position(|(fault, _)| fits(fault)) else {
            return fits(&self.standing).then(|| self.standing.clone());
        };
        self.armed[at].1 -= 1;
        match self.armed[at].1 {
            0 => self.armed.remove(at).map(|(fault, _)| fault),
            _ => Some(self.armed[at].0.clone()),
        }
    }
}

impl Ticket {
    /// Waits for the first release since the ticket was drawn.
    pub(crate) async fn released(&mut self) {
        self.releases.until(|n| *n > self.drawn_at).await;
    }

    /// From now on the ticket waits for one release more, even if that has come
    /// already: none is lost.
    pub(crate) fn next(&mut self) {
        self.drawn_at += 1;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
