//! Does one rotation explain a history over changes of who takes part?
//!
//! An epoch is the time between two changes. In each the counter goes over that
//! epoch's servers, and it begins behind the server that was dealt last, in the
//! order of all servers. When exactly a change was made is invisible; what is
//! known is a moment before it and one after.
//!
//! Where the changes fall among the picks decides the whole sequence of picks.
//! So the places are tried, and the walk of [the module above](super) judges
//! each: that a change was not before a moment, or was by another, says how far
//! the counter can have come by then. Only places are tried that give each
//! server a number of picks that its requests allow; with a dozen clients that
//! leaves a handful.

use std::ops::Range;

use super::walk::{Known, Log};
use super::{NotStrict, Observation};

/// The time between two changes of who takes part in the rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Who takes part: places in the order of all servers, ascending.
    pub servers: Vec<usize>,
    /// A moment at which the change that began it had not been made, and one at
    /// which it had. What it is for the first epoch is not looked at.
    pub since: Range<u64>,
}

/// Checks that one rotation explains the history, over changes that were made
/// in the order of `epochs`.
///
/// # Errors
/// [`NotStrict`] for the places of the changes that come furthest, if there are
/// none. With [`NotStrict::Counts`] no places give the servers what they got.
pub fn check_epochs(history: &[Observation], epochs: &[Epoch]) -> Result<(), NotStrict> {
    let everybody = epochs.iter().flat_map(|epoch| epoch.servers.iter().copied());
    let everybody: Vec<usize> = everybody.collect();
    let log = Log::new(history, &everybody)?;
    let Some(first) = epochs.first() else { return Ok(()) };
    let changes = in_order(epochs);
    let mut search = Search { log: &log, history, epochs, changes: &changes, closest: None };
    for start in first.servers.iter().copied().chain([0]).take(first.servers.len().max(1)) {
        if search.extend(&mut Picks::beginning_at(start), 0) {
            return Ok(());
        }
    }
    Err(search.closest.unwrap_or_else(|| NotStrict::Counts {
        start: 0,
        counts: log.counts.clone(),
        expected: Vec::new(),
    }))
}

/// The moments of the changes, each narrowed to what those before and after it
/// leave.
fn in_order(epochs: &[Epoch]) -> Vec<Range<u64>> {
    let mut changes: Vec<_> = epochs.iter().skip(1).map(|epoch| epoch.since.clone()).collect();
    for index in 1..changes.len() {
        changes[index].start = changes[index].start.max(changes[index - 1].start);
    }
    for index in (1..changes.len()).rev() {
        changes[index - 1].end = changes[index - 1].end.min(changes[index].end);
    }
    changes
}

/// A sequence of picks, as far as it is decided.
#[derive(Clone)]
struct Picks {
    servers: Vec<usize>,
    /// The place that is dealt next, if it takes part.
    place: usize,
    /// How many picks were made before each change.
    changes: Vec<usize>,
}

impl Picks {
    fn beginning_at(place: usize) -> Picks {
        Picks { servers: Vec::new(), place, changes: Vec::new() }
    }

    fn deal(&mut self, servers: &[usize]) {
        let next = servers.iter().find(|server| **server >= self.place).or(servers.first());
        if let Some(&next) = next {
            self.servers.push(next);
            self.place = next + 1;
        }
    }
}

struct Search<'a> {
    log: &'a Log<'a>,
    history: &'a [Observation],
    epochs: &'a [Epoch],
    /// Of all epochs but the first.
    changes: &'a [Range<u64>],
    closest: Option<NotStrict>,
}

impl Search<'_> {
    /// Tries all places of the changes that end `epoch` and those after it.
    fn extend(&mut self, picks: &mut Picks, epoch: usize) -> bool {
        let servers = &self.epochs[epoch].servers;
        let Some(next) = self.changes.get(epoch) else {
            while picks.servers.len() < self.history.len() && !servers.is_empty() {
                picks.deal(servers);
            }
            return picks.servers.len() == self.history.len() && self.judge(picks);
        };
        loop {
            if self.allows(&picks.servers, next) {
                let mut changed = picks.clone();
                changed.changes.push(picks.servers.len());
                if self.extend(&mut changed, epoch + 1) {
                    return true;
                }
            }
            if picks.servers.len() == self.history.len() || servers.is_empty() {
                return false;
            }
            picks.deal(servers);
        }
    }

    /// Whether a change within these moments can have come after just these
    /// picks: all that were received before have one, and none has one that was
    /// sent only later.
    fn allows(&self, picks: &[usize], since: &Range<u64>) -> bool {
        let count = |server: usize, happened: &dyn Fn(&Observation) -> bool| {
            self.history.iter().filter(|o| o.server == server && happened(o)).count()
        };
        let within = |server| {
            let picked = picks.iter().filter(|pick| **pick == server).count();
            let received = count(server, &|o| o.received <= since.start);
            received <= picked && picked <= count(server, &|o| o.sent < since.end)
        };
        !since.is_empty() && (0..self.log.counts.len()).all(within)
    }

    fn judge(&mut self, picks: &Picks) -> bool {
        let counts = (0..self.log.counts.len())
            .map(|server| picks.servers.iter().filter(|pick| **pick == server).count());
        if !counts.eq(self.log.counts.iter().copied()) {
            return false;
        }
        let changes = self.changes.iter().zip(&picks.changes);
        let mut known: Vec<Known> = changes
            .flat_map(|(since, &made)| {
                [
                    Known { moment: since.start, reached: 0, limit: made },
                    Known { moment: since.end, reached: made, limit: usize::MAX },
                ]
            })
            .collect();
        known.sort_by_key(|known| known.moment);
        match self.log.over(&picks.servers).walk(0, &mut known.into_iter()) {
            Ok(()) => true,
            Err(reason) => {
                let closer = |old: &NotStrict| reason.closeness() > old.closeness();
                if self.closest.as_ref().is_none_or(closer) {
                    self.closest = Some(reason);
                }
                false
            }
        }
    }
}
