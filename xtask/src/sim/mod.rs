//! `cargo xtask sim`: `lb` in virtual time, over a simulated network, through
//! thousands of random plans.
//!
//! Reading order: `plan` (what is written down), `draw` (how it is drawn from
//! a seed), `run` (how it is carried out, with `network`, `host`, `operations`
//! and `workload`), `judge` (what is right, with `truth`, `view`, `requests`,
//! `retries`, `health`, `dealing` and `crowd`), `shrink`, `swarm`. `local` plays a
//! plan on real sockets.
//!
//! Clocks do not jump here: all that `lb` waits for it waits for by the monotonic
//! clock, and the time of day is only written into its logs.

mod config;
mod coverage;
mod crowd;
mod dealing;
mod draw;
mod exchange;
mod health;
mod host;
mod judge;
mod local;
mod network;
mod operations;
mod phases;
mod plan;
mod random;
mod replay;
mod requests;
mod retries;
mod run;
mod shrink;
mod swarm;
#[cfg(test)]
mod tests;
mod truth;
mod view;
pub(crate) mod voice;
mod watch;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};

pub(crate) use exchange::{Exchange, Next, Outcome};
pub(crate) use host::{Host, Stream};
pub(crate) use network::{Link, Network};
pub(crate) use plan::Plan;
pub(crate) use replay::{kept_plans, replay_locally};
pub(crate) use watch::{hear_panics, watched};

/// Which runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Of n machines this is number i, from 1: every n-th seed.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(u64, u64)>,
    /// Begin no run after so long.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Begin no run after the first failure.
    #[arg(long)]
    first: bool,
    /// Where plans of failures are saved.
    #[arg(long, value_name = "FOLDER", default_value = "target/sim")]
    save: PathBuf,
    /// Run this plan instead of seeds.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "shard", "time"])]
    replay: Option<PathBuf>,
    /// Where it is run. In `local`, by the `lb` program on real sockets in real
    /// time; what those cannot do is left out, and told.
    #[arg(long, value_enum, default_value = "sim", requires = "replay")]
    world: Where,
    /// Run this `lb` program instead of building one.
    #[arg(long, value_name = "FILE", requires = "replay")]
    lb: Option<PathBuf>,
    /// Print everything that happens in it.
    #[arg(long, requires = "replay")]
    log: bool,
    /// Make this plan smaller for as long as it fails, each try in a process of its
    /// own.
    #[arg(long, value_name = "FILE", hide = true)]
    shrink: Option<PathBuf>,
    /// What is printed in the end.
    #[arg(long, hide = true, requires = "shrink")]
    totals: Option<String>,
    /// Print the plan of the first seed and end.
    #[arg(long, conflicts_with = "replay")]
    show: bool,
}

/// Where a plan is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// In virtual time, over a simulated network.
    Sim,
    /// In real time, on real sockets.
    Local,
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let expected = || "expected 1/4 to 4/4".to_owned();
    let (index, count) = text.split_once('/').ok_or_else(expected)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
    let (index, count) = (number(index)?, number(count)?);
    (1..=count).contains(&index).then_some((index, count)).ok_or_else(expected)
}

/// Runs the command.
///
/// # Errors
/// A plan cannot be written.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.show {
        print!("{}", draw::draw(options.seed).to_text()?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &options.shrink {
        return swarm::shrink_file(file, options);
    }
    match &options.replay {
        Some(file) => replay::run_command(file, options),
        None => swarm::run(options),
    }
}
