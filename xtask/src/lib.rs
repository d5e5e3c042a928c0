//! `cargo xtask`: the end-to-end suite, the benchmark, the demo, the mutants.
//!
//! Every command says what it does with `--help` and ends with an exit code
//! that a pipeline can use: 0 good, 1 failures, 2 usage, 3 the harness itself.

mod bench;
mod demo;
mod e2e;
pub mod fuzz;
mod hostile;
mod mutants;
mod programs;
mod scenarios;
mod sim;
mod soak;
mod strict;

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use clap::{Parser, Subcommand};
use libtest_mimic::{Failed, Trial};

use crate::e2e::Scenario;

/// Tasks of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Judge the `lb` program: run the scenarios against it on real sockets.
    E2e(e2e::Options),
    /// Judge every balancer that is installed, as a page.
    Matrix(e2e::matrix::Options),
    /// Show what every balancer makes of hostile requests and answers, as a page.
    Hostile(hostile::Options),
    /// Measure `lb` beside nginx, HAProxy and Caddy, in one run.
    Bench(bench::Options),
    /// Measure a normal client beside a thousand slow ones, with `slowhttptest`.
    Slow(bench::slow::Options),
    /// Start three sample backends and `lb` in front of them, to play with.
    Demo(demo::Options),
    /// Run `lb` in virtual time through random faults, thousands of times.
    Sim(sim::Options),
    /// Keep `lb` under load for long, with everything around it failing.
    Soak(soak::Options),
    /// Break `lb` on purpose, one way at a time, and see the suite notice.
    Mutants(mutants::Options),
}

/// Does what the command line says.
pub fn command() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

/// The scenarios as tests of `lb`, for `cargo test` and whoever speaks its
/// language: a trial each, under its full name, and another one behind `sim/`
/// for those that are played in virtual time too. Behind `plans/` are the plans
/// that are kept, on real sockets.
///
/// # Errors
/// The programs cannot be built, or a plan cannot be read.
pub fn trials() -> Result<Vec<Trial>> {
    let programs = programs::build(false)?;
    let runtime = Arc::new(tokio::runtime::Runtime::new()?);
    let trial = |scenario: &'static Scenario| {
        let (programs, runtime) = (programs.clone(), runtime.clone());
        Trial::test(scenario.full_name(), move || {
            let judged = runtime.block_on(e2e::judge(scenario, programs));
            judged.map_err(Failed::from)
        })
    };
    let simulated = |scenario: &'static Scenario| {
        let (programs, runtime) = (programs.clone(), runtime.clone());
        Trial::test(format!("sim/{}", scenario.full_name()), move || {
            let judged = runtime.block_on(e2e::judge_in_virtual_time(scenario, programs));
            judged.map_err(Failed::from)
        })
    };
    let virtual_too = scenarios::all().filter(|scenario| scenario.simulated);
    let on_sockets = |(name, plan): (String, sim::Plan)| {
        let lb = programs.lb.clone();
        Trial::test(format!("plans/{name}"), move || {
            sim::replay_locally(&plan, &lb).map_err(Failed::from)
        })
    };
    let plans = sim::kept_plans()?.into_iter().map(on_sockets);
    let scenarios = scenarios::all().map(trial).chain(virtual_too.map(simulated));
    Ok(scenarios.chain(plans).collect())
}

fn run(task: Task) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    match task {
        Task::E2e(options) => runtime.block_on(e2e::run(options, scenarios::all())),
        Task::Matrix(options) => runtime.block_on(e2e::matrix::run(options, scenarios::all())),
        Task::Hostile(options) => {
            runtime.block_on(hostile::run(options)).map(|()| ExitCode::SUCCESS)
        }
        Task::Bench(options) => bench::run(&options),
        Task::Slow(options) => bench::slow::run(&options),
        Task::Demo(options) => runtime.block_on(demo::run(options)),
        Task::Mutants(options) => mutants::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Soak(options) => runtime.block_on(soak::run(options)),
    }
}
