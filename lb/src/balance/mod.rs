//! The pure core: which server gets the next request, and what is known of each.
//!
//! Owns the rotation, the health state machines, eligibility and the retry
//! rules. Uses `std` only: it does not know about sockets, HTTP messages, the
//! clock, tasks or randomness, and never iterates over a hash map, so that the
//! same calls always give the same decisions. The shell calls `handle_*` with
//! what it saw, gets back what changed, and carries out the effects.
//!
//! Reading order: `health` (one server), `cluster` (all of them),
//! `snapshot` (what the request path reads), `rotation` and `schedule` (whose
//! turn it is), `choice` (by load, chance or key), `retry` (what follows a
//! failed attempt).

mod choice;
mod cluster;
mod health;
mod retry;
mod rotation;
mod schedule;
mod snapshot;

pub use choice::{Algorithm, Ask, hash};
pub use cluster::{
    Cluster, ConnectFailure, Reaction, ServerId, Share, Slot, State, Transition, Wanted,
    WhenAllDown,
};
pub use health::{Cause, Health, Observed, Thresholds};
pub use retry::{ELSEWHERE_LIMIT, Failure, Next, RETRY_BUDGET_MIN, budget, next_step};
pub use snapshot::{InFlight, Member, Pick, Snapshot};
