//! Each request of a run: who sent it, where it went, what became of it, and
//! what `lb` says of it.

use std::{collections::BTreeMap, time::Duration};

use testbed::log::{Event, EventKind};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its `X-Nonce`.
    pub(crate) nonce: u64,
    /// The client's name.
    pub(crate) client: String,
    /// `GET`, `POST`, ...
    pub(crate) method: String,
    /// Path and query, its own.
    pub(crate) target: String,
    /// When it was sent, and the number of that event.
    pub(crate) sent: (Duration, u64),
    /// The servers that it reached: when, and the number of the event.
    pub(crate) reached: Vec<(String, Duration, u64)>,
    /// How it ended, and when; none if it never did.
    pub(crate) outcome: Option<(Duration, Outcome)>,
    /// Attempts that came to nothing, as `lb` says: server, how, and after how
    /// long.
    pub(crate) failed: Vec<(String, String, Duration)>,
    /// After how long the head of a server's answer was there, as `lb` says.
    pub(crate) first_byte: Option<Duration>,
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a server's answer of this status.
    Answered(String, u16),
    /// With an answer of `lb`'s own: status and reason.
    Refused(u16, String),
    /// Without a whole answer; whether its head came, and the error.
    Broken(bool, String),
    /// It was given up by the client.
    Aborted,
}

impl Request {
    /// From its sending to its end.
    pub(crate) fn span(&self, end: Duration) -> (Duration, Duration) {
        (self.sent.0, self.outcome.as_ref().map_or(end, |(at, _)| *at))
    }
}

/// All requests of a run, in the order in which they were sent.
pub(crate) fn collect(events: &[Event], access: &str) -> Vec<Request> {
    let said: BTreeMap<&str, &str> =
        access.lines().filter_map(|line| Some((word(line, "target=\"")?, line))).collect();
    let mut requests: BTreeMap<u64, Request> = BTreeMap::new();
    for event in events {
        if let EventKind::Sent { client, nonce, method, target, .. } = &event.kind {
            let request = Request {
                nonce: *nonce,
                client: client.to_string(),
                method: method.to_string(),
                target: target.clone(),
                sent: (event.at, event.seq),
                reached: Vec::new(),
                outcome: None,
                failed: said.get(&**target).map_or_else(Vec::new, |line| failures(line)),
                first_byte: said.get(&**target).and_then(|line| first_byte(line)),
            };
            requests.insert(*nonce, request);
            continue;
        }
        let Some(request) = event.nonce().and_then(|nonce| requests.get_mut(&nonce)) else {
            continue;
        };
        match &event.kind {
            EventKind::Received { backend, .. } => {
                request.reached.push((backend.to_string(), event.at, event.seq));
            }
            EventKind::Answered { status, backend, head, .. } => {
                let outcome = match backend {
                    Some(backend) => Outcome::Answered(backend.to_string(), *status),
                    None => Outcome::Refused(*status, reason(head)),
                };
                request.outcome = Some((event.at, outcome));
            }
            EventKind::Failed { status, error, .. } => {
                let outcome = match error.as_str() {
                    "aborted by the client" => Outcome::Aborted,
                    error => Outcome::Broken(status.is_some(), error.to_owned()),
                };
                request.outcome = Some((event.at, outcome));
            }
            _ => {}
        }
    }
    requests.into_values().collect()
}

/// The attempts that came to nothing, of a line of `lb`'s access log.
fn failures(line: &str) -> Vec<(String, String, Duration)> {
    let Some(failed) = word(line, " failed=") else { return Vec::new() };
    let one = |text: &str| {
        let (server, rest) = text.split_once(':')?;
        let (how, after) = rest.split_once('@')?;
        let after = Duration::from_secs_f64(after.parse::<f64>().ok()? / 1e3);
        Some((server.to_owned(), how.to_owned(), after))
    };
    failed.split(',').filter_map(one).collect()
}

fn first_byte(line: &str) -> Option<Duration> {
    let millis: f64 = word(line, " first_byte_ms=")?.parse().ok()?;
    Some(Duration::from_secs_f64(millis / 1e3))
}

/// What stands behind `key`, to the next space or quote.
pub(crate) fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split([' ', '"']).next()
}

/// The reason in an answer's head.
fn reason(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = text.lines().find_map(|line| line.strip_prefix("x-lb-reason:"));
    line.map_or_else(|| "-".into(), |reason| reason.trim().to_owned())
}
