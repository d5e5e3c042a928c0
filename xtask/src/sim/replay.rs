//! One plan from a file.

use std::{
    path::Path,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

use super::{
    judge::judge,
    plan::Plan,
    run::{Run, run},
};

/// How long a run may take in real time: a hundred times what it needs.
const WATCHDOG: Duration = Duration::from_secs(120);

/// How the violation of a run begins that takes longer.
const HANGS: &str = "it does not end";

/// How many violations are printed.
const SHOWN: usize = 20;

/// Carries out a plan on a thread of its own, and judges it.
///
/// # Errors
/// It cannot be carried out, it panics, or it does not end: then its thread is
/// left behind.
pub(crate) fn verdict(plan: &Plan) -> Result<(Run, Vec<String>)> {
    let plan = plan.clone();
    let (done, outcome) = mpsc::channel();
    let name = format!("seed-{}", plan.seed);
    thread::Builder::new().name(name).spawn(move || {
        let judged = run(&plan).map(|run| {
            let wrong = judge(&plan, &run);
            (run, wrong)
        });
        let _ = done.send(judged);
    })?;
    match outcome.recv_timeout(WATCHDOG) {
        Ok(judged) => judged,
        Err(RecvTimeoutError::Disconnected) => bail!("it panicked"),
        Err(RecvTimeoutError::Timeout) => bail!("{HANGS} within {WATCHDOG:?} of real time"),
    }
}

/// Whether a violation is that the run does not end.
pub(super) fn hangs(wrong: &[String]) -> bool {
    wrong.iter().any(|what| what.starts_with(HANGS))
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
