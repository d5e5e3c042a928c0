//! What the status page shows while it happens: a stream of Server-Sent Events.
//!
//! Owns the clock of the stream. Everything is written once, however many watch;
//! who reads too slowly misses some of it and holds up nobody.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
    },
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Admin,
    answer::Problem,
    changes::timestamp,
    recent::{Figures, Recent},
    servers::ServerStatus,
};
use crate::{
    access_log::{outcome_of, wall_clock},
    feed::{Passed, Sum, Window},
};

/// From one look at the workers to the next.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The servers are told this often, in ticks, if nothing has changed.
const STATE_TICKS: usize = 10;

/// How many may watch at one time: each holds one of the API's connections.
const WATCHER_LIMIT: usize = 16;

/// How many events a slow reader may be behind before it misses some.
const BACKLOG: usize = 32;

/// Who watches, and what they are told.
#[derive(Debug)]
pub(super) struct Live {
    events: broadcast::Sender<Bytes>,
    came: Notify,
    /// Somebody has come who knows nothing yet.
    is_new: AtomicBool,
}

impl Default for Live {
    fn default() -> Self {
        let events = broadcast::Sender::new(BACKLOG);
        Live { events, came: Notify::new(), is_new: AtomicBool::new(false) }
    }
}

impl Live {
    fn watchers(&self) -> usize {
        self.events.receiver_count()
    }

    /// What is said from now on.
    fn watch(&self) -> broadcast::Receiver<Bytes> {
        let events = self.events.subscribe();
        self.is_new.store(true, Relaxed);
        self.came.notify_one();
        events
    }

    fn say(&self, event: &str, data: &impl Serialize) {
        // Nothing that is said has keys that are no strings, which alone fail.
        let data = serde_json::to_string(data).unwrap_or_default();
        // An error is that the last watcher has just gone.
        let _ = self.events.send(format!("event: {event}\ndata: {data}\n\n").into());
    }
}

/// Tells those who watch what happens, for ever. Requests are looked at only
/// while there is somebody.
pub(super) async fn run(admin: &Admin) {
    loop {
        admin.live.came.notified().await;
        admin.control.feed.watch(true);
        tell(admin).await;
        admin.control.feed.watch(false);
    }
}

/// Until nobody watches.
async fn tell(admin: &Admin) {
    let (live, feed) = (&admin.live, &admin.control.feed);
    let mut changes = admin.control.cluster.changes();
    let mut recent = Recent::new();
    let mut taken = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_usize.. {
        let now = ticks.tick().await;
        if live.watchers() == 0 {
            return;
        }
        let mut window = feed.take(taken);
        taken = Instant::now();
        recent.push(now, std::mem::take(&mut window.sums));
        if !window.kept.is_empty() || window.left_out > 0 {
            live.say("requests", &Requests::from(&window));
        }
        let has_changed = changes.has_changed().unwrap_or(false);
        if has_changed || tick.is_multiple_of(STATE_TICKS) || live.is_new.swap(false, Relaxed) {
            let count = *changes.borrow_and_update();
            live.say("state", &LiveState::new(admin, count, &recent));
        }
    }
}

/// All servers at one moment.
#[derive(Debug, Serialize)]
struct LiveState {
    /// The moment (RFC 3339).
    now: String,
    /// Changes so far; when it moves `GET /changes` has something new.
    changes: u64,
    /// Whether the balancer is stopping.
    stopping: bool,
    /// All requests, those too that no server answered.
    total: Figures,
    servers: Vec<LiveServer>,
}

/// A server as `GET /servers` has it, and what it does.
#[derive(Debug, Serialize)]
struct LiveServer {
    /// What it is called in the events of requests.
    id: u64,
    #[serde(flatten)]
    status: ServerStatus,
    #[serde(flatten)]
    figures: Figures,
}

impl LiveState {
    fn new(admin: &Admin, changes: u64, recent: &Recent) -> LiveState {
        let (sums, seconds) = (recent.sums(), recent.seconds());
        let mut total = Sum::default();
        sums.values().for_each(|sum| total.merge(sum));
        let servers = admin.control.cluster.status();
        let servers = servers.iter().map(|server| {
            let id = server.upstream.number;
            let sum = sums.get(&Some(id)).cloned().unwrap_or_default();
            LiveServer { id, status: server.into(), figures: Figures::new(&sum, seconds) }
        });
        LiveState {
            now: timestamp(wall_clock()),
            changes,
            stopping: admin.is_stopping(),
            total: Figures::new(&total, seconds),
            servers: servers.collect(),
        }
    }
}

/// Requests that followed each other without a gap.
#[derive(Debug, Serialize)]
struct Requests {
    /// How many more there were until now.
    left_out: u64,
    requests: Vec<LiveRequest>,
}

/// One request: nothing of it tells who asked for what.
#[derive(Debug, Serialize)]
struct LiveRequest {
    /// Who answered; null if no server did.
    server: Option<u64>,
    /// What the client got; null if nothing.
    status: Option<u16>,
    safe: bool,
    error: bool,
    /// How long it took, in milliseconds.
    took: f64,
    /// The attempts that came to nothing: where, and how.
    failed: Vec<(u64, String)>,
}

impl From<&Window> for Requests {
    fn from(window: &Window) -> Requests {
        let requests = window.kept.iter().map(LiveRequest::from).collect();
        Requests { left_out: window.left_out, requests }
    }
}

impl From<&Passed> for LiveRequest {
    fn from(passed: &Passed) -> LiveRequest {
        let word = |how| outcome_of(how, &mut itoa::Buffer::new()).to_owned();
        let failed = passed.failed.iter().map(|(server, how)| (*server, word(*how)));
        LiveRequest {
            server: passed.server,
            status: passed.status.map(|status| status.as_u16()),
            safe: passed.safe,
            error: passed.is_error(),
            took: passed.took.as_micros() as f64 / 1000.0,
            failed: failed.collect(),
        }
    }
}

/// What happens, for ever: events `state` (all servers, every second and when
/// something has changed) and `requests` (ten times a second at most).
#[utoipa::path(get, path = "/live", operation_id = "watch", responses(
    (status = 200, body = String, content_type = "text/event-stream", description = "Server-Sent Events with JSON as their data."),
    (status = 503, body = Problem, description = "Too many watch already."),
    (status = "4XX", body = Problem, description = "It is refused."),
))]
pub(super) async fn watch(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    if admin.live.watchers() >= WATCHER_LIMIT {
        let error = format!("{WATCHER_LIMIT} status pages are open already; close one");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error));
    }
    let events = stream::unfold(admin.live.watch(), async |mut events| {
        loop {
            match events.recv().await {
                Ok(event) => return Some((Ok::<_, Infallible>(event), events)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((kind, Body::from_stream(events)).into_response())
}
