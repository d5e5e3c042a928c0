//! The simulated network: packets between hosts, in virtual time.
//!
//! Each host's TCP is `turmoil-net`'s: handshakes, windows, FIN, RST. Owns
//! what lies between the hosts: latency, loss, cut links, addresses that
//! swallow connects. What is lost is sent again as Linux does it, so loss is
//! seen as delay; order within a connection is kept. Knows no HTTP. Called by
//! [`super::host`], and by the run for its faults.

mod packet;
mod wire;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use turmoil_net::{KernelConfig, Net};

use super::host::Host;
use packet::reset_packet;
use wire::State;

/// How many calls there may be at one moment: a hundred times what a busy one
/// has. Beyond that time stands still.
const CALLS_AT_A_MOMENT: u64 = 2_000_000;

/// What a listener does that is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// It refuses.
    Shut,
    /// It does not answer: no handshake begins.
    Silent,
}

/// One direction of one connection.
type Flow = (SocketAddr, SocketAddr);

/// What a packet meets on its way from one host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// How long it takes at least.
    pub(crate) latency: Duration,
    /// How much longer it may take.
    pub(crate) jitter: Duration,
    /// How many of a thousand are lost.
    pub(crate) loss: u16,
    /// How many faults let none get through.
    pub(crate) cuts: u32,
}

/// The network of one run; all hosts share it.
pub(crate) struct Network {
    state: Mutex<State>,
    /// A host may have something to send.
    news: Notify,
    /// Calls of hosts since time went on.
    calls: AtomicU64,
    stands_still: Notify,
}

impl Network {
    /// A network of hosts with these addresses, on this thread. Returns the
    /// hosts in the same order.
    pub(crate) fn new(
        addresses: &[IpAddr],
        usual: Link,
        mtu: u32,
        random: Rng,
    ) -> (Arc<Self>, Vec<Host>) {
        // What is lost is sent again by us, so by the hosts never.
        let config = KernelConfig::default().mtu(mtu).retx_threshold(u32::MAX);
        let mut net = Net::with_config(config);
        let ids: Vec<_> = addresses.iter().map(|address| net.add_host(*address)).collect();
        let state = State::new(net.enter(), usual, random);
        let network = Network {
            state: Mutex::new(state),
            news: Notify::new(),
            calls: AtomicU64::new(0),
            stands_still: Notify::new(),
        };
        let network = Arc::new(network);
        let hosts = ids.into_iter().map(|id| Host::new(id, &network)).collect();
        (network, hosts)
    }

    /// Carries packets for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut last = Instant::now();
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            let now = Instant::now();
            if now > last {
                last = now;
                self.calls.store(0, Ordering::Relaxed);
            }
            let next = self.state().step(now);
            match next {
                Some(next) => {
                    tokio::select! {
                        biased;
                        () = news => {}
                        () = sleep_until(next) => {}
                    }
                }
                None => news.await,
            }
        }
    }

    /// A host has done something that may be seen elsewhere.
    pub(crate) fn stir(&self) {
        self.news.notify_one();
    }

    /// A host is about to do something.
    pub(crate) fn called(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed) == CALLS_AT_A_MOMENT {
            self.stands_still.notify_one();
        }
    }

    /// Resolves when hosts are so busy that time does not go on any more.
    pub(crate) async fn stands_still(&self) {
        self.stands_still.notified().await;
    }

    /// Changes the link from one host to another.
    pub(crate) fn change(&self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let usual = state.usual;
        change(state.links.entry((from, to)).or_insert(usual));
    }

    /// Makes all links as usual again.
    pub(crate) fn heal(&self) {
        self.state().links.clear();
    }

    /// What connects to `listener` meet from now on; without a door it is open.
    pub(crate) fn set_door(&self, listener: SocketAddr, door: Option<Door>) {
        let mut state = self.state();
        match door {
            Some(door) => state.doors.insert(listener, door),
            None => state.doors.remove(&listener),
        };
    }

    /// Notes that a connection between the two exists.
    pub(crate) fn opened(&self, local: SocketAddr, peer: SocketAddr) {
        self.state().orphans.remove(&(local, peer));
    }

    /// Notes that nobody reads at `local` any more.
    pub(crate) fn abandoned(&self, local: SocketAddr, peer: SocketAddr) {
        self.state().orphans.insert((local, peer));
        self.stir();
    }

    /// Resets a connection from `local`, behind what was written on it.
    pub(crate) fn reset(&self, local: SocketAddr, peer: SocketAddr) {
        let mut state = self.state();
        let now = Instant::now();
        state.collect(now);
        state.send(reset_packet((local, peer)), now);
        state.hosts.deliver(reset_packet((peer, local)));
        self.stir();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
