//! The checker of strict rotation, checked: against brute force on small
//! histories, against a second algorithm on larger ones, on balancers that are
//! known to be right or wrong, and on histories that fool the greedy versions.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic in a helper fails its test, as it should"
)]

use std::cell::Cell;
use std::collections::BinaryHeap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use testbed::rotation::{NotStrict, Observation, check_schedule, check_strict, check_strict_from};

// ---- against oracles ----

#[test]
fn agrees_with_brute_force_on_small_histories() {
    compare(40_000, case(8, 4), brute_force);
}

#[test]
fn agrees_with_the_fixpoint_on_small_histories() {
    compare(10_000, case(8, 4), fixpoint);
}

#[test]
fn agrees_with_the_fixpoint_on_larger_histories() {
    compare(4_000, case(60, 8), fixpoint);
}

// ---- balancers known to be right or wrong ----

#[test]
fn accepts_one_counter_under_parallel_clients() {
    for servers in [1, 2, 3, 7] {
        for clients in [1, 2, 8, 64] {
            let mut next = 1;
            let history = play(clients, 50, |_| {
                next += 1;
                (next - 1) % servers
            });
            let first = 1 % servers;
            assert_eq!(check_strict_from(&history, servers, first), Ok(()));
            assert!(check_strict(&history, servers).is_ok());
        }
    }
}

#[test]
fn accepts_a_hundred_thousand_requests_of_64_clients() {
    let mut next = 2;
    let mut history = play(64, 1_563, |_| {
        next += 1;
        (next - 1) % 3
    });
    assert!(history.len() >= 100_000);
    assert_eq!(check_strict(&history, 3), Ok(2));

    // One request given to another server, in exchange with a far one.
    let far = history.len() - 100;
    let other = (100..far).find(|&request| history[request].server != history[far].server).unwrap();
    let server = history[far].server;
    history[far].server = history[other].server;
    history[other].server = server;
    assert!(matches!(check_strict(&history, 3), Err(NotStrict::NoOrder { .. })));
}

#[test]
fn accepts_a_weighted_schedule_and_only_that() {
    let schedule = [0, 0, 1, 0, 2];
    let mut next = 3;
    let history = play(4, 100, |_| {
        next += 1;
        schedule[(next - 1) % schedule.len()]
    });
    assert_eq!(check_schedule(&history, &schedule), Ok(3));
    // The same weights, in another order.
    assert!(matches!(check_schedule(&history, &[0, 0, 0, 1, 2]), Err(NotStrict::NoOrder { .. })));
}

#[test]
fn rejects_two_workers_with_a_cursor_each_although_the_counts_are_equal() {
    let mut next = [0, 0];
    let history = play(8, 150, |client| {
        let cursor = &mut next[client % 2];
        *cursor += 1;
        (*cursor - 1) % 3
    });
    assert_eq!(counts(&history), [400, 400, 400]);
    assert!(matches!(check_strict(&history, 3), Err(NotStrict::NoOrder { .. })));
}

#[test]
fn rejects_a_balancer_that_skips_places_although_the_counts_are_equal() {
    let mut next = 0;
    let history = play(4, 300, |_| {
        if [300, 601, 902].contains(&next) {
            next += 1;
        }
        next += 1;
        (next - 1) % 3
    });
    assert_eq!(counts(&history), [400, 400, 400]);
    assert!(matches!(check_strict(&history, 3), Err(NotStrict::NoOrder { .. })));
}

#[test]
fn rejects_a_balancer_that_deals_places_twice_although_the_counts_are_equal() {
    let mut dealt = Vec::new();
    let mut next = 0;
    let history = play(4, 300, |_| {
        let twice = [300, 601, 902].contains(&next) && dealt.last() != Some(&next);
        dealt.push(next);
        next += usize::from(!twice);
        dealt[dealt.len() - 1] % 3
    });
    assert_eq!(counts(&history), [400, 400, 400]);
    assert!(matches!(check_strict(&history, 3), Err(NotStrict::NoOrder { .. })));
}

// ---- histories worth remembering ----

/// Each of the greedy orders refutes one of two true rotations.
#[test]
fn greedy_versions_are_wrong() {
    // True order: the long one comes last. It is sent first.
    let long_first = history("0..100=0 1..3=0 5..10=1");
    // True order: the one received last comes first.
    let last_first = history("0..9=0 0..3=1 5..8=0");

    assert_eq!(check_strict_from(&long_first, 2, 0), Ok(()));
    assert_eq!(check_strict_from(&last_first, 2, 0), Ok(()));

    assert!(!greedy(&long_first, |_, o| (o.sent, 0)), "by sending");
    assert!(!greedy(&last_first, |_, o| (o.received, 0)), "by receipt");
    // The earliest deadline among those sent by now, else the next sent.
    let earliest_deadline = |now, o: &Observation| match o.sent <= now {
        true => (0, o.received),
        false => (1, o.sent),
    };
    assert!(!greedy(&long_first, earliest_deadline), "by deadline");
}

#[test]
fn a_moment_of_receipt_comes_before_the_same_moment_of_sending() {
    let touching = history("0..5=1 5..9=0");
    assert_eq!(check_strict(&touching, 2), Ok(1));
    assert!(check_strict_from(&touching, 2, 0).is_err());
    let overlapping = history("0..6=1 5..9=0");
    assert_eq!(check_strict_from(&overlapping, 2, 0), Ok(()));
}

#[test]
fn an_empty_history_is_a_rotation() {
    assert_eq!(check_strict(&[], 3), Ok(0));
    assert_eq!(check_strict_from(&[], 3, 2), Ok(()));
    assert_eq!(check_schedule(&[], &[]), Ok(0));
}

#[test]
fn verdicts_read_well() {
    check_text(
        "0..1=0 2..3=0 4..5=1 6..7=1",
        2,
        "not one rotation: position 1 is number 1 of server 1 and was picked before moment 3, \
         when request 1 was received, but only 0 requests to server 1 were sent before; \
         the next, request 2, was sent at 4 (start 0)",
    );
    check_text(
        "0..1=0 2..3=1 4..5=1 6..7=1",
        3,
        "not one rotation: the servers got 1/3/0 requests; expected 1/2/1 (start 1)",
    );
    check_text(
        "0..1=0 2..2=1",
        2,
        "request 1: sent at 2, received at 2; expected to be sent before it is received",
    );
    check_text(
        "0..1=0 2..3=2",
        2,
        "request 1: received by server 2, which has no place in the schedule",
    );
    check_text("0..1=0", 0, "request 0: received by server 0, which has no place in the schedule");
}

#[track_caller]
fn check_text(text: &str, servers: usize, expected: &str) {
    let verdict = check_strict(&history(text), servers);
    assert_eq!(verdict.unwrap_err().to_string(), expected);
}

// ---- histories ----

/// Reads `sent..received=server`, separated by blanks.
fn history(text: &str) -> Vec<Observation> {
    let observation = |word: &str| {
        let (interval, server) = word.split_once('=')?;
        let (sent, received) = interval.split_once("..")?;
        Some(Observation {
            sent: sent.parse().ok()?,
            received: received.parse().ok()?,
            server: server.parse().ok()?,
        })
    };
    let words = text.split_whitespace();
    words.map(|word| observation(word).unwrap()).collect()
}

fn counts(history: &[Observation]) -> [usize; 3] {
    [0, 1, 2].map(|server| history.iter().filter(|o| o.server == server).count())
}

/// A balancer under parallel clients, each with one request at a time: at every
/// moment some client sends, or its request is picked for, or received.
fn play(
    clients: usize,
    requests_each: usize,
    mut pick: impl FnMut(usize) -> usize,
) -> Vec<Observation> {
    enum Client {
        Idle,
        Sent(u64),
        Picked(u64, usize),
    }
    let mut working: Vec<(usize, Client, usize)> =
        (0..clients).map(|client| (client, Client::Idle, requests_each)).collect();
    let mut history = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for moment in 0.. {
        if working.is_empty() {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let index = (random % working.len() as u64) as usize;
        let (client, state, left) = &mut working[index];
        *state = match *state {
            Client::Idle => Client::Sent(moment),
            Client::Sent(sent) => Client::Picked(sent, pick(*client)),
            Client::Picked(sent, server) => {
                history.push(Observation { sent, received: moment, server });
                *left -= 1;
                Client::Idle
            }
        };
        if *left == 0 {
            working.swap_remove(index);
        }
    }
    history
}

/// A schedule and a history over it.
type Case = (Vec<usize>, Vec<Observation>);

/// True rotations with bounded overlap, some of them bent by exchanging two
/// servers, and noise with the same counts. The moments are small: ties abound.
fn case(max_requests: usize, max_reach: usize) -> impl Strategy<Value = Case> {
    let schedule = prop_oneof![
        4 => (1..=3_usize).prop_map(|servers| (0..servers).collect()),
        2 => prop::collection::vec(0..3_usize, 1..=5),
    ];
    let requests = prop::collection::vec(any::<[Index; 3]>(), 1..=max_requests);
    let bends = prop::collection::vec(any::<[Index; 2]>(), 0..=3);
    let shape = (0..5_usize, 1..=max_reach, 1..=6_usize, prop::bool::weighted(0.7));
    (schedule, shape, requests, bends).prop_map(|(schedule, shape, requests, bends)| {
        let (start, reach, spread, noise) = shape;
        let span = requests.len();
        let observation = |(position, [before, after, anywhere]): (usize, [Index; 3])| {
            let turn = if noise { anywhere.index(span) } else { position };
            let pick = reach + turn * spread;
            Observation {
                sent: (pick - 1 - before.index(reach)) as u64,
                received: (pick + 1 + after.index(reach)) as u64,
                server: schedule[(start + position) % schedule.len()],
            }
        };
        let mut history: Vec<_> = requests.into_iter().enumerate().map(observation).collect();
        for bend in bends.iter().filter(|_| span > 0) {
            let [one, other] = bend.map(|request| request.index(span));
            let server = history[one].server;
            history[one].server = history[other].server;
            history[other].server = server;
        }
        (schedule, history)
    })
}

// ---- oracles ----

/// Compares the checker with an oracle for every start, on seeded cases, and
/// requires that both verdicts are common.
#[track_caller]
fn compare(
    cases: u32,
    strategy: impl Strategy<Value = Case>,
    oracle: fn(&[Observation], &[usize], usize) -> bool,
) {
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Config::default()
    };
    let accepted = Cell::new(0);
    let refuted_by_order = Cell::new(0);
    let outcome = TestRunner::new(config).run(&strategy, |(schedule, history)| {
        let starts = 0..schedule.len();
        let truth = starts.clone().find(|&start| oracle(&history, &schedule, start));
        let verdict = check_schedule(&history, &schedule);
        prop_assert_eq!(verdict.as_ref().ok(), truth.as_ref(), "{:?}", verdict);
        if schedule.iter().copied().eq(starts.clone()) {
            agree_on_every_start(&history, &schedule, oracle)?;
        }
        match verdict {
            Ok(_) => accepted.set(accepted.get() + 1),
            Err(NotStrict::NoOrder { .. }) => refuted_by_order.set(refuted_by_order.get() + 1),
            Err(_) => {}
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\nrepeat: cargo test -p testbed --test rotation agrees");
    }
    let (accepted, refuted) = (accepted.get(), refuted_by_order.get());
    println!("{cases} cases: {accepted} accepted, {refuted} refuted by their order");
    assert!(accepted.min(refuted) * 5 >= cases, "one verdict is rare");
}

fn agree_on_every_start(
    history: &[Observation],
    schedule: &[usize],
    oracle: fn(&[Observation], &[usize], usize) -> bool,
) -> Result<(), TestCaseError> {
    for start in 0..schedule.len() {
        let verdict = check_strict_from(history, schedule.len(), start);
        let truth = oracle(history, schedule, start);
        prop_assert_eq!(verdict.is_ok(), truth, "start {}: {:?}", start, verdict);
    }
    Ok(())
}

/// Tries every assignment, with whole-numbered pick times: between two moments
/// there is room for more picks than there are requests.
fn brute_force(history: &[Observation], schedule: &[usize], start: usize) -> bool {
    const ROOM: u64 = 16;
    assert!(history.len() < ROOM as usize);
    fn place(
        history: &[Observation],
        servers: &mut (impl Iterator<Item = usize> + Clone),
        used: &mut Vec<bool>,
        last_pick: u64,
    ) -> bool {
        if used.iter().all(|&used| used) {
            return true;
        }
        let server = servers.next().unwrap();
        for request in 0..history.len() {
            let Observation { sent, received, .. } = history[request];
            let pick = last_pick.max(sent * ROOM) + 1;
            if !used[request] && history[request].server == server && pick < received * ROOM {
                used[request] = true;
                if place(history, &mut servers.clone(), used, pick) {
                    return true;
                }
                used[request] = false;
            }
        }
        false
    }
    let mut servers = schedule.iter().copied().cycle().skip(start);
    place(history, &mut servers, &mut vec![false; history.len()], 0)
}

/// Another exact algorithm: the least fixpoint of lower bounds on pick times.
/// Within a server, backwards, each position gets the latest-sent request
/// received after its bound, which leaves the earliest-sent to each prefix.
fn fixpoint(history: &[Observation], schedule: &[usize], start: usize) -> bool {
    let positions = history.len();
    let server_at = |position: usize| schedule[(start + position) % schedule.len()];
    let servers = schedule.iter().max().unwrap() + 1;
    let mut bounds = vec![0; positions];
    loop {
        let before = bounds.clone();
        for server in 0..servers {
            let mut requests: Vec<_> = history.iter().filter(|o| o.server == server).collect();
            requests.sort_by_key(|o| o.received);
            let mut eligible = BinaryHeap::new();
            for position in (0..positions).rev().filter(|&p| server_at(p) == server) {
                while requests.last().is_some_and(|o| o.received > bounds[position]) {
                    eligible.extend(requests.pop().map(|o| o.sent));
                }
                let Some(sent) = eligible.pop() else {
                    return false;
                };
                bounds[position] = bounds[position].max(sent);
            }
            if !eligible.is_empty() || !requests.is_empty() {
                return false;
            }
            for position in 1..positions {
                bounds[position] = bounds[position].max(bounds[position - 1]);
            }
        }
        if bounds == before {
            return true;
        }
    }
}

/// A plausible checker that is wrong: deals positions in order over two
/// servers, each to the request of its server with the least rank.
fn greedy(history: &[Observation], rank: impl Fn(u64, &Observation) -> (u64, u64)) -> bool {
    let mut waiting = history.to_vec();
    let mut now = 0;
    for position in 0..history.len() {
        let candidates = (0..waiting.len()).filter(|&r| waiting[r].server == position % 2);
        let Some(request) = candidates.min_by_key(|&r| rank(now, &waiting[r])) else {
            return false;
        };
        let Observation { sent, received, .. } = waiting.remove(request);
        now = now.max(sent);
        if now >= received {
            return false;
        }
    }
    true
}
