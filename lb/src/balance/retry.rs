//! What follows a failed attempt.
//!
//! Owns the rules of the table "No client error while one healthy server
//! exists"; knows neither sockets nor messages. Called by the proxy after each
//! failed attempt.

/// Other servers tried after a request was sent and came to nothing, per request.
pub const ELSEWHERE_LIMIT: u32 = 2;

/// Retries that are always allowed at one time, however few requests there are.
pub const RETRY_BUDGET_MIN: usize = 3;

/// How an attempt failed, before any byte of an answer was relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connect was refused, or the server was unreachable.
    ConnectRefused,
    /// The connect got no answer in time.
    ConnectTimedOut,
    /// This machine could not connect: out of descriptors, ports or memory.
    NoResources,
    /// The server went out of the rotation while the request waited for a
    /// connection to it.
    WentOut,
    /// The connection died before any byte of the request was written.
    Unsent {
        /// Whether the connection had carried a request before.
        reused: bool,
    },
    /// The connection ended after the request was written.
    Sent {
        /// Whether the connection had carried a request before.
        reused: bool,
    },
    /// The request was written and no answer began in time.
    HeadTimedOut,
    /// The client stopped sending its body.
    BodyTimedOut,
    /// The server's answer was not HTTP.
    BadAnswer {
        /// Whether the connection had carried a request before: then it may be
        /// what an earlier answer left behind.
        reused: bool,
    },
    /// The server answered with a status that the operator wants retried.
    RetriedStatus(u16),
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try the same server again, on a fresh connection.
    FreshConnection,
    /// Try the next untried server; the request was never executed.
    Elsewhere,
    /// Try the next untried server if the retry budget allows; the request may
    /// have been executed, and may be executed again.
    ElsewhereWithinBudget,
    /// Answer the client with the failure.
    GiveUp,
}

/// Decides what follows `failure`.
///
/// `repeatable` says whether the request may be executed twice (an idempotent
/// method, RFC 9110 §9.2.2, whose body is still at hand); `elsewhere` counts
/// the servers already tried after the request had been sent.
pub fn next_step(failure: Failure, repeatable: bool, elsewhere: u32) -> Next {
    match failure {
        Failure::ConnectRefused | Failure::ConnectTimedOut => Next::Elsewhere,
        Failure::NoResources | Failure::WentOut => Next::Elsewhere,
        Failure::Unsent { reused: true } => Next::FreshConnection,
        Failure::Unsent { reused: false } => Next::Elsewhere,
        Failure::BodyTimedOut => Next::GiveUp,
        _ if !repeatable => Next::GiveUp,
        Failure::Sent { reused: true } | Failure::BadAnswer { reused: true } => {
            Next::FreshConnection
        }
        _ if elsewhere < ELSEWHERE_LIMIT => Next::ElsewhereWithinBudget,
        _ => Next::GiveUp,
    }
}

/// How many retries may be under way with `in_flight` requests: 20 %, at
/// least [`RETRY_BUDGET_MIN`] (after Finagle's retry budget).
pub fn budget(in_flight: usize) -> usize {
    (in_flight / 5).max(RETRY_BUDGET_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_sent_is_retried_for_every_method() {
        for failure in [
            Failure::ConnectRefused,
            Failure::ConnectTimedOut,
            Failure::NoResources,
            Failure::WentOut,
            Failure::Unsent { reused: true },
            Failure::Unsent { reused: false },
        ] {
            assert_ne!(next_step(failure, false, 9), Next::GiveUp, "{failure:?}");
        }
    }

    #[test]
    fn what_was_sent_and_may_not_be_repeated_is_never_repeated() {
        for failure in [
            Failure::Sent { reused: true },
            Failure::Sent { reused: false },
            Failure::HeadTimedOut,
            Failure::BadAnswer { reused: true },
            Failure::BadAnswer { reused: false },
            Failure::RetriedStatus(503),
            Failure::BodyTimedOut,
        ] {
            assert_eq!(next_step(failure, false, 0), Next::GiveUp, "{failure:?}");
        }
    }

    #[test]
    fn a_client_that_stops_sending_is_no_better_elsewhere() {
        assert_eq!(next_step(Failure::BodyTimedOut, true, 0), Next::GiveUp);
    }

    #[test]
    fn a_kept_connection_that_fails_says_nothing_of_the_server() {
        for failure in [Failure::Sent { reused: true }, Failure::BadAnswer { reused: true }] {
            assert_eq!(next_step(failure, true, 9), Next::FreshConnection, "{failure:?}");
        }
    }

    #[test]
    fn at_most_two_other_servers_after_sending() {
        let fresh = Failure::Sent { reused: false };
        assert_eq!(next_step(fresh, true, 1), Next::ElsewhereWithinBudget);
        assert_eq!(next_step(fresh, true, 2), Next::GiveUp);
    }

    #[test]
    fn budget_is_a_fifth_and_at_least_three() {
        assert_eq!([0, 3, 15, 20, 100].map(budget), [3, 3, 3, 4, 20]);
    }
}
