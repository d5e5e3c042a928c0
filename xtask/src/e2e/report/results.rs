//! A run in words and numbers, as all reports have it.

use std::{
    collections::HashMap,
    fmt,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::run::{Run, VerdictName, rounded};
use crate::e2e::runner::Outcome;

/// A whole run of the end-to-end suite.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Results {
    /// What was judged.
    pub(crate) target: Target,
    /// When it began, in RFC 3339.
    pub(crate) began: String,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// How many runs ended how.
    pub(crate) totals: Totals,
    /// The runs, in the order of the catalogue.
    pub(crate) runs: Vec<Run>,
}

/// What was judged.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// What it says of itself; empty if it says nothing.
    pub(crate) version: String,
    /// Where it was judged.
    pub(crate) world: WorldName,
}

/// Where a balancer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorldName {
    /// Our program, on real sockets.
    Local,
    /// Ours in process, in virtual time over a simulated network.
    Sim,
    /// Another balancer, on real sockets.
    Target,
}

impl WorldName {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            WorldName::Local => "local",
            WorldName::Sim => "sim",
            WorldName::Target => "target",
        }
    }
}

/// How many runs ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Totals {
    /// Those that do what is asserted.
    pub(crate) passed: usize,
    /// Those that count as failures, stale expectations included.
    pub(crate) failed: usize,
    /// Those that were not judged.
    pub(crate) skipped: usize,
    /// Those whose failure the target is known for.
    pub(crate) failed_as_expected: usize,
}

impl Results {
    /// What came of the run that began at `began`: `outcomes` in the order of
    /// the catalogue, runs of a scenario one after the other. With `flags` the
    /// run is repeated.
    pub(crate) fn of(
        target: Target,
        began: SystemTime,
        took: Duration,
        outcomes: &[Outcome],
        flags: &str,
    ) -> Self {
        let mut counts = HashMap::new();
        for outcome in outcomes {
            *counts.entry(outcome.scenario.full_name()).or_insert(0) += 1;
        }
        let mut runs: Vec<Run> = Vec::new();
        for outcome in outcomes {
            let mut run = Run::of(outcome, flags);
            run.runs = counts.get(&run.full_name()).copied().unwrap_or(1);
            run.run = match runs.last() {
                Some(last) if last.full_name() == run.full_name() => last.run + 1,
                _ => 1,
            };
            runs.push(run);
        }
        Results {
            target,
            began: humantime::format_rfc3339_seconds(began).to_string(),
            seconds: rounded(took),
            totals: Totals::of(&runs),
            runs,
        }
    }

    /// The runs that count as failures.
    pub(crate) fn bad(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.verdict.is_bad())
    }

    /// 0 good, 1 failures, 3 a broken scenario.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.bad().any(|run| run.verdict == VerdictName::HarnessError) {
            true => 3,
            false => u8::from(self.totals.failed > 0),
        }
    }
}

impl Target {
    /// Another balancer: `name` at `version`.
    pub(crate) fn named(name: &str, version: &str) -> Self {
        let world = WorldName::Target;
        Target { name: name.to_owned(), version: version.to_owned(), world }
    }

    /// Our own in process.
    pub(crate) fn simulated() -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Target { name: "lb".into(), version, world: WorldName::Sim }
    }

    /// Our program `name`, at the version that the first line of `program --version` says.
    pub(crate) fn of(name: &str, program: &std::path::Path) -> Self {
        let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        let said = asked.ok().filter(|output| output.status.success());
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let line = said.as_deref().and_then(|text| text.lines().next()).unwrap_or_default();
        let version = line.strip_prefix(name).unwrap_or(line).trim().to_owned();
        Target { name: name.to_owned(), version, world: WorldName::Local }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format!("{} {}", self.name, self.version).trim_end())
    }
}

impl Totals {
    fn of(runs: &[Run]) -> Self {
        let count =
            |which: fn(VerdictName) -> bool| runs.iter().filter(|run| which(run.verdict)).count();
        Totals {
            passed: count(|verdict| verdict == VerdictName::Pass),
            failed: count(VerdictName::is_bad),
            skipped: count(|verdict| verdict == VerdictName::Skip),
            failed_as_expected: count(|verdict| verdict == VerdictName::ExpectedFail),
        }
    }
}

/// The closing line.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { passed, failed, skipped, failed_as_expected } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")?;
        match failed_as_expected {
            0 => Ok(()),
            some => write!(f, ", {some} failed as expected"),
        }
    }
}
