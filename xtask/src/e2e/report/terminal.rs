//! What the terminal or the pipeline's log shows.

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Results,
    run::{ClockName, VerdictName},
};
use crate::e2e::runner::{Outcome, Scenario};

/// Where people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Stdout,
    /// A report has standard output.
    Stderr,
}

impl Out {
    /// Prints a line.
    pub(crate) fn line(self, text: &str) {
        match self {
            Out::Stdout => println!("{text}"),
            Out::Stderr => eprintln!("{text}"),
        }
    }
}

/// Prints the scenarios, one a line.
pub(crate) fn list(scenarios: &[&Scenario]) {
    for scenario in scenarios {
        let clock = match ClockName::from(scenario.clock) {
            ClockName::Events => "events",
            ClockName::Quiescence => "quiescence",
            ClockName::Wall => "wall",
            ClockName::Statistics => "statistics",
        };
        let name = scenario.full_name();
        let worlds = if scenario.simulated { "local,sim" } else { "local" };
        let (number, asserts) = (scenario.number, scenario.asserts);
        println!("{number:>3}  {name:<44} {worlds:<10} {clock:<11} {asserts}");
    }
}

/// A bar on a terminal, a line for each run elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    out: Out,
}

impl Progress {
    pub(crate) fn new(runs: u64, out: Out) -> Self {
        let bar = ProgressBar::new(runs);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Progress { bar, out }
    }

    /// One more run is over.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        let name = outcome.scenario.full_name();
        let verdict = VerdictName::from(&outcome.verdict);
        let reason = outcome.verdict.reason().map(|reason| format!(": {reason}"));
        let (word, took) = (verdict.word(), outcome.took.as_secs_f64());
        let line = format!("{word} {name} ({took:.2} s){}", reason.unwrap_or_default());
        if self.bar.is_hidden() {
            self.out.line(&line);
        } else if verdict.is_bad() {
            self.bar.println(line);
        }
        self.bar.set_message(name);
        self.bar.inc(1);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints each failure with what shows it and the command that repeats it.
pub(super) fn failures(results: &Results, out: Out) {
    for run in results.bad() {
        out.line(&format!("\n--- {}: {}", run.title(), run.asserts));
        let texts = [run.message.as_deref(), run.reason.as_deref()];
        out.line(&texts.into_iter().flatten().collect::<Vec<_>>().join(": "));
        if let Some(matters) = run.matters {
            out.line(&format!("why it matters: {matters}"));
        }
        if run.events.is_empty() {
            out.line(&format!("\nto repeat it: {}", run.repeat_with));
        } else {
            out.line(&format!("\n{}", run.evidence()));
        }
    }
}
