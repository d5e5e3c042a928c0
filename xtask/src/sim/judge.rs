//! Was it right? What `lb` promises, held against what happened.
//!
//! Owns when an error is allowed; each rule names its place in the contract.
//! Whatever no rule allows is a violation. How it really was is
//! [`super::truth`]'s; the rules of servers' states are [`super::health`]'s,
//! those of the rotation [`super::dealing`]'s, those of
//! retries [`super::retries`]'s.

use std::time::Duration;

use testbed::{ledger, log::EventKind};

use super::{
    config::round_trip,
    dealing, health,
    plan::{Plan, millis},
    requests::{Outcome, Request, collect},
    retries::{SENT_LIMIT, kept_connections_of_posts, sent_to, sent_too_often, was_sent},
    run::Run,
    truth::{Span, Truth, overlaps},
    view::{Said, heard},
};

/// For how long a kept connection may have lain idle, and a bit.
const KEPT: Duration = Duration::from_secs(6);

/// What is judged.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) run: &'a Run,
    /// How it really was.
    pub(crate) truth: &'a Truth,
    /// All of them, in the order in which they were sent.
    pub(crate) requests: &'a [Request],
}

/// All that was wrong, a sentence each.
pub(crate) fn judge(plan: &Plan, run: &Run) -> Vec<String> {
    let requests = collect(&run.events, &run.access);
    let truth = Truth::of(plan, run);
    let case = Case { plan, run, truth: &truth, requests: &requests };
    let mut wrong = Vec::new();
    if let Err(violations) = ledger::check(&run.events) {
        wrong.extend(violations.0.iter().map(|violation| format!("ledger: {violation}")));
    }
    let court =
        Court { plan, truth: &truth, requests: &requests, end: run.took, ups: ups(plan, run) };
    for request in &requests {
        wrong.extend(court.judge(request).map(|what| request.accuse(&what)));
        wrong.extend(court.unfounded(request).map(|what| request.accuse(&what)));
    }
    wrong.extend(court.retries_beyond_the_budget());
    wrong.extend(kept_connections_of_posts(plan, run));
    health::check(case, &mut wrong);
    dealing::check(case, &mut wrong);
    wrong.extend(run.crowd.too_much(plan));
    wrong.extend(run.left.iter().map(|what| format!("left at the end: {what}")));
    wrong.extend(run.events.iter().filter_map(|event| match &event.kind {
        EventKind::Output { line, .. } if line.starts_with("ERROR") => Some(format!("lb: {line}")),
        EventKind::Note(text) if text.starts_with("panic") => Some(text.clone()),
        _ => None,
    }));
    wrong
}

impl Request {
    fn accuse(&self, what: &str) -> String {
        let Request { nonce, client, method, target, sent, outcome, failed, .. } = self;
        let at = sent.0.as_millis();
        format!(
            "nonce={nonce} {client} {method} {target} sent at {at} ms: {what}; {outcome:?} failed={failed:?}"
        )
    }
}

pub(super) struct Court<'a> {
    pub(super) plan: &'a Plan,
    truth: &'a Truth,
    pub(super) requests: &'a [Request],
    pub(super) end: Duration,
    /// When each server was seen to be up.
    ups: Vec<Vec<Duration>>,
}

impl Court<'_> {
    /// What is wrong with how a request ended.
    fn judge(&self, request: &Request) -> Option<String> {
        let span = request.span(self.end);
        let client = self.plan.clients.iter().position(|client| client.name == request.client)?;
        // What happens between a client and lb is nobody's promise.
        if overlaps(&self.truth.clients[client], span) {
            return None;
        }
        let (_, outcome) = match &request.outcome {
            Some(outcome) => outcome,
            None => return Some("was never answered".into()),
        };
        let wrong = match outcome {
            Outcome::Answered(server, status) => self.answered(server, *status, span),
            Outcome::Refused(status, reason) => self.refused(request, *status, reason, span),
            Outcome::Broken(headed, error) => self.broken(request, *headed, error, span),
            Outcome::Aborted => {
                let ordered =
                    self.truth.aborts[client].iter().any(|at| span.0 <= *at && *at <= span.1);
                return (!ordered).then(|| "ended as if its client had given it up".into());
            }
        };
        wrong.or_else(|| self.late(request, span)).or_else(|| sent_too_often(request))
    }

    /// Contract, table of failover: "a 5xx from the server: passed on
    /// unchanged".
    fn answered(&self, server: &str, status: u16, span: Span) -> Option<String> {
        let past = &self.truth.servers[self.plan.server(server)?];
        let own = status == 200 || status == 503 && overlaps(&past.unavailable, span);
        (!own).then(|| format!("{server} never said {status}"))
    }

    /// Nothing waits where nobody has to be waited for. (Contract, Timeouts:
    /// there is no other limit.)
    fn late(&self, request: &Request, span: Span) -> Option<String> {
        let since = span.0.saturating_sub(self.truth.settling(self.plan, span.1));
        let well = |past: &super::truth::Past| {
            let window = (since, span.1);
            !past.ails(window) && !overlaps(&past.unmannered, window)
        };
        let took = span.1 - span.0;
        let limit = match self.truth.servers.iter().all(well) {
            // A connection, and the pieces of two bodies through one window.
            true => round_trip(self.plan) * 12 + self.slowness(),
            false => {
                let balancer = &self.plan.balancer;
                let servers = self.plan.servers.len() as u32;
                millis(balancer.response_timeout_ms) * SENT_LIMIT as u32
                    + millis(balancer.connect_timeout_ms) * servers
                    // The budget, a delay, a body that drips.
                    + Duration::from_secs(5)
            }
        };
        let broken = request.reached.iter().any(|(server, ..)| {
            let index = self.plan.server(server);
            // A body that stops on a cut line may take its time out.
            index
                .is_some_and(|index| overlaps(&self.truth.servers[index].unsteady, (since, span.1)))
        });
        (took > limit && !broken).then(|| format!("took {took:?}, expected at most {limit:?}"))
    }

    /// What slow links add at most, where they are no fault.
    fn slowness(&self) -> Duration {
        let slow = self.plan.operations.iter().filter_map(|operation| match &operation.what {
            super::plan::What::Slow { latency_ms, .. } => Some(millis(latency_ms * 24)),
            _ => None,
        });
        slow.max().unwrap_or_default()
    }

    /// Contract, "No client error while one healthy server exists".
    fn refused(&self, request: &Request, status: u16, reason: &str, span: Span) -> Option<String> {
        let well = self.one_that_is_well(span)?;
        let name = &self.plan.servers[well].name;
        if self.is_excused(request, reason, span) {
            return None;
        }
        Some(format!("got a {status} {reason} while {name} was well"))
    }

    /// A server that served everybody from so long before that `lb` must have
    /// known it (contract, Health, Bounds).
    fn one_that_is_well(&self, span: Span) -> Option<usize> {
        let since = span.0.saturating_sub(self.truth.settling(self.plan, span.1));
        self.truth.servers.iter().position(|past| past.serves((since, span.1)))
    }

    /// Why a request may fail although a server was well.
    fn is_excused(&self, request: &Request, reason: &str, span: Span) -> bool {
        let last_was_sent = request.failed.last().is_some_and(|(_, how, _)| was_sent(how));
        let ends = ["server_closed", "bad_answer", "response_timeout"];
        if !last_was_sent || !ends.contains(&reason) {
            return false;
        }
        // "if it happens, 502, never replayed": POST and PATCH.
        if !ledger::is_idempotent(&request.method) {
            return true;
        }
        // "at most 2 other servers": those that were sent to, on fresh
        // connections.
        sent_to(request).len() >= SENT_LIMIT || self.budget_was_used_up(request, span)
    }

    /// Contract, table of failover: "response head relayed, body breaks: the
    /// client's connection is cut so that the truncation shows". Without a head
    /// lb always answers.
    fn broken(&self, request: &Request, headed: bool, error: &str, span: Span) -> Option<String> {
        let excused = headed
            && request.reached.iter().any(|(server, ..)| {
                let index = self.plan.server(server);
                index.is_some_and(|index| {
                    let past = &self.truth.servers[index];
                    past.severs(span) || overlaps(&past.cut_off, span)
                })
            });
        (!excused).then(|| format!("broke off: {error}"))
    }

    /// What is wrong with the attempts that lb says came to nothing: no server
    /// fails without a cause.
    fn unfounded(&self, request: &Request) -> Option<String> {
        let (from, to) = request.span(self.end);
        let unfounded = |(server, how, _): &&(String, String, Duration)| {
            let Some(index) = self.plan.server(server) else { return true };
            let past = &self.truth.servers[index];
            let kept = (from.saturating_sub(KEPT), to);
            match how.as_str() {
                "no_resources" => true,
                "went_out" => {
                    let settling = self.truth.settling(self.plan, to);
                    let settling = (from.saturating_sub(settling), to);
                    !past.ails(settling) && !overlaps(&past.unwanted, (from, to))
                }
                // A connection from before a restart is not used again.
                "reused_closed" | "closed_before_request" => {
                    let up = self.ups[index].iter().rev().find(|up| **up <= from);
                    let kept = (kept.0.max(up.copied().unwrap_or_default()), to);
                    !past.severs(kept) && !past.hangs_up(kept)
                }
                "bad_answer" => !past.severs(kept) && !past.hangs_up(kept),
                _ => !past.severs((from, to)) && !overlaps(&past.cut_off, (from, to)),
            }
        };
        let (server, how, _) = request.failed.iter().find(unfounded)?;
        Some(format!("{server} failed it ({how}) and was well"))
    }
}

/// When `lb` saw each server come up.
fn ups(plan: &Plan, run: &Run) -> Vec<Vec<Duration>> {
    let mut ups = vec![Vec::new(); plan.servers.len()];
    for event in &run.events {
        if let Some((server, Said::Became { to, .. })) = heard(plan, event)
            && to == "up"
        {
            ups[server].push(event.at);
        }
    }
    ups
}
