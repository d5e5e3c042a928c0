//! From an event log to what the rotation checker judges.

use std::collections::BTreeMap;

use crate::log::{Event, EventKind};
use crate::rotation::Observation;

/// The history in a log: each request from its client's sending to its arrival
/// at one of `backends`, which number the servers. A retry that arrived is an
/// observation of its own; requests without a nonce are nobody's.
pub fn observations(events: &[Event], backends: &[&str]) -> Vec<Observation> {
    let mut sent = BTreeMap::new();
    let mut history = Vec::new();
    for event in events {
        match &event.kind {
            EventKind::Sent { nonce, .. } => drop(sent.insert(*nonce, event.seq)),
            EventKind::Received { backend, nonce: Some(nonce), .. } => {
                let server = backends.iter().position(|name| *name == &**backend);
                if let (Some(server), Some(sent)) = (server, sent.get(nonce).copied()) {
                    history.push(Observation { sent, received: event.seq, server });
                }
            }
            _ => {}
        }
    }
    history
}
