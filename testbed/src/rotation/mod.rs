//! Does one counter, under parallel clients, explain who got which request?
//!
//! A strict round robin is one atomic fetch-and-increment: the p-th pick goes
//! to place `p` of a repeating schedule, with no gap and no pick dealt twice.
//! From outside the picks are invisible; what is seen is, for each request, a
//! moment before its pick, a moment after it, and the server that got it.
//! Equal counts prove nothing: two workers with a cursor each deal 400/400/400.
//!
//! The verdict is exact in both directions: `Ok` means that pick times exist,
//! an error means that none do. Nothing here waits, reads a clock or talks to
//! a balancer. The history must hold every pick of the counter, so a caller
//! whose balancer also picks for retries records those as requests of their
//! own. Scenarios call it with sequence numbers of the event log as moments.
//!
//! The less overlap, the sharper: two requests exchanged far apart in 100 000
//! show with 16 clients, and may be within what one counter can do with 64.
//!
//! # The algorithm
//!
//! Walk the events in order and turn the counter only when a receipt proves
//! that it must have turned already. A received request claims the earliest
//! unclaimed pick of its server made since it was sent; if there is none, the
//! counter must by now have reached the next place of that server, and every
//! pick on the way there is made now. A server that comes to more picks than
//! requests were sent to it refutes the history.
//!
//! *If the walk ends, the history is explained*: the claims are the assignment,
//! and each pick is made just before the receipt that forced it, hence after
//! the sending and before the receipt of the request that claims it. No server
//! has more picks than requests, and each request claims one, so no pick is
//! left over.
//!
//! *If an explanation exists, the walk ends*, because no explanation turns the
//! counter later than the walk does. Let request `r` of server `s` force a pick
//! at moment `y`, when the walk has made `d` picks for `s`. Let `m` of them be
//! older than the sending of `r`: then picks `m..d` are claimed. If one of the
//! claimers was sent when only `m' < m` had been made, it found `m'..m` claimed:
//! lower `m` to `m'`, and repeat. Now `r` and the `d - m` claimers were all sent
//! when the walk, and by induction every explanation, had made `m` picks for
//! `s`. They need `d - m + 1` further ones, all before `y`, so every explanation
//! has made pick `d` before `y`. Therefore a pick that finds too few requests
//! sent in the walk finds too few in every explanation.
//!
//! The sort takes O(N log N), and so does the walk at most, for each start; in
//! practice the walk is linear, whatever the overlap.

mod epochs;

use std::error::Error;
use std::fmt;
use std::ops::Range;

pub use epochs::{Epoch, check_epochs};

/// One request as seen from outside, with moments on one common scale.
///
/// The pick lies strictly between the two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// A moment at which the client had not yet begun to write the request.
    pub sent: u64,
    /// A moment at which the server had read the request's head.
    pub received: u64,
    /// The server that received it, counted from 0.
    pub server: usize,
}

/// Checks that one fetch-and-increment over `servers` servers explains the
/// history, and returns the lowest starting server with which it does.
///
/// ```
/// use testbed::rotation::{Observation, check_strict};
///
/// // Two clients at once; which of them was dealt first cannot be seen.
/// let history = [
///     Observation { sent: 0, received: 3, server: 1 },
///     Observation { sent: 1, received: 2, server: 0 },
///     Observation { sent: 4, received: 5, server: 0 },
/// ];
/// assert_eq!(check_strict(&history, 2), Ok(0));
///
/// // One after the other, the same servers are no rotation.
/// let history = [1, 0, 0].iter().enumerate().map(|(turn, server)| {
///     let sent = 2 * turn as u64;
///     Observation { sent, received: sent + 1, server: *server }
/// });
/// assert!(check_strict(&history.collect::<Vec<_>>(), 2).is_err());
/// ```
///
/// # Errors
///
/// [`NotStrict`] for the start that came closest, if there is none.
pub fn check_strict(history: &[Observation], servers: usize) -> Result<usize, NotStrict> {
    let schedule: Vec<usize> = (0..servers).collect();
    check_schedule(history, &schedule)
}

/// [`check_strict`] when the first pick is known to go to server `first`,
/// counted modulo `servers`.
///
/// # Errors
///
/// [`NotStrict`] if no pick times explain the history with that start.
pub fn check_strict_from(
    history: &[Observation],
    servers: usize,
    first: usize,
) -> Result<(), NotStrict> {
    let schedule: Vec<usize> = (0..servers).collect();
    let first = first % servers.max(1);
    check_starts(history, &schedule, first..first + 1).map(drop)
}

/// Checks that one counter over a repeating schedule of servers, such as
/// `[0, 0, 1, 0]`, explains the history, and returns the lowest place in the
/// schedule at which it can have started.
///
/// # Errors
///
/// [`NotStrict`] for the start that came closest, if there is none.
pub fn check_schedule(history: &[Observation], schedule: &[usize]) -> Result<usize, NotStrict> {
    check_starts(history, schedule, 0..schedule.len())
}

/// Why no single counter explains a history. Requests are named by their index
/// in it, positions are counted from the first pick, both from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStrict {
    /// The servers got the wrong numbers of requests, whatever the order.
    Counts {
        /// The place in the schedule whose counts come closest.
        start: usize,
        /// Requests that each server got.
        counts: Vec<usize>,
        /// Requests that each server gets from that start; empty if the servers
        /// changed, and no places of the changes come close.
        expected: Vec<usize>,
    },
    /// The counts are right, but a place had its turn before a request for it
    /// existed.
    NoOrder {
        /// The place in the schedule that gets furthest.
        start: usize,
        /// The first position that no request can hold.
        position: usize,
        /// The server whose turn it is there.
        server: usize,
        /// Requests to `server` sent before that turn; it had as many turns already.
        sent: usize,
        /// The receipt before which the position must have been picked.
        forced_by: Witness,
        /// The next sending of a request to `server`: too late.
        too_late: Option<Witness>,
    },
    /// An observation that no schedule of these servers can contain.
    BadObservation {
        /// The index of the observation.
        request: usize,
        /// What was observed.
        observation: Observation,
    },
}

/// A request, and the moment at which it was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Index in the history.
    pub request: usize,
    /// Moment of the event.
    pub moment: u64,
}

impl NotStrict {
    /// Orders failures by how much they explain: the larger, the closer.
    fn closeness(&self) -> (u8, usize) {
        match self {
            NotStrict::BadObservation { .. } => (0, 0),
            NotStrict::Counts { counts, expected, .. } => {
                let pairs = counts.iter().zip(expected);
                let distance: usize = pairs.map(|(got, want)| got.abs_diff(*want)).sum();
                (1, usize::MAX - distance)
            }
            NotStrict::NoOrder { position, .. } => (2, *position),
        }
    }
}

impl fmt::Display for NotStrict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotStrict::Counts { counts, expected, .. } if expected.is_empty() => write!(
                f,
                "not one rotation: the servers got {} requests, which no places of the \
                 changes give",
                Slashes(counts),
            ),
            NotStrict::Counts { start, counts, expected } => write!(
                f,
                "not one rotation: the servers got {} requests; expected {} (start {start})",
                Slashes(counts),
                Slashes(expected),
            ),
            NotStrict::NoOrder { start, position, server, sent, forced_by, too_late } => {
                write!(
                    f,
                    "not one rotation: position {position} is number {} of server {server} \
                     and was picked before moment {}, when request {} was received, \
                     but only {sent} requests to server {server} were sent before",
                    sent + 1,
                    forced_by.moment,
                    forced_by.request,
                )?;
                if let Some(late) = too_late {
                    let Witness { request, moment } = late;
                    write!(f, "; the next, request {request}, was sent at {moment}")?;
                }
                write!(f, " (start {start})")
            }
            NotStrict::BadObservation {
                request,
                observation: Observation { sent, received, .. },
            } if sent >= received => write!(
                f,
                "request {request}: sent at {sent}, received at {received}; \
                 expected to be sent before it is received"
            ),
            NotStrict::BadObservation { request, observation } => write!(
                f,
                "request {request}: received by server {}, which has no place in the schedule",
                observation.server
            ),
        }
    }
}

impl Error for NotStrict {}

/// Counts as an operator reads them: `400/400/400`.
struct Slashes<'a>(&'a [usize]);

impl fmt::Display for Slashes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&words.join("/"))
    }
}

fn check_starts(
    history: &[Observation],
    schedule: &[usize],
    starts: Range<usize>,
) -> Result<usize, NotStrict> {
    let log = Log::new(history, schedule)?;
    let mut closest: Option<NotStrict> = None;
    for start in starts {
        match log.explain(start) {
            Ok(()) => return Ok(start),
            Err(reason) => {
                let closer = |old: &NotStrict| reason.closeness() > old.closeness();
                if closest.as_ref().is_none_or(closer) {
                    closest = Some(reason);
                }
            }
        }
    }
    // No start at all: an empty schedule, and so an empty history.
    closest.map_or(Ok(0), Err)
}

/// A valid history, put in the order of its events.
#[derive(Clone)]
struct Log<'a> {
    history: &'a [Observation],
    schedule: &'a [usize],
    /// Places of each server in the schedule.
    weights: Vec<usize>,
    /// Requests that each server received.
    counts: Vec<usize>,
    /// Sorted.
    events: Vec<Event>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    moment: u64,
    kind: Kind,
    request: usize,
}

/// In this order within a moment: a request received at the moment at which
/// another is sent was picked before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Received,
    Sent,
}

impl<'a> Log<'a> {
    fn new(history: &'a [Observation], schedule: &'a [usize]) -> Result<Self, NotStrict> {
        let mut weights = vec![0; schedule.iter().max().map_or(0, |last| last + 1)];
        for &server in schedule {
            weights[server] += 1;
        }
        let mut counts = vec![0; weights.len()];
        let mut events = Vec::with_capacity(2 * history.len());
        for (request, &observation) in history.iter().enumerate() {
            let Observation { sent, received, server } = observation;
            let placed = weights.get(server).is_some_and(|&weight| weight > 0);
            if sent >= received || !placed {
                return Err(NotStrict::BadObservation { request, observation });
            }
            counts[server] += 1;
            events.extend(
                [(sent, Kind::Sent), (received, Kind::Received)].map(|(moment, kind)| Event {
                    moment,
                    kind,
                    request,
                }),
            );
        }
        events.sort_unstable();
        Ok(Self { history, schedule, weights, counts, events })
    }

    /// Walks the history with a counter that starts at place `start`.
    fn explain(&self, start: usize) -> Result<(), NotStrict> {
        self.check_counts(start)?;
        self.walk(start, &mut [].into_iter())
    }

    /// The same, heeding what is known of the counter's position, in the order
    /// of the moments. That the counter must have come as far as `reached` is
    /// one more reason to turn it, and as it is turned as late as can be, it has
    /// never gone further than it must.
    fn walk(&self, start: usize, known: &mut dyn Iterator<Item = Known>) -> Result<(), NotStrict> {
        let mut known = known.peekable();
        let mut counter = Counter::new(self, start);
        let mut picked_before = vec![0; self.history.len()];
        for (index, event) in self.events.iter().enumerate() {
            // Behind what was received at that moment, before what was sent.
            let is_due = |known: &Known| (known.moment, Kind::Sent) <= (event.moment, event.kind);
            while let Some(known) = known.next_if(is_due) {
                counter
                    .turn_within(known)
                    .map_err(|starved| self.no_order(start, index, &counter, starved))?;
            }
            let server = self.history[event.request].server;
            match event.kind {
                Kind::Sent => picked_before[event.request] = counter.send(server),
                Kind::Received => counter
                    .receive(server, picked_before[event.request])
                    .map_err(|starved| self.no_order(start, index, &counter, starved))?,
            }
        }
        Ok(())
    }

    fn check_counts(&self, start: usize) -> Result<(), NotStrict> {
        let requests = self.history.len();
        let places = self.schedule.len().max(1);
        let rounds = requests / places;
        let mut expected: Vec<usize> = self.weights.iter().map(|weight| weight * rounds).collect();
        for position in rounds * places..requests {
            expected[self.schedule[(start + position) % places]] += 1;
        }
        if expected == self.counts {
            return Ok(());
        }
        Err(NotStrict::Counts { start, counts: self.counts.clone(), expected })
    }

    fn no_order(
        &self,
        start: usize,
        index: usize,
        counter: &Counter<'_>,
        Starved(server): Starved,
    ) -> NotStrict {
        let too_late = self.events[index..]
            .iter()
            .find(|event| event.kind == Kind::Sent && self.history[event.request].server == server);
        NotStrict::NoOrder {
            start,
            position: counter.position,
            server,
            sent: counter.servers[server].sent,
            forced_by: self.events[index].witness(),
            too_late: too_late.map(Event::witness),
        }
    }
}

impl Event {
    fn witness(&self) -> Witness {
        Witness { request: self.request, moment: self.moment }
    }
}

/// What is known of the counter's position at a moment.
#[derive(Clone, Copy, Debug)]
struct Known {
    moment: u64,
    /// So many picks at least have been made.
    reached: usize,
    /// And so many at most.
    limit: usize,
}

/// The counter, turned as late as the receipts so far allow.
struct Counter<'a> {
    schedule: &'a [usize],
    start: usize,
    /// The next position to pick.
    position: usize,
    servers: Vec<Server>,
}

/// The turn of this server has come, and no request is there to take it.
struct Starved(usize);

impl<'a> Counter<'a> {
    fn new(log: &Log<'a>, start: usize) -> Self {
        Self {
            schedule: log.schedule,
            start,
            position: 0,
            servers: log.weights.iter().map(|_| Server::default()).collect(),
        }
    }

    /// Notes a request to `server`; returns how many picks came too early for it.
    fn send(&mut self, server: usize) -> usize {
        self.servers[server].sent += 1;
        self.servers[server].picks()
    }

    /// Claims the earliest pick for `server` from `picked_before` on, and turns
    /// the counter until there is one.
    fn receive(&mut self, server: usize, picked_before: usize) -> Result<(), Starved> {
        let pick = self.servers[server].first_unclaimed(picked_before);
        while self.servers[server].picks() == pick {
            self.turn()?;
        }
        self.servers[server].claim(pick);
        Ok(())
    }

    fn turn_within(&mut self, known: Known) -> Result<(), Starved> {
        while self.position < known.reached {
            self.turn()?;
        }
        if self.position > known.limit {
            return Err(Starved(self.server_at(known.limit)));
        }
        Ok(())
    }

    fn server_at(&self, position: usize) -> usize {
        self.schedule[(self.start + position) % self.schedule.len()]
    }

    fn turn(&mut self) -> Result<(), Starved> {
        let server = self.server_at(self.position);
        if self.servers[server].picks() == self.servers[server].sent {
            return Err(Starved(server));
        }
        self.servers[server].pick();
        self.position += 1;
        Ok(())
    }
}

#[derive(Default)]
struct Server {
    /// Requests sent to it so far.
    sent: usize,
    /// One entry per pick: its own index while it is unclaimed, then a higher
    /// index with only claimed picks in between, possibly one not yet made.
    next: Vec<usize>,
}

impl Server {
    fn picks(&self) -> usize {
        self.next.len()
    }

    fn pick(&mut self) {
        self.next.push(self.next.len());
    }

    fn claim(&mut self, pick: usize) {
        self.next[pick] = pick + 1;
    }

    /// The first unclaimed pick from `pick` on; `picks()` if all are claimed.
    /// Shortens the path that it walks, so that a run of claimed picks is
    /// crossed in amortised logarithmic time.
    fn first_unclaimed(&mut self, mut pick: usize) -> usize {
        while pick < self.next.len() && self.next[pick] != pick {
            let next = self.next[pick];
            let beyond = self.next.get(next).copied().unwrap_or(next);
            self.next[pick] = beyond;
            pick = beyond;
        }
        pick
    }
}
