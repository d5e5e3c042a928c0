//! What is logged, in what form and where to: the operator's choice, and the
//! outputs that follow from it.
//!
//! Owns no line: those of requests are [`access_log`](crate::access_log)'s, the
//! others are written where something happens.

use std::{
    env::{self, VarError},
    io::Write,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::{
    access_log::{AccessLog, Destination, Format},
    output::{Output, Stream},
};

/// What is logged, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Where the lines of requests go. Default standard output.
    pub access: Destination,
    /// How these lines look. Default text.
    pub format: Format,
    /// What goes to standard error. Default info.
    pub level: Level,
}

/// The least serious of what goes to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Nothing.
    Off,
    /// What must not happen.
    Error,
    /// Troubles too.
    Warn,
    /// Each change of a server's state too.
    #[default]
    Info,
    /// Lost connections too.
    Debug,
    /// What the libraries say too.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}

impl Logs {
    /// Starts the log of state changes and troubles, on standard error, and
    /// that of requests.
    ///
    /// # Errors
    /// A file cannot be opened, or a thread cannot be started.
    pub fn start(&self) -> Result<(AccessLog, Output)> {
        let stdout = Output::start(Stream::Stdout).context(NO_THREAD)?;
        let stderr = Output::start(Stream::Stderr).context(NO_THREAD)?;
        let requests = match &self.access {
            Destination::Stdout => Some(stdout.clone()),
            Destination::Off => None,
            Destination::File(path) => {
                let file = Output::start(Stream::File(path.clone()));
                Some(
                    file.with_context(|| format!("cannot open the access log {}", path.display()))?,
                )
            }
        };
        self.start_tracing(&stderr);
        Ok((AccessLog::new(stdout, requests, self.format), stderr))
    }

    fn start_tracing(&self, stderr: &Output) {
        let (filter, complaint) = filter(self.level, env::var("RUST_LOG"));
        let writer = stderr.clone();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || writer.clone())
            .log_internal_errors(false)
            .with_target(false)
            .with_ansi(false)
            .init();
        if let Some(complaint) = complaint {
            // Not an event: the filter at fault might hide it.
            let _ = writeln!(stderr.clone(), "{complaint}");
        }
    }
}

const NO_THREAD: &str = "cannot start the log's thread";

/// What `RUST_LOG` says, or else `level`; and what is wrong with the former.
fn filter(level: Level, variable: Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let by_level = || EnvFilter::default().add_directive(LevelFilter::from(level).into());
    let text = match variable {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) | Err(VarError::NotPresent) => return (by_level(), None),
        Err(error) => return (by_level(), Some(format!("RUST_LOG is ignored: {error}"))),
    };
    match EnvFilter::try_new(&text) {
        Ok(filter) => (filter, misspelt(&text)),
        Err(error) => (by_level(), Some(format!("RUST_LOG={text:?} is ignored: {error}"))),
    }
}

/// A word that is no level is taken as the name of a module, of which then
/// everything is logged, and nothing else: rarely what was meant.
fn misspelt(text: &str) -> Option<String> {
    let known = |word: &&str| {
        let module = word.split("::").next().unwrap_or_default();
        word.is_empty() || word.parse::<LevelFilter>().is_ok() || MODULES.contains(&module)
    };
    let bare = |word: &&str| !word.contains(['=', '[']);
    let word = text.split(',').map(str::trim).filter(bare).find(|word| !known(word))?;
    Some(format!(
        "RUST_LOG={text:?}: {word:?} is no level, so it is taken as the name of a module; \
         expected off, error, warn, info, debug or trace"
    ))
}

/// Those that log something.
const MODULES: [&str; 4] = ["lb", "hyper", "hyper_util", "tokio"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variable: &str, filter_is: &str, complaint: Option<&str>) {
        let (got, complained) = filter(Level::Warn, Ok(variable.into()));
        assert_eq!(got.to_string(), filter_is);
        assert_eq!(complained.is_some(), complaint.is_some(), "{complained:?}");
        let said = complained.unwrap_or_default();
        assert!(said.contains(complaint.unwrap_or_default()), "{said}");
    }

    #[test]
    fn rust_log_wins_where_it_is_set_and_right() {
        check("", "warn", None);
        check("debug", "debug", None);
        check("lb::health", "lb::health=trace", None);
        check("off,lb=info", "lb=info,off", None);
        check("wran", "wran=trace", Some("\"wran\" is no level"));
        check("lb=loud", "warn", Some("is ignored"));
        let unset = filter(Level::Error, Err(VarError::NotPresent));
        assert_eq!((unset.0.to_string(), unset.1), ("error".into(), None));
    }
}
