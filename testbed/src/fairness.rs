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
}
