//! A plan drawn from a seed.
//!
//! Owns how likely what is. Topology, links, workload and faults come from
//! streams of their own, and each run leaves some kinds of faults out: what is
//! always there hides what is rare.

mod scenes;

use fastrand::Rng;

use super::{
    plan::{Balancer, Client, Fault, Network, Operation, Plan, Probe, Server, Way, What},
    random::{Stream, stream},
};

/// Kinds of operations, for leaving some out.
const KINDS: usize = 17;

/// How long there are faults; healing and the end take some ten seconds more.
const FAULTS_MS: u64 = 48_000;

/// How many operations a plan has at most.
const MOST: usize = 24;

/// Draws the plan of a seed.
pub(crate) fn draw(seed: u64) -> Plan {
    let mut topology = stream(seed, Stream::Topology, 0);
    let balancer = balancer(&mut topology);
    let servers = servers(&mut topology, &balancer);
    let network = network(&mut stream(seed, Stream::Links, 0));
    let clients = clients(&mut stream(seed, Stream::Workload, 0));
    let (faults_ms, operations) = (FAULTS_MS, Vec::new());
    let mut plan = Plan { seed, faults_ms, balancer, network, servers, clients, operations };
    plan.operations = self::operations(&mut stream(seed, Stream::Faults, 0), &plan);
    scenes::add(&mut stream(seed, Stream::Scenes, 0), &mut plan);
    plan
}

fn one_of<T: Copy>(random: &mut Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

fn balancer(random: &mut Rng) -> Balancer {
    let algorithms = [
        "round_robin",
        "round_robin",
        "round_robin",
        "least_connections",
        "two_choices",
        "random",
        "hash",
    ];
    let period_ms = one_of(random, &[500, 1000, 2000, 3000]);
    Balancer {
        algorithm: one_of(random, &algorithms).into(),
        period_ms,
        timeout_ms: one_of(random, &[200, 400, period_ms / 2, period_ms]).min(period_ms),
        rise: random.u32(1..=3),
        fall: random.u32(1..=3),
        connect_timeout_ms: one_of(random, &[500, 1000, 2000]),
        response_timeout_ms: one_of(random, &[1500, 3000, 5000]),
        drain_ms: one_of(random, &[500, 2000, 10_000]),
        fresh_posts: random.u8(..4) == 0,
    }
}

fn servers(random: &mut Rng, balancer: &Balancer) -> Vec<Server> {
    let count = random.usize(2..=5);
    let spares = random.usize(0..=1);
    let weighted = balancer.algorithm == "round_robin" && random.u8(..3) == 0;
    let server = |index: usize| Server {
        name: char::from(b'A' + index as u8).to_string(),
        weight: if weighted { random.u32(1..=3) } else { 1 },
        spare: index >= count,
    };
    (0..count + spares).map(server).collect()
}

fn network(random: &mut Rng) -> Network {
    Network {
        latency_ms: one_of(random, &[1, 1, 2, 5, 20]),
        jitter_ms: one_of(random, &[0, 0, 1, 3]),
        mtu: one_of(random, &[1500, 9000, 65_000]),
    }
}

fn clients(random: &mut Rng) -> Vec<Client> {
    let most = one_of(random, &[2, 6, 12]);
    let count = random.usize(1..=most);
    let client = |index: usize| Client {
        name: format!("c{}", index + 1),
        pause_ms: one_of(random, &[50, 200, 500, 1500, 6000]),
        posts: one_of(random, &[0, 20, 50]),
        body: one_of(random, &[0, 100, 4000, 30_000]),
        fresh: random.u8(..5) == 0,
    };
    (0..count).map(client).collect()
}

fn operations(random: &mut Rng, plan: &Plan) -> Vec<Operation> {
    let kinds: Vec<usize> = (0..KINDS).filter(|_| random.u8(..5) < 2).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = random.usize(1..=MOST);
    // Each from a stream of its own: dropping one moves no other.
    let mut operations: Vec<Operation> = (0..count)
        .flat_map(|_| {
            let mut random = random.fork();
            let kind = one_of(&mut random, &kinds);
            let operation = operation(&mut random, plan, kind);
            let twin = twin(&mut random, plan, &operation);
            [Some(operation), twin].into_iter().flatten()
        })
        .collect();
    operations.sort_by_key(|operation| operation.at_ms);
    without_clashes(operations)
}

/// Of those that clash only the first.
fn without_clashes(operations: Vec<Operation>) -> Vec<Operation> {
    let mut kept: Vec<Operation> = Vec::new();
    for operation in operations {
        if !kept.iter().any(|other| other.clashes_with(&operation)) {
            kept.push(operation);
        }
    }
    kept
}

fn operation(random: &mut Rng, plan: &Plan, kind: usize) -> Operation {
    let faults = plan.faults_ms;
    let at_ms = random.u64(0..faults * 9 / 10);
    let long = one_of(random, &[100, 600, 2500, 6000, 15_000]);
    let for_ms = random.u64(1..=long);
    let listed: Vec<&Server> = plan.servers.iter().filter(|server| !server.spare).collect();
    let server = listed[random.usize(..listed.len())].name.clone();
    let client = plan.clients[random.usize(..plan.clients.len())].name.clone();
    let host = if random.u8(..4) == 0 { client.clone() } else { server.clone() };
    let what = match kind {
        0 | 1 => What::Kill { server },
        2 => What::Stop { server },
        3 => What::BlackHole { server },
        4 => What::Health { server, answer: one_of(random, PROBES) },
        5 | 6 => What::Fault { server, fault: one_of(random, FAULTS) },
        7 => What::CloseIdle { server },
        8 => What::Partition { host, one_way: Way::No },
        9 => What::Partition { host, one_way: one_of(random, &[Way::FromLb, Way::ToLb]) },
        10 => What::Slow { host, latency_ms: one_of(random, &[50, 150, 400]) },
        11 => What::Lossy { host, loss: one_of(random, &[10, 100, 400]) },
        12 => What::Abort { client },
        13 if random.bool() => What::Drain { server },
        13 => What::Disable { server },
        14 => match plan.servers.iter().find(|server| server.spare) {
            Some(spare) if random.bool() => What::Add { server: spare.name.clone() },
            _ => What::Delete { server },
        },
        15 => What::Crash { server },
        _ => reload(random, plan, listed.len()),
    };
    let for_ms = if what.ends() { for_ms } else { 0 };
    Operation { at_ms, for_ms, what }
}

/// What spoils one server's answers sometimes spoils another's too: retries
/// then meet it again.
fn twin(random: &mut Rng, plan: &Plan, operation: &Operation) -> Option<Operation> {
    let What::Fault { server, fault } = &operation.what else { return None };
    let others: Vec<&Server> = plan.servers.iter().filter(|other| other.name != *server).collect();
    let other = others[random.usize(..others.len())].name.clone();
    let what = What::Fault { server: other, fault: *fault };
    random.bool().then(|| Operation { what, ..operation.clone() })
}

fn reload(random: &mut Rng, plan: &Plan, listed: usize) -> What {
    let balancer = &plan.balancer;
    let same: Vec<u32> =
        plan.servers.iter().filter(|server| !server.spare).map(|server| server.weight).collect();
    let weights = match random.bool() {
        true => same,
        false => (0..listed).map(|_| random.u32(1..=3)).collect(),
    };
    What::Reload {
        period_ms: one_of(random, &[balancer.period_ms, balancer.period_ms * 2]),
        rise: one_of(random, &[balancer.rise, 1, 2]),
        fall: one_of(random, &[balancer.fall, 1, 2]),
        weights,
    }
}

const PROBES: &[Probe] = &[
    Probe::Unhealthy,
    Probe::Unhealthy,
    Probe::Redirect,
    Probe::Hang,
    Probe::Close,
    Probe::Reset,
    Probe::Garbage,
];

const FAULTS: &[Fault] = &[
    Fault::Unavailable,
    Fault::Delay,
    Fault::Hang,
    Fault::ResetAfterRequest,
    Fault::CloseAfterRequest,
    Fault::ResetOnAccept,
    Fault::ResetAfterHead,
    Fault::ResetMidBody,
    Fault::Truncate,
    Fault::CloseAfterAnswer,
    Fault::CloseWhenNext,
    Fault::NoKeepAlive,
    Fault::HalfClose,
    Fault::Drip,
    Fault::Garbage,
    Fault::ExtraBytes,
];
