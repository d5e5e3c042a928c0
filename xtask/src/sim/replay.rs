//! One plan from a file.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::Result;

use super::{
    judge::judge,
    plan::Plan,
    run::{Run, run},
    watch::watched,
};

/// How much time of a processor a run may take: twenty times what the longest
/// needs.
const LIMIT: Duration = Duration::from_secs(10);

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

/// `--replay`.
pub(super) fn run_command(file: &Path, log: bool) -> Result<ExitCode> {
    let plan = match Plan::read(file) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let wrong = match verdict(&plan) {
        Ok((run, wrong)) => {
            if log {
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
