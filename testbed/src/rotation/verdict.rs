//! Why no counter explains a history, in words.

use std::error::Error;
use std::fmt;

use super::Observation;

/// Why no single counter explains a history. Requests are named by their index
/// in it, positions are counted from the first pick, both from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStrict {
    /// The servers got the wrong numbers of requests, whatever the order.
    Counts {
        /// The place in the schedule whose counts come closest.
        start: usize,
        /// Requests that each server got.
        counts: Vec<usize>,
        /// Requests that each server gets from that start; empty if the servers
        /// changed, and no places of the changes come close.
        expected: Vec<usize>,
    },
    /// The counts are right, but a place had its turn before a request for it
    /// existed.
    NoOrder {
        /// The place in the schedule that gets furthest.
        start: usize,
        /// The first position that no request can hold.
        position: usize,
        /// The server whose turn it is there.
        server: usize,
        /// Requests to `server` sent before that turn; it had as many turns already.
        sent: usize,
        /// The receipt before which the position must have been picked.
        forced_by: Witness,
        /// The next sending of a request to `server`: too late.
        too_late: Option<Witness>,
    },
    /// An observation that no schedule of these servers can contain.
    BadObservation {
        /// The index of the observation.
        request: usize,
        /// What was observed.
        observation: Observation,
    },
}

/// A request, and the moment at which it was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Index in the history.
    pub request: usize,
    /// Moment of the event.
    pub moment: u64,
}

impl NotStrict {
    /// Orders failures by how much they explain: the larger, the closer.
    pub(super) fn closeness(&self) -> (u8, usize) {
        match self {
            NotStrict::BadObservation { .. } => (0, 0),
            NotStrict::Counts { counts, expected, .. } => {
                let pairs = counts.iter().zip(expected);
                let distance: usize = pairs.map(|(got, want)| got.abs_diff(*want)).sum();
                (1, usize::MAX - distance)
            }
            NotStrict::NoOrder { position, .. } => (2, *position),
        }
    }
}

impl fmt::Display for NotStrict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotStrict::Counts { counts, expected, .. } if expected.is_empty() => write!(
                f,
                "not one rotation: the servers got {} requests, which no places of the \
                 changes give",
                Slashes(counts),
            ),
            NotStrict::Counts { start, counts, expected } => write!(
                f,
                "not one rotation: the servers got {} requests; expected {} (start {start})",
                Slashes(counts),
                Slashes(expected),
            ),
            NotStrict::NoOrder { start, position, server, sent, forced_by, too_late } => {
                write!(
                    f,
                    "not one rotation: position {position} is number {} of server {server} \
                     and was picked before moment {}, when request {} was received, \
                     but only {sent} requests to server {server} were sent before",
                    sent + 1,
                    forced_by.moment,
                    forced_by.request,
                )?;
                if let Some(late) = too_late {
                    let Witness { request, moment } = late;
                    write!(f, "; the next, request {request}, was sent at {moment}")?;
                }
                write!(f, " (start {start})")
            }
            NotStrict::BadObservation {
                request,
                observation: Observation { sent, received, .. },
            } if sent >= received => write!(
                f,
                "request {request}: sent at {sent}, received at {received}; \
                 expected to be sent before it is received"
            ),
            NotStrict::BadObservation { request, observation } => write!(
                f,
                "request {request}: received by server {}, which has no place in the schedule",
                observation.server
            ),
        }
    }
}

impl Error for NotStrict {}

/// Counts as an operator reads them: `400/400/400`.
struct Slashes<'a>(&'a [usize]);

impl fmt::Display for Slashes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&words.join("/"))
    }
}
