//! Are requests dealt to whom they should be?
//!
//! Owns the rules of the rotation (contract, Rotation): only eligible servers
//! get requests, and in every epoch one strict rotation.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use testbed::{
    log::EventKind,
    rotation::{Observation, check_schedule},
};

use super::{
    judge::Case,
    requests::{Outcome, Request},
    view::View,
};

/// Adds what is wrong.
pub(crate) fn check(case: Case<'_>, wrong: &mut Vec<String>) {
    strangers(case, wrong);
    at_the_end(case, wrong);
    if case.plan.balancer.algorithm == "round_robin" {
        epochs(case, wrong);
    }
}

/// No request goes to a server that was not eligible at any time since it was
/// picked.
fn strangers(case: Case<'_>, wrong: &mut Vec<String>) {
    let Case { plan, run, requests, .. } = case;
    let by_nonce: BTreeMap<u64, &Request> = requests.iter().map(|r| (r.nonce, r)).collect();
    let mut view = View::new(plan, &run.done);
    let mut last_eligible: Vec<Option<(Duration, u64)>> = vec![None; plan.servers.len()];
    // Whose line may still come.
    let mut doubtful: Vec<(usize, Duration, String)> = Vec::new();
    for event in &run.events {
        let now = Some((event.at, event.seq));
        view.eligible.iter().for_each(|index| last_eligible[*index] = now);
        view.read(plan, event);
        view.eligible.iter().for_each(|index| last_eligible[*index] = now);
        doubtful.retain(|(index, until, what)| {
            let over = *until < event.at;
            if over {
                wrong.push(what.clone());
            }
            !over && !view.eligible.contains(index)
        });
        let EventKind::Received { backend, nonce: Some(nonce), .. } = &event.kind else { continue };
        let (Some(index), Some(request)) = (plan.server(backend), by_nonce.get(nonce)) else {
            continue;
        };
        let picked = picked(request, backend);
        let fits = |(at, seq): (Duration, u64)| {
            at >= picked && seq >= request.sent.1 || at + run.late > picked
        };
        if !last_eligible[index].is_some_and(fits) {
            let what = format!(
                "nonce={nonce} went to {backend} at {} ms, which was {} and {}",
                event.at.as_millis(),
                view.servers[index].observed,
                view.servers[index].wanted,
            );
            match run.late.is_zero() {
                true => wrong.push(what),
                false => doubtful.push((index, event.at + run.late, what)),
            }
        }
    }
    wrong.extend(doubtful.into_iter().map(|(.., what)| what));
}

/// The earliest time at which a server that a request reached may have been picked:
/// when the attempt before that failed. What reaches it may have been long on the
/// way, and given up meanwhile.
fn picked(request: &Request, server: &str) -> Duration {
    let before = request.failed.iter().take_while(|(name, ..)| name != server);
    request.sent.0 + before.map(|(.., after)| *after).max().unwrap_or_default()
}

/// When all is healed every request is served.
fn at_the_end(case: Case<'_>, wrong: &mut Vec<String>) {
    let Case { plan, run, requests, .. } = case;
    for request in requests.iter().filter(|request| request.sent.1 >= run.strict) {
        let good = matches!(&request.outcome, Some((_, Outcome::Answered(_, 200))));
        if !good {
            wrong.push(format!(
                "nonce={} failed when all was healed: {:?}",
                request.nonce, request.outcome
            ));
        }
    }
    let mut view = View::new(plan, &run.done);
    for event in run.events.iter().take_while(|event| event.seq < run.strict) {
        view.read(plan, event);
    }
    for (belief, server) in view.servers.iter().zip(&plan.servers) {
        if belief.present && belief.observed != "up" {
            wrong.push(format!("server={} is {} when all is healed", server.name, belief.observed));
        }
        if belief.present && belief.wanted != "enabled" {
            wrong.push(format!("server={} is {} when all is healed", server.name, belief.wanted));
        }
        if belief.present == server.spare {
            wrong.push(format!("server={} is configured: {}", server.name, belief.present));
        }
    }
}

/// In each epoch, from one moment when no request is on its way to a server to
/// another, requests are dealt in one strict rotation.
fn epochs(case: Case<'_>, wrong: &mut Vec<String>) {
    let Case { plan, run, requests, .. } = case;
    let by_nonce: BTreeMap<u64, &Request> = requests.iter().map(|r| (r.nonce, r)).collect();
    // What went wrong before must not excuse what comes after it.
    let changes: BTreeSet<u64> = run.done.iter().map(|done| done.seq).chain([run.strict]).collect();
    let mut view = View::new(plan, &run.done);
    let mut epoch = Epoch::new(&view, Duration::ZERO);
    // Requests that were sent and have reached no server.
    let mut on_way = 0_usize;
    for event in &run.events {
        let dealt_otherwise = view.read(plan, event);
        if dealt_otherwise || changes.contains(&event.seq) {
            epoch.judge(case, event.at, wrong);
            epoch = Epoch::new(&view, event.at);
        }
        if dealt_otherwise {
            continue;
        }
        match &event.kind {
            EventKind::Sent { .. } => {
                if on_way == 0 {
                    epoch.commit(event.at, run.late);
                }
                on_way += 1;
            }
            EventKind::Received { backend, nonce: Some(nonce), .. } => {
                let Some(request) = by_nonce.get(nonce) else { continue };
                if request.reached.first().is_some_and(|(.., seq)| *seq == event.seq) {
                    on_way -= 1;
                }
                let plain = request.failed.is_empty() && request.reached.len() == 1;
                let place =
                    epoch.dealt_to.iter().position(|(i, _)| plan.servers[*i].name == **backend);
                match place.filter(|_| plain) {
                    Some(server) => epoch.open.push(Observation {
                        sent: request.sent.1,
                        received: event.seq,
                        server,
                    }),
                    None => epoch.spoilt = true,
                }
            }
            // It never arrived anywhere: to whom it was dealt is not known.
            EventKind::Answered { nonce, .. } | EventKind::Failed { nonce, .. }
                if by_nonce.get(nonce).is_some_and(|request| request.reached.is_empty()) =>
            {
                on_way -= 1;
                epoch.spoilt = true;
            }
            _ => {}
        }
    }
    epoch.commit(run.took, run.late);
    epoch.judge(case, run.took + run.late, wrong);
}

/// The time between two changes of who is dealt to.
struct Epoch {
    dealt_to: Vec<(usize, u32)>,
    since: Duration,
    /// Unbroken pieces of the rotation; of each part of them, until when all of
    /// it was over.
    pieces: Vec<Vec<(Duration, Vec<Observation>)>>,
    /// What came since no request was on its way.
    open: Vec<Observation>,
    /// Whether somebody came since whose turn is not known.
    spoilt: bool,
}

impl Epoch {
    fn new(view: &View, since: Duration) -> Self {
        // What is on its way may have been dealt before.
        Self {
            dealt_to: view.dealt_to(),
            since,
            pieces: vec![Vec::new()],
            open: Vec::new(),
            spoilt: true,
        }
    }

    /// No request is on its way at this moment. While it may not have been seen
    /// yet what the last epoch dealt, nothing counts.
    fn commit(&mut self, at: Duration, late: Duration) {
        if std::mem::take(&mut self.spoilt) || at < self.since + late {
            self.open.clear();
            self.pieces.push(Vec::new());
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.push((at, std::mem::take(&mut self.open)));
        }
    }

    fn judge(&self, case: Case<'_>, until: Duration, wrong: &mut Vec<String>) {
        let Case { plan, run, truth, .. } = case;
        // What ended at its beginning is over.
        let span = (self.since + Duration::from_nanos(1), until);
        if self.dealt_to.iter().any(|(index, _)| truth.servers[*index].ails(span)) {
            return;
        }
        let schedule = smooth(&self.dealt_to.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
        for piece in &self.pieces {
            let before = |(at, _): &&(Duration, Vec<Observation>)| *at + run.late <= until;
            let certain = piece.iter().take_while(before).flat_map(|(_, part)| part.clone());
            let piece: Vec<Observation> = certain.collect();
            if let Err(error) = check_schedule(&piece, &schedule) {
                let from = piece.first().map_or(0, |first| first.sent);
                let names: Vec<_> = self
                    .dealt_to
                    .iter()
                    .map(|(index, weight)| (&plan.servers[*index].name, weight))
                    .collect();
                wrong.push(format!(
                    "no strict rotation over {names:?} from {} to {} ms, from event {from} on: {error}",
                    span.0.as_millis(), span.1.as_millis(),
                ));
            }
        }
    }
}

/// Smooth weighted round robin over one period; ties in configuration order.
fn smooth(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut current = vec![0; weights.len()];
    let mut schedule = Vec::new();
    for _ in 0..total {
        current.iter_mut().zip(&weights).for_each(|(now, weight)| *now += weight);
        let most = current.iter().copied().max().unwrap_or_default();
        let next = current.iter().position(|now| *now == most).unwrap_or_default();
        current[next] -= total;
        schedule.push(next);
    }
    schedule
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
