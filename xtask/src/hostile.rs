//! `cargo xtask hostile`: what every balancer that is installed makes of the
//! hostile requests and answers, as a page. For information: nobody else promised what is
//! asked of `lb`.

use std::{
    collections::BTreeMap, fmt::Write, fs::File, io::Write as _, path::PathBuf, sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use tokio::time::sleep;

use crate::{
    e2e::{Clock, Place, World, targets::Target},
    programs,
    scenarios::{Found, bad_answers, hygiene},
};

/// How long each may take to answer and close: all requests that are in order
/// ask for that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the page goes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write the page, in Markdown, to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only these targets; repeat it for more. lb is always there.
    #[arg(long, value_name = "NAME", default_values = ["nginx", "haproxy", "caddy"])]
    target: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// A target does not exist or does not start.
pub(crate) async fn run(options: Options) -> Result<()> {
    // Before minutes are spent for it.
    let out = options
        .out
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())));
    let out = out.transpose()?;
    let programs = programs::build(false)?;
    let mut targets = vec![("lb".to_owned(), Place::Local)];
    for name in &options.target {
        match Target::load(name)? {
            Ok(target) => targets.push((
                format!("{} {}", target.name(), target.version),
                Place::Target(Arc::new(target)),
            )),
            Err(reason) => eprintln!("left out: {reason}"),
        }
    }
    let patience = async || sleep(PATIENCE).await;
    let mut columns = Vec::new();
    for (name, place) in targets {
        let world = || World::new("hostile".into(), Clock::Events, programs.clone(), place.clone());
        let (mut before, mut behind) = (world(), world());
        let requests = hygiene::survey(&mut before, patience).await;
        let answers = bad_answers::survey(&mut behind, patience).await;
        before.end().await?;
        behind.end().await?;
        let found =
            (requests.with_context(|| name.clone())?, answers.with_context(|| name.clone())?);
        eprintln!("{name}: {}, {}", count("requests", &found.0), count("answers", &found.1));
        columns.push((name, found));
    }
    let page = page(&columns);
    match out {
        Some(mut file) => file.write_all(page.as_bytes()).context("cannot write the page"),
        None => {
            print!("{page}");
            Ok(())
        }
    }
}

fn count(what: &str, found: &[Found]) -> String {
    let good = found.iter().filter(|found| found.wrong.is_none()).count();
    format!("{good} of {} {what} as asked", found.len())
}

const ABOUT: &str = "\
# Hostile requests and answers

What balancers make of requests that two parsers could read in two ways, and of
what is no answer. Made by `cargo xtask hostile`, for information: what is asked is
what `lb` promises, by the sections named. Some of what others do is a choice that
the RFCs leave open. What matters most is a request that is executed twice, one
that the next parser may read otherwise, and half an answer that looks whole.
";

/// What was found of requests and of answers.
type Both = (Vec<Found>, Vec<Found>);

fn page(columns: &[(String, Both)]) -> String {
    let mut page = ABOUT.to_owned();
    for (name, (requests, answers)) in columns {
        let (asked, answered) = (count("requests", requests), count("answers", answers));
        let _ = writeln!(page, "\n## {name}\n\n{asked}, {answered}.");
        let mut rules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for Found { case, rule, wrong } in requests.iter().chain(answers) {
            if let Some(wrong) = wrong {
                rules.entry(rule).or_default().push(format!("- {case}: {}", short(wrong)));
            }
        }
        for (rule, lines) in rules {
            let _ = writeln!(page, "\n{rule}\n\n{}", lines.join("\n"));
        }
    }
    page
}

/// The sentence, and of an answer the first line alone.
fn short(wrong: &str) -> String {
    const LONGEST: usize = 120;
    let first = wrong.split("\\r\\n").next().unwrap_or(wrong);
    let line = first.replace("got \"HTTP/1.1 ", "got ").replace(['\n', '`'], " ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
