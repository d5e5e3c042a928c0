//! Does one counter, under parallel clients, explain who got which request?
//!
//! A strict round robin is one atomic fetch-and-increment: the p-th pick goes
//! to place `p` of a repeating schedule, with no gap and no pick dealt twice.
//! From outside the picks are invisible; what is seen is, for each request, a
//! moment before its pick, a moment after it, and the server that got it.
//! Equal counts prove nothing: two workers with a cursor each deal 400/400/400.
//!
//! The verdict is exact in both directions: `Ok` means that pick times exist,
//! an error means that none do. Nothing here waits, reads a clock or talks to
//! a balancer. The history must hold every pick of the counter, so a caller
//! whose balancer also picks for retries records those as requests of their
//! own. Scenarios call it with sequence numbers of the event log as moments.
//!
//! The less overlap, the sharper: two requests exchanged far apart in 100 000
//! show with 16 clients, and may be within what one counter can do with 64.
//!
//! # The algorithm
//!
//! Walk the events in order and turn the counter only when a receipt proves
//! that it must have turned already. A received request claims the earliest
//! unclaimed pick of its server made since it was sent; if there is none, the
//! counter must by now have reached the next place of that server, and every
//! pick on the way there is made now. A server that comes to more picks than
//! requests were sent to it refutes the history.
//!
//! *If the walk ends, the history is explained*: the claims are the assignment,
//! and each pick is made just before the receipt that forced it, hence after
//! the sending and before the receipt of the request that claims it. No server
//! has more picks than requests, and each request claims one, so no pick is
//! left over.
//!
//! *If an explanation exists, the walk ends*, because no explanation turns the
//! counter later than the walk does. Let request `r` of server `s` force a pick
//! at moment `y`, when the walk has made `d` picks for `s`. Let `m` of them be
//! older than the sending of `r`: then picks `m..d` are claimed. If one of the
//! claimers was sent when only `m' < m` had been made, it found `m'..m` claimed:
//! lower `m` to `m'`, and repeat. Now `r` and the `d - m` claimers were all sent
//! when the walk, and by induction every explanation, had made `m` picks for
//! `s`. They need `d - m + 1` further ones, all before `y`, so every explanation
//! has made pick `d` before `y`. Therefore a pick that finds too few requests
//! sent in the walk finds too few in every explanation.
//!
//! The sort takes O(N log N), and so does the walk at most, for each start; in
//! practice the walk is linear, whatever the overlap.

mod epochs;
mod verdict;
mod walk;

use std::ops::Range;

pub use epochs::{Epoch, check_epochs};
pub use verdict::{NotStrict, Witness};
use walk::Log;

/// One request as seen from outside, with moments on one common scale.
///
/// The pick lies strictly between the two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// A moment at which the client had not yet begun to write the request.
    pub sent: u64,
    /// A moment at which the server had read the request's head.
    pub received: u64,
    /// The server that received it, counted from 0.
    pub server: usize,
}

/// Checks that one fetch-and-increment over `servers` servers explains the
/// history, and returns the lowest starting server with which it does.
///
/// ```
/// use testbed::rotation::{Observation, check_strict};
///
/// // Two clients at once; which of them was dealt first cannot be seen.
/// let history = [
///     Observation { sent: 0, received: 3, server: 1 },
///     Observation { sent: 1, received: 2, server: 0 },
///     Observation { sent: 4, received: 5, server: 0 },
/// ];
/// assert_eq!(check_strict(&history, 2), Ok(0));
///
/// // One after the other, the same servers are no rotation.
/// let history = [1, 0, 0].iter().enumerate().map(|(turn, server)| {
///     let sent = 2 * turn as u64;
///     Observation { sent, received: sent + 1, server: *server }
/// });
/// assert!(check_strict(&history.collect::<Vec<_>>(), 2).is_err());
/// ```
///
/// # Errors
///
/// [`NotStrict`] for the start that came closest, if there is none.
pub fn check_strict(history: &[Observation], servers: usize) -> Result<usize, NotStrict> {
    let schedule: Vec<usize> = (0..servers).collect();
    check_schedule(history, &schedule)
}

/// [`check_strict`] when the first pick is known to go to server `first`,
/// counted modulo `servers`.
///
/// # Errors
///
/// [`NotStrict`] if no pick times explain the history with that start.
pub fn check_strict_from(
    history: &[Observation],
    servers: usize,
    first: usize,
) -> Result<(), NotStrict> {
    let schedule: Vec<usize> = (0..servers).collect();
    let first = first % servers.max(1);
    check_starts(history, &schedule, first..first + 1).map(drop)
}

/// Checks that one counter over a repeating schedule of servers, such as
/// `[0, 0, 1, 0]`, explains the history, and returns the lowest place in the
/// schedule at which it can have started.
///
/// # Errors
///
/// [`NotStrict`] for the start that came closest, if there is none.
pub fn check_schedule(history: &[Observation], schedule: &[usize]) -> Result<usize, NotStrict> {
    check_starts(history, schedule, 0..schedule.len())
}

fn check_starts(
    history: &[Observation],
    schedule: &[usize],
    starts: Range<usize>,
) -> Result<usize, NotStrict> {
    let log = Log::new(history, schedule)?;
    let mut closest: Option<NotStrict> = None;
    for start in starts {
        match log.explain(start) {
            Ok(()) => return Ok(start),
            Err(reason) => {
                let closer = |old: &NotStrict| reason.closeness() > old.closeness();
                if closest.as_ref().is_none_or(closer) {
                    closest = Some(reason);
                }
            }
        }
    }
    // No start at all: an empty schedule, and so an empty history.
    closest.map_or(Ok(0), Err)
}
