//! The mutants, and the scenario that kills each.

/// One wrong change.
pub(super) struct Mutant {
    /// Its name.
    pub(super) name: &'static str,
    /// What is wrong with it.
    pub(super) what: &'static str,
    /// The scenario that must notice.
    pub(super) killed_by: &'static str,
    /// The file to change, below `lb/src`.
    pub(super) file: &'static str,
    /// What stands there once.
    pub(super) find: &'static str,
    /// What stands there instead.
    pub(super) replace: &'static str,
}

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "skips_a_place",
        what: "each pick moves the cursor by two",
        killed_by: "rotation/sequential",
        file: "balance/snapshot.rs",
        find: "self.cursor.fetch_add(1, Ordering::AcqRel)",
        replace: "self.cursor.fetch_add(2, Ordering::AcqRel)",
    },
    Mutant {
        name: "begins_anew",
        what: "the rotation begins with the first server after every change",
        killed_by: "rotation/leave_and_return",
        file: "balance/cluster.rs",
        find: "Arc::new(Snapshot::new(members, self.place))",
        replace: "Arc::new(Snapshot::new(members, 0))",
    },
    Mutant {
        name: "retry_takes_a_turn",
        what: "a retry takes the next place of the rotation",
        killed_by: "failover/get_retried_elsewhere",
        file: "proxy/mod.rs",
        find: "worker.shared.cluster.next_untried(server.place, &tried)",
        replace: "worker.shared.cluster.pick()",
    },
    Mutant {
        name: "picks_then_skips",
        what: "servers that are down keep their turn and are failed over",
        killed_by: "rotation/leave_and_return",
        file: "balance/cluster.rs",
        find: "pass(&|observed| observed == Observed::Up)",
        replace: "pass(&|observed| observed != Observed::Checking)",
    },
    Mutant {
        name: "ignores_fall",
        what: "one failed probe is enough",
        killed_by: "active_health/out_after_fall",
        file: "balance/health.rs",
        find: "self.count(self.thresholds.fall, Observed::Down)",
        replace: "self.become_observed(Observed::Down)",
    },
    Mutant {
        name: "ignores_rise",
        what: "one passed probe is enough",
        killed_by: "active_health/back_after_rise",
        file: "balance/health.rs",
        find: "self.count(self.thresholds.rise, Observed::Up)",
        replace: "self.become_observed(Observed::Up)",
    },
    Mutant {
        name: "never_returns",
        what: "a server that was down stays down",
        killed_by: "active_health/back_within_period",
        file: "balance/health.rs",
        find: "self.count(self.thresholds.rise, Observed::Up)",
        replace: "None",
    },
    Mutant {
        name: "never_suspects",
        what: "a refused connect is no evidence",
        killed_by: "passive_health/one_refused_connect",
        file: "balance/health.rs",
        find: "Observed::Up => self.become_observed(Observed::Suspect),",
        replace: "Observed::Up => None,",
    },
    Mutant {
        name: "any_status_is_healthy",
        what: "a probe passes with whatever status",
        killed_by: "active_health/status_lists",
        file: "health.rs",
        find: "self.check.expect.contains(status)",
        replace: "true",
    },
    Mutant {
        name: "no_failover",
        what: "a refused connect is the client's error",
        killed_by: "failover/refused",
        file: "balance/retry.rs",
        find: "Failure::ConnectRefused | Failure::ConnectTimedOut => Next::Elsewhere,",
        replace: "Failure::ConnectRefused | Failure::ConnectTimedOut => Next::GiveUp,",
    },
    Mutant {
        name: "replays_a_post",
        what: "a POST that came to nothing is sent again",
        killed_by: "failover/post_at_most_once",
        file: "headers.rs",
        find: "Method::GET | Method::HEAD",
        replace: "Method::GET | Method::POST | Method::HEAD",
    },
    Mutant {
        name: "replays_half_a_body",
        what: "a body whose beginning is gone is sent again",
        killed_by: "failover/body_beyond_replay",
        file: "proxy/body.rs",
        find: "is_none_or(|source| !source.borrow().overflowed)",
        replace: "is_none_or(|_| true)",
    },
    Mutant {
        name: "gives_up_on_reused",
        what: "a kept connection that dies costs the request",
        killed_by: "keep_alive/race_1000",
        file: "balance/retry.rs",
        find: "Failure::Sent { reused: true } => Next::FreshConnection,",
        replace: "Failure::Sent { reused: true } => Next::GiveUp,",
    },
    Mutant {
        name: "ignores_the_budget",
        what: "any number of retries at a time",
        killed_by: "failover/budget_exact",
        file: "worker.rs",
        find: "(before < budget(in_flight))",
        replace: "(before < usize::MAX - in_flight)",
    },
    Mutant {
        name: "one_try_more",
        what: "a GET reaches four servers",
        killed_by: "failover/tries_exact",
        file: "balance/retry.rs",
        find: "_ if elsewhere < ELSEWHERE_LIMIT",
        replace: "_ if elsewhere <= ELSEWHERE_LIMIT",
    },
    Mutant {
        name: "hides_truncation",
        what: "a body that breaks off ends cleanly",
        killed_by: "failover/truncation_shows",
        file: "proxy/relay.rs",
        find: "Some(Err(_)) => relay.exchange.break_off(),",
        replace: "Some(Err(_)) => return Poll::Ready(None),",
    },
    Mutant {
        name: "never_reuses",
        what: "every request gets a connection of its own",
        killed_by: "keep_alive/reuse_counted",
        file: "upstream/pool.rs",
        find: "self.idle.borrow_mut().push(connection);",
        replace: "drop(connection);",
    },
    Mutant {
        name: "cuts_what_is_in_flight",
        what: "a stop does not wait",
        killed_by: "stop/sigterm_finishes",
        file: "worker.rs",
        find: "timeout(worker.shared.timeouts.drain,",
        replace: "timeout(std::time::Duration::ZERO,",
    },
];
