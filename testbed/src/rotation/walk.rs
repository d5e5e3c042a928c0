//! The walk over a history: the counter is turned as late as can be.
//!
//! What it finds and why it is exact is in the module above.

use super::{NotStrict, Observation, Witness};

/// A valid history, put in the order of its events.
#[derive(Clone)]
pub(super) struct Log<'a> {
    history: &'a [Observation],
    schedule: &'a [usize],
    /// Places of each server in the schedule.
    weights: Vec<usize>,
    /// Requests that each server received.
    pub(super) counts: Vec<usize>,
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
    pub(super) fn new(
        history: &'a [Observation],
        schedule: &'a [usize],
    ) -> Result<Self, NotStrict> {
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

    /// The same history, to be explained by another schedule of the same servers.
    pub(super) fn over<'b>(&'b self, schedule: &'b [usize]) -> Log<'b> {
        Log { schedule, ..self.clone() }
    }

    /// Walks the history with a counter that starts at place `start`.
    pub(super) fn explain(&self, start: usize) -> Result<(), NotStrict> {
        self.check_counts(start)?;
        self.walk(start, &mut [].into_iter())
    }

    /// The same, heeding what is known of the counter's position, in the order
    /// of the moments. That the counter must have come as far as `reached` is
    /// one more reason to turn it, and as it is turned as late as can be, it has
    /// never gone further than it must.
    pub(super) fn walk(
        &self,
        start: usize,
        known: &mut dyn Iterator<Item = Known>,
    ) -> Result<(), NotStrict> {
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
pub(super) struct Known {
    pub(super) moment: u64,
    /// So many picks at least have been made.
    pub(super) reached: usize,
    /// And so many at most.
    pub(super) limit: usize,
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
