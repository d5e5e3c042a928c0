//! `cargo xtask e2e`: choose scenarios, run them in parallel, report.

mod balancer;
mod report;
mod runner;
mod world;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Instant, SystemTime},
};

use anyhow::Result;
use clap::Args;

use crate::programs;

use report::{Reports, Results, Target};

pub(crate) use balancer::Balancer;
pub(crate) use runner::{Clock, Scenario};
pub(crate) use world::World;

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// List the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Only scenarios whose name contains this text, or whose catalogue number
    /// it is; repeat it for more.
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Run each scenario so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run so many scenarios at a time [default: twice the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Judge the optimised build.
    #[arg(long)]
    release: bool,
    /// Judge this `lb` program instead of building one.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    #[command(flatten)]
    reports: report::Files,
}

/// Runs the command over the scenarios `all`.
///
/// # Errors
/// The harness itself fails; failed scenarios are an exit code.
#[allow(clippy::disallowed_methods, reason = "when a run was and how long, for whoever reads it")]
pub(crate) async fn run(
    options: Options,
    all: impl Iterator<Item = &'static Scenario>,
) -> Result<ExitCode> {
    if options.reports.json_schema {
        print!("{}", report::schema());
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(all, &options.filter);
    if chosen.is_empty() {
        eprintln!("error: no scenario matches; --list shows them all");
        return Ok(ExitCode::from(2));
    }
    if options.list {
        report::list(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    let reports = match Reports::open(&options.reports) {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut programs = programs::build(options.release)?;
    let mut flags = String::new();
    if options.release {
        flags.push_str(" --release");
    }
    if let Some(lb) = options.lb {
        flags.push_str(&format!(" --lb {}", lb.display()));
        programs.lb = lb;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let jobs = options.jobs.map_or(2 * cores, usize::from);
    let (began, clock) = (SystemTime::now(), Instant::now());
    let outcomes = runner::run_all(&programs, &chosen, options.repeat, jobs, &reports).await;
    let target = Target::of("lb", &programs.lb);
    let results = Results::of(target, began, clock.elapsed(), &outcomes, &flags);
    reports.close(&results, &outcomes)
}

fn choose(
    all: impl Iterator<Item = &'static Scenario>,
    filters: &[String],
) -> Vec<&'static Scenario> {
    let wanted = |scenario: &&Scenario| {
        filters.is_empty()
            || filters.iter().any(|f| match f.parse::<u32>() {
                Ok(number) => scenario.number == number,
                Err(_) => scenario.full_name().contains(f.as_str()),
            })
    };
    all.filter(wanted).collect()
}
