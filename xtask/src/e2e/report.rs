//! What the terminal or the pipeline's log shows.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use super::runner::{Clock, Outcome, Scenario, Verdict};

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
}

impl Progress {
    pub(crate) fn new(runs: u64) -> Self {
        let bar = ProgressBar::new(runs);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// One more run is over.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        let name = outcome.scenario.full_name();
        let (word, took) = (outcome.verdict.word(), outcome.took.as_secs_f64());
        let reason = outcome.verdict.reason().map(|reason| format!(": {reason}"));
        let line = format!("{word} {name} ({took:.2} s){}", reason.unwrap_or_default());
        if self.bar.is_hidden() {
            println!("{line}");
        } else if outcome.verdict.is_bad() {
            self.bar.println(line);
        }
        self.bar.set_message(name);
        self.bar.inc(1);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints each failure with what shows it and the command that repeats it,
/// then the closing line.
pub(crate) fn close(outcomes: &[Outcome], flags: &str) -> ExitCode {
    for outcome in outcomes.iter().filter(|outcome| outcome.verdict.is_bad()) {
        let name = outcome.scenario.full_name();
        println!("\n--- {name}: {}", outcome.scenario.asserts);
        match &outcome.verdict {
            Verdict::StaleExpectation(reason) => {
                println!("it does this, though the target is known not to: {reason}");
            }
            verdict => {
                let Some(failure) = verdict.failure() else { continue };
                println!("{}", failure.message);
                if let Some(matters) = outcome.scenario.matters() {
                    println!("why it matters: {matters}");
                }
                println!("\nthe last events:\n{}", outcome.log.tail(40));
                println!("\nthe balancer's last lines:\n{}", failure.balancer);
            }
        }
        println!("\nto repeat it: cargo xtask e2e --filter {name}{flags}");
    }
    println!("{}", totals(outcomes));
    if outcomes.iter().any(|outcome| outcome.verdict.is_bad()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// `N passed, N failed, N skipped`.
fn totals(outcomes: &[Outcome]) -> String {
    let count = |which: fn(&Verdict) -> bool| {
        outcomes.iter().filter(|outcome| which(&outcome.verdict)).count()
    };
    let passed = count(|verdict| matches!(verdict, Verdict::Pass));
    let skipped = count(|verdict| matches!(verdict, Verdict::Skip(_)));
    let expected = count(|verdict| matches!(verdict, Verdict::ExpectedFail(..)));
    let mut line = format!("{passed} passed, {} failed, {skipped} skipped", count(Verdict::is_bad));
    if expected > 0 {
        line.push_str(&format!(", {expected} failed as expected"));
    }
    line
}
