//! Locks that survive a panic of their holder.
//!
//! Owns nothing. A task that panicked is reported as such by its supervisor;
//! poisoning would only hide that report behind a second one. Every lock of
//! this crate is held for a few instructions and never across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, poisoned or not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
