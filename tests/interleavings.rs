//! What threads share, under a scheduler that tries their interleavings.
//!
//! The files of `lb` itself, compiled against shuttle's locks and atomics: at
//! each of their steps another thread may go on. `ArcSwap` and `Notify` are the
//! real ones; the first is no step, the second is one. What the scheduler cannot
//! show are effects of memory orderings: its memory is sequentially consistent.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test, and clippy sees none without the harness"
)]

#[allow(
    clippy::large_enum_variant,
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "a part of what `lb` uses is tried here, and a scheduler's lock is large"
)]
#[path = "../lb/src/balance/mod.rs"]
mod balance;
#[allow(dead_code, unreachable_pub, reason = "a part of what `lb` uses is tried here")]
#[path = "../lb/src/upstream/departure.rs"]
mod departure;

/// Stands in for the module of the same name in `lb`.
mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};

    /// Tokio's, with a step before each call.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
            shuttle::thread::yield_now();
            self.0.notified()
        }

        pub(crate) fn notify_waiters(&self) {
            shuttle::thread::yield_now();
            self.0.notify_waiters();
        }
    }
}

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use arc_swap::ArcSwap;
use libtest_mimic::{Arguments, Trial};
use shuttle::{
    Config, Runner,
    future::block_on,
    scheduler::{DfsScheduler, PctScheduler},
    sync::Mutex,
    thread,
};

use balance::{
    Algorithm, Ask, Cluster, InFlight, Member, Pick, ServerId, Share, Snapshot, Thresholds,
    WhenAllDown,
};
use departure::Departure;

/// How many schedules are tried of each test and in each way.
const SCHEDULES: usize = 3_000;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Shuttle keeps the state of a run to its thread; one after the other is
    // quick enough and easier to read.
    arguments.test_threads = Some(1);
    let of_algorithms = [
        ("in turn", Algorithm::RoundRobin, [1, 1, 1]),
        ("laid out", Algorithm::RoundRobin, [2, 1, 1]),
        ("too long to lay out", Algorithm::RoundRobin, [40_000, 39_999, 1]),
        ("least connections", Algorithm::LeastConnections, [1, 1, 1]),
        ("least connections by weight", Algorithm::LeastConnections, [2, 1, 1]),
    ];
    let dealt = of_algorithms.map(|(name, algorithm, weights)| {
        trial(&format!("every turn is dealt once: {name}"), move || {
            every_turn_is_dealt_once(algorithm, weights);
        })
    });
    let others = [
        trial("least loaded differ for requests at one moment", least_loaded_differ),
        trial("what is in flight comes back to nothing", in_flight_comes_back_to_nothing),
        trial("the end of the last request is heard", the_last_end_is_heard),
        trial("the end of the drain time is heard", the_cut_is_heard),
    ];
    libtest_mimic::run(&arguments, dealt.into_iter().chain(others).collect()).exit_code()
}

/// Tries schedules one after the other as far as it comes, then those with few
/// forced switches at random places (PCT, Burckhardt et al., 2010).
fn trial(name: &str, test: impl Fn() + Send + Sync + Clone + 'static) -> Trial {
    Trial::test(name, move || {
        let mut config = Config::default();
        config.silence_warnings = true;
        Runner::new(DfsScheduler::new(Some(SCHEDULES), false), config.clone()).run(test.clone());
        Runner::new(PctScheduler::new(4, SCHEDULES), config).run(test);
        Ok(())
    })
}

/// The lock and the published snapshot around the core, as `lb` has them.
struct Shell {
    core: Mutex<Cluster<()>>,
    published: ArcSwap<Snapshot<()>>,
    ids: Vec<ServerId>,
}

impl Shell {
    /// Servers of these weights, all up.
    fn new(algorithm: Algorithm, weights: &[u32]) -> Arc<Shell> {
        let mut cluster = Cluster::dealing(algorithm, WhenAllDown::Refuse);
        let join = |weight: &u32| {
            let share = Share { weight: *weight, ..Share::default() };
            cluster.join_with(Arc::new(()), Thresholds::default(), share)
        };
        let ids: Vec<_> = weights.iter().map(join).collect();
        for id in &ids {
            cluster.handle_probe(*id, 0, true);
        }
        let published = ArcSwap::new(cluster.snapshot().clone());
        Arc::new(Shell { core: Mutex::new(cluster), published, ids })
    }

    fn deal<T>(&self, take: impl Fn(&Member<()>) -> T) -> (Arc<Snapshot<()>>, T) {
        loop {
            let snapshot = self.published.load_full();
            match snapshot.deal(Ask::default(), &take) {
                Pick::Server(taken) => return (snapshot, taken),
                Pick::Nobody => panic!("somebody is up all the time"),
                // `lb` tries again; here that would be schedules without end.
                Pick::Stale => drop(self.core.lock().unwrap()),
            }
        }
    }

    /// A probe has this result.
    fn probed(&self, server: usize, passed: bool) -> Arc<Snapshot<()>> {
        let mut core = self.core.lock().unwrap();
        let id = self.ids[server];
        let (_, _, epoch) = core.state(id).unwrap();
        core.handle_probe(id, epoch, passed);
        self.published.store(core.snapshot().clone());
        core.snapshot().clone()
    }
}

/// Two threads pick while a server leaves and returns: the picks of each
/// snapshot are its first turns, none twice and none left out, and each
/// snapshot begins behind the last turn of the one before.
fn every_turn_is_dealt_once(algorithm: Algorithm, weights: [u32; 3]) {
    let shell = Shell::new(algorithm, &weights);
    let mut epochs = vec![shell.published.load_full()];
    let pickers = [2, 2].map(|picks| {
        let shell = shell.clone();
        thread::spawn(move || (0..picks).map(|_| shell.deal(|m| m.place)).collect::<Vec<_>>())
    });
    epochs.push(shell.probed(1, false));
    epochs.push(shell.probed(1, true));
    let picks: Vec<_> = pickers.into_iter().flat_map(|picker| picker.join().unwrap()).collect();

    // The same changes after the same numbers of picks, by one thread alone.
    let replay = Shell::new(algorithm, &weights);
    for (number, epoch) in epochs.iter().enumerate() {
        let mut dealt = BTreeMap::<usize, i32>::new();
        for (_, place) in picks.iter().filter(|(snapshot, _)| Arc::ptr_eq(snapshot, epoch)) {
            *dealt.entry(*place).or_default() += 1;
            *dealt.entry(replay.deal(|m| m.place).1).or_default() -= 1;
        }
        assert!(dealt.values().all(|sum| *sum == 0), "epoch {number}: {dealt:?}, of {picks:?}");
        if number < 2 {
            replay.probed(1, number == 1);
        }
    }
}

/// Two requests and two servers of which one is busy: each gets one, also while
/// a third comes and goes.
fn least_loaded_differ() {
    let shell = Shell::new(Algorithm::LeastConnections, &[1, 1, 1]);
    shell.probed(2, false);
    shell.published.load().members()[0].in_flight.begin();
    let pickers = [(); 2].map(|()| {
        let shell = shell.clone();
        thread::spawn(move || {
            let take = |member: &Member<()>| {
                member.in_flight.begin();
                member.place
            };
            shell.deal(take).1
        })
    });
    shell.probed(2, true);
    shell.probed(2, false);
    let [one, other] = pickers.map(|picker| picker.join().unwrap());
    assert_ne!(one, other);
}

/// Whatever the order: what begins and ends is counted, over all snapshots.
fn in_flight_comes_back_to_nothing() {
    let shell = Shell::new(Algorithm::TwoChoices, &[1, 1]);
    let requests = [(); 3].map(|()| {
        let shell = shell.clone();
        thread::spawn(move || {
            let take = |member: &Member<()>| {
                member.in_flight.begin();
                member.in_flight.clone()
            };
            let (_, in_flight) = shell.deal(take);
            in_flight.end()
        })
    });
    shell.probed(0, false);
    let ends = requests.map(|request| request.join().unwrap());
    let left: u32 = shell.core.lock().unwrap().states().map(|state| state.in_flight.get()).sum();
    assert_eq!(left, 0);
    assert!(ends.contains(&true), "nobody was the last");
}

/// Somebody waits for a removed server to be empty while its last two requests
/// end. A wake-up that is lost is a deadlock, which the scheduler reports.
fn the_last_end_is_heard() {
    let shared = Arc::new((InFlight::default(), Departure::default()));
    shared.0.begin();
    shared.0.begin();
    let requests = [(); 2].map(|()| {
        let shared = shared.clone();
        // As a claim that is dropped.
        thread::spawn(move || {
            if shared.0.end() {
                shared.1.emptied();
            }
        })
    });
    shared.1.begin();
    block_on(shared.1.until_empty(&shared.0));
    assert_eq!(shared.0.get(), 0);
    requests.into_iter().for_each(|request| request.join().unwrap());
}

/// All who have something in flight hear that the drain time is over.
fn the_cut_is_heard() {
    let departure = Arc::new(Departure::default());
    let waiting = [(); 2].map(|()| {
        let departure = departure.clone();
        thread::spawn(move || block_on(departure.until_cut()))
    });
    departure.cut();
    waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
}
