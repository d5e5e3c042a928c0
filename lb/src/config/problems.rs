//! What is wrong with a configuration file: every mistake, each in one line.
//!
//! Owns how a mistake is told. Finds none.

use std::{borrow::Cow, fmt};

use thiserror::Error;

/// More mistakes than these are counted and not told.
const TOLD: usize = 1_000;

/// What is wrong with a configuration file; at least one mistake.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
    untold: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The line, from 1 on, and the column if that tells more; `None` if it is
    /// about the file as a whole.
    pub(super) place: Option<(usize, Option<usize>)>,
    /// The path of the field, such as `servers[2].url`; empty for the whole.
    pub(super) path: String,
    /// The value, what is wrong with it, and what was expected.
    pub(super) what: String,
}

impl Problem {
    /// A mistake that is not in one line.
    pub(super) fn of_file(what: impl Into<String>) -> Problem {
        Problem { place: None, path: String::new(), what: what.into() }
    }
}

impl Problems {
    /// No problem so far with what is called `file`.
    pub(super) fn of(file: impl Into<String>) -> Problems {
        Problems { file: file.into(), list: Vec::new(), untold: 0 }
    }

    pub(super) fn push(&mut self, problem: Problem) {
        if self.list.len() < TOLD { self.list.push(problem) } else { self.untold += 1 }
    }

    /// `value`, if there is no problem.
    ///
    /// # Errors
    /// There are some; in the order of their lines.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Problems> {
        if self.list.is_empty() {
            return Ok(value);
        }
        self.list.sort_by_key(|problem| problem.place);
        Err(self)
    }

    /// A line for each mistake, as [`Display`](fmt::Display) joins them.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let Problems { file, list, untold } = self;
        let more = (*untold > 0).then(|| format!("{file}: {untold} more mistakes"));
        list.iter().map(move |problem| problem.line_in(file)).chain(more)
    }
}

impl Problem {
    fn line_in(&self, file: &str) -> String {
        let place = match self.place {
            Some((line, Some(column))) => format!(":{line}:{column}"),
            Some((line, None)) => format!(":{line}"),
            None => String::new(),
        };
        let path = if self.path.is_empty() { "" } else { &format!(" {}:", self.path) };
        format!("{file}{place}:{path} {}", in_one_line(&self.what))
    }
}

/// Words of the file may be in `what`, with whatever they have in them.
fn in_one_line(what: &str) -> Cow<'_, str> {
    if !what.contains(char::is_control) {
        return what.into();
    }
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    what.chars().map(escaped).collect()
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("\n"))
    }
}
