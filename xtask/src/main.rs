//! `cargo xtask`: the end-to-end suite, the benchmark, the demo, the mutants.
//!
//! Every command says what it does with `--help` and ends with an exit code
//! that a pipeline can use: 0 good, 1 failures, 2 usage, 3 the harness itself.

mod bench;
mod demo;
mod e2e;
mod mutants;
mod programs;
mod scenarios;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    /// Measure `lb` beside nginx, HAProxy and Caddy, in one run.
    Bench(bench::Options),
    /// Start three sample backends and `lb` in front of them, to play with.
    Demo(demo::Options),
    /// Break `lb` on purpose, one way at a time, and see the suite notice.
    Mutants(mutants::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    match task {
        Task::E2e(options) => runtime.block_on(e2e::run(options, scenarios::all())),
        Task::Matrix(options) => runtime.block_on(e2e::matrix::run(options, scenarios::all())),
        Task::Bench(options) => bench::run(&options),
        Task::Demo(options) => runtime.block_on(demo::run(options)),
        Task::Mutants(options) => mutants::run(&options),
    }
}
