//! Reads the fields of a body one by one and remembers every mistake.

use std::{num::NonZeroU32, time::Duration};

use axum::http::StatusCode;
use hyper::http::uri::PathAndQuery;
use serde_json::{Map, Value};

use super::answer::{Mistake, Problem};
use crate::config::{Authority, Invalid, StatusSet, invalid, parse_duration, parse_health_path};

/// How much of a wrong value a sentence repeats, in characters.
const QUOTE_LIMIT: usize = 100;

/// More mistakes than these are counted and not told: each is much longer than
/// what may be wrong.
const TOLD: usize = 100;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    mistakes: Vec<Mistake>,
    untold: usize,
}

impl Judge {
    /// The address of a server, which must be there.
    pub(super) fn url(&mut self, value: Option<Value>) -> Option<Authority> {
        const EXPECTED: &str = "http://host:port";
        if value.is_none() {
            let error = format!("url is missing; expected {EXPECTED}");
            self.note(error, "url", None, EXPECTED);
        }
        self.text("url", value, EXPECTED, str::parse)
    }

    /// A text.
    pub(super) fn text<T>(
        &mut self,
        field: &str,
        value: Option<Value>,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        self.read(field, value, expected, |value| match value {
            Value::String(text) => read(text),
            _ => invalid("is not a text"),
        })
    }

    /// A number; `read` gets its digits.
    pub(super) fn number<T>(
        &mut self,
        field: &str,
        value: Option<Value>,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        self.read(field, value, expected, |value| match value {
            Value::Number(number) => read(&number.to_string()),
            _ => invalid(format!("is not a number; expected {expected}")),
        })
    }

    /// A duration: seconds, or a text.
    pub(super) fn duration(&mut self, field: &str, value: Option<Value>) -> Option<Duration> {
        const EXPECTED: &str = "seconds, or a text like 200ms; more than zero, at most a day";
        self.read(field, value, EXPECTED, |value| parse_duration(&text_or_number(value)?))
    }

    /// A count of at least 1.
    pub(super) fn count(&mut self, field: &str, value: Option<Value>) -> Option<NonZeroU32> {
        const EXPECTED: &str = "a whole number from 1 to 4294967295";
        let wrong = || invalid(format!("is not a count; expected {EXPECTED}"));
        self.number(field, value, EXPECTED, |text| text.parse().or_else(|_| wrong()))
    }

    /// The target of a probe.
    pub(super) fn path(&mut self, field: &str, value: Option<Value>) -> Option<PathAndQuery> {
        self.text(field, value, "a path like /health", parse_health_path)
    }

    /// Statuses: a text, or one alone as a number.
    pub(super) fn statuses(&mut self, field: &str, value: Option<Value>) -> Option<StatusSet> {
        const EXPECTED: &str = "200, 200-399 or 200,204";
        self.read(field, value, EXPECTED, |value| text_or_number(value)?.parse())
    }

    /// Fields that nobody knows.
    pub(super) fn unknown(&mut self, fields: &Map<String, Value>, expected: &str) {
        for (name, value) in fields {
            let error = format!("unknown field {}; expected {expected}", quote(&name[..].into()));
            self.note(error, name, Some(value.clone()), expected);
        }
    }

    /// What was read, if nothing is wrong.
    pub(super) fn finish<T>(mut self, read: Option<T>) -> Result<T, Problem> {
        if self.untold > 0 {
            let error = format!("{} more mistakes", self.untold);
            self.mistakes.push(Mistake { error, ..Mistake::default() });
        }
        match read {
            Some(read) if self.mistakes.is_empty() => Ok(read),
            _ => Err(Problem::of_all(StatusCode::UNPROCESSABLE_ENTITY, self.mistakes)),
        }
    }

    fn read<T>(
        &mut self,
        field: &str,
        value: Option<Value>,
        expected: &str,
        read: impl FnOnce(&Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        let value = value?;
        match read(&value) {
            Ok(read) => Some(read),
            Err(invalid) => {
                let error = format!("{field}: {} {invalid}", quote(&value));
                self.note(error, field, Some(value), expected);
                None
            }
        }
    }

    fn note(&mut self, error: String, field: &str, value: Option<Value>, expected: &str) {
        if self.mistakes.len() == TOLD {
            self.untold += 1;
            return;
        }
        let (field, expected) = (Some(field.into()), Some(expected.into()));
        self.mistakes.push(Mistake { error, field, value, expected });
    }
}

fn text_or_number(value: &Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => invalid("is neither a text nor a number"),
    }
}

/// A value as it was written, or its beginning.
fn quote(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTE_LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
