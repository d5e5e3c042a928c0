//! How far a run is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Sample, books::Totals, churn::Counts};

/// Without a terminal there is a line each so many samples.
const QUIET: usize = 10;

/// What whoever waits sees: a line that changes, or one now and then.
pub(super) struct Progress {
    bar: ProgressBar,
    samples: usize,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Progress { bar, samples: 0 }
    }

    pub(super) fn show(
        &mut self,
        time: Duration,
        sample: &Sample,
        totals: &Totals,
        counts: Counts,
    ) {
        let line = format!(
            "{:.0} of {} s: {} requests, {} errors, p99 {:.1} ms, {:.1} MiB, {} descriptors, {} in flight; {} kills, {} reloads, {} restarts",
            sample.seconds,
            time.as_secs(),
            totals.ledger.requests,
            totals.error_count + totals.violations.len(),
            sample.p99_ms,
            sample.resident_kib as f64 / 1024.0,
            sample.descriptors,
            sample.in_flight,
            counts.kills,
            counts.reloads,
            counts.restarts
        );
        if self.bar.is_hidden() && self.samples.is_multiple_of(QUIET) {
            eprintln!("{line}");
        }
        self.samples += 1;
        self.bar.set_message(line);
        self.bar.tick();
    }

    pub(super) fn print(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
