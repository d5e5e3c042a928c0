//! From a plan that fails to the smallest that still does.
//!
//! Owns the order of what is tried: fewer operations, clients and servers,
//! then rounder numbers. Every step is a whole run.

use super::{
    plan::{Balancer, Network, Plan, What},
    replay::{fails_elsewhere, violations},
};

/// How many runs it may take.
const RUNS: usize = 400;

/// How many, where each that fails takes seconds.
const SLOW_RUNS: usize = 30;

/// Makes `plan` smaller for as long as it fails.
pub(crate) fn shrink(plan: &Plan) -> Plan {
    Shrinker { best: plan.clone(), left: RUNS, fails: |plan| !violations(plan).is_empty() }.run()
}

/// The same for one whose thread never ends.
pub(crate) fn shrink_elsewhere(plan: &Plan) -> Plan {
    // What cannot be tried is no smaller plan.
    let fails = |plan: &Plan| fails_elsewhere(plan).unwrap_or(false);
    Shrinker { best: plan.clone(), left: SLOW_RUNS, fails }.run()
}

struct Shrinker {
    /// Fails.
    best: Plan,
    left: usize,
    fails: fn(&Plan) -> bool,
}

impl Shrinker {
    fn run(mut self) -> Plan {
        self.shorten();
        loop {
            let before = self.best.clone();
            self.drop_operations();
            self.drop_clients();
            self.drop_servers();
            self.round();
            if self.best == before || self.left == 0 {
                return self.best;
            }
        }
    }

    /// Halves the time of faults, which makes each further run shorter.
    fn shorten(&mut self) {
        while self.best.faults_ms > 1000
            && self.consider(|plan| {
                plan.faults_ms /= 2;
                let end = plan.faults_ms;
                plan.operations.retain(|operation| operation.at_ms < end);
            })
        {}
    }

    /// Takes the plan if it fails too.
    fn consider(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        // What is no plan could not be repeated.
        if plan == self.best || plan.check().is_err() || self.left == 0 {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&plan);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// In halves, then quarters, in the end one by one.
    fn drop_operations(&mut self) {
        let mut size = self.best.operations.len();
        while size > 0 {
            let mut at = 0;
            while at < self.best.operations.len() {
                let end = (at + size).min(self.best.operations.len());
                if !self.consider(|plan| drop(plan.operations.drain(at..end))) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn drop_clients(&mut self) {
        for index in (0..self.best.clients.len()).rev() {
            if self.best.clients.len() > 1 {
                self.consider(|plan| {
                    let name = plan.clients.remove(index).name;
                    plan.operations.retain(|operation| operation.what.target() != Some(&name));
                });
            }
        }
    }

    fn drop_servers(&mut self) {
        for index in (0..self.best.servers.len()).rev() {
            if self.best.servers.len() > 1 {
                self.consider(|plan| drop_server(plan, index));
            }
        }
    }

    fn round(&mut self) {
        self.consider(|plan| plan.network = Network::default());
        self.consider(|plan| plan.balancer = Balancer::default());
        self.consider(|plan| {
            let algorithm = std::mem::take(&mut plan.balancer.algorithm);
            plan.balancer = Balancer { algorithm, ..Balancer::default() };
        });
        self.consider(|plan| plan.servers.iter_mut().for_each(|server| server.weight = 1));
        for index in 0..self.best.clients.len() {
            self.consider(|plan| plan.clients[index].body = 0);
            self.consider(|plan| plan.clients[index].posts = 0);
            self.consider(|plan| plan.clients[index].fresh = false);
        }
        for grain in [1000, 100] {
            for index in 0..self.best.operations.len() {
                self.consider(|plan| {
                    let operation = &mut plan.operations[index];
                    operation.at_ms -= operation.at_ms % grain;
                });
                self.consider(|plan| {
                    let operation = &mut plan.operations[index];
                    operation.for_ms = operation.for_ms.next_multiple_of(grain);
                });
            }
        }
        let operations = self.best.operations.iter();
        let last = operations.map(|o| o.at_ms + o.for_ms).max().unwrap_or_default();
        self.consider(|plan| {
            plan.faults_ms = plan.faults_ms.min((last + 1).next_multiple_of(1000))
        });
    }
}

fn drop_server(plan: &mut Plan, index: usize) {
    let listed = plan.servers[..index].iter().filter(|server| !server.spare).count();
    let removed = plan.servers.remove(index);
    plan.operations.retain(|operation| operation.what.target() != Some(&removed.name));
    for operation in &mut plan.operations {
        if let What::Reload { weights, .. } = &mut operation.what
            && !removed.spare
        {
            weights.remove(listed);
        }
    }
}
