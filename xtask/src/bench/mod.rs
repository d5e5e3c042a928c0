//! `cargo xtask bench`: what does `lb` cost, beside its peers?
//!
//! All targets are measured in one run, in turn, round after round, so that
//! whatever else the machine does meets all of them; what counts are ratios of
//! figures of the same round. The proxies have one core, load and servers
//! another. It judges nothing but errors: `lb` must have none.

mod backend;
mod chart;
mod child;
mod cores;
mod figures;
mod idle;
mod progress;
mod results;
mod runner;
pub(crate) mod slow;
mod table;
mod targets;
mod usage;
mod workloads;
mod wrk;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use testbed::process::raise_descriptor_limit;
use tokio::signal::unix::{SignalKind, signal};

use crate::programs;
use backend::Backend;
use cores::Cores;
use progress::Progress;
use results::{Machine, Results};
use runner::Bench;
use targets::{Program, Target};
use workloads::{Load, Workload};
use wrk::Wrk;

pub(crate) use chart::escape;
pub(crate) use usage::Processes;

/// What to measure, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// List the workloads and end.
    #[arg(long)]
    list: bool,
    /// Only this workload; repeat it for more.
    #[arg(long, value_name = "NAME", value_enum)]
    workload: Vec<Workload>,
    /// Only this target; repeat it for more [default: all that are installed].
    #[arg(long, value_name = "NAME", value_enum)]
    target: Vec<Target>,
    /// How often each target is measured; fewer than five are for a first look.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long the load lasts, in seconds, each time.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// How long idle connections stay, in seconds, before memory is measured.
    #[arg(long, value_name = "N", default_value_t = 10)]
    settle: u16,
    /// Measure this `lb` program instead of building one.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    /// Write all figures of all rounds to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A program is missing or does not work; errors of `lb` are an exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let workloads = chosen(&options.workload);
    if options.list {
        for workload in workloads {
            println!("{:<12} {}", workload.name(), workload.what());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wrk = Wrk::find()?;
    let lb = match &options.lb {
        Some(file) => file.canonicalize().with_context(|| format!("no {}", file.display()))?,
        None => programs::build(true)?.lb,
    };
    let (programs, missing) = find(&chosen(&options.target), &lb);
    for name in &missing {
        println!("{name} is not installed, and skipped");
    }
    ensure!(!programs.is_empty(), "there is nothing to measure");
    let cores = Cores::find()?;
    // Asked before this thread is pinned, which then has one core.
    let machine = Machine::this(cores);
    match cores {
        Some(cores) => {
            println!("proxies on core {}, load and servers on core {}", cores.proxy, cores.load);
            cores::pin(cores.load)?;
        }
        None => println!("there is only one core: nothing is pinned, and proxies wait for load"),
    }
    raise_descriptor_limit();
    say_what_is_reduced(&workloads);
    // Of this thread, which is pinned: another's children would not be.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = Results {
        machine,
        targets: programs.iter().map(Into::into).collect(),
        missing,
        seconds: options.seconds.into(),
        workloads: Vec::new(),
    };
    let bench = Bench {
        programs,
        backend: Backend::start()?,
        wrk,
        cores,
        rounds: options.rounds.into(),
        time: Duration::from_secs(options.seconds.into()),
        settle: Duration::from_secs(options.settle.into()),
    };
    runtime.block_on(until_stopped(measure(&bench, &workloads, &mut results)))?;
    close(&results, options)
}

/// What was named, once each, or everything.
fn chosen<T: ValueEnum + Copy + PartialEq>(named: &[T]) -> Vec<T> {
    let all = T::value_variants().iter().copied();
    all.filter(|one| named.is_empty() || named.contains(one)).collect()
}

/// The targets that are installed, and the names of the others.
fn find(targets: &[Target], lb: &Path) -> (Vec<Program>, Vec<&'static str>) {
    let (mut programs, mut missing) = (Vec::new(), Vec::new());
    for target in targets {
        match Program::find(*target, lb) {
            Some(program) => programs.push(program),
            None => missing.push(target.name()),
        }
    }
    (programs, missing)
}

fn say_what_is_reduced(workloads: &[Workload]) {
    for workload in workloads {
        if let Load::Idle(connections) = workload.load()
            && connections < 10_000
        {
            println!("idle: {connections} connections; the limit of open files allows no more");
        }
    }
}

async fn measure(bench: &Bench, workloads: &[Workload], results: &mut Results) -> Result<()> {
    let progress = Progress::new(workloads.len() * bench.programs.len() * bench.rounds);
    for workload in workloads {
        let found = bench.run(*workload, &progress).await?;
        progress.print(&table::of(&found));
        results.workloads.push(found);
    }
    progress.finish();
    Ok(())
}

/// Runs `work`, but no longer than until a signal; all children are killed with
/// it then.
async fn until_stopped(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
        _ = hang_up.recv() => bail!("the terminal is gone"),
    }
}

/// Prints and writes what is left to say.
fn close(results: &Results, options: &Options) -> Result<ExitCode> {
    println!("{}", table::ratios(results));
    let cannot_write = |file: &PathBuf| format!("cannot write {}", file.display());
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(results)? + "\n";
        fs::write(file, text).with_context(|| cannot_write(file))?;
    }
    if let Some(file) = &options.svg {
        fs::write(file, chart::draw(results)).with_context(|| cannot_write(file))?;
    }
    let errors = results.errors_of_lb();
    if errors > 0 {
        println!("{errors} requests through lb failed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_once_each_in_the_order_of_the_results() {
        let named = [Target::Caddy, Target::Lb, Target::Caddy];
        assert_eq!(chosen(&named), [Target::Lb, Target::Caddy]);
        assert_eq!(chosen::<Target>(&[]).len(), 4);
    }
}
