//! How often a duration fell between which bounds.

use std::time::Duration;

use super::Counter;

/// The upper bounds of the buckets of a [`Histogram`], each included in its
/// own; behind them is one more without a bound. Each is at least twice the one
/// before, which finding the bucket relies on.
pub const BOUNDS: [Duration; 18] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(25),
    Duration::from_secs(60),
];

/// How many buckets a histogram has.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The bounds in nanoseconds, and one that nothing exceeds.
const NANOS: [u64; BUCKETS] = {
    let mut nanos = [u64::MAX; BUCKETS];
    let mut index = 0;
    while index < BOUNDS.len() {
        nanos[index] = BOUNDS[index].as_nanos() as u64;
        index += 1;
    }
    nanos
};

/// For each number of significant bits, how many bounds are below all numbers
/// of that many bits. At most one bound is among them: the next.
const FIRST: [u8; 65] = {
    let mut first = [0; 65];
    let mut bits = 1;
    while bits < first.len() {
        let least = 1 << (bits - 1);
        while NANOS[first[bits] as usize] < least {
            first[bits] += 1;
        }
        bits += 1;
    }
    first
};

/// The bucket of a duration: its number of bits leaves one bound to compare
/// with, as no two bounds have as many.
fn bucket_of(nanos: u64) -> usize {
    let first = usize::from(FIRST[(u64::BITS - nanos.leading_zeros()) as usize]);
    first + usize::from(nanos > NANOS[first])
}

/// How often a duration fell between which bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    nanos: Counter,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs().wrapping_mul(1_000_000_000);
        let nanos = seconds.wrapping_add(duration.subsec_nanos().into());
        self.buckets[bucket_of(nanos)].add(1);
        self.nanos.add(nanos);
    }

    /// How often it was in each bucket alone.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].get())
    }

    /// The sum of all, in nanoseconds; begins again at 0 after 584 years.
    pub fn nanos(&self) -> u64 {
        self.nanos.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_first_bucket_that_has_room() {
        let around = BOUNDS.iter().map(|bound| bound.as_nanos() as u64);
        let around = around.chain((0..64).map(|bit| 1 << bit));
        for nanos in around.flat_map(|n| [n - 1, n, n + 1]).chain([0, u64::MAX]) {
            let fits = |bound: &Duration| u128::from(nanos) <= bound.as_nanos();
            let expected = BOUNDS.iter().position(fits).unwrap_or(BOUNDS.len());
            assert_eq!(bucket_of(nanos), expected, "{nanos} ns");
        }
    }

    #[test]
    fn no_two_bounds_have_as_many_bits() {
        for pair in BOUNDS.windows(2) {
            assert!(pair[1] >= 2 * pair[0], "{pair:?}");
        }
    }
}
