//! Annotations and the summary of a job of GitHub Actions.

use std::{
    env,
    fmt::Write as _,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Out, Results, Run};

/// GitHub shows no more than a MiB: failures in the summary, and characters of
/// the message of each.
const MAX_ROWS: usize = 100;
const MAX_MESSAGE: usize = 500;

/// Annotates the failures and adds to the summary, in a job of GitHub's.
///
/// # Errors
/// The summary cannot be written.
pub(super) fn annotate(results: &Results, out: Out) -> Result<()> {
    if env::var_os("GITHUB_ACTIONS").is_none_or(|is| is != "true") {
        return Ok(());
    }
    results.bad().for_each(|run| out.line(&annotation(run)));
    match env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from) {
        Some(path) => append(&path, &summary(results))
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(()),
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

/// One line, by the rules of workflow commands.
pub(super) fn annotation(run: &Run) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let message = run.message.as_deref().unwrap_or_default();
    let text = format!("{}\n{message}\nto repeat it: {}", run.asserts, run.repeat_with);
    format!("::error title={}::{}", property(&run.title()), data(&text))
}

/// In Markdown: the totals, and a table of the failures.
pub(super) fn summary(results: &Results) -> String {
    let mut text = format!("### {}: {}\n\n", cell(&results.target.to_string()), results.totals);
    let mut bad = results.bad();
    for (place, run) in bad.by_ref().take(MAX_ROWS).enumerate() {
        if place == 0 {
            text.push_str("| | scenario | asserts | message |\n|---|---|---|---|\n");
        }
        let message: String =
            run.message.iter().flat_map(|message| message.chars()).take(MAX_MESSAGE).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            run.verdict.word(),
            cell(&run.title()),
            cell(run.asserts),
            cell(&message)
        );
    }
    match bad.count() {
        0 => {}
        more => drop(writeln!(text, "\n{more} more are not shown.")),
    }
    text.push('\n');
    text
}

/// Text that means nothing in Markdown, on one line.
fn cell(text: &str) -> String {
    let mut cell = String::new();
    for c in text.chars() {
        match c {
            '\n' => cell.push_str("<br>"),
            '\r' => {}
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => cell.extend(['\\', c]),
            c => cell.push(c),
        }
    }
    cell
}
