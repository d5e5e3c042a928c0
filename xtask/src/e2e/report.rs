//! What the terminal or the pipeline's log shows.

use std::{process::ExitCode, sync::Mutex};

use indicatif::{ProgressBar, ProgressStyle};

use super::runner::{Clock, Outcome, Scenario};

/// Prints the scenarios, one a line.
pub(crate) fn list(scenarios: &[&Scenario]) {
    for scenario in scenarios {
        let clock = match scenario.clock {
            Clock::Events => "events",
            Clock::Quiescence => "quiescence",
            Clock::Wall => "wall",
        };
        let name = scenario.full_name();
        println!("{:>3}  {name:<44} {clock:<11} {}", scenario.number, scenario.asserts);
    }
}

/// A bar on a terminal, a line for each run elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    failed: Mutex<u64>,
}

impl Progress {
    pub(crate) fn new(runs: u64) -> Self {
        let bar = ProgressBar::new(runs);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Progress { bar, failed: Mutex::new(0) }
    }

    /// One more run is over.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        let name = outcome.scenario.full_name();
        let took = outcome.took.as_secs_f64();
        if outcome.failure.is_some() {
            let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *failed += 1;
            self.say(&format!("FAIL {name} ({took:.2} s)"));
        } else if self.bar.is_hidden() {
            println!("pass {name} ({took:.2} s)");
        }
        self.bar.set_message(name);
        self.bar.inc(1);
    }

    fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            println!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints each failure with what shows it and the command that repeats it,
/// then the closing line.
pub(crate) fn close(outcomes: &[Outcome], flags: &str) -> ExitCode {
    for outcome in outcomes {
        let Some(failure) = &outcome.failure else { continue };
        let name = outcome.scenario.full_name();
        println!("\n--- {name}: {}", outcome.scenario.asserts);
        println!("{}", failure.message);
        println!("\nthe last events:\n{}", failure.events);
        println!("\nthe balancer's last lines:\n{}", failure.balancer);
        println!("\nto repeat it: cargo xtask e2e --filter {name}{flags}");
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    println!("{} passed, {failed} failed, 0 skipped", outcomes.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
