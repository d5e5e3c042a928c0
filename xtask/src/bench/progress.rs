//! What whoever waits sees: a bar on a terminal, lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

use super::{figures::Figures, workloads::Workload};

/// How far the run is.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many rounds, over all workloads and targets.
    pub(crate) fn new(rounds: usize) -> Progress {
        let bar = ProgressBar::new(rounds as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Progress(bar)
    }

    /// One more round of a target is over.
    pub(crate) fn measured(
        &self,
        workload: Workload,
        round: usize,
        target: &str,
        figures: &Figures,
    ) {
        let Figures { cpu_us_per_request: cpu, requests_per_second: rate, errors, .. } = figures;
        let line = format!(
            "{} round {}: {target} {cpu:.1} µs a request, {rate:.0}/s, {errors} errors",
            workload.name(),
            round + 1
        );
        if self.0.is_hidden() {
            eprintln!("{line}");
        }
        self.0.set_message(line);
        self.0.inc(1);
    }

    /// Prints `text` for good.
    pub(crate) fn print(&self, text: &str) {
        self.0.suspend(|| println!("{text}"));
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
