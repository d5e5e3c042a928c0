//! One plan from a file.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Result;

use super::{
    Options, Where,
    judge::judge,
    local,
    plan::{Operation, Plan},
    run::{Run, run},
    watch::watched,
};
use crate::programs;

/// How much time of a processor a run may take: five times what the longest needs.
/// A virtual machine counts also what others have taken from it.
const LIMIT: Duration = Duration::from_secs(20);

/// How many violations are printed.
const SHOWN: usize = 20;

/// Carries out a plan on a thread of its own, and judges it.
///
/// # Errors
/// It cannot be carried out, it panics, or it does not end: see [`watched`].
pub(crate) fn verdict(plan: &Plan) -> Result<(Run, Vec<String>)> {
    let plan = plan.clone();
    watched(&format!("seed-{}", plan.seed), LIMIT, move || {
        let run = run(&plan)?;
        let wrong = judge(&plan, &run);
        Ok((run, wrong))
    })
}

/// Whether a plan fails, tried in a process of its own: with it ends a thread
/// that nothing else can end.
pub(super) fn fails_elsewhere(plan: &Plan) -> Result<bool> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, plan.to_text()?)?;
    let mut replay = Command::new(std::env::current_exe()?);
    replay.args(["sim", "--replay"]).arg(file.path());
    let status =
        replay.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.code() == Some(1))
}

/// What is wrong with a plan, if anything.
pub(crate) fn violations(plan: &Plan) -> Vec<String> {
    match verdict(plan) {
        Ok((_, wrong)) => wrong,
        Err(error) => vec![format!("{error:#}")],
    }
}

/// The plans that are kept and that real sockets can play as they are, by name.
///
/// # Errors
/// One cannot be read.
pub(crate) fn kept_plans() -> Result<Vec<(String, Plan)>> {
    let mut plans = Vec::new();
    for entry in programs::workspace().join("tests/plans").read_dir()? {
        let path = entry?.path();
        let (plan, left_out) = local::playable(&Plan::read(&path)?);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if left_out.is_empty() {
            plans.push((name, plan));
        }
    }
    plans.sort_by(|(first, _), (second, _)| first.cmp(second));
    Ok(plans)
}

/// Plays one of them by this program.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn replay_locally(plan: &Plan, lb: &Path) -> Result<(), String> {
    match local::verdict(plan, lb) {
        Ok((_, wrong)) if wrong.is_empty() => Ok(()),
        Ok((_, wrong)) => Err(wrong.join("\n")),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// `--replay`.
pub(super) fn run_command(file: &Path, options: &Options) -> Result<ExitCode> {
    let plan = match Plan::read(file) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    if let Some(lb) = options.lb.as_ref().filter(|lb| !lb.is_file()) {
        eprintln!("error: there is no program {}", lb.display());
        return Ok(ExitCode::from(2));
    }
    let judged = match options.world {
        Where::Sim => verdict(&plan),
        Where::Local => {
            let lb = match &options.lb {
                Some(lb) => lb.clone(),
                None => programs::build(false)?.lb,
            };
            let (plan, left_out) = local::playable(&plan);
            for Operation { at_ms, what, .. } in left_out {
                println!("left out, as real sockets cannot do it: at {at_ms} ms {what:?}");
            }
            local::verdict(&plan, &lb)
        }
    };
    let wrong = match judged {
        Ok((run, wrong)) => {
            if options.log {
                run.events.iter().for_each(|event| println!("{event}"));
                print!("{}", run.access);
            }
            wrong
        }
        Err(error) => vec![format!("{error:#}")],
    };
    print_violations(&wrong);
    let failed = usize::from(!wrong.is_empty());
    println!("{} passed, {failed} failed, 0 skipped", 1 - failed);
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Prints what is wrong, not all of much.
pub(super) fn print_violations(wrong: &[String]) {
    wrong.iter().take(SHOWN).for_each(|what| println!("  {what}"));
    if wrong.len() > SHOWN {
        println!("  and {} more", wrong.len() - SHOWN);
    }
}
