//! Is what failed repeated as often, and where, as promised?
//!
//! Owns the rules of retries (contract, table of failover): how often, within
//! which budget, on which connections.

use std::{collections::BTreeSet, time::Duration};

use testbed::{ledger, log::EventKind};

use super::{
    config::round_trip,
    judge::Court,
    plan::Plan,
    requests::{Outcome, Request},
    run::Run,
    truth::Span,
};

/// Servers to which a request is sent at most, that came to nothing: the first
/// and two others.
pub(super) const SENT_LIMIT: usize = 3;

/// Retries that the budget always allows at one time.
const BUDGET: usize = 3;

/// How long a request waits for the budget.
const BUDGET_PATIENCE: Duration = Duration::from_secs(1);

impl Court<'_> {
    /// "within a retry budget (20 % of requests in flight, at least 3)".
    pub(super) fn budget_was_used_up(&self, request: &Request, span: Span) -> bool {
        let Some((_, _, after)) = request.failed.last() else { return false };
        let failed = (span.0 + *after).saturating_sub(BUDGET_PATIENCE);
        let retries = self.requests.iter().filter(|other| {
            let theirs = other.span(self.end);
            // On a kept connection a bad answer costs none; which it was is not told.
            let costs = |how: &str| costs_budget(how) || how == "bad_answer";
            let began = other.failed.iter().find(|(_, how, _)| costs(how));
            let began = began.map(|(_, _, after)| theirs.0 + *after);
            other.nonce != request.nonce
                && ledger::is_idempotent(&other.method)
                && began.is_some_and(|began| began <= span.1 && failed <= theirs.1)
        });
        retries.count() >= BUDGET
    }

    /// Contract, table of failover: "within a retry budget (20 % of requests in
    /// flight, at least 3)". A retry is under way at least from its arrival to
    /// a moment before the head of its answer, or else before its end.
    pub(super) fn retries_beyond_the_budget(&self) -> Option<String> {
        let margin = round_trip(self.plan) * 2;
        let under_way = |request: &Request| {
            let (failed_at, _, after) =
                request.failed.iter().find(|(_, how, _)| costs_budget(how))?;
            let failed = (request.sent.0 + *after).saturating_sub(margin);
            let elsewhere =
                request.reached.iter().find(|(name, at, _)| *at >= failed && name != failed_at);
            let (_, from, _) = elsewhere?;
            let head = request.first_byte.map(|after| request.sent.0 + after);
            let end = request.outcome.as_ref()?.0;
            let until = head.unwrap_or(end).min(end).checked_sub(margin)?;
            (*from < until).then_some((*from, until))
        };
        let retries: Vec<Span> = self.requests.iter().filter_map(under_way).collect();
        let limit = BUDGET.max(self.plan.clients.len() / 5);
        let (at, count) = retries
            .iter()
            .map(|(at, _)| (*at, retries.iter().filter(|(from, to)| from <= at && at < to).count()))
            .max_by_key(|(_, count)| *count)?;
        (count > limit).then(|| format!("{count} retries at a time at {} ms", at.as_millis()))
    }
}

/// The servers to which a request was sent, and that came to nothing; but for
/// kept connections that had died.
pub(super) fn sent_to(request: &Request) -> BTreeSet<&str> {
    let sent = request.failed.iter().filter(|(_, how, _)| was_sent(how) && how != "reused_closed");
    sent.map(|(server, ..)| server.as_str()).collect()
}

/// Contract, table of failover: "at most 2 other servers".
pub(super) fn sent_too_often(request: &Request) -> Option<String> {
    let mut sent = sent_to(request);
    if let Some((_, Outcome::Answered(server, _))) = &request.outcome {
        sent.insert(server);
    }
    (sent.len() > SENT_LIMIT).then(|| format!("was sent to {sent:?}"))
}

/// Whether what failed so is repeated within the budget: what a kept connection
/// may have been the cause of costs none.
fn costs_budget(how: &str) -> bool {
    matches!(how, "closed" | "response_timeout")
}

/// `--fresh-posts`: "POST and PATCH on fresh connections only".
pub(super) fn kept_connections_of_posts(plan: &Plan, run: &Run) -> Vec<String> {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for event in &run.events {
        let EventKind::Received { backend, connection, nonce, method, .. } = &event.kind else {
            continue;
        };
        let fresh = used.insert((backend.clone(), *connection));
        if plan.balancer.fresh_posts && !fresh && matches!(&**method, "POST" | "PATCH") {
            wrong.push(format!("nonce={nonce:?}: a {method} on a used connection to {backend}"));
        }
    }
    wrong
}

/// Whether a request that failed so may have been executed.
pub(super) fn was_sent(how: &str) -> bool {
    matches!(how, "reused_closed" | "closed" | "response_timeout" | "bad_answer")
}
