//! Which plans make sense.
//!
//! Owns what is refused when a plan is read, and which operations exclude each
//! other.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use lb::dealing::Dealing;

use super::{Operation, Plan, What};

/// What every IPv4 network takes (RFC 791, section 3.1): less is nobody's.
const LEAST_MTU: u32 = 68;

impl Plan {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let servers = self.servers.iter().map(|server| &server.name);
        for name in servers.chain(self.clients.iter().map(|client| &client.name)) {
            ensure!(name != "lb" && names.insert(name), "the name {name} is taken");
        }
        ensure!(self.servers.len() <= 200 && self.clients.len() <= 200, "at most 200 of a kind");
        ensure!(!self.clients.is_empty(), "no client");
        ensure!(self.balancer.rise > 0 && self.balancer.fall > 0, "rise and fall are at least 1");
        let health = &self.balancer;
        ensure!(health.timeout_ms <= health.period_ms, "timeout_ms is longer than period_ms");
        ensure!(health.timeout_ms > 0, "timeout_ms is 0");
        let dealing = self.balancer.algorithm.parse::<Dealing>();
        dealing.map_err(|error| anyhow!("algorithm: {error}"))?;
        ensure!(self.network.mtu >= LEAST_MTU, "mtu is less than {LEAST_MTU}");
        for (index, operation) in self.operations.iter().enumerate() {
            self.check_operation(operation)?;
            let clash = self.operations[..index].iter().find(|other| other.clashes_with(operation));
            ensure!(clash.is_none(), "{operation:?} overlaps {clash:?}");
        }
        Ok(())
    }

    fn check_operation(&self, operation: &Operation) -> Result<()> {
        use What::{
            Abort, Add, BlackHole, CloseIdle, Crash, Delete, Disable, Drain, Fault, Health, Kill,
            Lossy, Partition, Reload, Slow, Stop,
        };
        let at = operation.at_ms;
        ensure!(at < self.faults_ms, "an operation at {at} ms, after the faults");
        let is_client = |name: &String| self.clients.iter().any(|client| client.name == *name);
        let known = match &operation.what {
            Kill { server }
            | Crash { server }
            | Stop { server }
            | BlackHole { server }
            | CloseIdle { server } => server,
            Health { server, .. } | Fault { server, .. } | Drain { server } => server,
            Disable { server } | Delete { server } | Add { server } => server,
            Partition { host, .. } | Slow { host, .. } | Lossy { host, .. } if is_client(host) => {
                return Ok(());
            }
            Partition { host, .. } | Slow { host, .. } | Lossy { host, .. } => host,
            Abort { client } => {
                ensure!(is_client(client), "there is no client {client}");
                return Ok(());
            }
            Reload { weights, rise, fall, period_ms } => {
                let configured = self.servers.iter().filter(|server| !server.spare).count();
                ensure!(weights.len() == configured, "reload: a weight for each server");
                ensure!(*rise > 0 && *fall > 0, "reload: rise and fall are at least 1");
                let timeout = self.balancer.timeout_ms;
                ensure!(*period_ms >= timeout, "reload: period_ms is less than timeout_ms");
                return Ok(());
            }
        };
        ensure!(self.server(known).is_some(), "there is no server {known}");
        if let Add { server } = &operation.what {
            let spare = self.server(server).is_some_and(|index| self.servers[index].spare);
            ensure!(spare, "add: {server} is not spare");
        }
        Ok(())
    }
}

impl Operation {
    /// Whether the end of one would end the other too: they change the same
    /// thing, and overlap.
    pub(crate) fn clashes_with(&self, other: &Operation) -> bool {
        let (first, second) = if self.at_ms <= other.at_ms { (self, other) } else { (other, self) };
        self.what.aspect() == other.what.aspect()
            && self.what.target() == other.what.target()
            && second.at_ms <= first.at_ms + first.for_ms
    }
}

impl What {
    /// Which aspect of its target it changes.
    fn aspect(&self) -> &'static str {
        match self {
            What::Kill { .. } | What::Crash { .. } | What::Stop { .. } | What::BlackHole { .. } => {
                "process"
            }
            What::Drain { .. } | What::Disable { .. } => "wanted",
            What::Delete { .. } | What::Add { .. } => "configured",
            other => other.word(),
        }
    }
}
