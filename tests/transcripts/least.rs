//! Transcript 14: least connections, before servers that hold their answers
//! until they are released.

use std::{collections::BTreeMap, thread};

use testbed::{
    backend::Backend,
    fault::Fault,
    log::{Event, EventKind, EventLog},
};
use tokio::runtime::Runtime;

use super::{at_once, balance_over, have, pages};
use crate::programs::Running;

/// `lb` in front of A and B.
struct World {
    runtime: Runtime,
    log: EventLog,
    a: Backend,
    b: Backend,
    lb: Running,
    port: u16,
}

impl World {
    fn start(weights: [u32; 2]) -> World {
        let runtime = Runtime::new().unwrap();
        let log = EventLog::new();
        let start = |name: &str| {
            let builder = Backend::builder(name).body(format!("page {name}\n"));
            runtime.block_on(builder.start(&log)).unwrap()
        };
        let [a, b] = ["A", "B"].map(start);
        let flags = ["--algorithm", "least_connections", "--health-path", "/health"];
        let servers = [(&a, weights[0]), (&b, weights[1])]
            .map(|(server, weight)| format!("{},weight={weight}", server.url()));
        let (lb, port) = balance_over(&servers, &flags);
        World { runtime, log, a, b, lb, port }
    }

    /// Has curl send so many requests at once, and waits until all of them are
    /// held. Their answers are what is returned, later.
    fn hold(&self, count: usize) -> thread::JoinHandle<BTreeMap<String, usize>> {
        let (port, mark) = (self.port, self.log.len());
        let held = thread::spawn(move || at_once(port, count, count));
        let received = |event: &Event| matches!(event.kind, EventKind::Received { .. });
        let arrived = self.log.wait_count(mark, count, "all of them", received);
        self.runtime.block_on(arrived).unwrap();
        held
    }
}

/// What `at_once` counts when A sends the first number of pages, B the second.
fn shares(a: usize, b: usize) -> BTreeMap<String, usize> {
    let shares = [("page A", a), ("page B", b)].map(|(page, count)| (page.to_owned(), count));
    shares.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn transcript_14_a_slow_server_holds_one_of_ten_or_two() {
    if !have(&["curl"]) {
        return;
    }
    // It gets the first. Another only while the quick one has one as well, and
    // it is the slow one's turn.
    for held in [1, 2] {
        let world = World::start([1, 1]);
        world.a.set_fault(Fault::Park);
        world.b.arm(Fault::Park, held as u64 - 1);
        let quick = held - 1;
        let slow = world.hold(held + quick);
        assert_eq!((world.a.parked(), world.b.parked()), (held, quick));
        world.b.release();
        // Given back by then.
        world.lb.lines(&format!(" server={} ", world.b.addr()), quick);
        let rest = 10 - held - quick;
        assert_eq!(pages(world.port, rest), "B".repeat(rest));
        assert_eq!(world.a.parked(), held);
        world.a.release();
        assert_eq!(slow.join().unwrap(), shares(held, quick));
    }
}

/// Nobody is dealt a request while another has fewer per weight: with all held,
/// (a - 1) / 1 <= b / 3 and (b - 1) / 3 <= a / 1. Of n = a + b that leaves A
/// those from (n - 1) / 4 to (n + 3) / 4: exactly a quarter where 4 divides n.
#[test]
fn transcript_14_slow_servers_hold_requests_by_weight() {
    if !have(&["curl"]) {
        return;
    }
    let world = World::start([1, 3]);
    world.a.set_fault(Fault::Park);
    world.b.set_fault(Fault::Park);
    let mut slow = Vec::new();
    for count in 1..=12 {
        slow.push(world.hold(1));
        let (a, b) = (world.a.parked(), world.b.parked());
        assert!(a + b == count && 4 * a + 1 >= count && 4 * a <= count + 3, "{a} at A, {b} at B");
    }
    slow.push(world.hold(28));
    assert_eq!((world.a.parked(), world.b.parked()), (10, 30));
    world.a.release();
    world.b.release();
    let mut sum = shares(0, 0);
    for (page, count) in slow.into_iter().flat_map(|held| held.join().unwrap()) {
        *sum.entry(page).or_default() += count;
    }
    assert_eq!(sum, shares(10, 30));
}

#[test]
fn transcript_14_requests_one_by_one_rotate_by_weight() {
    if !have(&["curl"]) {
        return;
    }
    for (weights, order) in [([1, 1], "ABABABAB"), ([1, 3], "BABBBABB")] {
        let world = World::start(weights);
        assert_eq!(pages(world.port, 8), order, "{weights:?}");
    }
}
