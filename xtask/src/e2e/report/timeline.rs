//! The events of a run as the page draws them, and which of them it gets.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Value, json};
use testbed::{
    event::EXCERPT,
    log::{Event, EventKind},
};

/// How many raw bytes a timeline has before each event gets only a few.
const MAX_RAW: usize = 32 << 10;
const FEW: usize = 128;

/// Some events of a run.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    /// How many there were.
    total: usize,
    /// Those that are kept, in order; what happened, under short keys.
    events: Vec<Value>,
}

impl Timeline {
    /// Those that lead to the failure that `message` tells, `max` at most.
    pub(super) fn around(events: Vec<Event>, message: &str, max: usize) -> Self {
        let total = events.len();
        let kept = telling(events, message, max);
        // The end matters most: what is early goes without bytes first.
        let mut room = MAX_RAW;
        let mut events: Vec<Value> =
            kept.iter().rev().map(|event| shown(event, &mut room)).collect();
        events.reverse();
        Timeline { total, events }
    }
}

/// The last events; before them, in up to a third of the room, what became of
/// the backends and what belongs to the requests that `message` names.
pub(super) fn telling(mut events: Vec<Event>, message: &str, max: usize) -> Vec<Event> {
    if events.len() <= max {
        return events;
    }
    let named = nonces(message);
    let mut earlier: Vec<Event> = events.drain(..events.len() - max).collect();
    earlier.retain(|event| is_change(event) || event.nonce().is_some_and(|n| named.contains(&n)));
    earlier.drain(..earlier.len().saturating_sub(max / 3));
    events.drain(..earlier.len());
    earlier.append(&mut events);
    earlier
}

/// The numbers behind each `nonce=`.
fn nonces(message: &str) -> HashSet<u64> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    message.split("nonce=").skip(1).filter_map(number).collect()
}

/// Whether a backend has changed its ways.
fn is_change(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Started { .. }
            | EventKind::Armed { .. }
            | EventKind::Cleared { .. }
            | EventKind::HealthSet { .. }
            | EventKind::BlackHoled { .. }
            | EventKind::Killed { .. }
            | EventKind::Stopped { .. }
            | EventKind::Revived { .. }
    )
}

/// `n` number, `t` milliseconds, `k` kind, and what belongs to the kind.
fn shown(event: &Event, room: &mut usize) -> Value {
    let mut value = of_kind(&event.kind);
    if let Some(raw) = raw(&event.kind) {
        let raw = &raw[..raw.len().min(EXCERPT).min(FEW.max(*room))];
        *room = room.saturating_sub(raw.len());
        // A character for each byte, U+0000 to U+00FF: nothing is lost.
        value["raw"] = Value::String(raw.iter().map(|byte| char::from(*byte)).collect());
    }
    value["n"] = json!(event.seq);
    value["t"] = json!((event.at.as_secs_f64() * 1e6).round() / 1e3);
    if let Some(nonce) = event.nonce() {
        value["nonce"] = json!(nonce);
    }
    if let Some(backend) = event.backend() {
        value["backend"] = json!(backend);
    }
    value
}

fn of_kind(kind: &EventKind) -> Value {
    match kind {
        EventKind::Sent { client, method, target, body, head, .. } => json!({
            "k": "sent", "client": &**client, "what": format!("{method} {target}"),
            "body": body.len, "head": head.len(),
        }),
        EventKind::Answered { client, status, body, head, .. } => json!({
            "k": "answered", "client": &**client, "status": status,
            "body": body.len, "head": head.len(),
        }),
        EventKind::Failed { client, status, error, head, .. } => json!({
            "k": "failed", "client": &**client, "status": status, "what": error,
            "head": head.len(),
        }),
        EventKind::Wrote { client, total, .. } => {
            json!({ "k": "wrote", "client": &**client, "body": total })
        }
        EventKind::Read { client, total, .. } => {
            json!({ "k": "read", "client": &**client, "body": total })
        }
        EventKind::Received { connection, method, target, head, .. } => json!({
            "k": "received", "connection": connection, "what": format!("{method} {target}"),
            "head": head.len(),
        }),
        EventKind::Executed { connection, body, .. } => {
            json!({ "k": "executed", "connection": connection, "body": body.len })
        }
        EventKind::Replied { connection, status, .. } => {
            json!({ "k": "replied", "connection": connection, "status": status })
        }
        EventKind::Probed { status, .. } => json!({ "k": "probed", "status": status }),
        EventKind::Accepted { connection, peer, .. } => {
            json!({ "k": "accepted", "connection": connection, "what": peer.to_string() })
        }
        EventKind::Closed { connection, .. } => json!({ "k": "closed", "connection": connection }),
        EventKind::Started { addr, listens, .. } => {
            json!({ "k": "started", "what": addr.to_string(), "listens": listens })
        }
        EventKind::Armed { fault, times, .. } => {
            json!({ "k": "armed", "what": fault.to_string(), "times": times })
        }
        EventKind::Cleared { .. } => json!({ "k": "cleared" }),
        EventKind::HealthSet { health, .. } => {
            let good = *health == testbed::fault::Health::default();
            json!({ "k": "health", "what": health.to_string(), "good": good })
        }
        EventKind::BlackHoled { .. } => json!({ "k": "black_holed" }),
        EventKind::Killed { .. } => json!({ "k": "killed" }),
        EventKind::Stopped { .. } => json!({ "k": "stopped" }),
        EventKind::Revived { .. } => json!({ "k": "revived" }),
        EventKind::Output { source, line } => {
            json!({ "k": "output", "source": &**source, "what": line })
        }
        other => json!({ "k": "note", "what": other.to_string() }),
    }
}

/// What of it can be seen byte for byte.
fn raw(kind: &EventKind) -> Option<&[u8]> {
    match kind {
        EventKind::Sent { head: bytes, .. }
        | EventKind::Answered { head: bytes, .. }
        | EventKind::Failed { head: bytes, .. }
        | EventKind::Received { head: bytes, .. }
        | EventKind::Wrote { bytes, .. }
        | EventKind::Read { bytes, .. } => Some(bytes),
        _ => None,
    }
}
