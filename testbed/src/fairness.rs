//! Shares: who answered, in which order and how often.
//!
//! Owns the counting of answers and the exact tests on the counts. Whether
//! parallel requests were dealt by one rotation is not its question: equal
//! counts prove nothing there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::log::{Event, EventKind};

/// Answers of each backend.
pub type Counts = BTreeMap<Arc<str>, usize>;

/// Shares that are not as they must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {counts}")]
pub struct Unfair {
    /// What was expected.
    pub what: String,
    /// Readable counts such as `A=5 B=7`.
    pub counts: String,
}

/// Who gave each answer, in the order of the answers; the balancer's own ones
/// are left out. For one sequential client that is the order of its requests.
pub fn answerers(events: &[Event]) -> Vec<Arc<str>> {
    let backend = |event: &Event| match &event.kind {
        EventKind::Answered { backend, .. } => backend.clone(),
        _ => None,
    };
    events.iter().filter_map(backend).collect()
}

/// [`answerers`] as a text such as `ABCABC`, or `A1 A2 A1` if a name is longer
/// than a letter.
pub fn sequence(events: &[Event]) -> String {
    let names = answerers(events);
    let short = names.iter().all(|name| name.chars().count() == 1);
    names.join(if short { "" } else { " " })
}

/// How many answers each backend gave, of those that gave any.
pub fn counts(events: &[Event]) -> Counts {
    count(&answerers(events))
}

/// Readable counts: `A=5 B=7`.
pub fn show(counts: &Counts) -> String {
    let mut text = String::new();
    for (name, count) in counts {
        let gap = if text.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{gap}{name}={count}");
    }
    text
}

/// Checks that no two of `backends` differ by more than one answer, and that
/// nobody else answered.
///
/// ```
/// use testbed::fairness::{Counts, check_even};
///
/// let counts = Counts::from([("A".into(), 4), ("B".into(), 3)]);
/// check_even(&counts, &["A", "B"])?;
/// assert!(check_even(&counts, &["A", "B", "C"]).is_err());
/// # Ok::<(), testbed::fairness::Unfair>(())
/// ```
///
/// # Errors
/// With the counts if they do.
pub fn check_even(counts: &Counts, backends: &[&str]) -> Result<(), Unfair> {
    let of = |name: &&str| counts.get(*name).copied().unwrap_or(0);
    let least = backends.iter().map(of).min().unwrap_or(0);
    let most = backends.iter().map(of).max().unwrap_or(0);
    let known: usize = backends.iter().map(of).sum();
    let fair = most - least <= 1 && known == counts.values().sum();
    let what = || format!("expected an even share for {backends:?}");
    fair.then_some(()).ok_or_else(|| unfair(what(), counts))
}

/// Checks that each whole period (as many answers as the weights' sum, from the
/// first one on) gives each backend exactly its weight.
///
/// # Errors
/// With the counts of the first wrong period.
pub fn check_weighted(answerers: &[Arc<str>], weights: &[(&str, usize)]) -> Result<(), Unfair> {
    let period: usize = weights.iter().map(|(_, weight)| weight).sum();
    let due = weights.iter().filter(|(_, weight)| *weight > 0);
    let expected: Counts = due.map(|(name, weight)| ((*name).into(), *weight)).collect();
    for (i, dealt) in answerers.chunks_exact(period.max(1)).enumerate() {
        let counts = count(dealt);
        if counts != expected {
            let what = format!("period {i}: expected {}", show(&expected));
            return Err(unfair(what, &counts));
        }
    }
    Ok(())
}

fn count(names: &[Arc<str>]) -> Counts {
    let mut counts = Counts::new();
    for name in names {
        *counts.entry(Arc::clone(name)).or_default() += 1;
    }
    counts
}

fn unfair(what: String, counts: &Counts) -> Unfair {
    Unfair { what, counts: show(counts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Arc<str>> {
        text.chars().map(|c| c.to_string().into()).collect()
    }

    #[test]
    fn even_means_within_one_and_nobody_else() {
        let check = |text: &str| check_even(&count(&names(text)), &["A", "B", "C"]).is_ok();
        assert!(check("ABCA") && check(""));
        assert!(!check("ABA") && !check("ABCD") && !check("AABBCCA A"));
    }

    #[test]
    fn weights_hold_in_every_period() {
        let check = |text: &str| check_weighted(&names(text), &[("A", 2), ("B", 1), ("C", 0)]);
        assert_eq!(check("ABAAAB"), Ok(()));
        let error = check("ABAABB").unwrap_err().to_string();
        assert_eq!(error, "period 1: expected A=2 B=1: A=1 B=2");
        assert!(check("ACA").is_err());
    }

    /// The oracle: nobody is two ahead of anybody, and nobody else is there.
    #[test]
    fn even_agrees_with_all_pairs() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut verdicts = [0, 0];
        for _ in 0..20_000 {
            let text: String = (0..random.usize(..9)).map(|_| random.char('A'..='D')).collect();
            let text = if random.bool() { text.replace('D', "C") } else { text };
            let of = |name: char| text.matches(name).count();
            let pairs = ['A', 'B', 'C'].map(|a| ['A', 'B', 'C'].map(|b| of(a) <= of(b) + 1));
            let expected = of('D') == 0 && pairs.iter().flatten().all(|fine| *fine);
            let got = check_even(&count(&names(&text)), &["A", "B", "C"]).is_ok();
            assert_eq!(got, expected, "{text}");
            verdicts[usize::from(got)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
    }

    /// The oracle: some shuffle of the weights' letters is each whole period.
    #[test]
    fn weights_agree_with_sorted_periods() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut verdicts = [0, 0];
        for _ in 0..20_000 {
            let weights = [random.usize(..3), random.usize(..3), random.usize(..3)];
            let period: Vec<char> =
                "ABC".chars().zip(weights).flat_map(|(c, n)| vec![c; n]).collect();
            let mut text = Vec::new();
            for _ in 0..random.usize(1..4) {
                let mut dealt = period.clone();
                random.shuffle(&mut dealt);
                text.extend(dealt);
            }
            if random.bool() && !text.is_empty() {
                let place = random.usize(..text.len());
                text[place] = random.char('A'..='C');
            }
            text.extend((0..random.usize(..2)).map(|_| 'D'));
            let sorted = |dealt: &[char]| {
                let mut dealt = dealt.to_vec();
                dealt.sort_unstable();
                dealt
            };
            let whole = |dealt: &[char]| dealt.len() < period.len() || sorted(dealt) == period;
            let expected = text.chunks(period.len().max(1)).all(whole)
                && (!period.is_empty() || text.is_empty());
            let weights: Vec<_> = ["A", "B", "C"].into_iter().zip(weights).collect();
            let text: String = text.iter().collect();
            let got = check_weighted(&names(&text), &weights).is_ok();
            assert_eq!(got, expected, "{text} by {weights:?}");
            verdicts[usize::from(got)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
    }
}
