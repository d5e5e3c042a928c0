//! All that a run found out, as it goes to JSON.

use std::fs;

use serde::Serialize;

use super::{
    cores::Cores,
    figures::{Figures, Ratios},
    targets::{Program, Target},
    workloads::Workload,
};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// Where it was.
    pub(crate) machine: Machine,
    /// The targets that were measured.
    pub(crate) targets: Vec<Version>,
    /// Those that are not installed.
    pub(crate) missing: Vec<&'static str>,
    /// How long the load lasted in a round, in seconds.
    pub(crate) seconds: u64,
    /// A workload each.
    pub(crate) workloads: Vec<OfWorkload>,
}

/// Where a run was.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// How many cores there are.
    pub(crate) cores: usize,
    /// The processor's name.
    pub(crate) processor: String,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// Whether proxies and load had cores of their own.
    pub(crate) pinned: bool,
}

/// A target's version.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it says of itself.
    pub(crate) version: String,
}

/// What a workload found out.
#[derive(Debug, Serialize)]
pub(crate) struct OfWorkload {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is, in a line.
    pub(crate) what: String,
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Servers behind each target.
    pub(crate) servers: u32,
    /// A target each.
    pub(crate) targets: Vec<OfTarget>,
}

/// What a workload found out about a target.
#[derive(Debug, Serialize)]
pub(crate) struct OfTarget {
    /// The target's name.
    pub(crate) name: &'static str,
    /// Medians.
    pub(crate) median: Figures,
    /// What `lb` needs or does for one of this peer's.
    pub(crate) lb_to_it: Option<Ratios>,
    /// What the medians are of.
    pub(crate) rounds: Vec<Figures>,
}

impl Machine {
    /// This one.
    pub(crate) fn this(cores: Option<Cores>) -> Machine {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = processors.lines().find(|line| line.starts_with("model name"));
        let name = name.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: name.unwrap_or("unknown").to_owned(),
            kernel: kernel.trim().to_owned(),
            pinned: cores.is_some(),
        }
    }
}

impl From<&Program> for Version {
    fn from(program: &Program) -> Version {
        Version { name: program.target.name(), version: program.version.clone() }
    }
}

impl OfWorkload {
    /// From the figures of each target in each round.
    pub(crate) fn new(workload: Workload, rounds: Vec<(Target, Vec<Figures>)>) -> OfWorkload {
        let lb = rounds.iter().find(|(target, _)| *target == Target::Lb);
        let lb = lb.map(|(_, rounds)| rounds.clone());
        let of_target = |(target, rounds): (Target, Vec<Figures>)| OfTarget {
            name: target.name(),
            median: Figures::median(&rounds),
            lb_to_it: (lb.as_ref().filter(|_| target != Target::Lb))
                .map(|lb| Ratios::of(lb, &rounds)),
            rounds,
        };
        OfWorkload {
            name: workload.name(),
            what: workload.what(),
            connections: workload.load().connections(),
            servers: workload.servers(),
            targets: rounds.into_iter().map(of_target).collect(),
        }
    }
}

impl Results {
    /// Requests through `lb` that failed.
    pub(crate) fn errors_of_lb(&self) -> u64 {
        let targets = self.workloads.iter().flat_map(|workload| &workload.targets);
        targets.filter(|t| t.name == Target::Lb.name()).map(|t| t.median.errors).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::figures::tests::figures;

    /// A run of `lb` and nginx.
    pub(crate) fn results() -> Results {
        let rounds = vec![(Target::Lb, vec![figures(12.0)]), (Target::Nginx, vec![figures(10.0)])];
        Results {
            machine: Machine::this(None),
            targets: vec![Version { name: "lb", version: "<1>".into() }],
            missing: vec!["caddy"],
            seconds: 3,
            workloads: vec![OfWorkload::new(Workload::Small32, rounds)],
        }
    }

    #[test]
    fn peers_have_ratios_and_lb_has_none() {
        let results = results();
        let targets = &results.workloads[0].targets;
        assert_eq!(targets[0].lb_to_it, None);
        assert_eq!(targets[1].lb_to_it.unwrap().cpu, 1.2);
        assert_eq!(results.errors_of_lb(), 1);
        assert!(serde_json::to_string(&results).unwrap().contains("\"cpu\":1.2"));
    }
}
