//! The ledger: every request is accounted for, and nothing else happened.
//!
//! Owns the rules that hold in every scenario, whatever the balancer and
//! whatever the faults. Never looks at time or order: only at what belongs
//! together by nonce. Called by scenarios when their requests are done.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::body::BodyDigest;
use crate::log::{Event, EventKind};

/// What a ledger in order adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests that clients sent.
    pub requests: usize,
    /// Of them, those with a whole answer.
    pub answered: usize,
    /// Of them, those that came to nothing.
    pub failed: usize,
    /// Of them, those whose answer is awaited when the events end.
    pub open: usize,
    /// Of them, those that reached a backend at least once.
    pub reached: usize,
    /// Requests that backends received: `reached + retries`.
    pub arrivals: usize,
    /// Arrivals beyond each request's first.
    pub retries: usize,
    /// Requests that failed or were answered 500 or above.
    pub client_errors: usize,
}

/// A rule that was broken, by one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nonce={nonce}: {what}")]
pub struct Violation {
    /// The request.
    pub nonce: u64,
    /// The rule, with what was got and expected.
    pub what: String,
}

/// Every rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

/// What is known of one request.
#[derive(Default)]
struct Account<'a> {
    sent: Option<Sent<'a>>,
    outcomes: usize,
    answers: Vec<Answer<'a>>,
    /// Backends and methods, an arrival each.
    arrivals: Vec<(&'a str, &'a str)>,
    executions: Vec<(&'a str, BodyDigest)>,
}

struct Sent<'a> {
    method: &'a str,
    body: BodyDigest,
}

struct Answer<'a> {
    status: u16,
    backend: Option<&'a Arc<str>>,
    echo: Option<u64>,
    received: Option<BodyDigest>,
    promised: Option<BodyDigest>,
    body: BodyDigest,
}

/// Whether a request may be executed twice (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// Checks all requests of a log:
///
/// - each was sent once, and has at most one outcome;
/// - what arrives at a backend was sent, with that method; one that is not
///   idempotent arrives at most once over all backends;
/// - what a backend executed has the body that the client sent;
/// - no answer belongs to another request;
/// - a 2xx by a backend was executed by that backend, says so, and has the body
///   that the backend meant.
///
/// Requests without a nonce are nobody's and are not looked at.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use testbed::{backend::Backend, client::Client, fault::Fault, ledger, log::EventLog};
///
/// let log = EventLog::new();
/// let a = Backend::builder("A").start(&log).await?;
/// // What is under test would stand here, between them.
/// let mut client = Client::new("c1", a.addr(), &log);
/// client.post("/", b"once".to_vec()).await?;
/// a.arm(Fault::ResetAfterRequest, 1);
/// assert!(client.get("/").await.is_err());
///
/// let summary = ledger::check(&log.events())?;
/// assert_eq!((summary.requests, summary.arrivals), (2, 2));
/// assert_eq!((summary.answered, summary.client_errors), (1, 1));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// All that is wrong.
pub fn check(events: &[Event]) -> Result<Summary, Violations> {
    let (accounts, mut wrong) = open_accounts(events);
    for (nonce, account) in &accounts {
        let mut complain = |what| {
            wrong.push(Violation { nonce: *nonce, what });
        };
        account.check_arrivals(&mut complain);
        for answer in &account.answers {
            account.check_answer(*nonce, answer, &mut complain);
        }
    }
    match wrong.is_empty() {
        true => Ok(summary(&accounts)),
        false => Err(Violations(wrong)),
    }
}

type Accounts<'a> = BTreeMap<u64, Account<'a>>;

fn open_accounts(events: &[Event]) -> (Accounts<'_>, Vec<Violation>) {
    let (mut accounts, mut wrong) = (Accounts::new(), Vec::new());
    for event in events {
        let Some(nonce) = event.nonce() else { continue };
        let account = accounts.entry(nonce).or_default();
        if let EventKind::Sent { .. } = event.kind
            && account.sent.is_some()
        {
            let what = "sent twice: nonces must be unique".to_owned();
            wrong.push(Violation { nonce, what });
        }
        account.enter(&event.kind);
    }
    (accounts, wrong)
}

impl<'a> Account<'a> {
    fn enter(&mut self, kind: &'a EventKind) {
        match kind {
            EventKind::Sent { method, body, .. } => {
                self.sent = Some(Sent { method, body: *body });
            }
            EventKind::Received { backend, method, .. } => self.arrivals.push((backend, method)),
            EventKind::Executed { backend, body, .. } => self.executions.push((backend, *body)),
            EventKind::Failed { .. } => self.outcomes += 1,
            EventKind::Answered { status, backend, echo, received, promised, body, .. } => {
                self.outcomes += 1;
                self.answers.push(Answer {
                    status: *status,
                    backend: backend.as_ref(),
                    echo: *echo,
                    received: *received,
                    promised: *promised,
                    body: *body,
                });
            }
            _ => {}
        }
    }

    fn check_arrivals(&self, complain: &mut impl FnMut(String)) {
        let Some(sent) = &self.sent else {
            return complain("in the log, but no client sent it".to_owned());
        };
        if self.outcomes > 1 {
            complain(format!("{} outcomes, expected one", self.outcomes));
        }
        let at: Vec<_> = self.arrivals.iter().map(|(backend, _)| *backend).collect();
        if at.len() > 1 && !is_idempotent(sent.method) {
            complain(format!("{} arrived {} times, at {at:?}", sent.method, at.len()));
        }
        for (backend, method) in &self.arrivals {
            if *method != sent.method {
                complain(format!("sent as {}, got by {backend} as {method}", sent.method));
            }
        }
        for (backend, body) in &self.executions {
            if *body != sent.body {
                complain(format!("body sent {}, executed by {backend} {body}", sent.body));
            }
        }
    }

    fn check_answer(&self, nonce: u64, answer: &Answer<'a>, complain: &mut impl FnMut(String)) {
        if let Some(echo) = answer.echo.filter(|echo| *echo != nonce) {
            complain(format!("got the answer to nonce {echo}"));
        }
        let Some(backend) = answer.backend.filter(|_| is_success(answer.status)) else {
            return;
        };
        if answer.echo.is_none() {
            complain(format!("a {} by {backend} without X-Nonce", answer.status));
        }
        let mut executed = self.executions.iter().filter(|(at, _)| *at == &**backend);
        let Some((_, body)) = executed.next() else {
            return complain(format!("a {} by {backend}, which did not execute it", answer.status));
        };
        if let Some(received) = answer.received.filter(|received| received != body) {
            complain(format!("{backend} executed body {body}, says it was {received}"));
        }
        self.check_body(answer, complain);
    }

    fn check_body(&self, answer: &Answer<'a>, complain: &mut impl FnMut(String)) {
        let is_head = self.sent.as_ref().is_some_and(|sent| sent.method == "HEAD");
        let empty = is_head || matches!(answer.status, 204 | 205);
        let expected = match empty {
            true => Some(BodyDigest::default()),
            false => answer.promised,
        };
        if let Some(expected) = expected.filter(|expected| *expected != answer.body) {
            complain(format!("answer's body {}, expected {expected}", answer.body));
        }
    }

    fn is_client_error(&self) -> bool {
        let failed = self.outcomes > self.answers.len();
        failed || self.answers.iter().any(|answer| answer.status >= 500)
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn summary(accounts: &Accounts<'_>) -> Summary {
    let mut sum = Summary::default();
    for account in accounts.values() {
        sum.requests += 1;
        sum.answered += account.answers.len();
        sum.failed += account.outcomes - account.answers.len();
        sum.open += usize::from(account.outcomes == 0);
        sum.reached += usize::from(!account.arrivals.is_empty());
        sum.arrivals += account.arrivals.len();
        sum.client_errors += usize::from(account.is_client_error());
    }
    sum.retries = sum.arrivals - sum.reached;
    sum
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ledger has {} violations:", self.0.len())?;
        let shown = self.0.iter().take(20);
        shown.into_iter().try_for_each(|v| write!(f, "\n  {v}"))
    }
}

impl std::error::Error for Violations {}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
