//! Choosing a server by other things than whose turn it is: its load, chance,
//! or the request's key.
//!
//! Owns the arithmetic of each choice over the eligible servers. Draws no
//! randomness: what is random arrives as an argument. Called by
//! [`snapshot`](super::snapshot).

use super::Member;

/// How requests are dealt to the eligible servers. All of them heed weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn.
    #[default]
    RoundRobin,
    /// To the server with the fewest requests in flight per weight; of equals,
    /// to the next in turn, by weight.
    LeastConnections,
    /// To the one with fewer requests in flight per weight, of two that are
    /// drawn at random.
    TwoChoices,
    /// At random.
    Random,
    /// By the request's key: the same key, the same server. When a server
    /// leaves only its keys move, and they come back when it returns.
    Hash,
}

/// What there is to know of a request before it is dealt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// 64 random bits, for [`Algorithm::Random`] and [`Algorithm::TwoChoices`].
    pub draw: u64,
    /// The [`hash`] of its key, for [`Algorithm::Hash`]; without one it is
    /// dealt in turn. Default none.
    pub key: Option<u64>,
}

/// The hash of a key or of a server's name: FNV-1a with a finish. It is the
/// same in every process and version, so that several balancers agree.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads every bit over all (the finish of splitmix64).
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number below `bound`, each as likely as the others to within 2^-64 x `bound`.
fn below(draw: u64, bound: u64) -> u64 {
    ((u128::from(draw) * u128::from(bound)) >> 64) as u64
}

/// The shares of servers as intervals, to be drawn from.
#[derive(Debug)]
pub(super) struct Shares {
    /// The end of each server's interval; it begins at the end before it.
    ends: Box<[u64]>,
}

impl Shares {
    pub(super) fn new(weights: &[u32]) -> Self {
        let mut total = 0;
        let end = |weight: &u32| {
            total += u64::from(*weight);
            total
        };
        Shares { ends: weights.iter().map(end).collect() }
    }

    fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn owner(&self, point: u64) -> usize {
        self.ends.partition_point(|end| *end <= point)
    }

    /// One server at random.
    pub(super) fn one(&self, draw: u64) -> usize {
        self.owner(below(draw, self.total()))
    }

    /// Two different servers at random; the same one twice if it is alone.
    pub(super) fn two(&self, draw: u64) -> (usize, usize) {
        let first = self.one(draw);
        let begin = first.checked_sub(1).map_or(0, |before| self.ends[before]);
        let share = self.ends[first] - begin;
        let others = self.total() - share;
        if others == 0 {
            return (first, first);
        }
        // The first one's interval is cut out.
        let point = below(mix(draw), others);
        (first, self.owner(if point < begin { point } else { point + share }))
    }
}

/// Whether `a` has fewer requests in flight per weight than `b`; exact.
fn is_less_loaded<T>(a: &Member<T>, b: &Member<T>) -> bool {
    let load = |one: &Member<T>, other: &Member<T>| {
        u128::from(one.in_flight.get()) * u128::from(other.weight)
    };
    load(a, b) < load(b, a)
}

/// The less loaded of two; the first if they are equal.
pub(super) fn less_loaded<T>(members: &[Member<T>], (first, second): (usize, usize)) -> usize {
    if is_less_loaded(&members[second], &members[first]) { second } else { first }
}

/// The least loaded of all; of equals the first at or after `begin`. There
/// must be a member.
fn least_loaded<T>(members: &[Member<T>], begin: usize) -> usize {
    let less = |best: usize, index: usize| less_loaded(members, (best, index));
    from(begin, members.len()).reduce(less).unwrap_or(0)
}

/// All indices, those at or after `begin` first.
fn from(begin: usize, count: usize) -> impl Iterator<Item = usize> {
    (begin..count).chain(0..begin)
}

/// Whose turn it is among equally loaded servers, one after the other.
///
/// Where weights differ their turns come by smooth weighted round robin, over
/// those that are equal at the moment: one that is busier neither gains nor
/// pays. So the weights hold among the idle while another is busy for long.
#[derive(Debug)]
pub(super) struct Turns {
    /// Which of equals comes first.
    begin: usize,
    /// Dealt last, if any was.
    last: Option<usize>,
    /// What each has gained and not yet paid for; empty where all weights are
    /// the same. No number of turns is too many for its type.
    credits: Box<[i128]>,
}

impl Turns {
    /// The turns of servers of these weights, of which the one at `begin` comes
    /// first.
    pub(super) fn new(weights: &[u32], begin: usize) -> Self {
        let even = weights.iter().all(|weight| *weight == weights[0]);
        let credits = vec![0; if even { 0 } else { weights.len() }].into();
        Turns { begin, last: None, credits }
    }

    /// The least loaded of all, whose turn it is. There must be a member.
    pub(super) fn deal<T>(&mut self, members: &[Member<T>]) -> usize {
        let index = if self.credits.is_empty() {
            let next = self.last.map_or(self.begin, |last| (last + 1) % members.len());
            least_loaded(members, next)
        } else {
            self.deal_by_weight(members)
        };
        self.last = Some(index);
        index
    }

    fn deal_by_weight<T>(&mut self, members: &[Member<T>]) -> usize {
        let least = least_loaded(members, self.begin);
        let (mut richest, mut total) = (least, 0);
        for index in from(self.begin, members.len()) {
            if is_less_loaded(&members[least], &members[index]) {
                continue;
            }
            let weight = i128::from(members[index].weight);
            self.credits[index] += weight;
            total += weight;
            if self.credits[index] > self.credits[richest] {
                richest = index;
            }
        }
        self.credits[richest] -= total;
        richest
    }

    /// Which was dealt last; none if none was, or if it was told before.
    pub(super) fn end(&mut self) -> Option<usize> {
        self.last.take()
    }
}

/// The server of a key, by weighted rendezvous: each server draws a lot for
/// the key, the highest wins. The lots of others do not change when one
/// leaves, so nothing moves but what it had.
///
/// With lots u in (0, 1) the highest u^(1/weight) wins in proportion to the
/// weights; that is the lowest -ln(u)/weight.
pub(super) fn rendezvous<T>(members: &[Member<T>], key: u64) -> usize {
    let lot = |member: &Member<T>| mix(key ^ member.seed);
    let even = members.iter().all(|member| member.weight == members[0].weight);
    let mut best = 0;
    if even {
        let mut highest = 0;
        for (index, member) in members.iter().enumerate() {
            let lot = lot(member);
            if lot > highest {
                (best, highest) = (index, lot);
            }
        }
        return best;
    }
    let mut lowest = f64::INFINITY;
    for (index, member) in members.iter().enumerate() {
        // 2^-53 steps, from the middle of each: never 0, never 1.
        let fraction = ((lot(member) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let score = -fraction.ln() / f64::from(member.weight);
        if score < lowest {
            (best, lowest) = (index, score);
        }
    }
    best
}
