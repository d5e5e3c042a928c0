//! The rotation checker over changes, against a search of all orders.

use fastrand::Rng;
use proptest::prelude::*;
use testbed::rotation::{Epoch, Observation, check_epochs};

/// A history of one rotation over changes, and what is known of them: `clients`
/// ask one after the other, and picks and changes come at moments of their own
/// between. `bend` says with which place it goes on at a change; a sound one does
/// with the same.
fn play(
    random: &mut Rng,
    clients: usize,
    requests: usize,
    epochs: &[&[usize]],
    bend: fn(&mut Rng, usize) -> usize,
) -> (Vec<Observation>, Vec<Epoch>) {
    let mut history = Vec::new();
    // What each client has sent and, once it is picked, whom it goes to.
    let mut pending: Vec<Option<(u64, Option<usize>)>> = vec![None; clients];
    let (mut moment, mut place, mut epoch) = (0, epochs[0][0], 0);
    let mut known = vec![Epoch { servers: epochs[0].to_vec(), since: 0..0 }];
    let mut announced = None;
    let mut sent = 0;
    while history.len() < requests {
        moment += 1;
        let due = epoch + 1 < epochs.len() && sent * epochs.len() > (epoch + 1) * requests;
        match announced {
            None if due => announced = Some(moment),
            Some(begun) if random.u8(..4) == 0 => {
                epoch += 1;
                place = bend(random, place);
                moment += 1;
                known.push(Epoch { servers: epochs[epoch].to_vec(), since: begun..moment });
                announced = None;
            }
            _ => {}
        }
        moment += 1;
        let slot = &mut pending[random.usize(..clients)];
        match *slot {
            None if sent < requests => {
                sent += 1;
                *slot = Some((moment, None));
            }
            None => {}
            Some((sent, None)) => {
                let servers = epochs[epoch];
                let next = *servers.iter().find(|server| **server >= place).unwrap_or(&servers[0]);
                place = next + 1;
                *slot = Some((sent, Some(next)));
            }
            Some((sent, Some(server))) => {
                history.push(Observation { sent, received: moment, server });
                *slot = None;
            }
        }
    }
    (history, known)
}

fn sound(_: &mut Rng, place: usize) -> usize {
    place
}

/// Whether any order of picks and changes explains the history, by trying all.
fn brute_force(history: &[Observation], epochs: &[Epoch]) -> bool {
    #[derive(Clone)]
    struct State {
        open: Vec<Observation>,
        epoch: usize,
        place: usize,
        now: u64,
    }
    fn search(state: &State, epochs: &[Epoch]) -> bool {
        if state.open.is_empty() && state.epoch + 1 == epochs.len() {
            return true;
        }
        if let Some(next) = epochs.get(state.epoch + 1) {
            let now = state.now.max(next.since.start);
            let changed = State { epoch: state.epoch + 1, now, ..state.clone() };
            if now < next.since.end && search(&changed, epochs) {
                return true;
            }
        }
        let servers = &epochs[state.epoch].servers;
        let next = servers.iter().find(|server| **server >= state.place).or(servers.first());
        let Some(&server) = next else { return false };
        (0..state.open.len()).any(|index| {
            let mut picked = state.clone();
            let request = picked.open.swap_remove(index);
            picked.now = state.now.max(request.sent);
            picked.place = server + 1;
            request.server == server && picked.now < request.received && search(&picked, epochs)
        })
    }
    let begin = |place| State { open: history.to_vec(), epoch: 0, place, now: 0 };
    epochs[0].servers.iter().any(|place| search(&begin(*place), epochs))
}

/// Small histories of any kind: most are wrong, and some just so.
fn case() -> impl Strategy<Value = (Vec<Observation>, Vec<Epoch>)> {
    (any::<u64>(), 1..4_usize, 2..7_usize, 0..3_usize).prop_map(
        |(seed, clients, requests, wrong)| {
            let mut random = Rng::with_seed(seed);
            let all: [&[&[usize]]; 5] = [
                &[&[0, 1, 2], &[0, 2]],
                &[&[0, 1], &[0, 1, 2]],
                &[&[1], &[0, 1], &[1, 2]],
                &[&[0, 1, 2], &[0, 2], &[0, 1, 2]],
                &[&[0, 1, 2], &[2, 3]],
            ];
            let epochs = all[random.usize(..all.len())];
            let (mut history, mut known) = play(&mut random, clients, requests, epochs, sound);
            let end = history.iter().map(|request| request.received).max().unwrap_or(0) + 2;
            for epoch in &mut known[1..] {
                if random.bool() {
                    continue;
                }
                let start = random.u64(..end);
                epoch.since = start..start + 1 + random.u64(..8);
            }
            for _ in 0..wrong {
                let request = random.usize(..history.len());
                let other = random.usize(..history.len());
                match random.u8(..3) {
                    0 => history[request].server = history[other].server,
                    1 => {
                        history[request].sent =
                            history[request].sent.saturating_sub(random.u64(..6))
                    }
                    _ => history[request].received += random.u64(..6),
                }
            }
            (history, known)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_brute_force((history, epochs) in case()) {
        let verdict = check_epochs(&history, &epochs);
        prop_assert_eq!(verdict.is_ok(), brute_force(&history, &epochs), "{:?}", verdict);
    }
}

const CHANGES: &[&[usize]] = &[&[0, 1, 2], &[0, 2], &[0, 1, 2], &[0, 1, 2, 3], &[1, 3]];

#[test]
fn accepts_one_rotation_over_changes_under_parallel_clients() {
    for seed in 0..50 {
        let mut random = Rng::with_seed(seed);
        let (history, epochs) = play(&mut random, 8, 400, CHANGES, sound);
        assert_eq!(epochs.len(), CHANGES.len());
        assert_eq!(check_epochs(&history, &epochs), Ok(()), "seed {seed}");
    }
}

/// Known-bad: each goes wrong at a change and at no other time.
#[test]
fn rejects_what_goes_wrong_at_a_change() {
    type Bend = fn(&mut Rng, usize) -> usize;
    let bad: [(&str, Bend); 3] = [
        ("begins anew with the first", |_, _| 0),
        ("skips a place", |_, place| place + 1),
        ("deals the last place again", |_, place| place.saturating_sub(1)),
    ];
    for (name, bend) in bad {
        let convicted = (0..50).filter(|seed| {
            let mut random = Rng::with_seed(*seed);
            let (history, epochs) = play(&mut random, 2, 200, CHANGES, bend);
            check_epochs(&history, &epochs).is_err()
        });
        // Beginning anew is right if it is the first one's turn.
        let convicted = convicted.count();
        assert!(convicted >= 40, "{name}: convicted {convicted} times of 50");
    }
}

#[test]
fn rejects_who_deals_to_a_server_that_has_left() {
    let history: Vec<Observation> = (1..)
        .zip([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2, 0])
        .map(|(n, server)| Observation { sent: 10 * n, received: 10 * n + 1, server })
        .collect();
    let left = |since| {
        let before = Epoch { servers: vec![0, 1, 2], since: 0..0 };
        check_epochs(&history, &[before, Epoch { servers: vec![0, 2], since }])
    };
    assert_eq!(left(85..90), Ok(()), "between the last request to 1 and the next");
    assert_eq!(left(70..112), Ok(()), "at a moment that nobody knows");
    assert!(left(60..80).is_err(), "before the last request to 1");
    assert!(left(112..119).is_err(), "when the turn of 1 had been left out");
}

#[test]
fn nothing_is_a_rotation() {
    assert_eq!(check_epochs(&[], &[]), Ok(()));
    assert_eq!(check_epochs(&[], &[Epoch { servers: vec![], since: 0..0 }]), Ok(()));
    let (history, _) = play(&mut Rng::with_seed(1), 3, 30, &[&[0, 1, 2]], sound);
    let none = [Epoch { servers: vec![], since: 0..0 }];
    assert!(check_epochs(&history, &none).is_err());
}
