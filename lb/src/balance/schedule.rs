//! Weighted shares: the order in which servers of different weights are dealt.
//!
//! Owns the arithmetic: which entry follows which within one period, the
//! shortest run of requests that gives every server exactly its weight. Knows
//! neither health nor threads. Called by [`rotation`](super::rotation).
//!
//! Two methods. Nginx's smooth weighted round robin is what the field expects,
//! but with a dozen servers of mixed weights it lets one run ahead of its share
//! by more than a request (13 servers, five of weight 50: by 1.29). Tijdeman's
//! chairman assignment (1980) never does, by any weights; it gives the same
//! order for small ones, and takes over where the first method fails.

/// The longest period that is laid out, in entries (256 KiB).
const PERIOD_LIMIT: u64 = 65_536;

/// The longest layout, in entries times servers: it is done under the
/// cluster's lock, at every change.
const WORK_LIMIT: u64 = 1 << 18;

/// Divides the weights by their greatest common divisor. None of them is 0.
pub(super) fn reduce(weights: &mut [u32]) {
    let divisor = weights.iter().copied().fold(0, gcd);
    if divisor > 1 {
        weights.iter_mut().for_each(|weight| *weight /= divisor);
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One period as indices into `weights`, which are reduced and not 0; `None`
/// if it is too long to be kept or laid out.
pub(super) fn lay_out(weights: &[u32]) -> Option<Box<[u32]>> {
    let period: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if period > PERIOD_LIMIT || period * weights.len() as u64 > WORK_LIMIT {
        return None;
    }
    let chairman = || {
        let mut chairman = Chairman::new(weights);
        (0..period).map(|_| chairman.deal() as u32).collect()
    };
    Some(smooth(weights, period as i64).unwrap_or_else(chairman))
}

/// Smooth weighted round robin: each gains its weight, the first of the
/// richest is dealt and pays for all. `None` as soon as one is more than a
/// request away from its share.
fn smooth(weights: &[u32], period: i64) -> Option<Box<[u32]>> {
    let mut credits = vec![0_i64; weights.len()];
    let deal = |_| {
        let mut richest = 0;
        for (index, weight) in weights.iter().enumerate() {
            credits[index] += i64::from(*weight);
            if credits[index] > credits[richest] {
                richest = index;
            }
        }
        credits[richest] -= period;
        credits.iter().all(|credit| credit.abs() <= period).then_some(richest as u32)
    };
    (0..period).map(deal).collect()
}

/// Tijdeman's chairman assignment: the next is, of those whose share is ahead
/// of what they got by at least 1/(2n-2) of a request, the one that must be
/// dealt first lest it falls behind by a whole one. Nobody is ever further than
/// 1 - 1/(2n-2) from its share.
#[derive(Debug)]
pub(super) struct Chairman {
    /// Reduced, none of them 0.
    weights: Box<[u32]>,
    /// Requests dealt to each in this period; at most its weight.
    dealt: Box<[u32]>,
    /// Requests dealt in this period.
    turn: u64,
    /// The sum of the weights.
    period: u64,
}

impl Chairman {
    /// At the beginning of a period. No weight is 0.
    pub(super) fn new(weights: &[u32]) -> Self {
        let period = weights.iter().map(|weight| u64::from(*weight)).sum();
        let dealt = vec![0; weights.len()].into();
        Chairman { weights: weights.into(), dealt, turn: 0, period }
    }

    /// How many servers there are.
    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// Deals one request: an index into the weights. Of equals it takes the
    /// one that is furthest behind, then the first.
    pub(super) fn deal(&mut self) -> usize {
        // In units of 1/(2n-2) requests nothing has a fraction: with 2^32
        // servers a product of these has 33 + 32 + 64 bits at most.
        let unit = (2 * self.weights.len() as i128 - 2).max(1);
        self.turn += 1;
        let mut best: Option<(usize, i128, i128)> = None;
        for (index, weight) in self.weights.iter().enumerate() {
            let (weight, dealt) = (i128::from(*weight), i128::from(self.dealt[index]));
            let behind = i128::from(self.turn) * weight - i128::from(self.period) * dealt;
            if behind * unit < i128::from(self.period) {
                continue;
            }
            let deadline = (dealt + 1) * unit - 1;
            let is_better = best.is_none_or(|(other, other_deadline, other_behind)| {
                let other_weight = i128::from(self.weights[other]);
                let (mine, its) = (deadline * other_weight, other_deadline * weight);
                mine < its || (mine == its && behind > other_behind)
            });
            if is_better {
                best = Some((index, deadline, behind));
            }
        }
        // One always is: together they are ahead by one request.
        let index = best.map_or(0, |(index, _, _)| index);
        self.dealt[index] += 1;
        if self.turn == self.period {
            self.turn = 0;
            self.dealt.fill(0);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(order: impl IntoIterator<Item = u32>) -> String {
        order.into_iter().map(|index| char::from(b'A' + index as u8)).collect()
    }

    fn by_chairman(weights: &[u32]) -> Box<[u32]> {
        let mut chairman = Chairman::new(weights);
        let period: u32 = weights.iter().sum();
        (0..period).map(|_| chairman.deal() as u32).collect()
    }

    /// Each gets its weight, and at no moment is anybody further than one
    /// request from its share.
    #[track_caller]
    fn check_shares(weights: &[u32], order: &[u32]) {
        check_within(weights, order, |away, period| away <= period);
    }

    /// The chairman's promise: 1 - 1/(2n-2).
    #[track_caller]
    fn check_chairman(weights: &[u32]) {
        let unit = (2 * weights.len() as i64 - 2).max(1);
        let close = |away, period| away * unit <= period * (unit - 1);
        check_within(weights, &by_chairman(weights), close);
    }

    #[track_caller]
    fn check_within(weights: &[u32], order: &[u32], is_close: impl Fn(i64, i64) -> bool) {
        let period: i64 = weights.iter().map(|w| i64::from(*w)).sum();
        let mut dealt = vec![0_i64; weights.len()];
        for (turn, index) in order.iter().enumerate() {
            dealt[*index as usize] += 1;
            for (weight, dealt) in weights.iter().zip(&dealt) {
                let away = (turn as i64 + 1) * i64::from(*weight) - period * dealt;
                assert!(is_close(away.abs(), period), "{weights:?}: turn {turn} of {order:?}");
            }
        }
        let exact = dealt.iter().zip(weights).all(|(dealt, weight)| *dealt == i64::from(*weight));
        assert!(exact, "{weights:?} were dealt {dealt:?}");
    }

    #[test]
    fn both_methods_give_the_orders_of_the_field() {
        for (weights, order) in [
            (&[1][..], "A"),
            (&[3, 1], "AABA"),
            (&[2, 1], "ABA"),
            (&[3, 2, 1], "ABACBA"),
            (&[5, 1, 1], "AABACAA"),
        ] {
            assert_eq!(letters(lay_out(weights).unwrap()), order, "{weights:?}");
            let period: u32 = weights.iter().sum();
            assert!(smooth(weights, i64::from(period)).is_some(), "{weights:?}");
            assert_eq!(letters(by_chairman(weights)), order, "{weights:?}");
        }
    }

    #[test]
    fn every_small_vector_of_weights_is_exact_and_smooth() {
        for (servers, most) in [(1, 30), (2, 30), (3, 12), (4, 6), (5, 4)] {
            let mut weights = vec![1; servers];
            loop {
                check_shares(&weights, &lay_out(&weights).unwrap());
                check_chairman(&weights);
                let Some(digit) = weights.iter().position(|weight| *weight < most) else { break };
                weights[..digit].fill(1);
                weights[digit] += 1;
            }
        }
    }

    #[test]
    fn where_smooth_runs_ahead_the_chairman_takes_over() {
        let weights = [50, 50, 1, 50, 3, 1, 3, 1, 50, 50, 3, 9, 2];
        assert!(smooth(&weights, i64::from(weights.iter().sum::<u32>())).is_none());
        check_shares(&weights, &lay_out(&weights).unwrap());
        check_chairman(&weights);
    }

    #[test]
    fn weights_are_reduced_and_long_periods_are_not_laid_out() {
        let mut weights = [u32::MAX, u32::MAX / 3];
        reduce(&mut weights);
        assert_eq!(weights, [3, 1]);
        assert!(lay_out(&[65_535, 1]).is_some());
        assert!(lay_out(&[65_536, 1]).is_none());
        assert!(lay_out(&[1; 512]).is_some());
        assert!(lay_out(&[1; 513]).is_none());
        assert!(lay_out(&vec![30; 2_000]).is_none());
    }
}
