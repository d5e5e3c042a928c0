//! Requests summed up: how many, how many went wrong, how long they took.

use std::{collections::BTreeMap, time::Duration};

use hyper::StatusCode;

use super::Passed;

/// What passed, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Requests.
    pub requests: u64,
    /// Those with a 5xx, or an answer that broke off.
    pub errors: u64,
    /// Attempts that came to nothing.
    pub failed_attempts: u64,
    /// How often a request took how long, by [`bucket`].
    pub(crate) durations: BTreeMap<u16, u64>,
}

impl Sum {
    /// Counts one more.
    pub(super) fn count(&mut self, passed: &Passed) {
        self.requests += 1;
        self.errors += u64::from(passed.is_error());
        // A tunnel lasts as long as its ends like.
        if passed.status != Some(StatusCode::SWITCHING_PROTOCOLS) {
            *self.durations.entry(bucket(passed.took)).or_default() += 1;
        }
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Sum) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.failed_attempts += other.failed_attempts;
        for (bucket, count) in &other.durations {
            *self.durations.entry(*bucket).or_default() += count;
        }
    }

    /// How long `percent` of the requests took at most, to within an eighth;
    /// `None` if there were none.
    pub fn quantile(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.durations.values().sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let mut reaches = |(_, count): &(&u16, &u64)| {
            seen += **count;
            seen >= rank
        };
        self.durations.iter().find(|entry| reaches(entry)).map(|(bucket, _)| upper(*bucket))
    }
}

/// Durations that count as equal: eight buckets for each power of two of
/// microseconds, so that none is wider than an eighth of its duration.
fn bucket(duration: Duration) -> u16 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(8);
    let shift = micros.ilog2() - 3;
    (shift * 8) as u16 + (micros >> shift) as u16 - 8
}

/// The longest duration of a bucket.
fn upper(bucket: u16) -> Duration {
    let (shift, step) = (bucket / 8, u128::from(bucket % 8));
    let micros = ((step + 9) << shift) - 1;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::access_log::Outcome;

    #[test]
    fn a_bucket_is_never_wider_than_an_eighth() {
        for micros in (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, 3 << bit]) {
            let above = upper(bucket(Duration::from_micros(micros))).as_micros();
            let micros = u128::from(micros);
            assert!(above >= micros && above <= micros.max(8) * 9 / 8, "{micros} in {above}");
        }
    }

    #[test]
    fn quantiles() {
        let passed = Passed {
            server: None,
            status: Some(StatusCode::OK),
            safe: true,
            began: Instant::now(),
            took: Duration::ZERO,
            failed: Vec::new(),
            outcome: Outcome::Complete,
        };
        let mut sum = Sum::default();
        assert_eq!(sum.quantile(50), None);
        for millis in 1..=100 {
            sum.count(&Passed { took: Duration::from_millis(millis), ..passed.clone() });
        }
        let near = |percent, millis: u128| {
            let found = sum.quantile(percent).unwrap().as_millis();
            assert!((millis..=millis * 9 / 8).contains(&found), "{percent} % in {found} ms");
        };
        near(50, 50);
        near(99, 99);
        near(100, 100);
    }
}
