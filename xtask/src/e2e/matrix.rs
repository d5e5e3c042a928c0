//! `cargo xtask matrix`: every balancer that is installed, against every
//! scenario that can judge it, as a page.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};
use clap::Args;

use super::{
    Judges, Scenario,
    report::{self, Reports, Results},
    runner::{self, Outcome, Verdict, Where},
    targets::Target,
};
use crate::programs::{self, Programs};

/// Where the page goes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write the page, in Markdown, to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compare the page with this file instead; versions do not count.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    check: Option<PathBuf>,
    /// Only these targets; repeat it for more. lb is always there.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Write a page with timelines and raw bytes of all that failed, as it was
    /// known or not, and the results as JSON, of each balancer into this folder.
    #[arg(long, value_name = "FOLDER")]
    reports: Option<PathBuf>,
    /// It is an error (exit code 4) if one of them is not installed.
    #[arg(long)]
    require: bool,
}

/// A column: a balancer and what became of each scenario.
struct Column {
    name: String,
    about: String,
    version: String,
    cells: BTreeMap<String, Cell>,
}

/// What a scenario says of a balancer.
#[derive(Clone, PartialEq, Eq)]
enum Cell {
    Passes,
    Fails(String),
    /// Fails now and then.
    Sometimes(String),
    /// Cannot be judged.
    Skipped(String),
}

/// Runs the command over the scenarios `all`.
///
/// # Errors
/// The harness itself fails; unexpected outcomes are an exit code.
pub(crate) async fn run(
    options: Options,
    all: impl Iterator<Item = &'static Scenario>,
) -> Result<ExitCode> {
    let judging: Vec<&Scenario> =
        all.filter(|scenario| !matches!(scenario.judges, Judges::Ours)).collect();
    let programs = programs::build(false)?;
    let (mut columns, mut bad, mut missing) = (Vec::new(), 0, 0);
    let names = match options.target.is_empty() {
        true => Target::names()?.into_iter().map(|(name, _)| name).collect(),
        false => options.target,
    };
    let ours = [Ok(None)].into_iter();
    let theirs = names.iter().map(|name| Target::load(name).map(Some));
    for target in ours.chain(theirs) {
        let target = match target {
            Ok(Some(Err(reason))) => {
                eprintln!("left out: {reason}");
                missing += 1;
                continue;
            }
            Ok(Some(Ok(target))) => Some(Arc::new(target)),
            Ok(None) => None,
            Err(error) => {
                eprintln!("error: {error:#}");
                return Ok(ExitCode::from(2));
            }
        };
        let judged = judge(target.as_ref(), &programs, &judging, options.reports.as_deref());
        let (column, failed) = judged.await?;
        columns.push(column);
        bad += failed;
    }
    let page = page(&judging, &columns);
    let same = match (&options.out, &options.check) {
        (Some(file), _) => {
            fs::write(file, &page).with_context(|| format!("cannot write {}", file.display()))?;
            true
        }
        (None, Some(file)) => is_up_to_date(file, &page)?,
        (None, None) => {
            print!("{page}");
            true
        }
    };
    eprintln!("{} balancers, {bad} unexpected outcomes", columns.len());
    Ok(match (bad, same) {
        _ if options.require && missing > 0 => ExitCode::from(4),
        (0, true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// A balancer's column, and how many of its outcomes are not expected; these are
/// told, and reports written into the folder.
#[allow(clippy::disallowed_methods, reason = "when a run was and how long, for whoever reads it")]
async fn judge(
    target: Option<&Arc<Target>>,
    programs: &Programs,
    judging: &[&'static Scenario],
    folder: Option<&Path>,
) -> Result<(Column, usize)> {
    let name = target.map_or("lb", |target| target.name());
    let reports = match folder {
        Some(folder) => Reports::into_folder(folder, name)?,
        None => Reports::none(),
    };
    let (began, clock) = (SystemTime::now(), Instant::now());
    let place = target.map_or(Where::Local, |target| Where::Target(target.clone()));
    let outcomes = runner::run_all(programs, &place, judging, 1, super::jobs(), &reports).await;
    let column = Column::new(target.map(|target| &**target), &outcomes);
    let flags = target.map_or(String::new(), |target| format!(" --target {}", target.name()));
    let judged = match target {
        Some(_) => report::Target::named(name, &column.version),
        None => report::Target::of("lb", &programs.lb),
    };
    let results = Results::of(judged, began, clock.elapsed(), &outcomes, &flags);
    reports.write(&results, &outcomes)?;
    Ok((column, results.totals.failed))
}

/// Whether the page in `file` says the same as `page`.
fn is_up_to_date(file: &Path, page: &str) -> Result<bool> {
    let kept =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let says = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("- **")).map(str::to_owned).collect()
    };
    let (kept, now) = (says(&kept), says(page));
    if kept == now {
        return Ok(true);
    }
    eprintln!("{} is not up to date; cargo xtask matrix --out renews it:", file.display());
    kept.iter().filter(|line| !now.contains(line)).for_each(|line| eprintln!("- {line}"));
    now.iter().filter(|line| !kept.contains(line)).for_each(|line| eprintln!("+ {line}"));
    Ok(false)
}

impl Column {
    fn new(target: Option<&Target>, outcomes: &[Outcome]) -> Column {
        let cell = |outcome: &Outcome| {
            let name = outcome.scenario.full_name();
            let known = target.and_then(|target| target.known(&name));
            let cell = match (&outcome.verdict, known) {
                (Verdict::Skip(reason), _) => Cell::Skipped(reason.clone()),
                (_, Some((reason, false))) => Cell::Sometimes(reason.to_owned()),
                (Verdict::Pass | Verdict::StaleExpectation(_), _) => Cell::Passes,
                (Verdict::ExpectedFail(_, reason), _) => Cell::Fails(reason.clone()),
                (Verdict::Fail(failure) | Verdict::SetupFailed(failure), _) => {
                    Cell::Fails(failure.message.lines().next().unwrap_or_default().to_owned())
                }
            };
            (name, cell)
        };
        Column {
            name: target.map_or("lb", Target::name).to_owned(),
            about: target.map_or("this workspace's balancer", Target::about).to_owned(),
            version: target.map_or(env!("CARGO_PKG_VERSION"), |t| &t.version).to_owned(),
            cells: outcomes.iter().map(cell).collect(),
        }
    }

    fn count(&self, is: fn(&Cell) -> bool) -> usize {
        self.cells.values().filter(|cell| is(cell)).count()
    }
}

fn page(scenarios: &[&Scenario], columns: &[Column]) -> String {
    let mut page = String::from(
        "# Balancers and what they do\n\n\
         Made by `cargo xtask matrix`: the scenarios that can judge any balancer, against\n\
         those that are installed. ✓ does what is said, ✗ does not, ± not always; an empty\n\
         cell is something that the balancer does not offer. What is behind a number is\n\
         below.\n\n",
    );
    for column in columns {
        let _ = writeln!(page, "- **{}** {}: {}", column.name, column.version, column.about);
    }
    let mut notes: Vec<String> = Vec::new();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let _ = writeln!(page, "\n| | what is asserted | {} |", names.join(" | "));
    let _ = writeln!(page, "|---|---|{}", ":-:|".repeat(columns.len()));
    for scenario in scenarios {
        let name = scenario.full_name();
        let _ = write!(page, "| `{name}` | {} |", scenario.asserts.replace('|', "\\|"));
        for column in columns {
            let cell = column.cells.get(&name).map(|cell| cell.show(&mut notes));
            let _ = write!(page, " {} |", cell.unwrap_or_default());
        }
        page.push('\n');
    }
    let total = |is: fn(&Cell) -> bool| -> String {
        columns.iter().map(|column| format!(" {} |", column.count(is))).collect()
    };
    let _ = writeln!(page, "| **✓** | |{}", total(|cell| *cell == Cell::Passes));
    let _ = writeln!(page, "| **✗** | |{}", total(|cell| matches!(cell, Cell::Fails(_))));
    let _ = writeln!(page, "| **±** | |{}", total(|cell| matches!(cell, Cell::Sometimes(_))));
    page.push('\n');
    for (number, note) in notes.iter().enumerate() {
        let _ = writeln!(page, "{}. {note}", number + 1);
    }
    page
}

impl Cell {
    /// The cell, with the number of its note.
    fn show(&self, notes: &mut Vec<String>) -> String {
        let mut number = |note: &String| match notes.iter().position(|known| known == note) {
            Some(index) => index + 1,
            None => {
                notes.push(note.clone());
                notes.len()
            }
        };
        match self {
            Cell::Passes => "✓".into(),
            Cell::Skipped(_) => String::new(),
            Cell::Fails(reason) => format!("✗ {}", number(reason)),
            Cell::Sometimes(reason) => format!("± {}", number(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    #[test]
    fn the_page_says_what_became_of_each() {
        let judging: Vec<&Scenario> = scenarios::all()
            .filter(|scenario| !matches!(scenario.judges, Judges::Ours))
            .take(4)
            .collect();
        let why = || "why".to_owned();
        let cells =
            [Cell::Passes, Cell::Fails(why()), Cell::Sometimes(why()), Cell::Skipped(why())];
        let cells = judging.iter().map(|scenario| scenario.full_name()).zip(cells).collect();
        let column = Column { name: "x".into(), about: "it".into(), version: "1".into(), cells };
        let page = page(&judging, &[column]);
        for text in ["| ✓ |\n", "| ✗ 1 |\n", "| ± 1 |\n", "|  |\n", "\n1. why\n", "- **x** 1: it"]
        {
            assert!(page.contains(text), "no {text:?} in {page}");
        }
    }
}
