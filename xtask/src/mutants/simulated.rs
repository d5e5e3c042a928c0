//! `cargo xtask mutants --sim`: does the simulation find what is wrong?
//!
//! Owns which mutants live in code that the simulation runs, and those that
//! nothing else is likely to meet. Each is built into `xtask` itself, whose seeds
//! must find it and shrink it to a plan that a person can read.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    Copy, Options,
    catalogue::{MUTANTS, Mutant},
    none_is_chosen,
};
use crate::{programs::target_folder, sim::Plan};

/// Of the catalogue. (What goes wrong between two epochs of the rotation is for
/// `changes/strict_over_changes`: each is judged by itself here.)
const COMMON: &[&str] = &[
    "skips_a_place",
    "posts_on_kept_connections",
    "retry_takes_a_turn",
    "picks_then_skips",
    "ignores_weights",
    "leaks_in_flight",
    "ignores_fall",
    "ignores_rise",
    "never_returns",
    "any_status_is_healthy",
    "no_failover",
    "replays_a_post",
    "ignores_the_budget",
    "one_try_more",
    "hides_truncation",
    "drains_nobody",
    "does_not_wait_for_the_drained",
];

/// What takes a rare coincidence.
const SUBTLE: &[Mutant] = &[
    Mutant {
        name: "loses_a_wake_up",
        what: "nobody is told that a removed server has nothing in flight any more",
        killed_by: "sim",
        file: "upstream/departure.rs",
        find: "if self.awaited.load(SeqCst) {",
        replace: "if false {",
    },
    Mutant {
        name: "evidence_out_of_date",
        what: "what began before a change of state counts after it",
        killed_by: "sim",
        file: "balance/cluster.rs",
        find: "if entry.health.epoch() != epoch {",
        replace: "if false {",
    },
    Mutant {
        name: "probe_of_the_removed",
        what: "a probe of a server that was removed counts for the one in its stead",
        killed_by: "sim",
        file: "cluster.rs",
        find: "        if let Some(transition) = core.handle_probe(id, epoch, passed) {",
        replace: "        let heir = core.states().find(|s| s.server.authority == upstream.authority);\n        let heir = heir.map_or(id, |state| state.id);\n        let now = core.state(heir).map_or(epoch, |(_, _, now)| now);\n        let (id, epoch) = if heir == id { (id, epoch) } else { (heir, now) };\n        if let Some(transition) = core.handle_probe(id, epoch, passed) {",
    },
    Mutant {
        name: "connection_from_before",
        what: "a connection from before a server's restart is used again",
        killed_by: "sim",
        file: "upstream/pool.rs",
        find: "connection.epoch < epoch || ",
        replace: "",
    },
    Mutant {
        name: "stale_snapshot",
        what: "after a reload workers deal by the snapshot from before it",
        killed_by: "sim",
        file: "cluster.rs",
        find: "        self.published.store(core.snapshot().clone());\n        let period",
        replace: "        let period",
    },
];

/// All of them, the rare ones first.
pub(super) fn mutants() -> impl Iterator<Item = &'static Mutant> {
    SUBTLE.iter().chain(MUTANTS.iter().filter(|mutant| COMMON.contains(&mutant.name)))
}

/// A plan that shows a mutant.
struct Found {
    seed: u64,
    operations: usize,
    /// Whether it shows it on real sockets too.
    locally: bool,
}

/// Runs the command.
///
/// # Errors
/// A mutant does not apply or compile, or the simulation itself fails.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let chosen: Vec<_> = mutants().filter(|one| one.name.contains(&options.filter)).collect();
    if options.list {
        chosen.iter().for_each(|mutant| println!("{:<30} {}", mutant.name, mutant.what));
        return Ok(ExitCode::SUCCESS);
    }
    if chosen.is_empty() {
        return Ok(none_is_chosen());
    }
    let copy = Copy::make()?;
    let mut missed = 0;
    for mutant in &chosen {
        let save = target_folder().join("mutants/plans").join(mutant.name);
        let found = copy.with(mutant, &["xtask", "lb"], |built| {
            search(built, options.seeds, &save).with_context(|| mutant.name)
        })?;
        let name = mutant.name;
        match found {
            Some(Found { seed, operations, locally }) => {
                let local = if locally { "fails" } else { "passes" };
                println!(
                    "{name:<30} found in run {seed} (seed {seed}), {operations} operations left, \
                     {local} on real sockets"
                );
            }
            None => {
                missed += 1;
                println!("{name:<30} NOT FOUND within {} seeds", options.seeds);
            }
        }
    }
    println!("{} passed, {missed} failed", chosen.len() - missed);
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs seeds from 1 on, until one fails; and its plan on real sockets.
fn search(built: &Path, seeds: u64, save: &Path) -> Result<Option<Found>> {
    if save.exists() {
        fs::remove_dir_all(save)?;
    }
    let mut sim = Command::new(built.join("xtask"));
    sim.args(["sim", "--first", "--seeds", &seeds.to_string(), "--save"]).arg(save);
    if !fails(&mut sim)? {
        return Ok(None);
    }
    let file = save.read_dir()?.next().context("no plan was saved")??.path();
    let plan = Plan::read(&file)?;
    let mut local = Command::new(built.join("xtask"));
    local.args(["sim", "--world", "local", "--lb"]).arg(built.join("lb"));
    let locally = fails(local.arg("--replay").arg(&file))?;
    Ok(Some(Found { seed: plan.seed, operations: plan.operations.len(), locally }))
}

/// Whether a run of the simulation ends with failures.
fn fails(sim: &mut Command) -> Result<bool> {
    match sim.stdin(Stdio::null()).stdout(Stdio::null()).status()?.code() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        code => bail!("the simulation ended with {code:?}"),
    }
}
