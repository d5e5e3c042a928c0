//! Does chance explain the shares?
//!
//! Of a balancer that deals at random only the distribution can be judged, and
//! a test of it is wrong now and then. Here the rate of false alarms is stated
//! and kept exactly: [`FALSE_ALARMS`] at most for each history that is judged,
//! however many servers there are. So a rejection needs no second run, and none
//! may be given: whoever repeats until it passes has no test.
//!
//! The bound is that of Chernoff, in the form of Hoeffding (1963, theorem 1):
//! of `n` requests that each go to a server with probability `p`, it gets a
//! fraction of `q` or more (`q > p`), or of `q` or less (`q < p`), with at most
//! the probability exp(-n D), where D = q ln(q/p) + (1-q) ln((1-q)/(1-p)). It
//! holds for every `n`, small ones included, where a normal or a chi-squared
//! approximation promises too much.

use std::fmt;

/// How often a balancer that deals as it says is convicted all the same, at
/// most: once in 10^9 histories.
pub const FALSE_ALARMS: f64 = 1e-9;

/// A share that chance does not explain.
#[derive(Clone, Debug, PartialEq)]
pub struct Unlikely {
    /// The server, counted from 0.
    pub server: usize,
    /// The requests that it got, and those of all.
    pub got: (u64, u64),
    /// The fraction that it should get.
    pub share: f64,
    /// How likely a share that is as far off, or further, is at most.
    pub probability: f64,
}

impl fmt::Display for Unlikely {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unlikely { server, got: (got, all), share, probability } = self;
        write!(
            f,
            "server {server} got {got} of {all} requests where its share is {share:.4}: \
             that happens once in {:.1e} times at most",
            1.0 / probability
        )
    }
}

impl std::error::Error for Unlikely {}

/// Checks that servers of these weights, dealt to at random and independently,
/// can have got `counts`. Judges no order and no dependence: a strict rotation
/// passes.
///
/// # Errors
/// The least likely share, if it is less likely than [`FALSE_ALARMS`] divided
/// by twice the number of servers: each can be too high and too low. One with
/// a weight of 0 that got anything is [`Unlikely`] with a probability of 0.
pub fn check_shares(counts: &[u64], weights: &[u64]) -> Result<(), Unlikely> {
    let all: u64 = counts.iter().sum();
    let total: u64 = weights.iter().sum();
    let sides = 2.0 * weights.len() as f64;
    let judged = counts.iter().zip(weights).enumerate().map(|(server, (got, weight))| {
        let share = *weight as f64 / total as f64;
        Unlikely { server, got: (*got, all), share, probability: tail(*got, all, share) }
    });
    let worst = judged.min_by(|a, b| a.probability.total_cmp(&b.probability));
    match worst {
        Some(worst) if worst.probability < FALSE_ALARMS / sides => Err(worst),
        _ => Ok(()),
    }
}

/// How many requests it takes for a server whose share is off by `tolerance` to
/// be convicted, if it gets exactly what its wrong share gives.
pub fn requests_needed(share: f64, tolerance: f64, servers: usize) -> u64 {
    let wanted = -(FALSE_ALARMS / (2.0 * servers as f64)).ln();
    let least = divergence(share + tolerance, share).min(divergence(share - tolerance, share));
    (wanted / least).ceil() as u64
}

/// The probability that a server with this share gets as many as `got` of
/// `all`, or as few; at most.
fn tail(got: u64, all: u64, share: f64) -> f64 {
    if all == 0 {
        return 1.0;
    }
    let n = all as f64;
    (-n * divergence(got as f64 / n, share)).exp()
}

/// Kullback and Leibler's, of one coin from another, in nats.
fn divergence(q: f64, p: f64) -> f64 {
    // Its limit at 0 is 0; with p = 0 it is infinite unless q is 0 as well.
    let term = |q: f64, p: f64| if q <= 0.0 { 0.0 } else { q * (q / p).ln() };
    (term(q, p) + term(1.0 - q, 1.0 - p)).max(0.0)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    /// The exact probability of `got` or more of `all`, or of `got` or less.
    fn exact_tail(got: u64, all: u64, share: f64) -> f64 {
        let probability = |k: u64| {
            let ways: f64 = (0..k).map(|i| (all - i) as f64 / (i + 1) as f64).product();
            ways * share.powi(k as i32) * (1.0 - share).powi((all - k) as i32)
        };
        let above = got as f64 > share * all as f64;
        if above { (got..=all).map(probability).sum() } else { (0..=got).map(probability).sum() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// The oracle: never less than the truth, so never more false alarms.
        #[test]
        fn the_bound_is_one(all in 1..80_u64, got in 0..80_u64, percent in 1..100_u32) {
            let (got, share) = (got.min(all), f64::from(percent) / 100.0);
            let (bound, exact) = (tail(got, all, share), exact_tail(got, all, share));
            prop_assert!(bound >= exact * (1.0 - 1e-9), "{bound} is less than {exact}");
            prop_assert!(bound <= 1.0);
        }

        /// Nor so much more that it would see nothing: within a factor of the
        /// number of requests (theorem of Sanov).
        #[test]
        fn the_bound_is_close(all in 1..80_u64, got in 0..80_u64, percent in 1..100_u32) {
            let (got, share) = (got.min(all), f64::from(percent) / 100.0);
            let (bound, exact) = (tail(got, all, share), exact_tail(got, all, share));
            prop_assert!(exact * (all + 1) as f64 * (1.0 + 1e-9) >= bound, "{bound}, {exact}");
        }

        #[test]
        fn fair_dice_pass(seed: u64, weights in prop::collection::vec(1..20_u64, 1..8)) {
            let counts = rolled(&mut Rng::with_seed(seed), &weights, 2_000);
            prop_assert_eq!(check_shares(&counts, &weights), Ok(()));
        }
    }

    fn rolled(random: &mut Rng, weights: &[u64], times: usize) -> Vec<u64> {
        let mut counts = vec![0; weights.len()];
        let total: u64 = weights.iter().sum();
        for _ in 0..times {
            let mut point = random.u64(..total);
            let owner = weights.iter().position(|weight| {
                let inside = point < *weight;
                point = point.wrapping_sub(*weight);
                inside
            });
            counts[owner.unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn what_is_wrong_is_convicted() {
        let known_bad: [(&str, &[u64], &[u64]); 6] = [
            ("everything to the first", &[60, 0, 0], &[1, 1, 1]),
            ("the last is never dealt to", &[500, 500, 0], &[1, 1, 1]),
            ("weights are not heeded", &[400, 400, 400], &[1, 2, 1]),
            ("twice as much for one", &[1_000, 500, 500], &[1, 1, 1]),
            ("a drained one gets one", &[500, 1, 500], &[1, 0, 1]),
            ("the larger of two hash halves", &[2_100, 1_900, 2_600], &[1, 1, 1]),
        ];
        for (name, counts, weights) in known_bad {
            assert!(check_shares(counts, weights).is_err(), "{name}: {counts:?} passes");
        }
    }

    #[test]
    fn nothing_proves_nothing() {
        assert_eq!(check_shares(&[], &[]), Ok(()));
        assert_eq!(check_shares(&[0, 0], &[1, 1]), Ok(()));
        assert_eq!(check_shares(&[9, 0, 0], &[1, 1, 1]), Ok(()), "once in 20 000 times");
    }

    #[test]
    fn what_is_needed_convicts_and_less_does_not() {
        let needed = requests_needed(0.5, 0.05, 2);
        assert_eq!(needed, 4_415);
        let off = |all: u64| [all * 55 / 100 + 1, all - all * 55 / 100 - 1];
        assert!(check_shares(&off(needed + 20), &[1, 1]).is_err());
        assert!(check_shares(&off(needed - 200), &[1, 1]).is_ok());
    }

    #[test]
    fn a_verdict_reads_well() {
        let verdict = check_shares(&[620, 380], &[1, 1]).unwrap_err();
        assert_eq!(
            verdict.to_string(),
            "server 0 got 620 of 1000 requests where its share is 0.5000: \
             that happens once in 4.3e12 times at most"
        );
    }
}
