//! Properties of the rotation over the core: order, fairness, eligibility and
//! the place kept over changes, for any sequence of changes and picks.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    thread,
};

use lb::balance::{
    Algorithm, Cluster, ConnectFailure, Observed, Pick, ServerId, Share, Slot, Snapshot,
    Thresholds, Wanted, WhenAllDown,
};
use proptest::prelude::*;

/// What happens to a cluster. Servers are named by their number among all that
/// ever joined, so that sequences stay meaningful while they are shrunk.
#[derive(Clone, Debug)]
enum Event {
    Join,
    Leave(usize),
    Pass(usize),
    Fail(usize),
    Refused(usize),
    TimedOut(usize),
    Want(usize, Wanted),
    /// The servers in another order, with a new one among them.
    Rearrange(Vec<usize>),
    Pick(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let server = 0..8_usize;
    let wanted = prop_oneof![Just(Wanted::Enabled), Just(Wanted::Draining), Just(Wanted::Disabled)];
    prop_oneof![
        2 => Just(Event::Join),
        1 => server.clone().prop_map(Event::Leave),
        6 => server.clone().prop_map(Event::Pass),
        3 => server.clone().prop_map(Event::Fail),
        2 => server.clone().prop_map(Event::Refused),
        1 => server.clone().prop_map(Event::TimedOut),
        1 => (server, wanted).prop_map(|(server, wanted)| Event::Want(server, wanted)),
        1 => prop::collection::vec(0..8_usize, 1..8).prop_map(Event::Rearrange),
        8 => (1..12_usize).prop_map(Event::Pick),
    ]
}

/// The rotation as the contract words it, slowly: all servers that ever joined
/// stay in the list, and the next is the first eligible one behind the last dealt.
#[derive(Default)]
struct Model {
    servers: Vec<(ServerId, bool)>,
    last: Option<usize>,
}

impl Model {
    fn deal(&mut self, eligible: &dyn Fn(ServerId) -> bool) -> Option<ServerId> {
        let count = self.servers.len();
        let begin = self.last.map_or(0, |last| last + 1);
        let order = (0..count).map(|step| (begin + step) % count);
        let found = order.into_iter().find(|&index| {
            let (id, configured) = self.servers[index];
            configured && eligible(id)
        })?;
        self.last = Some(found);
        Some(self.servers[found].0)
    }
}

struct Play {
    cluster: Cluster<()>,
    model: Model,
    policy: WhenAllDown,
}

impl Play {
    fn new(policy: WhenAllDown) -> Self {
        Play { cluster: Cluster::new(policy), model: Model::default(), policy }
    }

    fn server(&self, number: usize) -> Option<(usize, ServerId)> {
        let index = number.checked_rem(self.model.servers.len())?;
        Some((index, self.model.servers[index].0))
    }

    /// Eligibility as the contract words it.
    fn eligible(&self) -> Vec<ServerId> {
        let with = |wanted: &dyn Fn(Observed) -> bool| -> Vec<ServerId> {
            let ids = self.model.servers.iter().map(|(id, _)| *id);
            ids.filter(|id| match self.cluster.state(*id) {
                Some((Wanted::Enabled, observed, _)) => wanted(observed),
                _ => false,
            })
            .collect()
        };
        let up = with(&|observed| observed == Observed::Up);
        let suspects = with(&|observed| observed == Observed::Suspect);
        let any = with(&|_| self.policy == WhenAllDown::TryAnyway);
        [up, suspects, any].into_iter().find(|ids| !ids.is_empty()).unwrap_or_default()
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Rearrange(ref draws) => self.rearrange(draws),
            Event::Join => {
                let thresholds = Thresholds { rise: NonZeroU32::MIN, fall: NonZeroU32::MIN };
                let id = self.cluster.join(Arc::new(()), thresholds);
                self.model.servers.push((id, true));
            }
            Event::Pick(count) => return self.pick(count),
            Event::Leave(number) => {
                if let Some((index, id)) = self.server(number) {
                    self.cluster.leave(id);
                    self.model.servers[index].1 = false;
                }
            }
            Event::Want(number, wanted) => {
                if let Some((_, id)) = self.server(number) {
                    self.cluster.set_wanted(id, wanted);
                }
            }
            Event::Pass(n) | Event::Fail(n) | Event::Refused(n) | Event::TimedOut(n) => {
                self.observe(event, n);
            }
        }
        Ok(())
    }

    /// As a reload does it: what was dealt last, or else the one before it, is
    /// what the rotation goes on behind.
    fn rearrange(&mut self, draws: &[usize]) {
        let mut slots: Vec<Slot<()>> = self.cluster.slots().collect();
        let health: Vec<_> =
            slots.iter().map(|slot| self.cluster.state(slot.id.unwrap())).collect();
        let before: Vec<Option<ServerId>> = slots.iter().map(|slot| slot.id).collect();
        for (index, draw) in draws.iter().enumerate().filter(|(index, _)| *index < before.len()) {
            slots.swap(index, draw % before.len());
        }
        let share = Share::default();
        let (wanted, thresholds) = (Wanted::Enabled, Thresholds::default());
        let new = Slot { id: None, wanted, thresholds, share, server: Arc::new(()) };
        slots.insert(draws[0] % (slots.len() + 1), new);
        let ids = self.cluster.arrange(slots, Algorithm::RoundRobin, self.policy);
        let kept: Vec<_> = before.iter().map(|id| self.cluster.state(id.unwrap())).collect();
        assert_eq!(kept, health, "health of servers that stay");
        let dealt = self.model.servers[..self.model.last.map_or(0, |last| last + 1)].iter();
        let last = dealt.rev().find(|(_, configured)| *configured).map(|(id, _)| *id);
        self.model.last = last.and_then(|last| ids.iter().position(|id| *id == last));
        self.model.servers = ids.into_iter().map(|id| (id, true)).collect();
    }

    fn observe(&mut self, event: &Event, number: usize) {
        let Some((_, id)) = self.server(number) else { return };
        let Some((_, _, epoch)) = self.cluster.state(id) else { return };
        let cluster = &mut self.cluster;
        match event {
            Event::Pass(_) | Event::Fail(_) => {
                cluster.handle_probe(id, epoch, matches!(event, Event::Pass(_)));
            }
            Event::Refused(_) => {
                cluster.handle_connect_failure(id, epoch, ConnectFailure::Refused);
            }
            _ => {
                cluster.handle_connect_failure(id, epoch, ConnectFailure::TimedOut);
            }
        }
    }

    /// Picks `count` times: the order of the model, fair within one, and no
    /// retry moves the cursor.
    fn pick(&mut self, count: usize) -> Result<(), TestCaseError> {
        let eligible = self.eligible();
        let snapshot = self.cluster.snapshot().clone();
        let mut dealt: BTreeMap<ServerId, usize> = eligible.iter().map(|id| (*id, 0)).collect();
        for _ in 0..count {
            let expected = self.model.deal(&|id| eligible.contains(&id));
            let got = match snapshot.pick() {
                Pick::Server(member) => Some((member.id, member.place)),
                Pick::Nobody => None,
                Pick::Stale => return Err(TestCaseError::fail("the current snapshot is stale")),
            };
            prop_assert_eq!(got.map(|(id, _)| id), expected);
            let Some((id, place)) = got else { continue };
            *dealt.entry(id).or_default() += 1;
            check_retries(&snapshot, id, place, &eligible)?;
        }
        let most = dealt.values().max().copied().unwrap_or(0);
        let least = dealt.values().min().copied().unwrap_or(0);
        prop_assert!(most - least <= 1, "not fair: {:?}", dealt);
        Ok(())
    }
}

/// Retries visit every other eligible server once, in rotation order, and end.
fn check_retries(
    snapshot: &Snapshot<()>,
    first: ServerId,
    place: usize,
    eligible: &[ServerId],
) -> Result<(), TestCaseError> {
    let begin = eligible.iter().position(|id| *id == first).unwrap_or(0);
    let mut expected = eligible.to_vec();
    expected.rotate_left(begin);
    let (mut tried, mut place) = (vec![first], place);
    while let Some(member) = snapshot.next_untried(place, &tried) {
        tried.push(member.id);
        place = member.place;
    }
    prop_assert_eq!(tried, expected);
    Ok(())
}

fn check(policy: WhenAllDown, events: &[Event]) -> Result<(), TestCaseError> {
    let mut play = Play::new(policy);
    for event in events {
        play.happen(event)?;
        play.pick(1)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_sequence_keeps_order_fairness_and_place(events in prop::collection::vec(event(), 1..60)) {
        check(WhenAllDown::Refuse, &events)?;
    }

    #[test]
    fn any_sequence_with_a_last_resort(events in prop::collection::vec(event(), 1..60)) {
        check(WhenAllDown::TryAnyway, &events)?;
    }
}

/// Deals `count` servers and names them by place: 0 is `A`.
fn deal(cluster: &Cluster<()>, count: usize) -> String {
    let letter = |snapshot: &Snapshot<()>| match snapshot.pick() {
        Pick::Server(member) => char::from(b'A' + member.place as u8),
        _ => '-',
    };
    (0..count).map(|_| letter(cluster.snapshot())).collect()
}

fn three_up() -> (Cluster<()>, Vec<ServerId>) {
    let mut cluster = Cluster::new(WhenAllDown::Refuse);
    let ids: Vec<ServerId> =
        (0..3).map(|_| cluster.join(Arc::new(()), Thresholds::default())).collect();
    for id in &ids {
        cluster.handle_probe(*id, 0, true);
    }
    (cluster, ids)
}

fn set(cluster: &mut Cluster<()>, id: ServerId, passed: bool) {
    let (_, _, epoch) = cluster.state(id).unwrap();
    cluster.handle_probe(id, epoch, passed);
}

#[test]
fn place_is_kept_when_a_server_leaves_and_returns() {
    let (mut cluster, ids) = three_up();
    assert_eq!(deal(&cluster, 2), "AB");
    set(&mut cluster, ids[1], false);
    assert_eq!(deal(&cluster, 5), "CACAC");
    set(&mut cluster, ids[1], true);
    assert_eq!(deal(&cluster, 6), "ABCABC");
}

#[test]
fn all_are_checked_when_the_last_first_result_is_in() {
    let mut cluster = Cluster::new(WhenAllDown::Refuse);
    assert!(cluster.is_empty() && cluster.is_checked());
    let ids = [(); 2].map(|()| cluster.join(Arc::new(()), Thresholds::default()));
    assert_eq!((cluster.len(), cluster.is_empty()), (2, false));
    for (id, passed) in ids.into_iter().zip([true, false]) {
        assert!(!cluster.is_checked());
        cluster.handle_probe(id, 0, passed);
    }
    assert!(cluster.is_checked());
}

#[test]
fn evidence_of_an_earlier_epoch_changes_nothing() {
    let (mut cluster, ids) = three_up();
    let (_, _, before) = cluster.state(ids[0]).unwrap();
    set(&mut cluster, ids[0], false);
    set(&mut cluster, ids[0], true);
    assert!(cluster.handle_probe(ids[0], before, false).is_none());
    let late = cluster.handle_connect_failure(ids[0], before, ConnectFailure::Refused);
    assert!(late.transition.is_none() && !late.probe_now);
    assert_eq!(deal(&cluster, 3), "ABC");
}

#[test]
fn suspicion_never_empties_the_rotation() {
    let (mut cluster, ids) = three_up();
    for id in &ids {
        let (_, _, epoch) = cluster.state(*id).unwrap();
        let reaction = cluster.handle_connect_failure(*id, epoch, ConnectFailure::Refused);
        assert!(reaction.probe_now);
    }
    assert_eq!(deal(&cluster, 3), "ABC");
    ids.iter().for_each(|id| set(&mut cluster, *id, false));
    assert_eq!(deal(&cluster, 2), "--");
}

#[test]
fn nobody_is_dealt_twice_and_nobody_skipped_while_snapshots_change() {
    const THREADS: usize = 4;
    const PICKS: usize = 50_000;
    let (mut cluster, ids) = three_up();
    let published = Arc::new(Mutex::new(cluster.snapshot().clone()));
    // Each pick as (the snapshot that dealt it, the place dealt).
    let pickers: Vec<_> = (0..THREADS)
        .map(|_| {
            let published = published.clone();
            thread::spawn(move || {
                let mut picks = Vec::with_capacity(PICKS);
                while picks.len() < PICKS {
                    let snapshot = published.lock().unwrap().clone();
                    match snapshot.pick() {
                        Pick::Server(member) => {
                            picks.push((Arc::as_ptr(&snapshot) as usize, member.place));
                        }
                        Pick::Nobody => panic!("never all down"),
                        Pick::Stale => thread::yield_now(),
                    }
                }
                picks
            })
        })
        .collect();
    // Every snapshot is kept alive, so that no address is used twice.
    let mut snapshots = vec![cluster.snapshot().clone()];
    let mut turn = 0;
    while !pickers.iter().all(thread::JoinHandle::is_finished) {
        set(&mut cluster, ids[1], turn % 2 == 1);
        turn += 1;
        snapshots.push(cluster.snapshot().clone());
        *published.lock().unwrap() = cluster.snapshot().clone();
        thread::yield_now();
    }
    let mut counts: BTreeMap<usize, [usize; 3]> = BTreeMap::new();
    for (snapshot, place) in pickers.into_iter().flat_map(|picker| picker.join().unwrap()) {
        counts.entry(snapshot).or_default()[place] += 1;
    }
    let mut next = 0;
    for (index, snapshot) in snapshots.iter().enumerate() {
        let dealt = counts.remove(&(Arc::as_ptr(snapshot) as usize)).unwrap_or_default();
        next = check_epoch(index % 2 == 1, dealt, next);
    }
    assert!(counts.is_empty());
}

/// Checks that `dealt` is what one rotation deals from place `next` on, with B
/// missing or not, and returns the place that comes after.
#[track_caller]
fn check_epoch(without_b: bool, dealt: [usize; 3], next: usize) -> usize {
    let members: &[usize] = if without_b { &[0, 2] } else { &[0, 1, 2] };
    let total: usize = dealt.iter().sum();
    let first = members.iter().position(|place| *place >= next).unwrap_or(0);
    let mut expected = [0; 3];
    let mut last = None;
    for step in 0..total {
        let place = members[(first + step) % members.len()];
        expected[place] += 1;
        last = Some(place);
    }
    assert_eq!(dealt, expected);
    last.map_or(next, |place| place + 1)
}
