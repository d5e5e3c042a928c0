//! `cargo xtask soak`: does `lb` keep its promises for as long as it runs?
//!
//! The real program stands under load for minutes or days, while its servers are
//! killed and misbehave, its configuration is changed in every way, and it is
//! itself replaced by another on the same listening socket. Every request is in
//! the ledger; memory, descriptors, threads and requests in flight are watched.
//!
//! Reading order: `run` with `progress` (the course), `churn` (what happens),
//! `servers` and `service` (to whom), `clients` (the load), `disruptions` and
//! `books` (what is an error), `verdict` with `trend`, `report` with `plot`.

mod books;
mod churn;
mod clients;
mod disruptions;
mod plot;
mod progress;
mod report;
mod run;
mod servers;
mod service;
mod trend;
mod verdict;

use std::{fs::File, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use testbed::process::raise_descriptor_limit;

use crate::programs;
use books::{Seen, Totals};
use churn::{Counts, Plan};
use report::Report;
use run::{insisted, observe};
use service::Look;

/// What to run, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how long; memory is judged from six minutes behind the restarts on.
    #[arg(long, value_name = "N", default_value = "30", value_parser = minutes)]
    minutes: f64,
    /// How many clients there are.
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// How often a server is killed with SIGKILL, evenly spread.
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u16,
    /// How often the configuration file is changed and SIGHUP sent.
    #[arg(long, value_name = "N", default_value_t = 100)]
    reloads: u16,
    /// How often another `lb` takes over on the listening socket, in the first
    /// third of the time.
    #[arg(long, value_name = "N", default_value_t = 20)]
    restarts: u16,
    /// What happens when follows from it.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Watch the unoptimised build.
    #[arg(long, conflicts_with = "lb")]
    dev: bool,
    /// Watch this `lb` program instead of building one.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    /// Write a page with the figures over time.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write all figures.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=100_000.0).contains(minutes));
    minutes.ok_or_else(|| "expected 0.1 to 100000".into())
}

/// One look at the run, about once a second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sample {
    /// Since the load began.
    seconds: f64,
    /// Which balancer was in service, from 1.
    life: usize,
    /// What is resident.
    resident_kib: u64,
    /// What of it is in no file: heap and stacks.
    heap_kib: u64,
    descriptors: usize,
    threads: usize,
    in_flight: u64,
    /// Of clients.
    connections: u64,
    /// Answers of 2xx that the balancer has counted.
    counted: u64,
    /// What clients had seen before it was asked, and after.
    seen: [Seen; 2],
    /// Small GETs on kept connections that were answered since the look before.
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// What was seen in a run.
struct Evidence {
    plan: Plan,
    clients: usize,
    counts: Counts,
    totals: Totals,
    samples: Vec<Sample>,
    /// The first balancer before its first request.
    before: Option<Look>,
    /// The last one when all is over.
    after: Option<Look>,
    /// What broke by itself.
    failures: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The programs cannot be built, or the reports not be written; what is broken is
/// an exit code.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let [html, json] = [&options.html, &options.json].map(create);
    let (html, json) = (html?, json?);
    if let Some(lb) = options.lb.as_ref().filter(|lb| !lb.is_file()) {
        eprintln!("error: there is no program {}", lb.display());
        return Ok(ExitCode::from(2));
    }
    let mut programs = programs::build(!options.dev)?;
    if let Some(lb) = &options.lb {
        programs.lb = lb.canonicalize()?;
    }
    raise_descriptor_limit();
    let evidence = tokio::select! {
        evidence = observe(&options, &programs.lb, &programs.be) => evidence?,
        why = insisted() => bail!("{why} twice"),
    };
    let checks = verdict::judge(&evidence);
    let report = Report::new(options.command(), &evidence, &checks);
    for check in &checks {
        println!("{:<6} {}: {}", report::mark(check).1, check.what, check.seen);
    }
    evidence.totals.errors.iter().for_each(|error| println!("  {error}"));
    for (why, count) in &evidence.totals.excused {
        println!("excused {count}: {why}");
    }
    if let Some(mut file) = html {
        file.write_all(report.html().as_bytes()).context("cannot write the page")?;
    }
    if let Some(mut file) = json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        file.write_all(text.as_bytes()).context("cannot write the JSON")?;
    }
    if report::holds(&checks) {
        return Ok(ExitCode::SUCCESS);
    }
    println!("again: {}", options.command());
    Ok(ExitCode::FAILURE)
}

/// The file, before anything is run for it.
fn create(path: &Option<PathBuf>) -> Result<Option<File>> {
    let create = |path: &PathBuf| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    path.as_ref().map(create).transpose()
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            time: Duration::from_secs_f64(60.0 * self.minutes),
            kills: self.kills.into(),
            reloads: self.reloads.into(),
            restarts: self.restarts.into(),
        }
    }

    /// What runs the same again.
    fn command(&self) -> String {
        let Options { minutes, clients, kills, reloads, restarts, seed, .. } = self;
        let mut command = format!(
            "cargo xtask soak --minutes {minutes} --clients {clients} --kills {kills} \
             --reloads {reloads} --restarts {restarts} --seed {seed}"
        );
        if self.dev {
            command.push_str(" --dev");
        }
        if let Some(file) = &self.lb {
            command.push_str(&format!(" --lb {}", shell_words::quote(&file.to_string_lossy())));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use testbed::ledger::Summary;

    use super::*;

    /// A good run of half an hour.
    pub(super) fn evidence() -> Evidence {
        let mut random = Rng::with_seed(1);
        let sample = |second: u32| Sample {
            seconds: second.into(),
            life: 1,
            resident_kib: 21_000,
            heap_kib: 20_000 + random.u64(0..1000),
            descriptors: 60,
            threads: 5,
            in_flight: 7,
            connections: 12,
            counted: 100 * u64::from(second),
            seen: [Seen { answered: 100 * u64::from(second), failed: 0 }; 2],
            requests_per_second: 100.0,
            p50_ms: 1.0,
            p99_ms: 5.0,
        };
        let time = Duration::from_secs(1800);
        let seen = Seen { answered: 180_000, failed: 0 };
        let look = Look {
            life: 1,
            descriptors: 20,
            threads: 5,
            counted: seen.answered,
            ..Look::default()
        };
        Evidence {
            plan: Plan { seed: 1, time, kills: 3, reloads: 2, restarts: 1 },
            clients: 14,
            counts: Counts { kills: 3, reloads: 2, restarts: 1, ..Counts::default() },
            totals: Totals {
                ledger: Summary { requests: 10, answered: 10, ..Summary::default() },
                seen,
                ..Totals::default()
            },
            samples: (0..1800).map(sample).collect(),
            before: Some(look),
            after: Some(look),
            failures: Vec::new(),
        }
    }
}
