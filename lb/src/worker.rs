//! What the requests of a worker need: its pools, its load, and what all
//! workers share.
//!
//! Workers share the cluster and the log, nothing else that is written on the
//! path of a request. Serves nothing itself: that is [`serve`](crate::serve)'s.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use fastrand::Rng;
use hyper::header::{HeaderMap, HeaderValue};
use tokio::{
    runtime::{Handle, RuntimeMetrics},
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    access_log::AccessLog,
    balance::{ServerId, budget},
    cluster::LiveCluster,
    config::Settings,
    control::Control,
    dealing::Dealing,
    feed::{Feed, Tap},
    net::Net,
    stats::WorkerStats,
    upstream::{Pools, Target},
};

/// How long a request waits for the retry budget.
const RETRY_PATIENCE: Duration = Duration::from_secs(1);

/// How much of a request is read at first, at most.
const SCRATCH_BYTES: usize = 16 * 1024;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The servers.
    pub cluster: Arc<LiveCluster>,
    /// What holds for requests that begin now.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Where the status page looks on.
    pub feed: Arc<Feed>,
    /// The load of each worker.
    pub loads: Box<[Arc<Load>]>,
    /// Budgeted retries under way.
    pub retries: AtomicUsize,
    /// A budgeted retry is over.
    pub retry_over: Notify,
    /// Connections that found no room.
    pub turned_away: AtomicU64,
    /// Of the event loops that serve requests and care for servers.
    loops: Mutex<Vec<RuntimeMetrics>>,
}

impl Shared {
    /// For so many workers, of which none has begun.
    pub fn new(control: &Control, workers: usize) -> Shared {
        Shared {
            cluster: control.cluster.clone(),
            settings: control.settings.clone(),
            feed: control.feed.clone(),
            loads: (0..workers).map(|_| Arc::default()).collect(),
            retries: AtomicUsize::new(0),
            retry_over: Notify::new(),
            turned_away: AtomicU64::new(0),
            loops: Mutex::default(),
        }
    }

    /// Counts the tasks of the event loop that calls this, from now on.
    pub fn count_tasks(&self) {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.push(Handle::current().metrics());
    }

    /// Tasks that are not over.
    pub fn tasks(&self) -> usize {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.iter().map(RuntimeMetrics::num_alive_tasks).sum()
    }

    /// Leave for one more retry, as soon as the budget has it: a moment later
    /// is better than an error. `None` if it has none for too long.
    pub async fn retry_permit(&self) -> Option<RetryPermit<'_>> {
        let deadline = Instant::now() + RETRY_PATIENCE;
        loop {
            let freed = self.retry_over.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(permit) = self.try_retry() {
                return Some(permit);
            }
            timeout_at(deadline, freed).await.ok()?;
        }
    }

    fn try_retry(&self) -> Option<RetryPermit<'_>> {
        let in_flight: usize = self.loads.iter().map(|load| load.requests()).sum();
        let one_more = |under_way| (under_way < budget(in_flight)).then_some(under_way + 1);
        let retries = &self.retries;
        let granted = retries.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok();
        granted.then(|| RetryPermit(self))
    }
}

/// Leave for one retry; given back when dropped.
#[derive(Debug)]
pub struct RetryPermit<'a>(&'a Shared);

impl Drop for RetryPermit<'_> {
    fn drop(&mut self) {
        self.0.retries.fetch_sub(1, Ordering::AcqRel);
        self.0.retry_over.notify_waiters();
    }
}

/// How much one worker has to do, and has done. Written by its worker alone,
/// but for what its connections are, read by all; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// What the worker has counted so far.
    pub stats: WorkerStats,
    /// Connections that were ever on their way to the worker.
    accepted: AtomicU64,
}

impl Load {
    /// Client connections, also those on their way to the worker.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Client connections so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A connection is on its way to the worker.
    pub fn connection_assigned(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is closed.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request has begun. Only the worker itself calls this, so no
    /// read-modify-write is needed.
    pub fn request_began(&self) {
        self.requests.store(self.requests() + 1, Ordering::Relaxed);
    }

    /// A request has ended.
    pub fn request_ended(&self) {
        self.requests.store(self.requests() - 1, Ordering::Relaxed);
    }
}

/// A worker's load as its requests hold on to it: who does is counted by the
/// worker alone.
pub type OwnLoad = Rc<Arc<Load>>;

/// Settings that a request holds on to, counted by its worker alone.
pub type Held = Rc<Arc<Settings>>;

/// The settings as a worker last saw them.
struct Current {
    published: Cache<Arc<ArcSwap<Settings>>, Arc<Settings>>,
    held: Held,
}

impl Current {
    fn new(settings: &Arc<ArcSwap<Settings>>) -> Self {
        let held = Rc::new(settings.load_full());
        Current { published: Cache::new(settings.clone()), held }
    }

    fn get(&mut self) -> Held {
        let latest = self.published.load();
        if !Arc::ptr_eq(latest, &self.held) {
            self.held = Rc::new(latest.clone());
        }
        self.held.clone()
    }
}

/// What the requests of one worker need.
pub struct Worker<N: Net> {
    /// The network.
    pub net: N,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// This worker's load.
    pub load: OwnLoad,
    /// Where its requests are seen by the status page.
    pub tap: Arc<Tap>,
    /// This worker's connections to the servers.
    pub pools: Pools<N>,
    /// Standard output.
    pub log: Arc<AccessLog>,
    settings: RefCell<Current>,
    /// Whether its drain time is over: what is not over yet never will be.
    pub stopped: Cell<bool>,
    /// For names and choices; nothing secret.
    pub random: RefCell<Rng>,
    /// Where the first bytes of a request are read to.
    pub scratch: RefCell<Box<[u8]>>,
}

impl<N: Net> Worker<N> {
    /// A worker without connections.
    #[allow(
        clippy::disallowed_methods,
        reason = "a fork of the thread's generator, which a simulation seeds"
    )]
    pub fn new(net: N, shared: Arc<Shared>, load: Arc<Load>, log: Arc<AccessLog>) -> Self {
        let pools = Pools::new(net.clone());
        let random = RefCell::new(Rng::new());
        let scratch = RefCell::new(vec![0; SCRATCH_BYTES].into());
        let settings = RefCell::new(Current::new(&shared.settings));
        let load = Rc::new(load);
        let tap = shared.feed.tap();
        let stopped = Cell::new(false);
        Worker { net, shared, load, tap, pools, log, settings, stopped, random, scratch }
    }

    /// What holds for a request that begins now.
    pub fn settings(&self) -> Held {
        self.settings.borrow_mut().get()
    }

    /// A new id for a request: 128 random bits in hexadecimal.
    pub fn new_request_id(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = self.random.borrow_mut().u128(..);
        let digit = |index: usize| DIGITS[(bits >> (index * 4) & 15) as usize];
        let id: [u8; 32] = std::array::from_fn(digit);
        HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("none"))
    }

    /// Deals a server to a request of `client` with these fields; `None` if
    /// none is eligible.
    pub fn pick(
        &self,
        dealing: &Dealing,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Option<Target<N>> {
        let ask = dealing.ask(headers, client, &self.random);
        self.shared.cluster.pick(ask, |member| self.pools.target(member))
    }

    /// The next eligible server behind `after` that is not in `tried`.
    pub fn next_untried(&self, after: usize, tried: &[ServerId]) -> Option<Target<N>> {
        self.shared.cluster.next_untried(after, tried, |member| self.pools.target(member))
    }
}
