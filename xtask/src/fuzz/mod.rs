//! What must hold for any bytes at all: the bodies of the fuzz targets.
//!
//! A body takes bytes and says what is wrong; a panic is wrong too. The same
//! bodies run under a fuzzer (`fuzz/`), and in `cargo test` with what
//! the fuzzers have found worth keeping and mutations of it. Owns no search
//! for bytes.

mod admin;
mod answer;
mod chunks;
mod config;
mod exchange;
mod plan;
mod request;
mod target;

use anyhow::{Context, Result, ensure};
use testbed::log::EventLog;

use crate::sim::hear_panics;

/// A body of a fuzz target.
type Body = fn(&[u8]) -> Result<()>;

/// The targets, by name.
const TARGETS: &[(&str, Body)] = &[
    ("admin", admin::check),
    ("answer", answer::check),
    ("chunks", chunks::check),
    ("config", config::check),
    ("plan", plan::check),
    ("request", request::check),
    ("target", target::check),
];

/// The names of all targets.
pub fn targets() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(name, _)| *name)
}

/// Holds `bytes` against what must hold for `target`.
///
/// # Errors
/// It does not hold, or there is no such target.
pub fn check(target: &str, bytes: &[u8]) -> Result<()> {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, body) = found.with_context(|| format!("there is no fuzz target {target}"))?;
    let log = EventLog::new();
    hear_panics(&log);
    let checked = body(bytes);
    let panics = log.panics();
    ensure!(panics.is_empty(), "{}", panics.join("; "));
    checked
}
