//! What could pile up in `lb`: how much of it there was at most.
//!
//! Owns the looks at its sockets and counts, often in virtual time, and what is
//! too much: each client has one request at a time, so all that `lb` keeps for
//! them has a bound.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use lb::control::Control;
use tokio::time::sleep;
use turmoil_net::{NetstatState, netstat};

use super::{plan::Plan, run::LB};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);

/// Connections to one server above two a client: a probe, and one that is being
/// replaced.
const OTHERS: usize = 2;

/// The most of each that was ever seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    /// Connections to one server, by its address.
    connections: BTreeMap<IpAddr, usize>,
    /// Requests in flight, of all servers.
    in_flight: u64,
}

impl Crowd {
    /// Looks for ever.
    pub(super) async fn watch(&mut self, control: &Control, servers: &[IpAddr]) -> ! {
        loop {
            self.look(control, servers);
            sleep(LOOK).await;
        }
    }

    fn look(&mut self, control: &Control, servers: &[IpAddr]) {
        let status = control.cluster.status();
        let in_flight = status.iter().map(|status| u64::from(status.in_flight)).sum();
        self.in_flight = self.in_flight.max(in_flight);
        for (server, count) in connections(servers) {
            let most = self.connections.entry(server).or_default();
            *most = count.max(*most);
        }
    }

    /// What there was too much of.
    pub(super) fn too_much(&self, plan: &Plan) -> Vec<String> {
        let clients = plan.clients.len();
        let mut wrong = Vec::new();
        for (server, count) in &self.connections {
            if *count > 2 * clients + OTHERS {
                wrong.push(format!("{count} connections to {server} for {clients} clients"));
            }
        }
        if self.in_flight > 2 * clients as u64 {
            wrong.push(format!("{} requests in flight for {clients} clients", self.in_flight));
        }
        wrong
    }
}

/// The connections that `lb` has to each of `servers`, or tries to get.
pub(super) fn connections(servers: &[IpAddr]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for entry in netstat(LB).entries {
        let open = matches!(
            entry.state,
            Some(NetstatState::Established | NetstatState::SynSent | NetstatState::CloseWait)
        );
        let peer = entry.peer.map(|peer| peer.ip()).filter(|peer| servers.contains(peer));
        if let Some(peer) = peer.filter(|_| open) {
            *counts.entry(peer).or_default() += 1;
        }
    }
    counts
}
