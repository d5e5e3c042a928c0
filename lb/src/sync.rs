//! The locks and counters of the code whose interleavings are tried.
//!
//! That code takes them from here and from nowhere else, so that
//! `tests/interleavings.rs` can compile it against a scheduler's instead.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};

pub(crate) use tokio::sync::Notify;
