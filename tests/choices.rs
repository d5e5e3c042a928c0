//! Least connections, two choices, random and hash over the core.

use std::{
    collections::BTreeMap,
    sync::{Arc, Barrier},
    thread,
};

use lb::balance::{
    Algorithm, Ask, Cluster, InFlight, Pick, ServerId, Share, Snapshot, Thresholds, WhenAllDown,
    hash,
};
use proptest::prelude::*;

/// Servers of these weights that are all up, dealt by `algorithm`.
struct Pool {
    cluster: Cluster<()>,
    ids: Vec<ServerId>,
    /// What is dealt and not yet given back, in order.
    open: Vec<Arc<InFlight>>,
}

impl Pool {
    fn new(algorithm: Algorithm, weights: &[u32]) -> Self {
        let mut cluster = Cluster::dealing(algorithm, WhenAllDown::Refuse);
        let join = |(number, weight): (usize, &u32)| {
            let seed = hash(format!("10.0.0.{number}:80").as_bytes());
            let share = Share { weight: *weight, seed };
            let id = cluster.join_with(Arc::new(()), Thresholds::default(), share);
            cluster.handle_probe(id, 0, true);
            id
        };
        let ids = weights.iter().enumerate().map(join).collect();
        Pool { cluster, ids, open: Vec::new() }
    }

    fn set(&mut self, number: usize, passed: bool) {
        let (_, _, epoch) = self.cluster.state(self.ids[number]).unwrap();
        self.cluster.handle_probe(self.ids[number], epoch, passed);
    }

    /// Deals one request, which stays in flight.
    fn deal(&mut self, ask: Ask) -> usize {
        let dealt = self.cluster.snapshot().deal(ask, |member| {
            member.in_flight.begin();
            (member.place, member.in_flight.clone())
        });
        let Pick::Server((place, in_flight)) = dealt else { panic!("nobody") };
        self.open.push(in_flight);
        place
    }

    /// Deals so many and names the servers by place: 0 is `A`.
    fn order(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'A' + self.deal(Ask::default()) as u8)).collect()
    }

    /// Gives the request that was dealt as number `number` back.
    fn end(&mut self, number: usize) {
        self.open.remove(number).end();
    }

    /// Deals so many, each of which is over before the next comes.
    fn one_by_one(&mut self, count: usize) -> String {
        let each = |_| {
            let name = self.order(1);
            self.end(self.open.len() - 1);
            name
        };
        (0..count).map(each).collect()
    }

    fn end_all(&mut self) {
        self.open.drain(..).for_each(|in_flight| {
            let _last = in_flight.end();
        });
    }
}

/// Well mixed bits that are the same in every run.
fn draws() -> impl Iterator<Item = u64> {
    (0..).map(|n: u64| hash(&n.to_le_bytes()))
}

#[test]
fn parked_requests_steer_the_rest_away() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[1, 1, 1]);
    assert_eq!(pool.order(3), "ABC");
    pool.end(2);
    pool.end(1);
    // A is busy: the others alternate as long as they answer at once.
    for expected in ["B", "C", "B", "C"] {
        assert_eq!(pool.order(1), expected);
        pool.end(1);
    }
    pool.end_all();
    assert_eq!(pool.order(3), "ABC");
}

#[test]
fn ties_are_dealt_in_rotation_and_the_place_is_kept() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[1, 1, 1]);
    for expected in ["A", "B", "C", "A"] {
        assert_eq!(pool.order(1), expected);
        pool.end_all();
    }
    pool.set(2, false);
    for expected in ["B", "A", "B"] {
        assert_eq!(pool.order(1), expected);
        pool.end_all();
    }
    pool.set(2, true);
    assert_eq!(pool.order(3), "CAB");
}

#[test]
fn least_connections_heeds_weights_exactly() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[3, 1]);
    let order = pool.order(400);
    assert_eq!(order.matches('A').count(), 300);
    let mut pool = Pool::new(Algorithm::LeastConnections, &[u32::MAX - 1, u32::MAX]);
    // One per u32::MAX is less than one per u32::MAX - 1: nothing is rounded. Were
    // it, the third would be a tie and A's turn.
    assert_eq!(pool.order(4), "BABA");
}

#[test]
fn idle_servers_are_dealt_in_turn_by_weight() {
    for (weights, order) in [
        (&[3, 1][..], "AABA"),
        (&[1, 3], "BABB"),
        (&[3, 2, 1], "ABACBA"),
        (&[5, 1, 1], "AABACAA"),
        (&[0, 40, 20], "BCB"),
    ] {
        let mut pool = Pool::new(Algorithm::LeastConnections, weights);
        assert_eq!(pool.one_by_one(2 * order.len()), order.repeat(2), "{weights:?}");
    }
}

#[test]
fn weights_hold_among_the_idle_while_another_is_busy() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[1, 3, 1]);
    pool.cluster.snapshot().members()[0].in_flight.begin();
    assert_eq!(pool.one_by_one(8), "BBCBBBCB");
    pool.cluster.snapshot().members()[0].in_flight.end();
    // A owes nothing for the turns that it missed, nor is it owed any.
    assert_eq!(pool.one_by_one(5), "BABCB");
}

#[test]
fn turns_by_weight_go_on_behind_the_last_dealt() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[2, 2, 1, 1]);
    assert_eq!(pool.one_by_one(1), "A");
    pool.set(3, false);
    // A new period; of A and B, whose weights are equal, B is behind A.
    assert_eq!(pool.one_by_one(5), "BACBA");
}

#[test]
fn in_flight_is_kept_when_the_snapshot_changes() {
    let mut pool = Pool::new(Algorithm::LeastConnections, &[1, 1, 1]);
    assert_eq!(pool.order(1), "A");
    pool.set(1, false);
    assert_eq!(pool.order(1), "C");
    pool.set(1, true);
    assert_eq!(pool.order(1), "B");
}

/// Brings what the four servers have in flight to 0, 1, 2 and 3.
fn level(snapshot: &Snapshot<()>) {
    for (target, member) in snapshot.members().iter().enumerate() {
        while member.in_flight.get() as usize > target {
            member.in_flight.end();
        }
        while (member.in_flight.get() as usize) < target {
            member.in_flight.begin();
        }
    }
}

/// Four picks at the same moment do not all see the same least loaded server,
/// however long it takes to begin what is picked.
#[test]
fn parallel_picks_do_not_choose_the_same_server() {
    const THREADS: usize = 4;
    let pool = Pool::new(Algorithm::LeastConnections, &[1; THREADS]);
    let together = Arc::new(Barrier::new(THREADS));
    let play = |snapshot: Arc<Snapshot<()>>, together: Arc<Barrier>| {
        for _ in 0..200 {
            if together.wait().is_leader() {
                level(&snapshot);
            }
            together.wait();
            let dealt = snapshot.deal(Ask::default(), |member| {
                thread::yield_now();
                member.in_flight.begin();
            });
            assert!(matches!(dealt, Pick::Server(())));
            together.wait();
            let members = snapshot.members().iter();
            let mut counts: Vec<u32> = members.map(|member| member.in_flight.get()).collect();
            counts.sort();
            assert_eq!(counts, [2, 2, 3, 3]);
        }
    };
    let pickers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (snapshot, together) = (pool.cluster.snapshot().clone(), together.clone());
            thread::spawn(move || play(snapshot, together))
        })
        .collect();
    pickers.into_iter().for_each(|picker| picker.join().unwrap());
}

/// How many of `count` requests each of the servers gets.
fn counts(pool: &mut Pool, asks: impl Iterator<Item = Ask>) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for ask in asks {
        *counts.entry(pool.deal(ask)).or_default() += 1;
        pool.end_all();
    }
    counts
}

/// Checks a count against a binomial distribution, with a false alarm in 1e9:
/// |z| < 6.11 (two-sided; the normal approximation is good at these sizes).
#[track_caller]
fn check_share(count: u64, of: u64, share: f64) {
    let (count, of) = (count as f64, of as f64);
    let z = (count - of * share) / (of * share * (1.0 - share)).sqrt();
    assert!(z.abs() < 6.11, "{count} of {of}, expected a share of {share}: z = {z:.2}");
}

const MANY: u64 = 60_000;

fn drawn() -> impl Iterator<Item = Ask> {
    draws().take(MANY as usize).map(|draw| Ask { draw, key: None })
}

#[test]
fn random_heeds_weights() {
    let mut pool = Pool::new(Algorithm::Random, &[3, 0, 2, 1]);
    let counts = counts(&mut pool, drawn());
    for (place, share) in [(0, 3.0 / 6.0), (2, 2.0 / 6.0), (3, 1.0 / 6.0)] {
        check_share(counts[&place], MANY, share);
    }
    assert!(!counts.contains_key(&1));
}

/// With one server of 2, 1, 1 busy for ever it gets nothing, and the others get
/// `shares`: a draw of the same server twice would give it some.
#[track_caller]
fn check_two_choices(busy: usize, shares: [(usize, f64); 2]) {
    let mut pool = Pool::new(Algorithm::TwoChoices, &[2, 1, 1]);
    pool.cluster.snapshot().members()[busy].in_flight.begin();
    let counts = counts(&mut pool, drawn());
    assert!(!counts.contains_key(&busy), "{counts:?}");
    for (place, share) in shares {
        check_share(counts[&place], MANY, share);
    }
}

#[test]
fn two_choices_are_two_different_servers_by_weight() {
    // A first (1 of 2): B or C. B first: B, as equals go to the first. C: C.
    check_two_choices(0, [(1, 1.0 / 2.0), (2, 1.0 / 2.0)]);
    // A first: A. B first (1 of 4): A (2 of 3) or C. C first: C.
    check_two_choices(1, [(0, 1.0 / 2.0 + 1.0 / 6.0), (2, 1.0 / 4.0 + 1.0 / 12.0)]);
    check_two_choices(2, [(0, 1.0 / 2.0 + 1.0 / 6.0), (1, 1.0 / 4.0 + 1.0 / 12.0)]);
}

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::TwoChoices,
    Algorithm::Random,
    Algorithm::Hash,
];

#[test]
fn one_server_is_chosen_by_any_algorithm() {
    for algorithm in ALGORITHMS {
        let mut pool = Pool::new(algorithm, &[0, 7]);
        let asks = draws().take(50).map(|draw| Ask { draw, key: Some(draw) });
        assert_eq!(counts(&mut pool, asks), BTreeMap::from([(1, 50)]), "{algorithm:?}");
        pool.set(1, false);
        let nobody = pool.cluster.snapshot().deal(Ask::default(), |_| ());
        assert!(matches!(nobody, Pick::Nobody), "{algorithm:?}");
    }
}

#[test]
fn a_replaced_snapshot_deals_nothing_by_any_algorithm() {
    let cases = ALGORITHMS.iter().flat_map(|algorithm| [[1, 1], [3, 1]].map(|w| (*algorithm, w)));
    for (algorithm, weights) in cases {
        let mut pool = Pool::new(algorithm, &weights);
        let old = pool.cluster.snapshot().clone();
        pool.set(0, false);
        for key in [None, Some(1)] {
            let dealt = old.deal(Ask { draw: 1, key }, |_| ());
            assert!(matches!(dealt, Pick::Stale), "{algorithm:?}");
        }
    }
}

/// The longest queue seen while 100 equal servers get 20 000 requests, of
/// which 100 are in flight at any time and end in no particular order.
fn longest_queue(algorithm: Algorithm) -> u32 {
    let mut pool = Pool::new(algorithm, &[1; 100]);
    let mut longest = 0;
    for draw in draws().take(20_000) {
        pool.deal(Ask { draw, key: None });
        longest = longest.max(pool.open.last().unwrap().get());
        if pool.open.len() > 100 {
            let number = hash(&draw.to_le_bytes()) % 100;
            pool.open.swap_remove(number as usize).end();
        }
    }
    longest
}

/// With one request a server, the longest of n queues is about
/// ln n / ln ln n for one choice and ln ln n / ln 2 for two (Azar et al. 1994).
/// The draws are fixed, so this cannot fail by chance.
#[test]
fn two_choices_beat_random() {
    let (two, random) = (longest_queue(Algorithm::TwoChoices), longest_queue(Algorithm::Random));
    assert!(two <= 4 && random >= 2 * two - 1, "two choices {two}, random {random}");
}

/// The server of each of the first `count` keys.
fn owners(pool: &mut Pool, count: usize) -> Vec<usize> {
    let key = |key| Ask { draw: 0, key: Some(key) };
    let owners = draws().take(count).map(|draw| pool.deal(key(draw))).collect();
    pool.end_all();
    owners
}

/// Only the keys of a server that leaves move; they come back with it.
fn check_movement(weights: &[u32], leaver: usize, keys: usize) {
    let mut pool = Pool::new(Algorithm::Hash, weights);
    let before = owners(&mut pool, keys);
    assert_eq!(before, owners(&mut pool, keys), "the same key, another server");
    pool.set(leaver, false);
    for (before, after) in before.iter().zip(owners(&mut pool, keys)) {
        assert!(after != leaver && (*before == leaver || *before == after), "{before} {after}");
    }
    pool.set(leaver, true);
    assert_eq!(before, owners(&mut pool, keys));
}

#[test]
fn keys_are_spread_by_weight() {
    for weights in [[1, 1, 1], [5, 3, 2]] {
        let mut pool = Pool::new(Algorithm::Hash, &weights);
        let asks = draws().take(MANY as usize).map(|key| Ask { draw: 0, key: Some(key) });
        let counts = counts(&mut pool, asks);
        let total = f64::from(weights.iter().sum::<u32>());
        for (place, weight) in weights.iter().enumerate() {
            check_share(counts[&place], MANY, f64::from(*weight) / total);
        }
    }
}

#[test]
fn requests_without_a_key_are_dealt_in_rotation() {
    let mut pool = Pool::new(Algorithm::Hash, &[1, 1, 1]);
    assert_eq!(pool.order(4), "ABCA");
    owners(&mut pool, 10);
    assert_eq!(pool.order(2), "BC");
}

#[test]
fn the_hash_is_the_same_in_every_version() {
    // FNV-1a of "" and "a" are known; what follows is splitmix64's finish.
    assert_eq!(hash(b""), 0xc381_7c01_6ba4_ff30);
    assert_eq!(hash(b"a"), 0x5f29_c2aa_dd9b_8527);
}

/// Computed by another program, in another language.
#[test]
fn keys_have_the_same_owners_in_every_version() {
    for (weights, expected) in
        [([1, 1, 1], "BBAACABCBCAABACCBCABCBCA"), ([1, 3, 2], "BBAACABBBCBABACCBCBBBBCA")]
    {
        let mut pool = Pool::new(Algorithm::Hash, &weights);
        let owner = |n: usize| {
            let key = Some(hash(format!("user-{n}").as_bytes()));
            char::from(b'A' + pool.deal(Ask { draw: 0, key }) as u8)
        };
        let owners: String = (0..expected.len()).map(owner).collect();
        assert_eq!(owners, expected, "{weights:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_moves_but_what_the_leaver_had(
        weights in prop::collection::vec(1..100_u32, 2..12),
        leaver in 0..100_usize,
    ) {
        check_movement(&weights, leaver % weights.len(), 300);
    }

    #[test]
    fn idle_servers_get_their_weights_exactly(
        servers in prop::collection::vec((1..50_u32, any::<bool>()), 1..12),
    ) {
        let (weights, busy): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
        let mut pool = Pool::new(Algorithm::LeastConnections, &weights);
        for (member, _) in pool.cluster.snapshot().members().iter().zip(&busy).filter(|(_, b)| **b) {
            member.in_flight.begin();
        }
        let idle = |place: &usize| !busy[*place];
        let period: u32 = (0..weights.len()).filter(idle).map(|place| weights[place]).sum();
        for _ in 0..2 {
            let order = pool.one_by_one(period as usize);
            for place in (0..weights.len()).filter(idle) {
                let name = char::from(b'A' + place as u8);
                prop_assert_eq!(order.matches(name).count(), weights[place] as usize);
            }
        }
    }

    #[test]
    fn one_by_one_least_connections_is_the_rotation(
        weights in prop::collection::vec(0..12_u32, 1..4),
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let mut pools = [Algorithm::LeastConnections, Algorithm::RoundRobin]
            .map(|algorithm| Pool::new(algorithm, &weights));
        let [least, rotation] = &mut pools;
        prop_assert_eq!(least.one_by_one(60), rotation.one_by_one(60));
    }

    #[test]
    fn least_connections_never_passes_a_less_loaded_server(
        weights in prop::collection::vec(1..50_u32, 1..8),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
    ) {
        let mut pool = Pool::new(Algorithm::LeastConnections, &weights);
        for end in ends {
            let loads: Vec<u64> = pool.cluster.snapshot().members().iter()
                .map(|member| u64::from(member.in_flight.get())).collect();
            let chosen = pool.deal(Ask::default());
            for (load, weight) in loads.iter().zip(&weights) {
                prop_assert!(loads[chosen] * u64::from(*weight) <= load * u64::from(weights[chosen]));
            }
            if end.index(3) > 0 {
                let number = end.index(pool.open.len());
                pool.end(number);
            }
        }
    }
}
