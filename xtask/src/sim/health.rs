//! Are servers put out and taken back as promised?
//!
//! Owns the rules about states (contract, Health): by how many probes, within
//! which time, and never without a cause.

use std::time::Duration;

use super::{
    config::{Check, round_trip},
    judge::Case,
    plan::Plan,
    requests::Request,
    run::Run,
    truth::{Past, Span, Truth, overlaps},
    view::{Said, View, heard},
};

/// Adds what is wrong.
pub(crate) fn check(case: Case<'_>, wrong: &mut Vec<String>) {
    let Case { plan, run, truth, .. } = case;
    let mut view = View::new(plan, &run.done);
    let mut counts = vec![Count::default(); plan.servers.len()];
    // When what lb observes of each server changed, and to what.
    let mut history = vec![vec![(Duration::ZERO, "checking".to_owned())]; plan.servers.len()];
    for event in &run.events {
        let present: Vec<bool> = view.servers.iter().map(|belief| belief.present).collect();
        view.read(plan, event);
        for (index, was) in present.iter().enumerate() {
            if view.servers[index].present && !was {
                history[index].push((event.at, "checking".into()));
                counts[index] = Count::default();
            }
        }
        let Some((index, said)) = heard(plan, event) else { continue };
        let past = &truth.servers[index];
        let count = &mut counts[index];
        let mut accuse = |what: String| {
            wrong.push(format!(
                "server={} at {} ms: {what}",
                plan.servers[index].name,
                event.at.as_millis()
            ));
        };
        match said {
            Said::Probe { passed, took } => {
                let span = (event.at.saturating_sub(took), event.at);
                let could_fail = overlaps(&past.unhealthy, span) || overlaps(&past.unsteady, span);
                if !passed && !could_fail {
                    accuse("a probe failed, and it was well".into());
                }
                let ill = |ill: &Span| ill.0 + run.late < span.0 && span.1 + run.late * 2 < ill.1;
                if passed && past.unhealthy.iter().any(ill) {
                    accuse("a probe passed, and it was not well".into());
                }
                count.probe(passed, span.0);
            }
            Said::Became { from, to, cause } => {
                if let Some(what) =
                    count.is_wrong(&view.check, truth, past, event.at, (&from, &to, &cause))
                {
                    accuse(what);
                }
                let since = history[index].last().map_or(Duration::ZERO, |(since, _)| *since);
                if cause.starts_with("probe") && count.began + run.late < since {
                    accuse(format!("became {to} by a probe from before it was {from}"));
                }
                if to != "up" && !ailed_before(plan, truth, past, event.at) {
                    accuse(format!("became {to}, {cause}, and was well"));
                }
                history[index].push((event.at, to));
                counts[index] = Count::default();
            }
            _ => {}
        }
    }
    for (index, past) in truth.servers.iter().enumerate() {
        let name = &plan.servers[index].name;
        for what in bounds(plan, run, truth, past, &history[index]) {
            wrong.push(format!("server={name}: {what}"));
        }
    }
    departures(case, wrong);
}

/// Results of probes in a row since the last change of state.
#[derive(Clone, Debug, Default)]
struct Count {
    passed: u32,
    failed: u32,
    /// When the last one began.
    began: Duration,
}

impl Count {
    fn probe(&mut self, passed: bool, began: Duration) {
        self.began = began;
        let (more, none) = match passed {
            true => (&mut self.passed, &mut self.failed),
            false => (&mut self.failed, &mut self.passed),
        };
        *more += 1;
        *none = 0;
    }

    /// "Probes in a row that change the state": exactly as many as are
    /// configured, unless that changed meanwhile. Connects that time out count
    /// as failed probes do, and are not told.
    fn is_wrong(
        &self,
        check: &Check,
        truth: &Truth,
        past: &Past,
        at: Duration,
        (from, to, cause): (&str, &str, &str),
    ) -> Option<String> {
        let (seen, needed) = match (from, to, cause) {
            ("down", "up", _) => (self.passed, check.rise),
            ("up", "down", "probe failed") => (self.failed, check.fall),
            _ => return None,
        };
        let as_now =
            |(_, other): &(Duration, Check)| (other.rise, other.fall) == (check.rise, check.fall);
        let evidence = (at.saturating_sub(check.period * check.fall + check.timeout), at);
        let connects = overlaps(&past.silent, evidence) || overlaps(&past.unsteady, evidence);
        let too_soon = seen < needed && (to == "up" || !connects);
        let wrong = truth.checks.iter().all(as_now) && (seen > needed || too_soon);
        wrong.then(|| format!("{from} to {to} after {seen} probes, expected {needed}"))
    }
}

/// Whether something was wrong shortly before: evidence takes so long at most.
fn ailed_before(plan: &Plan, truth: &Truth, past: &Past, at: Duration) -> bool {
    let longest = |(_, check): &(Duration, Check)| check.period * check.fall + check.timeout;
    let evidence = truth.checks.iter().map(longest).max().unwrap_or_default();
    let evidence = evidence + round_trip(plan);
    past.ails((at.saturating_sub(evidence), at))
}

/// "Out at most fall x period + timeout after it starts failing; back at most
/// rise x period + timeout after it recovers."
fn bounds(
    plan: &Plan,
    run: &Run,
    truth: &Truth,
    past: &Past,
    history: &[(Duration, String)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let slack = round_trip(plan) * 2;
    let slowest = |pick: fn(&Check) -> Duration| {
        truth.checks.iter().map(|(_, check)| pick(check)).max().unwrap_or_default() + slack
    };
    let back = slowest(|check| check.period * check.rise + check.timeout);
    let out = slowest(|check| check.period * check.fall + check.timeout);
    let state = |at: Duration| {
        let until = history.iter().take_while(|(since, _)| *since <= at).last();
        until.map_or("checking", |(_, state)| state.as_str())
    };
    let ill: Vec<Span> =
        past.unhealthy.iter().chain(&past.unsteady).chain(&past.absent).copied().collect();
    for (from, to) in complement(&ill, run.took) {
        // A reload on the way asks for its own number of probes.
        let told = truth.checks.iter().map(|(at, _)| *at).filter(|at| *at <= from + back);
        let by = told.max().unwrap_or_default().max(from) + back;
        // Connects are strong evidence, and faults may refuse them.
        if by < to && state(by) != "up" && !overlaps(&past.faulty, (from, by)) {
            wrong.push(format!(
                "well since {} ms, and {} at {} ms",
                from.as_millis(),
                state(by),
                by.as_millis()
            ));
        }
    }
    for (from, to) in &past.unhealthy {
        let told = truth.checks.iter().map(|(at, _)| *at).filter(|at| *at <= *from + out);
        let by = told.max().unwrap_or_default().max(*from) + out;
        let absent = overlaps(&past.absent, (*from, *to));
        if by < *to && !absent && state(by) == "up" {
            wrong.push(format!(
                "not well since {} ms, and up at {} ms",
                from.as_millis(),
                by.as_millis()
            ));
        }
    }
    wrong
}

/// The times that none of `spans` has.
fn complement(spans: &[Span], end: Duration) -> Vec<Span> {
    let mut spans = spans.to_vec();
    spans.sort();
    let (mut free, mut since) = (Vec::new(), Duration::ZERO);
    for (from, to) in spans {
        if from > since {
            free.push((since, from));
        }
        since = since.max(to);
    }
    free.push((since, end));
    free
}

/// A removed server "finishes what it has, for at most the drain time", and is
/// told to be drained as soon as it has nothing any more.
fn departures(case: Case<'_>, wrong: &mut Vec<String>) {
    let Case { plan, run, truth, requests } = case;
    let drain = super::plan::millis(plan.balancer.drain_ms);
    for (index, past) in truth.servers.iter().enumerate() {
        let name = &plan.servers[index].name;
        let ends: Vec<_> = run
            .events
            .iter()
            .filter_map(|event| {
                let (server, said) = heard(plan, event)?;
                (server == index).then_some((event.at, said))
            })
            .filter(|(_, said)| matches!(said, Said::Drained | Said::CutOff))
            .collect();
        for (from, _) in past.absent.iter().filter(|(from, _)| !from.is_zero()) {
            let Some((at, said)) = ends.iter().find(|(at, _)| at >= from) else {
                wrong.push(format!(
                    "server={name}: removed at {} ms and never drained",
                    from.as_millis()
                ));
                continue;
            };
            if *said == Said::CutOff && *at + run.late < *from + drain {
                wrong.push(format!(
                    "server={name}: removed at {} ms and cut off at {} ms, before its time to drain",
                    from.as_millis(), at.as_millis(),
                ));
            }
            let busy = busy_until(requests, name, *from, run.took) + round_trip(plan);
            let by = busy.min(*from + drain) + round_trip(plan);
            let ails = past.ails((from.saturating_sub(Duration::from_secs(5)), *at));
            if *at > *from + drain + run.late || (*at > by + run.late && !ails) {
                wrong.push(format!(
                    "server={name}: removed at {} ms, its last answer ended at {} ms, {said:?} at {} ms",
                    from.as_millis(), busy.as_millis(), at.as_millis(),
                ));
            }
        }
    }
}

/// When the last request that a server had at `from` was over for its client.
fn busy_until(requests: &[Request], server: &str, from: Duration, end: Duration) -> Duration {
    let had = |request: &&Request| {
        let reached = request.reached.iter().any(|(name, ..)| name == server);
        let tried = request.failed.iter().any(|(name, ..)| name == server);
        request.sent.0 <= from && (reached || tried)
    };
    let ends = requests.iter().filter(had).map(|request| request.span(end).1);
    ends.max().unwrap_or_default().max(from)
}
