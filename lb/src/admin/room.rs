//! The room for the connections of the admin API.
//!
//! Owns how many there may be, and who goes when it is full: whoever has been
//! there for longest without a whole request. Knows nothing of sockets.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

/// Connections at one time, at most.
pub const PLACES: usize = 64;

/// How long nobody is sent away, from the connection's beginning: enough for a
/// head that comes with it. So a flood of silent ones is let in no faster than
/// [`PLACES`] in this time, and those who talk are heard in between.
const GRACE: Duration = Duration::from_millis(50);

/// Who is served.
#[derive(Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    /// In the order in which they came. Those who have asked or are gone are
    /// forgotten when the next one comes.
    silent: RefCell<VecDeque<Weak<Guest>>>,
}

impl Room {
    /// For at most so many, and no more than [`PLACES`].
    pub(super) fn new(places: usize) -> Room {
        let places = Arc::new(Semaphore::new(places.min(PLACES)));
        Room { places, silent: RefCell::default() }
    }

    /// Waits for a place: a free one, or that of the oldest silent one.
    pub(super) async fn enter(&self) -> Arc<Guest> {
        let mut place = pin!(self.places.clone().acquire_owned());
        loop {
            if let Ok(place) = timeout_at(self.end_of_grace(), &mut place).await {
                return self.admit(place.ok());
            }
            self.send_oldest_away();
            // It goes at once, unless its request has come in this moment.
            if let Ok(place) = timeout(GRACE, &mut place).await {
                return self.admit(place.ok());
            }
        }
    }

    fn admit(&self, place: Option<OwnedSemaphorePermit>) -> Arc<Guest> {
        let guest = Arc::new(Guest {
            since: Instant::now(),
            is_heard: AtomicBool::new(false),
            go: Notify::new(),
            _place: place,
        });
        let mut silent = self.silent.borrow_mut();
        silent.retain(|guest| guest.upgrade().is_some_and(|guest| guest.is_silent()));
        silent.push_back(Arc::downgrade(&guest));
        guest
    }

    /// When the oldest one may be sent away; when to look again, if there is none.
    fn end_of_grace(&self) -> Instant {
        let silent = self.silent.borrow();
        let mut here = silent.iter().filter_map(Weak::upgrade);
        let oldest = here.find(|guest| guest.is_silent());
        oldest.map_or_else(Instant::now, |guest| guest.since) + GRACE
    }

    fn send_oldest_away(&self) {
        let mut silent = self.silent.borrow_mut();
        while let Some(guest) = silent.pop_front() {
            if let Some(guest) = guest.upgrade().filter(|guest| guest.is_silent()) {
                return guest.go.notify_one();
            }
        }
    }
}

/// One connection. Dropped, it gives its place back.
#[derive(Debug)]
pub(super) struct Guest {
    since: Instant,
    is_heard: AtomicBool,
    go: Notify,
    /// The semaphore is never closed: there always is one.
    _place: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// Its request is there, whole: from now on it stays until it has its answer.
    pub(super) fn heard(&self) {
        self.is_heard.store(true, Relaxed);
    }

    /// Until another one needs its place, and nothing has been heard of it.
    pub(super) async fn sent_away(&self) {
        loop {
            self.go.notified().await;
            if self.is_silent() {
                return;
            }
        }
    }

    fn is_silent(&self) -> bool {
        !self.is_heard.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    /// As many as there may be.
    async fn full(room: &Room) -> VecDeque<Arc<Guest>> {
        let mut guests = VecDeque::new();
        for _ in 0..PLACES {
            guests.push_back(timeout(Duration::ZERO, room.enter()).await.expect("a free place"));
        }
        guests
    }

    async fn is_sent_away(guest: &Guest) -> bool {
        timeout(Duration::ZERO, guest.sent_away()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_one_goes_and_not_before_its_time() {
        let room = Room::new(PLACES);
        let mut guests = full(&room).await;
        guests[0].heard();
        let mut newcomer = pin!(room.enter());
        assert!(timeout(GRACE - SOON, &mut newcomer).await.is_err());
        assert!(!is_sent_away(&guests[1]).await, "its head may be on the way");
        assert!(timeout(SOON * 2, &mut newcomer).await.is_err());
        assert!(is_sent_away(&guests[1]).await);
        guests.remove(1);
        timeout(Duration::ZERO, newcomer).await.expect("the place of the one that went");
        for guest in guests {
            assert!(!is_sent_away(&guest).await, "one place is enough");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_heard_as_it_is_sent_away_stays_and_another_goes() {
        let room = Room::new(PLACES);
        let mut guests = full(&room).await;
        let mut newcomer = pin!(room.enter());
        assert!(timeout(GRACE + SOON, &mut newcomer).await.is_err());
        guests[0].heard();
        assert!(!is_sent_away(&guests[0]).await);
        assert!(timeout(GRACE, &mut newcomer).await.is_err());
        assert!(is_sent_away(&guests[1]).await);
        guests.remove(1);
        timeout(Duration::ZERO, newcomer).await.expect("a place");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_heard_keep_their_places() {
        let room = Room::new(PLACES);
        let mut guests = full(&room).await;
        guests.iter().for_each(|guest| guest.heard());
        let mut newcomer = pin!(room.enter());
        assert!(timeout(GRACE * 100, &mut newcomer).await.is_err());
        guests.pop_back();
        timeout(Duration::ZERO, newcomer).await.expect("the place of the one that went");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_gone_are_forgotten() {
        let room = Room::new(PLACES);
        for _ in 0..1_000 {
            drop(room.enter().await);
        }
        assert!(room.silent.borrow().len() <= 1, "{:?}", room.silent.borrow().len());
    }
}
