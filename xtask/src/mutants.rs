//! `cargo xtask mutants`: is the suite worth its name?
//!
//! Each mutant is one small wrong change of `lb`. It is applied to a copy of
//! the sources, built, and must fail the scenario that is named beside it,
//! which the unchanged sources pass. With `--sim` it is the simulation that must
//! find it: see [`simulated`].

mod catalogue;
mod simulated;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::fs::{FlockOperation, flock};

use crate::programs::{cargo, target_folder, workspace};
use catalogue::{MUTANTS, Mutant};

/// Which mutants.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// List the mutants and end.
    #[arg(long)]
    list: bool,
    /// Only mutants whose name contains this text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Those that the simulation must find, and how soon it does.
    #[arg(long)]
    sim: bool,
    /// Within how many seeds.
    #[arg(long, value_name = "N", default_value_t = 500, requires = "sim", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
}

/// Runs the command.
///
/// # Errors
/// A mutant does not apply or compile, or the unchanged sources fail.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.sim {
        return simulated::run(options);
    }
    let chosen: Vec<&Mutant> =
        MUTANTS.iter().filter(|mutant| mutant.name.contains(&options.filter)).collect();
    if options.list {
        for mutant in chosen {
            println!("{:<28} {:<44} {}", mutant.name, mutant.killed_by, mutant.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if chosen.is_empty() {
        return Ok(none_is_chosen());
    }
    let copy = Copy::make()?;
    let original = copy.build(&["lb"]).context("the unchanged sources")?.join("lb");
    ensure!(passes(&original, &chosen)?, "the scenarios fail without a mutant");
    let mut survivors = 0;
    for mutant in &chosen {
        let killed =
            copy.with(mutant, &["lb"], |built| Ok(!passes(&built.join("lb"), &[mutant])?))?;
        survivors += usize::from(!killed);
        let verdict = if killed { "killed by" } else { "SURVIVES" };
        println!("{:<28} {verdict} {}", mutant.name, mutant.killed_by);
    }
    println!("{} passed, {survivors} failed", chosen.len() - survivors);
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells who has mistyped a name.
fn none_is_chosen() -> ExitCode {
    eprintln!("error: no mutant matches; --list shows them all");
    ExitCode::from(2)
}

impl Mutant {
    /// The file's sound text with the change.
    fn apply(&self, sound: &str) -> Result<String> {
        let places = sound.matches(self.find).count();
        ensure!(places == 1, "{}: {places} places to change, expected 1", self.name);
        Ok(sound.replace(self.find, self.replace))
    }
}

/// Whether `lb` passes the scenarios that are meant to kill the mutants.
fn passes(lb: &Path, mutants: &[&Mutant]) -> Result<bool> {
    let mut suite = Command::new(std::env::current_exe()?);
    suite.args(["e2e", "--lb"]).arg(lb);
    suite.args(mutants.iter().flat_map(|mutant| ["--filter", mutant.killed_by]));
    suite.current_dir(workspace()).stdin(Stdio::null()).stdout(Stdio::null());
    match suite.status()?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        code => bail!("the suite ended with {code:?}"),
    }
}

/// A copy of the workspace's sources, to be broken by one at a time.
struct Copy {
    folder: PathBuf,
    /// Ours until it is closed.
    _lock: File,
}

impl Copy {
    fn make() -> Result<Copy> {
        let folder = target_folder().join("mutants");
        let (from, to) = (workspace(), folder.join("workspace"));
        fs::create_dir_all(&to)?;
        let lock = File::create(folder.join("lock"))?;
        let ours = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        ours.context("another cargo xtask mutants is under way")?;
        for part in ["Cargo.toml", "Cargo.lock", "lb", "testbed", "xtask", "tests"] {
            copy_all(&from.join(part), &to.join(part))
                .with_context(|| format!("cannot copy {part}"))?;
        }
        Ok(Copy { folder, _lock: lock })
    }

    /// Builds these programs, and returns the folder where they are.
    fn build(&self, programs: &[&str]) -> Result<PathBuf> {
        let target = self.folder.join("target");
        let mut build = cargo(&self.folder.join("workspace"));
        build.args(["build", "--quiet", "--target-dir"]).arg(&target);
        build.args(programs.iter().flat_map(|name| ["--package", name, "--bin", name]));
        // Built often and run once: the time goes into the compiler.
        build.args(["--config", "profile.dev.package.lb.opt-level=0"]);
        build.args(["--config", "profile.dev.debug=false"]);
        build.env("RUSTFLAGS", "-Awarnings").stdin(Stdio::null());
        ensure!(build.status()?.success(), "it does not compile");
        Ok(target.join("debug"))
    }

    /// Calls `judge` with the folder of these programs, `lb` in them broken by
    /// `mutant`, and mends it again.
    fn with<T>(
        &self,
        mutant: &Mutant,
        programs: &[&str],
        judge: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let file = self.folder.join("workspace/lb/src").join(mutant.file);
        let sound = fs::read_to_string(&file)?;
        fs::write(&file, mutant.apply(&sound)?)?;
        let built = self.build(programs).with_context(|| mutant.name);
        let judged = built.and_then(|built| judge(&built));
        fs::write(&file, sound)?;
        judged
    }
}

/// Makes `to` the same as `from`. What is the same already is left alone, so that
/// it need not be built again.
fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        let is_there = fs::read(to).is_ok_and(|there| fs::read(from).is_ok_and(|it| it == there));
        return if is_there { Ok(()) } else { fs::copy(from, to).map(drop) };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let (path, is_folder) = (entry.path(), entry.file_type()?.is_dir());
            if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{e2e::Scenario, scenarios};

    #[test]
    fn every_mutant_applies_and_names_a_scenario() {
        let names: Vec<String> = scenarios::all().map(Scenario::full_name).collect();
        for mutant in MUTANTS {
            let file = workspace().join("lb/src").join(mutant.file);
            mutant.apply(&fs::read_to_string(file).unwrap()).unwrap();
            assert!(names.iter().any(|name| name == mutant.killed_by), "{}", mutant.killed_by);
        }
        for mutant in simulated::mutants() {
            let file = workspace().join("lb/src").join(mutant.file);
            mutant.apply(&fs::read_to_string(file).unwrap()).unwrap();
        }
    }
}
