//! What is told of a run, and to whom.
//!
//! Owns the terminal, the files that were asked for and GitHub's annotations.
//! All are made from [`Results`]; only the page looks at event logs. Judges
//! nothing: that is done when a run comes here.

mod github;
mod html;
mod json;
mod junit;
mod results;
mod run;
mod tap;
mod terminal;
mod timeline;

#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::runner::Outcome;

pub(crate) use json::schema;
pub(crate) use results::{Results, Target};
pub(crate) use run::Run;
pub(crate) use terminal::{Out, Progress, list};

/// How many events a timeline has at most, unless something else is said.
const MAX_EVENTS: usize = 400;

/// Files to write.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Write the results as JUnit XML; - is standard output.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the results as TAP 14; - is standard output.
    #[arg(long, value_name = "FILE")]
    tap: Option<PathBuf>,
    /// Write the results as JSON; - is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results and the timelines of failures as one HTML page; - is
    /// standard output.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The timelines of runs that passed, too, in that page.
    #[arg(long, requires = "html")]
    html_all: bool,
    /// So many events at most in each timeline.
    #[arg(long, value_name = "N", requires = "html", default_value_t = MAX_EVENTS)]
    html_events: usize,
    /// Print the JSON schema of --json and end.
    #[arg(long)]
    pub(crate) json_schema: bool,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Junit,
    Tap,
    Json,
    Html,
}

/// The reports of a run, which can be written.
pub(crate) struct Reports {
    files: Vec<(Form, Sink)>,
    /// Events in a timeline of the page, at most.
    max_events: usize,
    keep_logs: bool,
    out: Out,
}

/// Where a report goes.
enum Sink {
    Stdout,
    File(PathBuf, File),
}

impl Reports {
    /// Opens the files, so that one that cannot be written is found before
    /// anything runs. What stands in them stays until there is something new.
    ///
    /// # Errors
    /// A file cannot be written, or two reports go to the same place.
    pub(crate) fn open(files: &Files) -> Result<Self> {
        let Files { junit, tap, json, html, .. } = files;
        let wanted =
            [(Form::Junit, junit), (Form::Tap, tap), (Form::Json, json), (Form::Html, html)];
        let wanted = wanted.map(|(form, path)| path.as_ref().map(|path| (form, path)));
        let mut opened = Vec::new();
        let mut taken: Vec<&Path> = Vec::new();
        for (form, path) in wanted.into_iter().flatten() {
            if taken.contains(&path.as_path()) {
                bail!("two reports go to {}", path.display());
            }
            taken.push(path);
            opened.push((form, Sink::open(path)?));
        }
        let taken = opened.iter().any(|(_, sink)| matches!(sink, Sink::Stdout));
        let out = if taken { Out::Stderr } else { Out::Stdout };
        let (max_events, keep_logs) = (files.html_events, files.html_all);
        Ok(Reports { files: opened, max_events, keep_logs, out })
    }

    /// None: a page goes to standard output.
    pub(crate) fn none() -> Self {
        Reports { files: vec![], max_events: MAX_EVENTS, keep_logs: false, out: Out::Stderr }
    }

    /// A page and JSON of this name in `folder`, which is made if there is none.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn into_folder(folder: &Path, name: &str) -> Result<Self> {
        let made = std::fs::create_dir_all(folder);
        made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let file =
            |(form, ending)| Ok((form, Sink::open(&folder.join(format!("{name}.{ending}")))?));
        let files = [(Form::Html, "html"), (Form::Json, "json")].map(file);
        Ok(Reports { files: files.into_iter().collect::<Result<_>>()?, ..Reports::none() })
    }

    /// Where people read: not where a report goes.
    pub(crate) fn out(&self) -> Out {
        self.out
    }

    /// Whether the logs of runs that passed are wanted too.
    pub(crate) fn keep_logs(&self) -> bool {
        self.keep_logs
    }

    /// Writes the files, annotates, and prints the failures and the closing
    /// line. Returns the exit code.
    ///
    /// # Errors
    /// Something cannot be written.
    pub(crate) fn close(self, results: &Results, outcomes: &[Outcome]) -> Result<ExitCode> {
        let annotated = github::annotate(results, self.out());
        self.write(results, outcomes).and(annotated)?;
        Ok(ExitCode::from(results.exit_code()))
    }

    /// Prints the failures, writes the files, and prints the closing line.
    ///
    /// # Errors
    /// Something cannot be written.
    pub(crate) fn write(self, results: &Results, outcomes: &[Outcome]) -> Result<()> {
        let out = self.out();
        terminal::failures(results, out);
        let mut written = Ok(());
        for (form, sink) in self.files {
            let text = match form {
                Form::Junit => junit::render(results)?,
                Form::Tap => tap::render(results),
                Form::Json => json::render(results)?,
                Form::Html => html::render(results, outcomes, self.max_events)?,
            };
            // One that fails keeps none of the others back.
            written = written.and(sink.write(&text));
        }
        out.line(&results.totals.to_string());
        written
    }
}

impl Sink {
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Sink::Stdout);
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Sink::File(path.to_owned(), file))
    }

    fn write(self, text: &str) -> Result<()> {
        match self {
            Sink::Stdout => io::stdout().write_all(text.as_bytes()).context("standard output"),
            Sink::File(path, mut file) => {
                let mut write = || -> io::Result<()> {
                    // A pipe or /dev/null has no length.
                    if file.metadata()?.is_file() {
                        file.set_len(0)?;
                    }
                    file.write_all(text.as_bytes())
                };
                write().with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }
}
