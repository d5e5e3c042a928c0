//! What a run is judged by.

use std::time::Duration;

use serde::Serialize;

use super::{Evidence, Sample, trend::Trend};

/// How much memory may grow, as a share of what is resident.
const GROWTH: f64 = 0.05;

/// Memory is not judged before this: pools and buffers fill.
const WARM_UP: Duration = Duration::from_secs(60);

/// Nor over less than this: a percent of the noise would be one of the trend.
const LEAST: Duration = Duration::from_secs(300);

/// One thing that was judged.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// What should be so.
    pub(super) what: &'static str,
    /// Whether it is; none if there was too little to judge it by.
    pub(super) holds: Option<bool>,
    /// What was seen.
    pub(super) seen: String,
}

impl Check {
    fn new(what: &'static str, holds: bool, seen: impl Into<String>) -> Self {
        Check { what, holds: Some(holds), seen: seen.into() }
    }
}

/// Judges all of it.
pub(super) fn judge(evidence: &Evidence) -> Vec<Check> {
    let Evidence { totals, counts, plan, .. } = evidence;
    let excused: usize = totals.excused.values().sum();
    let requests = totals.ledger.requests;
    let errors = format!("{} of {requests} requests, and {excused} excused", totals.error_count);
    let planned = (counts.kills, counts.reloads, counts.restarts);
    let wanted = (plan.kills, plan.reloads, plan.restarts);
    let changed = format!(
        "{} of {} SIGKILLs, {} of {} reloads, {} of {} restarts",
        planned.0, wanted.0, planned.1, wanted.1, planned.2, wanted.2
    );
    let violations = totals.violations.join("; ");
    let open = totals.ledger.open;
    let mut checks = vec![
        Check::new("no client error outside the stated limits", totals.error_count == 0, errors),
        Check::new(
            "the ledger balances, no POST is executed twice",
            violations.is_empty(),
            violations,
        ),
        Check::new(
            "every request has an outcome",
            open == 0 && requests > 0,
            format!("{open} open"),
        ),
        Check::new("all that was planned has happened", planned == wanted, changed),
    ];
    let failures = evidence.failures.join("; ");
    checks.push(Check::new(
        "lb follows every change and ends cleanly",
        failures.is_empty(),
        failures,
    ));
    checks.push(counters(evidence));
    checks.push(memory(evidence));
    checks.push(threads(evidence));
    checks.push(rest(evidence));
    checks
}

/// What the last balancer counted, from the first look at it on: neither more nor
/// less than the clients' books allow for. Each client has one request at a time,
/// which may be on one side of the look here and on the other there.
fn counters(evidence: &Evidence) -> Check {
    let what = "lb's counters agree with the clients' books";
    let Some(after) = evidence.after else {
        return Check { what, holds: Some(false), seen: "nobody could look".into() };
    };
    let falls = |pair: &[Sample]| pair[0].life == pair[1].life && pair[0].counted > pair[1].counted;
    if let Some(pair) = evidence.samples.windows(2).find(|pair| falls(pair)) {
        let seen = format!("fell from {} to {}", pair[0].counted, pair[1].counted);
        return Check { what, holds: Some(false), seen };
    }
    let first = evidence.samples.iter().find(|sample| sample.life == after.life);
    let (begin, [before, behind]) =
        first.map(|first| (first.counted, first.seen)).unwrap_or_default();
    let (end, straddle) = (evidence.totals.seen, evidence.clients as u64);
    let counted = after.counted.saturating_sub(begin);
    let least = (end.answered - behind.answered).saturating_sub(straddle);
    let most = end.answered + end.failed - before.answered - before.failed + straddle;
    let seen = format!("{counted} answers of 2xx, expected {least} to {most}");
    Check::new(what, (least..=most).contains(&counted), seen)
}

/// Growth is that of heap and stacks: the pages of the program itself come as they are
/// used and go as the machine likes, and leak nothing.
fn memory(evidence: &Evidence) -> Check {
    let what = "memory stays within 5 % after the first minute";
    let lives = evidence.samples.chunk_by(|a, b| a.life == b.life);
    let longest = lives.max_by_key(|samples| samples.len()).unwrap_or_default();
    let at = |sample: &Sample| Duration::from_secs_f64(sample.seconds);
    let begin = longest.first().map(|first| at(first) + WARM_UP).unwrap_or_default();
    let warm = &longest[longest.partition_point(|sample| at(sample) < begin)..];
    let over = warm.last().map(|last| at(last).saturating_sub(begin)).unwrap_or_default();
    let trend = |kib: fn(&Sample) -> u64| {
        Trend::of(&warm.iter().map(|sample| (at(sample), kib(sample) as f64)).collect::<Vec<_>>())
    };
    let trends = trend(|sample| sample.heap_kib).zip(trend(|sample| sample.resident_kib));
    let Some((heap, resident)) = trends.filter(|_| over >= LEAST) else {
        let seen = format!("not judged: that takes {:?} of one lb", WARM_UP + LEAST);
        return Check { what, holds: None, seen };
    };
    let of = |whole: f64| {
        let (growth, step) = (heap.growth / whole * 100.0, heap.step / whole * 100.0);
        format!(
            "{growth:+.2} % of {:.1} MiB, {step:+.2} % from its first tenth to its last",
            whole / 1024.0
        )
    };
    let seen = format!(
        "in {:.0} s {}; of heap and stacks alone {}",
        over.as_secs_f64(),
        of(resident.level),
        of(heap.level)
    );
    Check::new(what, heap.growth.max(heap.step) <= GROWTH * resident.level, seen)
}

fn threads(evidence: &Evidence) -> Check {
    let counts = || evidence.samples.iter().map(|sample| sample.threads);
    let (least, most) = (counts().min().unwrap_or_default(), counts().max().unwrap_or_default());
    let seen = format!("{least} to {most}");
    Check::new("threads are as many as ever", least == most && most > 0, seen)
}

fn rest(evidence: &Evidence) -> Check {
    let what = "descriptors, tasks, connections and requests in flight go back to what they were";
    let Some((before, after)) = evidence.before.zip(evidence.after) else {
        return Check { what, holds: Some(false), seen: "nobody could look".into() };
    };
    let seen = format!(
        "{} descriptors of {}, {} tasks of {}, {} connections, {} in flight",
        after.descriptors,
        before.descriptors,
        after.tasks,
        before.tasks,
        after.connections,
        after.in_flight
    );
    let back = after.descriptors <= before.descriptors && after.tasks <= before.tasks;
    Check::new(what, back && after.connections == 0 && after.in_flight == 0, seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::tests::evidence;

    fn of<'a>(checks: &'a [Check], what: &str) -> &'a Check {
        checks.iter().find(|check| check.what.contains(what)).unwrap()
    }

    #[test]
    fn a_good_run_holds() {
        let checks = judge(&evidence());
        assert!(checks.iter().all(|check| check.holds == Some(true)), "{checks:#?}");
    }

    #[test]
    fn a_leak_of_a_hundredth_each_minute_is_told() {
        let mut leaking = evidence();
        for sample in &mut leaking.samples {
            sample.heap_kib += (sample.seconds / 60.0 * 200.0) as u64;
        }
        let checks = judge(&leaking);
        assert_eq!(of(&checks, "memory").holds, Some(false), "{checks:#?}");
    }

    #[test]
    fn a_step_and_a_leak_that_begins_late_are_told() {
        for more in [|at: f64| if at > 900.0 { 3000.0 } else { 0.0 }, |at| 10.0 * (at - 1400.0)] {
            let mut leaking = evidence();
            for sample in &mut leaking.samples {
                sample.heap_kib += more(sample.seconds).max(0.0) as u64;
            }
            let checks = judge(&leaking);
            assert_eq!(of(&checks, "memory").holds, Some(false), "{checks:#?}");
        }
    }

    #[test]
    fn a_short_life_says_nothing_of_memory() {
        let mut short = evidence();
        for (number, sample) in short.samples.iter_mut().enumerate() {
            sample.life = number / 300;
        }
        assert_eq!(of(&judge(&short), "memory").holds, None);
    }

    /// Breaks the good run, and expects the check to notice.
    #[track_caller]
    fn check(what: &str, break_it: impl FnOnce(&mut Evidence)) {
        let mut evidence = evidence();
        break_it(&mut evidence);
        assert_eq!(of(&judge(&evidence), what).holds, Some(false));
    }

    #[test]
    fn each_fault_is_told() {
        check("client error", |e| e.totals.error_count = 1);
        check("ledger", |e| e.totals.violations.push("twice".into()));
        check("outcome", |e| e.totals.ledger.open = 1);
        check("planned", |e| e.counts.restarts -= 1);
        check("follows", |e| e.failures.push("it ended".into()));
        check("counters", |e| e.after.as_mut().unwrap().counted += 15);
        check("counters", |e| e.after.as_mut().unwrap().counted -= 115);
        check("counters", |e| e.samples[5].counted += 200);
        check("threads", |e| e.samples.push(Sample { threads: 9, ..e.samples[0] }));
        check("descriptors", |e| e.after.as_mut().unwrap().descriptors += 1);
        check("tasks", |e| e.after.as_mut().unwrap().tasks += 1);
        check("descriptors", |e| e.after.as_mut().unwrap().in_flight = 1);
        check("descriptors", |e| e.after = None);
    }
}
