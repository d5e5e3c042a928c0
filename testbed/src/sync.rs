//! Locks that survive a panic of their holder, and a value that others wait for.
//!
//! A task that panicked is reported as such by its supervisor;
//! poisoning would only hide that report behind a second one. Every lock of
//! this crate is held for a few instructions and never across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Locks, poisoned or not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value that others wait for.
///
/// Wakes them in the order in which they began to wait, where tokio's `watch`
/// draws lots: a simulation is to be the same each time.
#[derive(Debug, Default)]
pub(crate) struct Board<T> {
    value: Mutex<T>,
    news: Notify,
}

impl<T: Copy> Board<T> {
    /// The value at the moment.
    pub(crate) fn get(&self) -> T {
        *lock(&self.value)
    }

    /// Changes the value, and tells whoever waits.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut lock(&self.value));
        self.news.notify_waiters();
    }

    /// Waits until the value is such.
    pub(crate) async fn until(&self, such: impl Fn(&T) -> bool) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Before the value is looked at: no change is missed.
            news.as_mut().enable();
            if such(&self.get()) {
                return;
            }
            news.await;
        }
    }
}
