//! Connections to the servers.
//!
//! Owns what the request path keeps for each server ([`Upstream`]), the
//! governed connect (`governor`), the lookups of its name (`lookup`), HTTP on a
//! connection (`http1`) and the keep-alive pools (`pool`). Never chooses a server
//! and never retries: that is the proxy's, by the rules of the core.

mod body;
mod connect;
mod departure;
mod governor;
mod http1;
mod lookup;
mod pool;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::header::HeaderValue;
use tokio::sync::Notify;

use crate::cluster::Change;
use crate::config::{Authority, HealthCheck, Server};
use crate::stats::ServerStats;

pub use body::{AttemptBody, RequestBody};
pub use connect::{ConnectError, Connection, connect, connect_any};
pub use departure::Departure;
pub use governor::Governor;
pub use http1::{PIECE_BYTES, Wire, WireError};
pub use lookup::Lookup;
pub use pool::{Claim, Pool, Pools, Reuse, Target};

/// One server, as the shell sees it; shared by all threads.
#[derive(Debug)]
pub struct Upstream {
    /// Tells it from all other servers of this process, for ever.
    pub number: u64,
    /// The name in logs and metrics.
    pub name: ArcSwap<String>,
    /// Where it is, as configured.
    pub authority: Authority,
    /// The `Host` of requests that bring none, and of probes.
    pub host: HeaderValue,
    /// Where to connect, in this order; looked up beside each probe, so that no
    /// request waits for a name to be resolved.
    pub addresses: ArcSwap<Vec<SocketAddr>>,
    /// Bounds the connects under way.
    pub governor: Governor,
    /// How its health is checked.
    pub check: ArcSwap<HealthCheck>,
    /// Wakes the prober before its time.
    pub probe_now: Notify,
    /// Wakes those who wait for a connection when what is observed changes.
    pub changed: Notify,
    /// The last change of what is observed of it.
    pub last_change: ArcSwapOption<Change>,
    /// Its end, once it is no longer configured.
    pub departure: Departure,
    /// What is counted of it.
    pub stats: ServerStats,
}

impl Upstream {
    /// The shell's part of a configured server.
    pub fn new(server: &Server) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let authority = server.authority.clone();
        Upstream {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            name: ArcSwap::from_pointee(server.name.clone()),
            host: authority.to_host_header(),
            addresses: ArcSwap::from_pointee(known_addresses(&authority)),
            governor: Governor::default(),
            check: ArcSwap::from_pointee(server.health.clone()),
            probe_now: Notify::new(),
            changed: Notify::new(),
            last_change: ArcSwapOption::empty(),
            departure: Departure::default(),
            stats: ServerStats::default(),
            authority,
        }
    }
}

/// The addresses that need no resolver. `localhost` is both loopback
/// addresses (RFC 6761 §6.3), whatever the resolver says: servers bind either.
pub fn known_addresses(authority: &Authority) -> Vec<SocketAddr> {
    let port = authority.port;
    if authority.host.eq_ignore_ascii_case("localhost") {
        let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
        let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
        return vec![SocketAddr::new(v4, port), SocketAddr::new(v6, port)];
    }
    match authority.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => Vec::new(),
    }
}

/// Lets `buffer` take so many more bytes. It grows to powers of two: of few sizes
/// the allocator keeps little that is free.
fn make_room(buffer: &mut Vec<u8>, more: usize) {
    let needed = buffer.len() + more;
    if needed > buffer.capacity() {
        buffer.reserve_exact(needed.next_power_of_two() - buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::make_room;

    #[test]
    fn buffers_grow_to_powers_of_two() {
        let mut buffer = Vec::new();
        for (more, size) in [(1, 1), (4, 8), (0, 8), (3, 8), (1000, 1024), (64 << 10, 128 << 10)] {
            make_room(&mut buffer, more);
            buffer.resize(buffer.len() + more, 0);
            assert_eq!(buffer.capacity(), size, "after {more} more");
        }
    }
}
