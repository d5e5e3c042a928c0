//! How it really was: when each server and each client's way to `lb` was well.
//!
//! Owns what an operation means for whom it happens to. What `lb` believed is
//! [`super::view`]'s, what follows [`super::judge`]'s.

use std::time::Duration;

use super::{
    config::{Check, round_trip},
    operations::Done,
    plan::{Fault, Plan, What, millis},
    run::Run,
};

/// A time, the end included.
pub(crate) type Span = (Duration, Duration);

/// When what was wrong.
pub(crate) struct Truth {
    /// In the plan's order.
    pub(crate) servers: Vec<Past>,
    /// In the plan's order: when packets between a client and `lb` were lost or
    /// slow.
    pub(crate) clients: Vec<Vec<Span>>,
    /// When requests were given up, by client.
    pub(crate) aborts: Vec<Vec<Duration>>,
    /// How servers were probed, each from the moment when `lb` was told.
    pub(crate) checks: Vec<(Duration, Check)>,
}

/// What happened to one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Probes cannot pass.
    pub(crate) unhealthy: Vec<Span>,
    /// Connects to it get no answer.
    pub(crate) silent: Vec<Span>,
    /// Probes may fail: packets are lost, or late.
    pub(crate) unsteady: Vec<Span>,
    /// Connections to it break or hang, those of probes and of requests.
    pub(crate) severed: Vec<Span>,
    /// Requests are spoilt, whatever probes say.
    pub(crate) faulty: Vec<Span>,
    /// Requests are served, and connections end without notice.
    pub(crate) unmannered: Vec<Span>,
    /// Answers are a server's own errors.
    pub(crate) unavailable: Vec<Span>,
    /// It is not to get requests: not configured, drained or disabled.
    pub(crate) unwanted: Vec<Span>,
    /// It is not configured.
    pub(crate) absent: Vec<Span>,
    /// It was removed, and its time to finish what it has is over.
    pub(crate) cut_off: Vec<Span>,
}

impl Truth {
    /// What `plan` did in `run`.
    pub(crate) fn of(plan: &Plan, run: &Run) -> Truth {
        let mut truth = Truth {
            servers: vec![Past::default(); plan.servers.len()],
            clients: vec![Vec::new(); plan.clients.len()],
            aborts: vec![Vec::new(); plan.clients.len()],
            checks: vec![(Duration::ZERO, Check::first(plan))],
        };
        for (position, done) in run.done.iter().enumerate().filter(|(_, done)| done.begins) {
            let end = run.done[position..].iter();
            let mut end = end.filter(|other| other.operation == done.operation && !other.begins);
            // What is undone takes effect a moment later.
            let span = (done.at, end.next().map_or(done.at, |end| end.at) + run.late);
            truth.add(plan, done, span);
        }
        for (index, past) in truth.servers.iter_mut().enumerate() {
            past.absent = absences(plan, &run.done, index, run.took);
            let drain = millis(plan.balancer.drain_ms);
            let cut = past.absent.iter().map(|(from, to)| (*from + drain, drain + *to.max(from)));
            past.cut_off = cut.collect();
            let wanted = wanted_not(plan, &run.done, index, run.took);
            past.unwanted = past.absent.iter().copied().chain(wanted).collect();
        }
        truth
    }

    fn add(&mut self, plan: &Plan, done: &Done, span: Span) {
        let what = &plan.operations[done.operation].what;
        let target = what.target().unwrap_or_default();
        if let Some(client) = plan.clients.iter().position(|client| client.name == target) {
            match what {
                What::Abort { .. } => self.aborts[client].push(done.at),
                // What was lost is sent again with doubled patience.
                _ => self.clients[client].push((span.0, span.1 + (span.1 - span.0) * 2)),
            }
            return;
        }
        if let What::Reload { .. } = what {
            let mut check = self.checks.last().map(|(_, check)| check.clone());
            if let Some(check) = &mut check {
                check.after(what);
            }
            self.checks.extend(check.map(|check| (done.at, check)));
            return;
        }
        let Some(server) = plan.server(target) else { return };
        self.servers[server].add(plan, what, span);
    }

    /// The longest within which a server that is well is seen to be, however
    /// it was probed until `at`.
    pub(crate) fn settling(&self, plan: &Plan, at: Duration) -> Duration {
        let known: Vec<&Check> =
            self.checks.iter().filter(|(from, _)| *from <= at).map(|(_, check)| check).collect();
        let longest = known.iter().map(|check| check.period * check.rise + check.timeout);
        // A reload on the way asks for its own number of probes.
        let times = if known.len() > 1 { 2 } else { 1 };
        longest.max().unwrap_or_default() * times + round_trip(plan) * 2
    }
}

impl Past {
    fn add(&mut self, plan: &Plan, what: &What, span: Span) {
        if matches!(what, What::Crash { .. } | What::BlackHole { .. } | What::Partition { .. }) {
            self.silent.push(span);
        }
        match what {
            What::Kill { .. }
            | What::Crash { .. }
            | What::Stop { .. }
            | What::BlackHole { .. }
            | What::Partition { .. }
            | What::Fault { fault: Fault::ResetOnAccept, .. } => {
                self.unhealthy.push(span);
                self.severed.push(span);
            }
            What::Health { .. } => self.unhealthy.push(span),
            What::Lossy { .. } => self.unsteady.push(span),
            What::Slow { latency_ms, .. } => {
                // A connect is tried anew with doubled patience, so one may
                // take six times its round trip; the probe takes one more.
                let round_trip = millis(2 * (latency_ms + plan.network.jitter_ms + 1));
                let limit = plan.balancer.timeout_ms.min(plan.balancer.connect_timeout_ms);
                if round_trip * 7 >= millis(limit) {
                    self.unsteady.push(span);
                }
            }
            What::Fault { fault, .. } => match fault {
                Fault::Unavailable => self.unavailable.push(span),
                fault if fault.is_soft() => self.unmannered.push(span),
                _ => self.faulty.push(span),
            },
            What::CloseIdle { .. } => self.unmannered.push(span),
            _ => {}
        }
    }

    /// Whether, at any time of `span`, a request or probe might fail here.
    pub(crate) fn ails(&self, span: Span) -> bool {
        let kinds = [&self.unhealthy, &self.unsteady, &self.faulty];
        kinds.iter().any(|spans| overlaps(spans, span))
    }

    /// Whether, at any time of `span`, a request that it has might fail, whatever
    /// its probes say.
    pub(crate) fn severs(&self, span: Span) -> bool {
        let kinds = [&self.severed, &self.unsteady, &self.faulty];
        kinds.iter().any(|spans| overlaps(spans, span))
    }

    /// Whether it serves every request during all of `span`.
    pub(crate) fn serves(&self, span: Span) -> bool {
        !self.ails(span) && !overlaps(&self.unavailable, span) && !overlaps(&self.unwanted, span)
    }

    /// Whether connections may have ended in `span` without a fault.
    pub(crate) fn hangs_up(&self, span: Span) -> bool {
        overlaps(&self.unmannered, span) || overlaps(&self.unavailable, span)
    }
}

impl Fault {
    /// Whether every request is served all the same.
    fn is_soft(self) -> bool {
        matches!(
            self,
            Fault::Delay
                | Fault::CloseAfterAnswer
                | Fault::CloseWhenNext
                | Fault::NoKeepAlive
                | Fault::HalfClose
                | Fault::Drip
                | Fault::ExtraBytes
        )
    }
}

/// Whether any of `spans` shares a moment with `span`.
pub(crate) fn overlaps(spans: &[Span], span: Span) -> bool {
    spans.iter().any(|(from, to)| *from <= span.1 && span.0 <= *to)
}

/// When a server was not configured.
fn absences(plan: &Plan, done: &[Done], index: usize, end: Duration) -> Vec<Span> {
    let server = &plan.servers[index];
    let changes = done.iter().filter_map(|done| {
        let present = match &plan.operations[done.operation].what {
            What::Add { server: name } if *name == server.name => done.begins,
            What::Delete { server: name } if *name == server.name => !done.begins,
            What::Reload { .. } => !server.spare,
            _ => return None,
        };
        Some((done.at, present))
    });
    spans_without(!server.spare, changes, end)
}

/// When a server was to be drained, or disabled.
fn wanted_not(plan: &Plan, done: &[Done], index: usize, end: Duration) -> Vec<Span> {
    let name = &plan.servers[index].name;
    let mut present = !plan.servers[index].spare;
    let mut changes = Vec::new();
    for done in done {
        match &plan.operations[done.operation].what {
            What::Drain { server } | What::Disable { server } if server == name && present => {
                changes.push((done.at, !done.begins));
            }
            // One that is added anew is enabled.
            What::Add { server } | What::Delete { server } if server == name => {
                present =
                    matches!(plan.operations[done.operation].what, What::Add { .. }) == done.begins;
                changes.push((done.at, true));
            }
            What::Reload { .. } if present == plan.servers[index].spare => {
                present = !present;
                changes.push((done.at, true));
            }
            _ => {}
        }
    }
    spans_without(true, changes.into_iter(), end)
}

/// The times during which what changes is false.
fn spans_without(
    first: bool,
    changes: impl Iterator<Item = (Duration, bool)>,
    end: Duration,
) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut since = (!first).then_some(Duration::ZERO);
    for (at, holds) in changes {
        match (since, holds) {
            (Some(from), true) => {
                spans.push((from, at));
                since = None;
            }
            (None, false) => since = Some(at),
            _ => {}
        }
    }
    spans.extend(since.map(|from| (from, end)));
    spans
}
