//! Health, drain and departure of servers as state machines, against a model
//! that words the contract: any sequence of evidence, wishes and requests.

use std::{num::NonZeroU32, sync::Arc};

use lb::balance::{
    Cluster, ConnectFailure, InFlight, Observed, Pick, ServerId, Thresholds, Transition, Wanted,
    WhenAllDown,
};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// Who is configured at most, at one time.
const MOST: usize = 4;

/// A server as the contract sees it.
#[derive(Clone, Debug)]
struct Server {
    rise: u32,
    fall: u32,
    wanted: Wanted,
    observed: Observed,
    /// What its probes and connects said since the last change, oldest first.
    evidence: Vec<Evidence>,
    /// Its changes so far.
    epoch: u64,
    in_flight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Evidence {
    Passed,
    Failed,
    Refused,
    TimedOut,
}

impl Server {
    /// What the whole evidence since the last change makes of it.
    fn judged(&self) -> Observed {
        let against = |speaks: &dyn Fn(&Evidence) -> bool| {
            self.evidence.iter().rev().take_while(|evidence| speaks(evidence)).count() as u32
        };
        let last = self.evidence.last();
        match self.observed {
            Observed::Checking | Observed::Suspect => match last {
                Some(Evidence::Passed) => Observed::Up,
                Some(Evidence::Failed) => Observed::Down,
                // Requests say nothing of a server that gets none, and nothing
                // new of a suspect.
                _ => self.observed,
            },
            Observed::Up => match last {
                Some(Evidence::Refused) => Observed::Suspect,
                Some(Evidence::Failed | Evidence::TimedOut)
                    if against(&|evidence| *evidence != Evidence::Passed) >= self.fall =>
                {
                    match last {
                        Some(Evidence::Failed) => Observed::Down,
                        // Only a probe may say that it is down.
                        _ => Observed::Suspect,
                    }
                }
                _ => Observed::Up,
            },
            Observed::Down if last != Some(&Evidence::Passed) => Observed::Down,
            Observed::Down => {
                let of_probes =
                    |evidence: &&Evidence| matches!(evidence, Evidence::Passed | Evidence::Failed);
                let probes = self.evidence.iter().filter(of_probes).rev();
                let passes = probes.take_while(|evidence| **evidence == Evidence::Passed).count();
                if passes as u32 >= self.rise { Observed::Up } else { Observed::Down }
            }
        }
    }

    fn observe(&mut self, evidence: Evidence) {
        self.evidence.push(evidence);
        let judged = self.judged();
        if judged != self.observed {
            self.observed = judged;
            self.evidence.clear();
            self.epoch += 1;
        }
    }
}

/// All servers, in configuration order; those that have left are kept as long
/// as they have something in flight.
#[derive(Clone, Debug)]
struct Model {
    policy: WhenAllDown,
    servers: Vec<Server>,
    /// What those have in flight that were removed.
    departed: u32,
}

impl Model {
    /// Whom requests are dealt to (contract, Health).
    fn eligible(&self) -> Vec<usize> {
        let enabled = |want: &dyn Fn(Observed) -> bool| -> Vec<usize> {
            let all = self.servers.iter().enumerate();
            all.filter(|(_, s)| s.wanted == Wanted::Enabled && want(s.observed))
                .map(|(index, _)| index)
                .collect()
        };
        let up = enabled(&|observed| observed == Observed::Up);
        let suspects = enabled(&|observed| observed == Observed::Suspect);
        let any = enabled(&|_| self.policy == WhenAllDown::TryAnyway);
        [up, suspects, any].into_iter().find(|some| !some.is_empty()).unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join {
        rise: u32,
        fall: u32,
    },
    Leave(usize),
    /// Evidence that was gathered in the present epoch.
    Observe(usize, Evidence),
    /// Evidence from an epoch before the present one.
    ObserveLate(usize, Evidence),
    /// Evidence of a server that is gone.
    ObserveGone(Evidence),
    Want(usize, Wanted),
    Thresholds {
        server: usize,
        rise: u32,
        fall: u32,
    },
    /// A request to each of the eligible, in turn, which stays in flight.
    Request,
    /// One of those that this server has in flight ends.
    End(usize),
}

struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let policy = prop_oneof![Just(WhenAllDown::Refuse), Just(WhenAllDown::TryAnyway)];
        policy.prop_map(|policy| Model { policy, servers: Vec::new(), departed: 0 }).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        let threshold = || 1..4_u32;
        let join = (threshold(), threshold()).prop_map(|(rise, fall)| Step::Join { rise, fall });
        if model.servers.is_empty() {
            return join.boxed();
        }
        let server = || 0..model.servers.len();
        let evidence = || {
            prop_oneof![
                4 => Just(Evidence::Passed),
                4 => Just(Evidence::Failed),
                1 => Just(Evidence::Refused),
                2 => Just(Evidence::TimedOut),
            ]
        };
        let wanted = prop::sample::select(Wanted::ALL.to_vec());
        let thresholds = (server(), threshold(), threshold());
        prop_oneof![
            1 => join,
            1 => server().prop_map(Step::Leave),
            10 => (server(), evidence()).prop_map(|(server, e)| Step::Observe(server, e)),
            2 => (server(), evidence()).prop_map(|(server, e)| Step::ObserveLate(server, e)),
            1 => evidence().prop_map(Step::ObserveGone),
            2 => (server(), wanted).prop_map(|(server, wanted)| Step::Want(server, wanted)),
            1 => thresholds
                .prop_map(|(server, rise, fall)| Step::Thresholds { server, rise, fall }),
            3 => Just(Step::Request),
            3 => server().prop_map(Step::End),
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        let there = |server: usize| server < model.servers.len();
        match step {
            Step::Join { .. } => model.servers.len() < MOST,
            Step::ObserveLate(server, _) => there(*server) && model.servers[*server].epoch > 0,
            Step::End(server) => there(*server) && model.servers[*server].in_flight > 0,
            Step::Leave(server)
            | Step::Observe(server, _)
            | Step::Want(server, _)
            | Step::Thresholds { server, .. } => there(*server),
            Step::ObserveGone(_) | Step::Request => true,
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        match *step {
            Step::Join { rise, fall } => model.servers.push(Server {
                rise,
                fall,
                wanted: Wanted::Enabled,
                observed: Observed::Checking,
                evidence: Vec::new(),
                epoch: 0,
                in_flight: 0,
            }),
            Step::Leave(server) => model.departed += model.servers.remove(server).in_flight,
            Step::Observe(server, evidence) => model.servers[server].observe(evidence),
            Step::ObserveLate(..) | Step::ObserveGone(_) => {}
            Step::Want(server, wanted) => model.servers[server].wanted = wanted,
            Step::Thresholds { server, rise, fall } => {
                let server = &mut model.servers[server];
                (server.rise, server.fall) = (rise, fall);
            }
            Step::Request => {
                for index in model.eligible() {
                    model.servers[index].in_flight += 1;
                }
            }
            Step::End(server) => model.servers[server].in_flight -= 1,
        }
        model
    }
}

/// The core, and the names that the model has for its servers.
struct Core {
    cluster: Cluster<()>,
    ids: Vec<ServerId>,
    gone: Vec<(ServerId, Arc<InFlight>)>,
}

impl Core {
    /// What a request finds out is to be probed at once if it changed anything, or
    /// may be about to.
    fn observe(&mut self, id: ServerId, epoch: u64, evidence: Evidence) -> Option<Transition> {
        let failure = match evidence {
            Evidence::Passed | Evidence::Failed => {
                return self.cluster.handle_probe(id, epoch, evidence == Evidence::Passed);
            }
            Evidence::Refused => ConnectFailure::Refused,
            Evidence::TimedOut => ConnectFailure::TimedOut,
        };
        let is_news = self.cluster.state(id).is_some_and(|(_, _, current)| current == epoch);
        let reaction = self.cluster.handle_connect_failure(id, epoch, failure);
        let times_out = is_news && evidence == Evidence::TimedOut;
        assert_eq!(reaction.probe_now, times_out || reaction.transition.is_some(), "{evidence:?}");
        reaction.transition
    }

    /// Deals to each of the eligible once; who they were, by place.
    fn deal_a_round(&self) -> Vec<usize> {
        let snapshot = self.cluster.snapshot();
        let deal = |_| match snapshot.pick() {
            Pick::Server(member) => {
                member.in_flight.begin();
                member.place
            }
            other => panic!("the present snapshot gives {other:?}"),
        };
        let mut dealt: Vec<usize> = (0..snapshot.members().len()).map(deal).collect();
        dealt.sort_unstable();
        dealt
    }
}

impl StateMachineTest for Core {
    type SystemUnderTest = Core;
    type Reference = Machine;

    fn init_test(model: &Model) -> Core {
        Core { cluster: Cluster::new(model.policy), ids: Vec::new(), gone: Vec::new() }
    }

    /// `model` is as it is after the step.
    fn apply(mut core: Core, model: &Model, step: Step) -> Core {
        let nonzero = |number| NonZeroU32::new(number).unwrap();
        let epoch_of = |core: &Core, server: usize| core.cluster.state(core.ids[server]).unwrap().2;
        match step {
            Step::Join { rise, fall } => {
                let thresholds = Thresholds { rise: nonzero(rise), fall: nonzero(fall) };
                core.ids.push(core.cluster.join(Arc::new(()), thresholds));
            }
            Step::Leave(server) => {
                let id = core.ids.remove(server);
                let state = core.cluster.states().find(|state| state.id == id).unwrap();
                core.gone.push((id, state.in_flight));
                core.cluster.leave(id);
            }
            Step::Observe(server, evidence) => {
                let epoch = epoch_of(&core, server);
                let before = core.cluster.state(core.ids[server]).unwrap().1;
                let change = core.observe(core.ids[server], epoch, evidence);
                let after = model.servers[server].observed;
                let told = change.map(|change| (change.from, change.to));
                assert_eq!(told, (before != after).then_some((before, after)), "{evidence:?}");
            }
            Step::ObserveLate(server, evidence) => {
                let epoch = epoch_of(&core, server) - 1;
                assert_eq!(core.observe(core.ids[server], epoch, evidence), None);
            }
            Step::ObserveGone(evidence) => {
                for (id, _) in core.gone.clone() {
                    (0..4).for_each(|epoch| assert_eq!(core.observe(id, epoch, evidence), None));
                }
            }
            Step::Want(server, wanted) => core.cluster.set_wanted(core.ids[server], wanted),
            Step::Thresholds { server, rise, fall } => {
                let mut slots: Vec<_> = core.cluster.slots().collect();
                slots[server].thresholds = Thresholds { rise: nonzero(rise), fall: nonzero(fall) };
                let ids = core.cluster.arrange(slots, Default::default(), model.policy);
                assert_eq!(ids, core.ids);
            }
            Step::Request => assert_eq!(core.deal_a_round(), model.eligible()),
            Step::End(server) => {
                let id = core.ids[server];
                let state = core.cluster.states().find(|state| state.id == id).unwrap();
                assert_eq!(state.in_flight.end(), model.servers[server].in_flight == 0);
            }
        }
        core
    }

    fn check_invariants(core: &Core, model: &Model) {
        let seen = core.cluster.states().map(|s| (s.id, s.wanted, s.observed, s.in_flight.get()));
        let servers = core.ids.iter().zip(&model.servers);
        let expected = servers.map(|(id, s)| (*id, s.wanted, s.observed, s.in_flight));
        assert!(seen.eq(expected), "{:?} is not as {model:?}", core.cluster);
        let dealt_to: Vec<_> = core.cluster.snapshot().members().iter().map(|m| m.place).collect();
        assert_eq!(dealt_to, model.eligible());
        let departed: u32 = core.gone.iter().map(|(_, in_flight)| in_flight.get()).sum();
        assert_eq!(departed, model.departed, "what a removed server has in flight");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn servers_are_what_the_evidence_and_the_operator_say(sequential 1..80 => Core);
}
