//! What `lb` believed, from its log: the state of each server at any time.
//!
//! Owns the reading of `lb`'s lines and who is eligible by them. Judges
//! nothing.

use std::{collections::BTreeMap, time::Duration};

use testbed::log::{Event, EventKind};

use super::{
    config::{Check, listed},
    operations::Done,
    plan::{Plan, What},
    requests::word,
};

/// What `lb` believes of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Belief {
    /// Whether it is configured.
    pub(crate) present: bool,
    /// `enabled`, `draining`, `disabled`.
    pub(crate) wanted: String,
    /// `checking`, `up`, `suspect`, `down`.
    pub(crate) observed: String,
    /// Its share.
    pub(crate) weight: u32,
}

/// Something that `lb` said of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A probe's result, and how long it took.
    Probe { passed: bool, took: Duration },
    /// A change of what is observed.
    Became { from: String, to: String, cause: String },
    /// It was added, removed, drained or enabled.
    Wanted { to: String },
    /// A removed server has nothing in flight any more.
    Drained,
    /// A removed server's time to finish was over.
    CutOff,
}

/// A line of `lb`'s, understood: the server's position, and what is said.
pub(crate) fn heard(plan: &Plan, event: &Event) -> Option<(usize, Said)> {
    let EventKind::Output { line, .. } = &event.kind else { return None };
    let server = plan.server(word(line, "server=")?)?;
    if let Some(result) = word(line, " probe=").filter(|_| line.starts_with("DEBUG")) {
        let took = word(line, "latency_ms=")?.parse::<f64>().ok()?;
        let took = Duration::from_secs_f64(took / 1e3);
        return Some((server, Said::Probe { passed: result == "passed", took }));
    }
    if line.ends_with(" drained") {
        return Some((server, Said::Drained));
    }
    if line.contains(" cut off ") {
        return Some((server, Said::CutOff));
    }
    let (from, to) = (word(line, " from=")?.to_owned(), word(line, " to=")?.to_owned());
    let states = ["checking", "up", "suspect", "down"];
    let said = match states.contains(&to.as_str()) {
        true => {
            let cause = line.split("cause=\"").nth(1)?.split('"').next()?.to_owned();
            Said::Became { from, to, cause }
        }
        false if ["enabled", "draining", "disabled", "removed"].contains(&to.as_str()) => {
            Said::Wanted { to }
        }
        false => return None,
    };
    Some((server, said))
}

/// `lb`'s beliefs as the log is read.
pub(crate) struct View {
    /// In the plan's order.
    pub(crate) servers: Vec<Belief>,
    /// Configuration order.
    order: Vec<usize>,
    /// The servers to which requests are dealt.
    pub(crate) eligible: Vec<usize>,
    /// How servers are probed.
    pub(crate) check: Check,
    /// Operations that change the configuration, by the event before them.
    changes: BTreeMap<u64, What>,
}

impl View {
    /// Before the first event.
    pub(crate) fn new(plan: &Plan, done: &[Done]) -> View {
        let belief = |server: &super::plan::Server| Belief {
            present: !server.spare,
            wanted: "enabled".into(),
            observed: "checking".into(),
            weight: server.weight,
        };
        let reloads =
            done.iter().map(|done| (done.seq, plan.operations[done.operation].what.clone()));
        let mut view = View {
            servers: plan.servers.iter().map(belief).collect(),
            order: listed(plan).collect(),
            eligible: Vec::new(),
            check: Check::first(plan),
            changes: reloads.filter(|(_, what)| matches!(what, What::Reload { .. })).collect(),
        };
        view.settle();
        view
    }

    /// Takes the next event; whether it changed who is dealt to, or how.
    pub(crate) fn read(&mut self, plan: &Plan, event: &Event) -> bool {
        if let Some(what) = self.changes.remove(&event.seq) {
            self.reload(plan, &what);
            return true;
        }
        let Some((server, said)) = heard(plan, event) else { return false };
        let before = self.places();
        match said {
            Said::Became { to, .. } => self.servers[server].observed = to,
            Said::Wanted { to } if to == "removed" => {
                self.servers[server].present = false;
                self.order.retain(|other| *other != server);
            }
            Said::Wanted { to } => {
                let belief = &mut self.servers[server];
                if !belief.present {
                    belief.present = true;
                    belief.observed = "checking".into();
                    belief.weight = plan.servers[server].weight;
                    self.order.push(server);
                }
                self.servers[server].wanted = to;
            }
            _ => return false,
        }
        self.settle();
        before != self.places()
    }

    /// The servers that get requests, and their places in configuration order:
    /// where those change the weights begin a new period.
    fn places(&self) -> Vec<(usize, Option<usize>)> {
        let place = |server: &usize| self.order.iter().position(|other| other == server);
        self.eligible.iter().map(|server| (*server, place(server))).collect()
    }

    /// The servers that get requests, in configuration order, each with its
    /// weight.
    pub(crate) fn dealt_to(&self) -> Vec<(usize, u32)> {
        self.eligible.iter().map(|server| (*server, self.servers[*server].weight)).collect()
    }

    fn reload(&mut self, plan: &Plan, what: &What) {
        let What::Reload { weights, .. } = what else { return };
        self.check.after(what);
        self.order = listed(plan).collect();
        for (server, weight) in listed(plan).zip(weights) {
            let belief = &mut self.servers[server];
            belief.weight = *weight;
            if !belief.present {
                belief.present = true;
                belief.observed = "checking".into();
                belief.wanted = "enabled".into();
            }
        }
        for (belief, server) in self.servers.iter_mut().zip(&plan.servers) {
            belief.present &= !server.spare;
        }
        self.settle();
    }

    /// Filter first: those that are up, or if none is, the suspects.
    fn settle(&mut self) {
        let pass = |observed: &str| {
            let passes = |server: &&usize| {
                let belief = &self.servers[**server];
                belief.wanted == "enabled" && belief.observed == observed && belief.weight > 0
            };
            self.order.iter().filter(passes).copied().collect::<Vec<_>>()
        };
        let up = pass("up");
        self.eligible = if up.is_empty() { pass("suspect") } else { up };
    }
}
