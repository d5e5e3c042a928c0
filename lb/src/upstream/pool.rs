//! Keep-alive connections to the servers, per worker.
//!
//! Owns the idle connections of one worker thread; needs no lock. The last
//! returned is the first reused, so that the rest can age and be closed.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::Deref,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, interval},
};

use super::{Connection, Upstream};
use crate::{
    balance::{InFlight, Member, ServerId},
    net::Net,
    stats::Tally,
};

/// How long a connection may be idle: under the 5 s after which Node.js
/// servers close theirs.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// A request that must not be executed twice goes out only on a connection
/// that was in use this recently.
const FRESH_LIMIT: Duration = Duration::from_secs(1);

/// For how long a server is distrusted that has closed a connection sooner.
const DISTRUST: Duration = Duration::from_secs(10);

/// Which kept connections are good enough for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Any: the request can be repeated if the connection dies under it.
    Any,
    /// One that was in use within the last second and is seen alive.
    Recent,
    /// None: it needs a fresh one.
    Never,
}

#[allow(clippy::vec_box, reason = "connections come and go as pointers")]
type Idle<S> = Vec<Box<Connection<S>>>;

/// The idle connections of one worker to one server.
pub struct Pool<N: Net> {
    /// The server.
    pub upstream: Arc<Upstream>,
    /// What this worker counts of it.
    pub tally: Arc<Tally>,
    in_flight: Arc<InFlight>,
    net: N,
    idle: RefCell<Idle<N::Stream>>,
    returned: Notify,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    /// Until when no recent connection is trusted with what must not be lost:
    /// this server has closed one shortly after use, without notice.
    distrusted: Cell<Option<Instant>>,
}

impl<N: Net> Pool<N> {
    /// The connection used last, if any is worth another request in `epoch`.
    pub fn take(
        &self,
        epoch: u64,
        reuse: Reuse,
        now: Instant,
    ) -> Option<Box<Connection<N::Stream>>> {
        let mut idle = self.idle.borrow_mut();
        let taken = self.choose(&mut idle, epoch, reuse, now);
        self.tally.idle.set(idle.len() as u64);
        taken
    }

    fn choose(
        &self,
        idle: &mut Idle<N::Stream>,
        epoch: u64,
        reuse: Reuse,
        now: Instant,
    ) -> Option<Box<Connection<N::Stream>>> {
        if !self.lends(reuse, now) {
            return None;
        }
        while let Some(connection) = idle.pop() {
            let age = now.saturating_duration_since(connection.used);
            let too_old = connection.epoch < epoch || age >= connection.idle_limit;
            if too_old {
                continue;
            }
            if self.has_ended(&connection) {
                self.died(age, now);
                continue;
            }
            if reuse == Reuse::Any {
                return Some(connection);
            }
            if age >= FRESH_LIMIT {
                // Still good for others, and all below it are older.
                idle.push(connection);
                return None;
            }
            if self.net.is_quiet(&connection.wire.stream()) {
                return Some(connection);
            }
            self.died(age, now);
        }
        None
    }

    /// Whether one that is opened for such a request is an extra one: there may be
    /// idle ones, and none is good enough.
    pub fn is_extra(&self, reuse: Reuse, now: Instant) -> bool {
        let newest = self.idle.borrow().last().map(|newest| newest.used);
        let stale = |used| now.saturating_duration_since(used) >= FRESH_LIMIT;
        !self.lends(reuse, now) || reuse == Reuse::Recent && newest.is_some_and(stale)
    }

    /// Whether it gives kept connections to such a request at all.
    fn lends(&self, reuse: Reuse, now: Instant) -> bool {
        match reuse {
            Reuse::Any => true,
            Reuse::Recent => self.distrusted.get().is_none_or(|until| now >= until),
            Reuse::Never => false,
        }
    }

    /// A kept connection has ended, `age` after it was last in use.
    pub fn died(&self, age: Duration, now: Instant) {
        if age < FRESH_LIMIT {
            self.distrusted.set(Some(now + DISTRUST));
        }
    }

    /// Takes a connection back that may carry another request; it was in use
    /// until `now`.
    pub fn put(&self, mut connection: Box<Connection<N::Stream>>, now: Instant) {
        if self.upstream.departure.has_begun() {
            return;
        }
        connection.used = now;
        connection.wire.shrink();
        let mut idle = self.idle.borrow_mut();
        if std::mem::take(&mut connection.extra) && !idle.is_empty() {
            idle.remove(0);
        }
        idle.push(connection);
        self.tally.idle.set(idle.len() as u64);
        drop(idle);
        if self.waiting.get() > 0 {
            self.returned.notify_one();
        }
    }

    /// Closes the connection that has been idle for longest; false if none is.
    pub fn close_oldest(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        self.tally.idle.set(idle.len() as u64);
        oldest.is_some()
    }

    /// Since when the connection idles that has done so for longest.
    fn idle_since(&self) -> Option<Instant> {
        self.idle.borrow().first().map(|oldest| oldest.used)
    }

    /// Resolves when a connection may have come back.
    pub async fn returned(&self) {
        let _waiting = Waiting::begin(&self.waiting);
        self.returned.notified().await;
    }

    /// Whether the server has ended it, or sent what nobody asked for and what
    /// would pass for the next answer, as far as the event loop knows.
    fn has_ended(&self, connection: &Connection<N::Stream>) -> bool {
        let stream = connection.wire.stream();
        self.net.has_news(&stream) && !self.net.is_quiet(&stream)
    }

    fn close_idle(&self, now: Instant) {
        let departs = self.upstream.departure.has_begun();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| {
            !departs
                && !self.has_ended(connection)
                && now.duration_since(connection.used) < connection.idle_limit
        });
        self.tally.idle.set(idle.len() as u64);
    }
}

/// Counts a waiting request, also when its future is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One request in flight at a server, from the pick until it is dropped: a
/// retry's, when the next server is taken; the last one's, with the end of the
/// answer's body or with the client. A clone counts as one more.
pub struct Claim<N: Net>(Rc<Pool<N>>);

impl<N: Net> Claim<N> {
    fn new(pool: Rc<Pool<N>>) -> Self {
        pool.in_flight.begin();
        Claim(pool)
    }

    /// The pool alone, which claims nothing.
    pub fn pool(&self) -> Rc<Pool<N>> {
        self.0.clone()
    }
}

impl<N: Net> Clone for Claim<N> {
    fn clone(&self) -> Self {
        Claim::new(self.0.clone())
    }
}

impl<N: Net> Drop for Claim<N> {
    fn drop(&mut self) {
        if self.0.in_flight.end() {
            self.0.upstream.departure.emptied();
        }
    }
}

impl<N: Net> Deref for Claim<N> {
    type Target = Pool<N>;

    fn deref(&self) -> &Pool<N> {
        &self.0
    }
}

/// A server that a request was dealt to, as its worker holds it. Unlike a
/// [`Member`] it is cloned without touching what other threads count.
pub struct Target<N: Net> {
    /// The server's identity.
    pub id: ServerId,
    /// Its place in configuration order.
    pub place: usize,
    /// The epoch of its health when it was dealt.
    pub epoch: u64,
    /// The server, and this worker's connections to it.
    pub pool: Claim<N>,
}

impl<N: Net> Clone for Target<N> {
    fn clone(&self) -> Self {
        Target { id: self.id, place: self.place, epoch: self.epoch, pool: self.pool.clone() }
    }
}

/// The pools of one worker, by server.
pub struct Pools<N: Net> {
    net: N,
    by_server: RefCell<BTreeMap<ServerId, Rc<Pool<N>>>>,
}

impl<N: Net> Pools<N> {
    /// No connections yet.
    pub fn new(net: N) -> Self {
        Pools { net, by_server: RefCell::default() }
    }

    /// What this worker's requests to `member` need; its pool is made on first use.
    pub fn target(&self, member: &Member<Upstream>) -> Target<N> {
        let mut pools = self.by_server.borrow_mut();
        let new = || {
            Rc::new(Pool {
                upstream: member.server.clone(),
                tally: member.server.stats.enlist(),
                in_flight: member.in_flight.clone(),
                net: self.net.clone(),
                idle: RefCell::default(),
                returned: Notify::new(),
                waiting: Cell::default(),
                distrusted: Cell::default(),
            })
        };
        let pool = pools.entry(member.id).or_insert_with(new).clone();
        let pool = Claim::new(pool);
        Target { id: member.id, place: member.place, epoch: member.epoch, pool }
    }

    /// Closes the connection that has been idle for longest, to whatever server; false
    /// if none is.
    pub fn close_oldest(&self) -> bool {
        let pools = self.by_server.borrow();
        let oldest = pools.values().filter_map(|pool| Some((pool.idle_since()?, pool)));
        oldest.min_by_key(|(since, _)| *since).is_some_and(|(_, pool)| pool.close_oldest())
    }

    /// Closes every idle connection.
    pub fn close_all(&self) {
        self.by_server.borrow_mut().clear();
    }

    /// Closes connections that have been idle too long, or whose server is no
    /// longer configured, for ever.
    pub async fn sweep(&self) {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            let now = ticks.tick().await;
            self.by_server.borrow_mut().retain(|_, pool| {
                pool.close_idle(now);
                !pool.upstream.departure.has_begun()
            });
        }
    }
}
