//! The ledger of a run that is too long to be kept whole.
//!
//! Owns the events of the requests that are not over yet. A request's account is
//! closed some rounds after its outcome: the ledger checks it, its error is
//! excused or complained of, and its events are forgotten. What comes later is a
//! violation: a request that its client has long given up is not to be executed.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use testbed::{
    ledger::{self, Summary},
    log::{Event, EventKind, EventLog},
};

use super::disruptions::{Disruptions, Loss, Outcome};

/// How many rounds an account stays open after its outcome: lines of servers'
/// processes come later than what they are about.
const ROUNDS: u32 = 3;

/// How many complaints are kept.
const KEPT: usize = 20;

/// The clients' and servers' log, and what it says since it was last asked.
#[derive(Clone, Default)]
pub(super) struct Inbox(Arc<Mutex<Vec<Event>>>);

impl Inbox {
    /// A log that keeps nothing but what is taken out of here.
    pub(super) fn log(&self) -> EventLog {
        let inbox = self.clone();
        EventLog::forwarding(move |event| {
            if event.nonce().is_some() {
                inbox.0.lock().unwrap_or_else(PoisonError::into_inner).push(slim(event));
            }
        })
    }

    fn take(&self) -> Vec<Event> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The event without the bytes of heads, but for those that an answer came to no
/// good end after.
fn slim(event: &Event) -> Event {
    let mut event = event.clone();
    if let EventKind::Sent { head, .. }
    | EventKind::Received { head, .. }
    | EventKind::Answered { head, .. } = &mut event.kind
    {
        *head = Arc::new([]);
    }
    event
}

/// One request that is not closed.
#[derive(Default)]
struct Account {
    events: Vec<Event>,
    /// Rounds since its outcome; none before.
    rounds: Option<u32>,
}

/// What clients have seen so far, for the counters of `lb` to be held against.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Seen {
    /// Whole answers of 2xx.
    pub(super) answered: u64,
    /// Requests without a whole answer: `lb` may have counted one for them.
    pub(super) failed: u64,
}

/// What all closed accounts add up to.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// The ledger's sums.
    pub(super) ledger: Summary,
    /// Errors that are nobody's fault, by the reason.
    pub(super) excused: BTreeMap<&'static str, usize>,
    /// Errors that are not, a sentence each; no more than the first few.
    pub(super) errors: Vec<String>,
    /// How many there are.
    pub(super) error_count: usize,
    /// What the ledger complains of; no more than the first few.
    pub(super) violations: Vec<String>,
    /// Of all accounts, the open ones included.
    pub(super) seen: Seen,
}

/// All accounts.
pub(super) struct Books {
    inbox: Inbox,
    disruptions: Disruptions,
    open: BTreeMap<u64, Account>,
    /// By nonce.
    closed: Vec<bool>,
    totals: Totals,
}

impl Books {
    pub(super) fn new(inbox: Inbox, disruptions: Disruptions) -> Self {
        let (open, closed) = (BTreeMap::new(), Vec::new());
        Self { inbox, disruptions, open, closed, totals: Totals::default() }
    }

    /// What the closed accounts add up to so far.
    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Enters what clients and servers in this process have seen by now, and
    /// returns what the clients have.
    pub(super) fn catch_up(&mut self) -> Seen {
        for event in self.inbox.take() {
            self.enter(event);
        }
        self.totals.seen
    }

    /// Enters what happened since the last round, `others` included, and closes
    /// what is long over.
    pub(super) fn round(&mut self, others: Vec<Event>) {
        self.catch_up();
        for event in others {
            self.enter(event);
        }
        let open = mem::take(&mut self.open).into_iter();
        let (over, open) = open.partition(|(_, account)| account.rounds > Some(ROUNDS));
        self.open = open;
        for account in self.open.values_mut() {
            account.rounds = account.rounds.map(|rounds| rounds + 1);
        }
        self.close(over);
    }

    /// Closes everything. Returns the sums.
    pub(super) fn end(mut self, others: Vec<Event>) -> Totals {
        self.round(others);
        let left = mem::take(&mut self.open);
        self.close(left);
        self.totals
    }

    fn enter(&mut self, event: Event) {
        let Some(nonce) = event.nonce() else { return };
        if self.is_closed(nonce) {
            return self
                .totals
                .violate(format!("nonce={nonce}: long over, and now {}", event.kind));
        }
        match event.kind {
            EventKind::Answered { status: 200..=299, .. } => self.totals.seen.answered += 1,
            EventKind::Failed { .. } => self.totals.seen.failed += 1,
            _ => {}
        }
        let account = self.open.entry(nonce).or_default();
        if let EventKind::Answered { .. } | EventKind::Failed { .. } = event.kind {
            account.rounds.get_or_insert(0);
        }
        account.events.push(event);
    }

    fn is_closed(&self, nonce: u64) -> bool {
        let place = usize::try_from(nonce).ok();
        place.and_then(|place| self.closed.get(place)).is_some_and(|closed| *closed)
    }

    fn close(&mut self, over: BTreeMap<u64, Account>) {
        for (nonce, account) in over {
            if let Ok(place) = usize::try_from(nonce) {
                self.closed.resize(self.closed.len().max(place + 1), false);
                self.closed[place] = true;
            }
            self.judge(&account.events);
            match ledger::check(&account.events) {
                Ok(summary) => self.totals.add(&summary),
                Err(violations) => violations
                    .0
                    .into_iter()
                    .for_each(|violation| self.totals.violate(violation.to_string())),
            }
        }
    }

    /// Excuses what went wrong for the client, or complains of it.
    fn judge(&mut self, events: &[Event]) {
        let sent = events.iter().find_map(|event| match &event.kind {
            EventKind::Sent { method, body, .. } => Some((event.at, method, body.len)),
            _ => None,
        });
        let Some((began, method, body_bytes)) = sent else { return };
        for event in events {
            let Some(outcome) = bad_outcome(&event.kind) else { continue };
            let loss = Loss { method, body_bytes, began, ended: event.at, outcome };
            match self.disruptions.excuse(&loss) {
                Some(excuse) => *self.totals.excused.entry(excuse).or_default() += 1,
                None => self.totals.blame(format!("{method} of {body_bytes} bytes: {event}")),
            }
        }
    }
}

/// The outcome in this event, unless it is a good one, or none.
fn bad_outcome(kind: &EventKind) -> Option<Outcome<'_>> {
    match kind {
        EventKind::Answered { status: 200..=399, .. } => None,
        EventKind::Answered { status, backend, .. } => {
            Some(Outcome::Answer { status: *status, server: backend.as_deref() })
        }
        EventKind::Failed { error, .. } if error == "aborted by the client" => {
            Some(Outcome::Abandoned)
        }
        EventKind::Failed { error, .. } if error.starts_with("no whole answer within") => {
            Some(Outcome::Stalled)
        }
        EventKind::Failed { status: Some(_), head, .. } => {
            Some(Outcome::BrokeOff { server: server_of(head) })
        }
        EventKind::Failed { .. } => Some(Outcome::Nothing),
        _ => None,
    }
}

/// Who says of itself that an answer with this head is its own.
fn server_of(head: &[u8]) -> Option<&str> {
    let lines = std::str::from_utf8(head).ok()?.lines();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut names = fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-backend"));
    names.next().map(|(_, value)| value.trim())
}

impl Totals {
    fn add(&mut self, one: &Summary) {
        let all = &mut self.ledger;
        all.requests += one.requests;
        all.answered += one.answered;
        all.failed += one.failed;
        all.open += one.open;
        all.reached += one.reached;
        all.arrivals += one.arrivals;
        all.retries += one.retries;
        all.client_errors += one.client_errors;
    }

    fn blame(&mut self, what: String) {
        self.error_count += 1;
        if self.errors.len() < KEPT {
            self.errors.push(what);
        }
    }

    fn violate(&mut self, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testbed::{backend::Backend, client::Client, fault::Fault};

    use super::*;
    use crate::soak::disruptions::Effect;

    async fn play(book: impl AsyncFnOnce(&Disruptions, &Backend, &mut Client)) -> Totals {
        let (inbox, disruptions) = (Inbox::default(), Disruptions::new());
        let log = inbox.log();
        let backend = Backend::builder("A").start(&log).await.unwrap();
        let mut client = Client::new("c", backend.addr(), &log);
        let mut books = Books::new(inbox, disruptions.clone());
        book(&disruptions, &backend, &mut client).await;
        (0..2 * ROUNDS).for_each(|_| books.round(Vec::new()));
        assert!(books.open.is_empty(), "not closed");
        books.end(Vec::new())
    }

    #[tokio::test]
    async fn good_requests_are_closed_and_forgotten() {
        let totals = play(async |_, _, client| {
            for _ in 0..5 {
                client.post("/", b"once".to_vec()).await.unwrap();
            }
        });
        let totals = totals.await;
        assert_eq!((totals.ledger.requests, totals.ledger.answered), (5, 5));
        assert_eq!((totals.seen.answered, totals.seen.failed), (5, 0));
        assert_eq!((totals.error_count, totals.violations.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_error_without_an_excuse_is_told() {
        let totals = play(async |disruptions, backend, client| {
            backend.arm(Fault::Status(500), 1);
            client.get("/").await.unwrap();
            let _lasting = disruptions.begin("A", Effect::Says(500));
            backend.arm(Fault::Status(500), 1);
            client.get("/").await.unwrap();
            backend.arm(Fault::ResetAfterRequest, 1);
            client.get("/").await.unwrap_err();
            let _cut = disruptions.begin("A", Effect::Truncates);
            backend.arm(Fault::Truncate { after: 3 }, 1);
            client.get("/").await.unwrap_err();
        });
        let totals = totals.await;
        assert_eq!((totals.error_count, totals.excused.len()), (2, 2), "{totals:?}");
        assert_eq!((totals.seen.answered, totals.seen.failed), (0, 2));
        assert!(totals.errors[0].contains("status=500"), "{:?}", totals.errors);
    }

    #[test]
    fn what_is_executed_long_after_is_a_violation() {
        let log = EventLog::new();
        let (client, method): (Arc<str>, Arc<str>) = ("c".into(), "POST".into());
        log.record(EventKind::Sent {
            client: client.clone(),
            nonce: 1,
            method: method.clone(),
            target: "/".into(),
            body: Default::default(),
            head: Arc::new([]),
        });
        log.record(EventKind::Failed {
            client,
            nonce: 1,
            status: None,
            error: "aborted by the client".into(),
            head: Arc::new([]),
        });
        let mut books = Books::new(Inbox::default(), Disruptions::new());
        books.round(log.events());
        (0..2 * ROUNDS).for_each(|_| books.round(Vec::new()));
        let late = EventKind::Executed {
            backend: "A".into(),
            connection: 1,
            nonce: Some(1),
            method,
            body: Default::default(),
        };
        let totals = books.end(vec![Event { seq: 9, at: Duration::ZERO, kind: late }]);
        assert!(totals.violations[0].contains("long over"), "{totals:?}");
    }
}
