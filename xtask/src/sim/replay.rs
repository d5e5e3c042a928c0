//! One plan from a file.

use std::{path::Path, process::ExitCode, thread};

use anyhow::Result;

use super::{
    judge::judge,
    plan::Plan,
    run::{Run, run},
};

/// How many violations are printed.
const SHOWN: usize = 20;

/// Carries out a plan on a thread of its own, and judges it. A panic is a
/// violation like others.
///
/// # Errors
/// It cannot be carried out.
pub(crate) fn verdict(plan: &Plan) -> Result<(Run, Vec<String>)> {
    let plan = plan.clone();
    let thread = thread::Builder::new().name(format!("seed-{}", plan.seed)).spawn(move || {
        let run = run(&plan)?;
        let wrong = judge(&plan, &run);
        Ok((run, wrong))
    })?;
    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
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
