//! Rates and latencies of the last seconds, for the status page.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use tokio::time::Instant;

use super::live::TICK;
use crate::feed::Sum;

/// How many ticks are remembered.
const RECENT_TICKS: usize = 50;

/// The sums of the last seconds, one for each tick.
pub(super) struct Recent {
    began: Instant,
    ticks: VecDeque<(Instant, BTreeMap<Option<u64>, Sum>)>,
}

impl Recent {
    /// Nothing has been seen yet.
    pub(super) fn new() -> Recent {
        Recent { began: Instant::now(), ticks: VecDeque::new() }
    }

    /// What passed until `now`, since this was last called.
    pub(super) fn push(&mut self, now: Instant, sums: BTreeMap<Option<u64>, Sum>) {
        if self.ticks.len() == RECENT_TICKS
            && let Some((end, _)) = self.ticks.pop_front()
        {
            self.began = end;
        }
        self.ticks.push_back((now, sums));
    }

    /// All that passed, by the server's number.
    pub(super) fn sums(&self) -> BTreeMap<Option<u64>, Sum> {
        let mut all = BTreeMap::<_, Sum>::new();
        for (server, sum) in self.ticks.iter().flat_map(|(_, sums)| sums) {
            all.entry(*server).or_default().merge(sum);
        }
        all
    }

    /// How long that took.
    pub(super) fn seconds(&self) -> f64 {
        let last = self.ticks.back().map_or(self.began, |(end, _)| *end);
        (last - self.began).as_secs_f64().max(TICK.as_secs_f64())
    }
}

/// What the last seconds brought.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Requests per second.
    rate: f64,
    /// 5xx and answers that broke off, per second.
    errors: f64,
    /// Attempts that came to nothing, per second.
    failed: f64,
    /// The median of what requests took, in milliseconds.
    p50: Option<f64>,
    /// What all but one of a hundred took at most, in milliseconds.
    p99: Option<f64>,
}

impl Figures {
    /// Of what passed within `seconds`.
    pub(super) fn new(sum: &Sum, seconds: f64) -> Figures {
        let rate = |count| count as f64 / seconds;
        let millis = |percent| sum.quantile(percent).map(|took| took.as_micros() as f64 / 1000.0);
        Figures {
            rate: rate(sum.requests),
            errors: rate(sum.errors),
            failed: rate(sum.failed_attempts),
            p50: millis(50),
            p99: millis(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_of_the_last_five_seconds() {
        let mut recent = Recent::new();
        let sums = |requests| {
            let sum = Sum { requests, ..Sum::default() };
            BTreeMap::from([(Some(1), sum)])
        };
        let rate = |recent: &Recent| recent.sums()[&Some(1)].requests as f64 / recent.seconds();
        for second in 1..=20 {
            for _ in 0..10 {
                tokio::time::advance(TICK).await;
                recent.push(Instant::now(), sums(if second <= 10 { 5 } else { 1 }));
            }
            let expected = match second {
                ..=10 => 50.0,
                11..=15 => 50.0 - 8.0 * f64::from(second - 10),
                _ => 10.0,
            };
            assert!((rate(&recent) - expected).abs() < 0.01, "second {second}");
        }
    }
}
