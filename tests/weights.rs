//! Weighted rotation over the core: exact shares, smooth at every moment, for
//! any weights, from any number of threads, and its place kept over changes.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use lb::balance::{Cluster, Pick, ServerId, Share, Snapshot, Thresholds, WhenAllDown};
use proptest::prelude::*;

/// A cluster of servers of these weights that are all up.
fn cluster_of(weights: &[u32]) -> (Cluster<()>, Vec<ServerId>) {
    let mut cluster = Cluster::new(WhenAllDown::Refuse);
    let join = |weight: &u32| {
        let share = Share { weight: *weight, seed: 0 };
        let id = cluster.join_with(Arc::new(()), Thresholds::default(), share);
        cluster.handle_probe(id, 0, true);
        id
    };
    let ids = weights.iter().map(join).collect();
    (cluster, ids)
}

fn set(cluster: &mut Cluster<()>, id: ServerId, passed: bool) {
    let (_, _, epoch) = cluster.state(id).unwrap();
    cluster.handle_probe(id, epoch, passed);
}

fn place(snapshot: &Snapshot<()>) -> Option<usize> {
    match snapshot.pick() {
        Pick::Server(member) => Some(member.place),
        _ => None,
    }
}

/// Deals `count` requests and names the servers by place: 0 is `A`.
fn deal(cluster: &Cluster<()>, count: usize) -> String {
    let letter = |place: usize| char::from(b'A' + place as u8);
    (0..count).map(|_| place(cluster.snapshot()).map_or('-', letter)).collect()
}

/// Deals `count` requests; at no moment is anybody more than one request away
/// from its share. Returns how many each got.
#[track_caller]
fn check_smooth(weights: &[u32], count: usize) -> Vec<u64> {
    let (cluster, _) = cluster_of(weights);
    let total: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    let mut dealt = vec![0; weights.len()];
    for turn in 1..=count as i128 {
        dealt[place(cluster.snapshot()).unwrap()] += 1;
        for (weight, dealt) in weights.iter().zip(&dealt) {
            let away = turn * i128::from(*weight) - total * i128::from(*dealt);
            assert!(away.abs() <= total, "{weights:?}: {dealt} at turn {turn}");
        }
    }
    dealt
}

/// So many periods give each exactly so many times its weight.
#[track_caller]
fn check_exact(weights: &[u32], period: usize) {
    for periods in 1..=2 {
        let dealt = check_smooth(weights, periods * period);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let scale = total / period as u64;
        for (weight, dealt) in weights.iter().zip(&dealt) {
            assert_eq!(dealt * scale, periods as u64 * u64::from(*weight), "{weights:?}");
        }
    }
}

#[test]
fn golden_orders() {
    for (weights, order) in [
        (&[1, 1, 1][..], "ABCABC"),
        (&[3, 1], "AABAAABA"),
        (&[3, 2, 1], "ABACBAABACBA"),
        (&[5, 1, 1], "AABACAAAABACAA"),
        (&[6, 2], "AABAAABA"),
        (&[7, 7, 7], "ABCABC"),
        (&[u32::MAX, u32::MAX], "ABAB"),
        (&[1, 0, 1], "ACAC"),
        (&[0, 5], "BBB"),
        (&[0, 0], "--"),
    ] {
        assert_eq!(deal(&cluster_of(weights).0, order.len()), order, "{weights:?}");
    }
}

#[test]
fn large_weights_are_exact_laid_out_or_not() {
    check_exact(&[u32::MAX, u32::MAX / 3], 4);
    check_exact(&[10_007, 9_973, 1], 19_981);
    // Longer than what is laid out.
    check_exact(&[50_021, 49_999, 7], 100_027);
    let many: Vec<u32> = (1..=300).collect();
    check_exact(&many, 300 * 301 / 2);
}

#[test]
fn the_largest_weights_are_smooth() {
    check_smooth(&[u32::MAX, u32::MAX - 1, 1], 20_000);
    check_smooth(&[u32::MAX, 1, 1, 1], 20_000);
    check_smooth(&[u32::MAX, u32::MAX - 2, u32::MAX / 2], 20_000);
}

#[test]
fn a_server_of_weight_0_is_probed_and_gets_nothing_even_as_the_last_resort() {
    let mut cluster = Cluster::new(WhenAllDown::TryAnyway);
    let share = Share { weight: 0, seed: 0 };
    let id = cluster.join_with(Arc::new(()), Thresholds::default(), share);
    assert_eq!(deal(&cluster, 2), "--");
    assert!(cluster.handle_probe(id, 0, true).is_some());
    assert_eq!(deal(&cluster, 2), "--");
    let other = cluster.join(Arc::new(()), Thresholds::default());
    assert_eq!(deal(&cluster, 2), "BB");
    let snapshot = cluster.snapshot().clone();
    assert!(snapshot.next_untried(1, &[other]).is_none());
}

#[test]
fn place_is_kept_when_a_server_leaves_and_returns() {
    // A period is AABACAA: behind B comes C, behind C the first A again.
    let (mut cluster, ids) = cluster_of(&[5, 1, 1]);
    assert_eq!(deal(&cluster, 3), "AAB");
    set(&mut cluster, ids[1], false);
    // A and C by 5 to 1 are AAACAA, from C on.
    assert_eq!(deal(&cluster, 6), "CAAAAA");
    set(&mut cluster, ids[1], true);
    // The first at or behind B is B.
    assert_eq!(deal(&cluster, 7), "BACAAAA");
}

#[test]
fn place_is_kept_in_a_later_period() {
    // A period is ABCA. The last that is dealt is A, A, B and C in turn.
    for (dealt, next) in [(8, "B"), (9, "B"), (10, "C"), (11, "A")] {
        let (mut cluster, ids) = cluster_of(&[2, 1, 1]);
        deal(&cluster, dealt);
        set(&mut cluster, ids[0], false);
        set(&mut cluster, ids[0], true);
        assert_eq!(deal(&cluster, 1), next, "behind {dealt}");
    }
}

#[test]
fn who_joins_and_gets_nothing_yet_begins_no_new_period() {
    let (mut cluster, _) = cluster_of(&[2, 1]);
    assert_eq!(deal(&cluster, 3), "ABA");
    let id = cluster.join(Arc::new(()), Thresholds::default());
    assert_eq!(deal(&cluster, 2), "AB");
    cluster.leave(id);
    assert_eq!(deal(&cluster, 2), "AA");
}

#[test]
fn place_is_kept_where_the_period_is_not_laid_out() {
    // C's only turn is far away; A and B alternate.
    let (mut cluster, ids) = cluster_of(&[100_003, 100_003, 1]);
    let change = |cluster: &mut Cluster<()>| {
        set(cluster, ids[2], false);
        set(cluster, ids[2], true);
    };
    assert_eq!(deal(&cluster, 1), "A");
    change(&mut cluster);
    assert_eq!(deal(&cluster, 3), "BAB");
    change(&mut cluster);
    assert_eq!(deal(&cluster, 2), "AB");
}

/// What four threads get together of `each` picks, begun at the same moment.
fn in_parallel(cluster: &Cluster<()>, each: usize) -> [usize; 3] {
    let together = Arc::new(Barrier::new(4));
    let pickers: Vec<_> = (0..4)
        .map(|_| {
            let (snapshot, together) = (cluster.snapshot().clone(), together.clone());
            thread::spawn(move || {
                let mut counts = [0; 3];
                together.wait();
                (0..each).for_each(|_| counts[place(&snapshot).unwrap()] += 1);
                counts
            })
        })
        .collect();
    let counts = pickers.into_iter().map(|picker| picker.join().unwrap());
    counts.fold([0; 3], |sum, counts| [0, 1, 2].map(|place| sum[place] + counts[place]))
}

#[test]
fn parallel_picks_are_exact() {
    let (cluster, _) = cluster_of(&[3, 2, 1]);
    assert_eq!(in_parallel(&cluster, 1_500_000), [3_000_000, 2_000_000, 1_000_000]);
    // One period that is not laid out.
    let (cluster, _) = cluster_of(&[50_001, 30_002, 20_005]);
    assert_eq!(in_parallel(&cluster, 25_002), [50_001, 30_002, 20_005]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_weights_are_exact_and_smooth(weights in prop::collection::vec(1..60_u32, 1..24)) {
        let period: u32 = weights.iter().sum();
        let dealt = check_smooth(&weights, period as usize);
        prop_assert_eq!(dealt, weights.iter().map(|w| u64::from(*w)).collect::<Vec<u64>>());
    }

    #[test]
    fn any_u32_is_smooth(weights in prop::collection::vec(1..=u32::MAX, 1..6)) {
        check_smooth(&weights, 500);
    }
}
