//! What is on its way between hosts.
//!
//! Owns when a packet arrives, is lost and sent again, and what a kernel says to
//! one that nobody waits for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;
use turmoil_net::{EnterGuard, NetstatEntry, NetstatState, Packet, TcpFlags, netstat};

use super::{
    Door, Flow, Link,
    packet::{flags_of, flow_of, has_data, has_socket, reset_packet},
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

/// All links of one network.
pub(super) struct State {
    /// The hosts' TCP, for as long as this exists.
    pub(super) hosts: EnterGuard,
    pub(super) usual: Link,
    /// Links that are not as usual, by source and destination.
    pub(super) links: BTreeMap<(IpAddr, IpAddr), Link>,
    /// Listeners that are not open.
    pub(super) doors: BTreeMap<SocketAddr, Door>,
    flows: BTreeMap<Flow, VecDeque<Parcel>>,
    /// When something happens to the first packet of a flow; numbered, so that
    /// what is due at one moment happens in the order in which it was set.
    due: BTreeMap<(Instant, u64), (Flow, Due)>,
    numbers: u64,
    /// Connections whose socket was closed: who writes to it gets a reset.
    pub(super) orphans: BTreeSet<Flow>,
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

impl State {
    /// Nothing is on its way, and all links are as usual.
    pub(super) fn new(hosts: EnterGuard, usual: Link, random: Rng) -> Self {
        State {
            hosts,
            usual,
            links: BTreeMap::new(),
            doors: BTreeMap::new(),
            flows: BTreeMap::new(),
            due: BTreeMap::new(),
            numbers: 0,
            orphans: BTreeSet::new(),
            random,
            leaving: Vec::new(),
        }
    }

    /// Does all that is due, and says when the next is.
    pub(super) fn step(&mut self, now: Instant) -> Option<Instant> {
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
    pub(super) fn collect(&mut self, now: Instant) {
        let mut leaving = std::mem::take(&mut self.leaving);
        self.hosts.egress_all(&mut leaving);
        for packet in leaving.drain(..) {
            self.send(packet, now);
        }
        self.leaving = leaving;
    }

    pub(super) fn send(&mut self, packet: Packet, now: Instant) {
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
