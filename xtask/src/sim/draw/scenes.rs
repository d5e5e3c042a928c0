//! What has to break together for something rare to happen.
//!
//! Owns these few combinations; single faults are [`super`]'s. They have a stream
//! of their own: a plan with a scene is otherwise the plan that it would be
//! without.

use fastrand::Rng;

use super::{one_of, without_clashes};
use crate::sim::plan::{Client, Fault, Operation, Plan, Probe, What};

/// From this many clients on, requests of a storm are in flight at one time.
const CROWD: usize = 12;

/// Adds a scene to not quite every other plan.
pub(super) fn add(random: &mut Rng, plan: &mut Plan) {
    let scene = match random.u8(..9) {
        0 => storm(random, plan),
        1 => removed_amid_a_probe(random, plan),
        2 => restarts(random, plan),
        3 => outage(random, plan),
        _ => return,
    };
    let mut operations = std::mem::take(&mut plan.operations);
    operations.extend(scene);
    operations.sort_by_key(|operation| operation.at_ms);
    plan.operations = without_clashes(operations);
}

fn somebody(random: &mut Rng, plan: &Plan) -> String {
    let listed: Vec<_> = plan.servers.iter().filter(|server| !server.spare).collect();
    listed[random.usize(..listed.len())].name.clone()
}

/// One server answers nobody, and the others take their time: many retries are
/// under way at once.
fn storm(random: &mut Rng, plan: &mut Plan) -> Vec<Operation> {
    for number in plan.clients.len() + 1..=CROWD {
        let name = format!("c{number}");
        plan.clients.push(Client { name, pause_ms: 200, posts: 0, body: 100, fresh: false });
    }
    let at_ms = random.u64(0..plan.faults_ms * 8 / 10);
    let for_ms = random.u64(3000..8000);
    let broken = somebody(random, plan);
    let faults =
        [Fault::CloseAfterRequest, Fault::ResetAfterRequest, Fault::ResetAfterHead, Fault::Hang];
    let fault = one_of(random, &faults);
    let servers = plan.servers.iter().map(|server| server.name.clone());
    let one = |server: String| {
        let fault = if server == broken { fault } else { Fault::Delay };
        Operation { at_ms, for_ms, what: What::Fault { server, fault } }
    };
    servers.map(one).collect()
}

/// All servers take requests and answer none: what is tried again is so to the end.
fn outage(random: &mut Rng, plan: &Plan) -> Vec<Operation> {
    let at_ms = random.u64(0..plan.faults_ms * 8 / 10);
    let for_ms = random.u64(1000..4000);
    let fault = one_of(random, &[Fault::CloseAfterRequest, Fault::ResetAfterRequest]);
    let servers = plan.servers.iter().map(|server| server.name.clone());
    let one = |server| Operation { at_ms, for_ms, what: What::Fault { server, fault } };
    servers.map(one).collect()
}

/// A server hangs, is removed while a probe waits for it, and comes back well
/// before that probe is over.
fn removed_amid_a_probe(random: &mut Rng, plan: &mut Plan) -> Vec<Operation> {
    let server = somebody(random, plan);
    let period = plan.balancer.period_ms;
    let at_ms = random.u64(0..plan.faults_ms * 8 / 10);
    let hang = What::Health { server: server.clone(), answer: Probe::Hang };
    let removed = at_ms + period + random.u64(..period);
    vec![
        Operation { at_ms, for_ms: period * 3, what: hang },
        Operation {
            at_ms: removed.min(plan.faults_ms - 1),
            for_ms: random.u64(1..=plan.balancer.timeout_ms),
            what: What::Delete { server },
        },
    ]
}

/// A server is killed again and again, and is there again at once.
fn restarts(random: &mut Rng, plan: &mut Plan) -> Vec<Operation> {
    let server = somebody(random, plan);
    let mut at_ms = random.u64(0..plan.faults_ms / 2);
    let mut one = || {
        at_ms += random.u64(500..3000);
        let for_ms = random.u64(10..300);
        Operation { at_ms, for_ms, what: What::Kill { server: server.clone() } }
    };
    (0..6).map(|_| one()).collect()
}
