//! The simulated network: packets between hosts, in virtual time.
//!
//! Each host's TCP is `turmoil-net`'s: handshakes, windows, FIN, RST. Owns
//! what lies between the hosts: latency, loss, cut links, addresses that
//! swallow connects. What is lost is sent again as Linux does it, so loss is
//! seen as delay; order within a connection is kept. Knows no HTTP. Called by
//! [`super::host`], and by the run for its faults.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use turmoil_net::{
    EnterGuard, HostId, KernelConfig, Net, NetstatEntry, NetstatState, Packet, TcpFlags,
    TcpSegment, Transport, netstat,
};

/// After how long a SYN is sent again the first time, then twice as long each
/// time: Linux's.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// The same for everything else: Linux's least.
const DATA_AGAIN: Duration = Duration::from_millis(200);

/// How long the wait between two tries becomes at most: Linux's.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// How far a reset is behind what was written before it: a reader that is
/// awake sees that first.
const RESET_LAG: Duration = Duration::from_millis(1);

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

struct State {
    /// The hosts' TCP, for as long as this exists.
    hosts: EnterGuard,
    usual: Link,
    /// Links that are not as usual, by source and destination.
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    /// Listeners that are not open.
    doors: BTreeMap<SocketAddr, Door>,
    flows: BTreeMap<Flow, VecDeque<Parcel>>,
    /// When something happens to the first packet of a flow; numbered, so that
    /// what is due at one moment happens in the order in which it was set.
    due: BTreeMap<(Instant, u64), (Flow, Due)>,
    numbers: u64,
    /// Connections whose socket was closed: who writes to it gets a reset.
    orphans: BTreeSet<Flow>,
    random: Rng,
    leaving: Vec<Packet>,
}

struct Parcel {
    packet: Packet,
    sent: Instant,
    tries: u32,
}

/// What happens next to the first packet of a flow.
#[derive(Clone, Copy)]
enum Due {
    /// It is sent once more.
    Try,
    /// It is there.
    Arrive,
}

impl Network {
    /// A network of hosts with these addresses, on this thread. Returns the
    /// hosts in the same order.
    pub(crate) fn new(
        addresses: &[IpAddr],
        usual: Link,
        mtu: u32,
        random: Rng,
    ) -> (Arc<Self>, Vec<HostId>) {
        // What is lost is sent again by us, so by the hosts never.
        let config = KernelConfig::default().mtu(mtu).retx_threshold(u32::MAX);
        let mut net = Net::with_config(config);
        let hosts = addresses.iter().map(|address| net.add_host(*address)).collect();
        let state = State {
            hosts: net.enter(),
            usual,
            links: BTreeMap::new(),
            doors: BTreeMap::new(),
            flows: BTreeMap::new(),
            due: BTreeMap::new(),
            numbers: 0,
            orphans: BTreeSet::new(),
            random,
            leaving: Vec::new(),
        };
        let network = Network {
            state: Mutex::new(state),
            news: Notify::new(),
            calls: AtomicU64::new(0),
            stands_still: Notify::new(),
        };
        (Arc::new(network), hosts)
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

impl State {
    /// Does all that is due, and says when the next is.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        self.collect(now);
        while let Some(first) = self.due.first_entry() {
            let (at, _) = *first.key();
            if at > now {
                return Some(at);
            }
            let (flow, due) = first.remove();
            match due {
                Due::Try => self.try_first(flow, now),
                Due::Arrive => {
                    self.arrive(flow);
                    self.collect(now);
                    self.try_first(flow, now);
                }
            }
        }
        None
    }

    /// Takes what the hosts want to send.
    fn collect(&mut self, now: Instant) {
        let mut leaving = std::mem::take(&mut self.leaving);
        self.hosts.egress_all(&mut leaving);
        for packet in leaving.drain(..) {
            self.send(packet, now);
        }
        self.leaving = leaving;
    }

    fn send(&mut self, packet: Packet, now: Instant) {
        let Some(flow) = flow_of(&packet) else { return };
        // A reset overtakes what waits to be sent again, and whatever is sent
        // later acknowledges as much as a lost acknowledgement.
        if flags_of(&packet).rst || self.lacks_only_an_acknowledgement(flow) {
            self.forget_stalled(flow);
        }
        let queue = self.flows.entry(flow).or_default();
        queue.push_back(Parcel { packet, sent: now, tries: 0 });
        if queue.len() == 1 {
            self.try_first(flow, now);
        }
    }

    /// Sends the first packet of a flow that waits, if there is one.
    fn try_first(&mut self, flow: Flow, now: Instant) {
        let link = self.link(flow);
        loop {
            let Some(parcel) = self.flows.get_mut(&flow).and_then(VecDeque::front_mut) else {
                self.flows.remove(&flow);
                return;
            };
            let flags = flags_of(&parcel.packet);
            let opens = flags.syn && !flags.ack;
            let swallowed = opens && self.doors.get(&flow.1) == Some(&Door::Silent);
            let lost = link.cuts > 0 || swallowed || self.random.u16(..1000) < link.loss;
            if !lost {
                let jitter = link.jitter.as_millis() as u64;
                let latency = link.latency + Duration::from_millis(self.random.u64(..=jitter));
                let lag = if flags.rst { RESET_LAG } else { Duration::ZERO };
                let arrival = (parcel.sent + latency).max(now) + lag;
                return self.set(arrival, flow, Due::Arrive);
            }
            // Nobody repeats a reset, nor what a socket that is gone has sent.
            if flags.rst || (parcel.tries > 0 && !has_socket(flow)) {
                self.pop(flow);
                continue;
            }
            let first = if flags.syn { SYN_AGAIN } else { DATA_AGAIN };
            let wait = (first * 2u32.pow(parcel.tries.min(10))).min(LONGEST_WAIT);
            parcel.tries += 1;
            parcel.sent = now + wait;
            return self.set(now + wait, flow, Due::Try);
        }
    }

    fn set(&mut self, at: Instant, flow: Flow, due: Due) {
        self.numbers += 1;
        self.due.insert((at, self.numbers), (flow, due));
    }

    fn pop(&mut self, flow: Flow) -> Option<Packet> {
        self.flows.get_mut(&flow)?.pop_front().map(|parcel| parcel.packet)
    }

    /// The first packet of a flow is there. As a kernel does it, a connect to
    /// nobody and data for a socket that was closed are answered with a reset.
    fn arrive(&mut self, flow: Flow) {
        let Some(packet) = self.pop(flow) else { return };
        let back = (flow.1, flow.0);
        let abandoned = has_data(&packet) && self.orphans.contains(&back);
        if !abandoned && !self.is_refused(flow, flags_of(&packet)) {
            return self.hosts.deliver(packet);
        }
        self.hosts.deliver(reset_packet(flow));
        if !flags_of(&packet).rst {
            self.send(reset_packet(back), Instant::now());
        }
    }

    /// Whether a packet is part of a handshake with a listener that is not
    /// open.
    fn is_refused(&self, (from, to): Flow, flags: TcpFlags) -> bool {
        let half_open = |entry: &NetstatEntry| {
            let theirs = entry.local == to && entry.peer == Some(from);
            theirs && entry.state == Some(NetstatState::SynReceived)
        };
        self.doors.contains_key(&to)
            && ((flags.syn && !flags.ack) || netstat(to.ip()).entries.iter().any(half_open))
    }

    /// Whether what waits to be sent again is nothing but an acknowledgement.
    fn lacks_only_an_acknowledgement(&self, flow: Flow) -> bool {
        let Some(queue) = self.flows.get(&flow).filter(|queue| queue.len() == 1) else {
            return false;
        };
        queue.iter().all(|parcel| {
            let flags = flags_of(&parcel.packet);
            !flags.syn && !flags.fin && !has_data(&parcel.packet)
        })
    }

    /// Forgets what waits to be sent again, as a reset connection does.
    fn forget_stalled(&mut self, flow: Flow) {
        let stalls = |parcel: &Parcel| parcel.tries > 0;
        if self.flows.get(&flow).and_then(VecDeque::front).is_some_and(stalls) {
            self.due.retain(|_, (other, _)| *other != flow);
            self.flows.remove(&flow);
        }
    }

    fn link(&self, (from, to): Flow) -> Link {
        *self.links.get(&(from.ip(), to.ip())).unwrap_or(&self.usual)
    }
}

fn flow_of(packet: &Packet) -> Option<Flow> {
    let Transport::Tcp(tcp) = &packet.payload else { return None };
    let from = SocketAddr::new(packet.src, tcp.src_port);
    Some((from, SocketAddr::new(packet.dst, tcp.dst_port)))
}

fn has_data(packet: &Packet) -> bool {
    matches!(&packet.payload, Transport::Tcp(tcp) if !tcp.payload.is_empty())
}

fn flags_of(packet: &Packet) -> TcpFlags {
    match &packet.payload {
        Transport::Tcp(tcp) => tcp.flags,
        Transport::Udp(_) => TcpFlags::default(),
    }
}

/// Whether the sender of a flow still has its socket.
fn has_socket((from, to): Flow) -> bool {
    let mine = |entry: &NetstatEntry| entry.local == from && entry.peer == Some(to);
    netstat(from.ip()).entries.iter().any(mine)
}

fn reset_packet((from, to): Flow) -> Packet {
    let flags = TcpFlags { rst: true, ..TcpFlags::default() };
    let segment = TcpSegment {
        src_port: from.port(),
        dst_port: to.port(),
        seq: 0,
        ack: 0,
        flags,
        window: 0,
        payload: Bytes::new(),
    };
    Packet { src: from.ip(), dst: to.ip(), ttl: 64, payload: Transport::Tcp(segment) }
}
