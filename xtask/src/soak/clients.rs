//! The load: clients of every habit, at a moderate pace.
//!
//! Owns what they ask for and when. What came of it is the books' to judge.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use testbed::{
    client::{Client, Request},
    log::EventLog,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// The longest pause between two requests of a client, in milliseconds.
const PAUSE_MS: u64 = 50;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Small GETs on one connection, which is kept.
    Reads,
    /// The same, on a connection each.
    ReadsOnce,
    /// Small POSTs.
    Posts,
    /// Bodies that are too large to be sent again.
    Uploads,
    /// Answers of a megabyte.
    Downloads,
    /// Requests that come in small pieces.
    Dribbles,
    /// Large answers, read in small pieces.
    Sips,
    /// Goes away in the middle of a request or its answer, some after hardly
    /// reading it for long.
    Quits,
}

/// Of so many clients each one's habit.
const HABITS: [Habit; 14] = [
    Habit::Reads,
    Habit::Posts,
    Habit::ReadsOnce,
    Habit::Quits,
    Habit::Reads,
    Habit::Uploads,
    Habit::Reads,
    Habit::Downloads,
    Habit::Reads,
    Habit::Posts,
    Habit::ReadsOnce,
    Habit::Dribbles,
    Habit::Sips,
    Habit::Quits,
];

/// How long small GETs on kept connections took; clones share it.
#[derive(Clone, Default)]
pub(super) struct Times(Arc<Mutex<Vec<Duration>>>);

impl Times {
    /// All since the last time, in ascending order.
    pub(super) fn take(&self) -> Vec<Duration> {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = std::mem::take(&mut *times);
        times.sort_unstable();
        times
    }

    fn add(&self, time: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }
}

/// Starts `count` clients of the balancer at `addr`, which go on until `stop`.
pub(super) fn start(
    (addr, log): (SocketAddr, &EventLog),
    (count, seed): (usize, u64),
    times: &Times,
    stop: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for (number, habit) in (0..count).zip(HABITS.into_iter().cycle()) {
        let client = Client::new(&format!("c{number}"), addr, log);
        let random = Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(number as u64));
        let one = One { client, habit, random, times: times.clone() };
        all.spawn(one.go_on(stop.clone()));
    }
    all
}

struct One {
    client: Client,
    habit: Habit,
    random: Rng,
    times: Times,
}

impl One {
    async fn go_on(mut self, stop: watch::Receiver<bool>) {
        self.client.fresh(matches!(self.habit, Habit::ReadsOnce));
        while !*stop.borrow() {
            self.ask().await;
            sleep(Duration::from_millis(self.random.u64(0..PAUSE_MS))).await;
        }
    }

    /// One request; its outcome is in the log.
    async fn ask(&mut self) {
        let size = self.random.usize(1..4000);
        let small = format!("/?size={size}");
        let request = match self.habit {
            Habit::Reads | Habit::ReadsOnce => Request::new("GET", &small),
            Habit::Posts => Request::new("POST", &small).body(vec![7; size]),
            Habit::Uploads => {
                let method = if self.random.bool() { "POST" } else { "PUT" };
                let size = self.random.usize(64 << 10..512 << 10);
                Request::new(method, "/").body(vec![7; size]).chunked(self.random.bool())
            }
            Habit::Downloads => {
                let chunked = self.random.u8(0..2);
                Request::new("GET", &format!("/?size=1000000&chunked={chunked}"))
            }
            Habit::Dribbles => {
                let body = vec![7; self.random.usize(0..200)];
                let pause = Duration::from_millis(self.random.u64(1..20));
                Request::new("PUT", "/").body(body).slowly(40, pause)
            }
            Habit::Sips => {
                let pause = Duration::from_millis(self.random.u64(1..40));
                Request::new("GET", "/?size=2000000").read_slowly(64 << 10, pause)
            }
            Habit::Quits => return self.quit().await,
        };
        let began = Instant::now();
        let answered = self.client.send(request).await.is_ok();
        if answered && matches!(self.habit, Habit::Reads) {
            self.times.add(began.elapsed());
        }
    }

    async fn quit(&mut self) {
        let soon = Duration::from_millis(self.random.u64(0..10));
        match self.random.u32(0..5) {
            0 => drop(self.client.send_and_abort(Request::new("GET", "/?size=300000")).await),
            1 => {
                let upload = Request::new("POST", "/").body(vec![7; 300_000]);
                let upload = upload.slowly(10_000, Duration::from_millis(1));
                drop(timeout(soon, self.client.send(upload)).await);
            }
            2 => drop(timeout(soon, self.client.get("/?size=3000000")).await),
            3 => {
                let hardly = Request::new("GET", "/?size=8000000");
                let hardly = hardly.read_slowly(100, Duration::from_millis(100));
                let long = Duration::from_millis(self.random.u64(0..2000));
                drop(timeout(long, self.client.send(hardly)).await);
            }
            _ => {
                let half = b"POST / HTTP/1.1\r\nHost: soak\r\nContent-Length: 100\r\n\r\nhalf";
                let cut = self.random.usize(1..=half.len());
                drop(timeout(soon, self.client.raw(&half[..cut])).await);
            }
        }
    }
}
