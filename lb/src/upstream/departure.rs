//! How a server that was taken out of the configuration ends.
//!
//! Owns nothing of the server: what it has in flight goes on, and is cut off
//! when the drain time is over. Told by [`cluster`](crate::cluster) and
//! [`care`](crate::care), heard by those who hold a connection to the server.

use crate::{
    balance::InFlight,
    sync::{
        Notify,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Where a server stands between its removal and its last request.
#[derive(Debug, Default)]
pub struct Departure {
    begun: AtomicBool,
    cut: AtomicBool,
    /// Whether somebody waits for the end of its last request.
    awaited: AtomicBool,
    news: Notify,
}

impl Departure {
    /// It is no longer configured.
    pub fn begin(&self) {
        self.begun.store(true, SeqCst);
    }

    /// Whether it is no longer configured, so that no connection to it is kept.
    pub fn has_begun(&self) -> bool {
        self.begun.load(SeqCst)
    }

    /// What it still has in flight is to end now.
    pub fn cut(&self) {
        self.cut.store(true, SeqCst);
        self.news.notify_waiters();
    }

    /// Whether its drain time is over.
    pub fn is_cut(&self) -> bool {
        self.cut.load(SeqCst)
    }

    /// Resolves when its drain time is over.
    pub async fn until_cut(&self) {
        self.until(|| self.is_cut()).await;
    }

    /// Its last request is over, for now.
    pub fn emptied(&self) {
        if self.awaited.load(SeqCst) {
            self.news.notify_waiters();
        }
    }

    /// Resolves when it has nothing in flight.
    pub async fn until_empty(&self, in_flight: &InFlight) {
        // Before the count is looked at: whoever ends the last request sees
        // that it is awaited, or its end is seen here.
        self.awaited.store(true, SeqCst);
        self.until(|| in_flight.get() == 0).await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            // From here on it hears of news, polled or not.
            let news = self.news.notified();
            if is_so() {
                return;
            }
            news.await;
        }
    }
}
