//! What a balancer claims of itself: how it deals in turn, and how soon it
//! notices. It is judged by that, and not by what others claim.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Deserialize;

use super::setup::Health;

/// How evenly requests are dealt in turn. Each is more than those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Routing {
    /// About the same number to each server, over many requests.
    Fair,
    /// Numbers that differ by at most one, at quiescence.
    Balanced,
    /// Each server once in each round, in an order that may differ.
    Window,
    /// The order of the configuration, round after round; a server that returns
    /// may get another place.
    Cyclic,
    /// The order of the configuration, also after servers have left and returned.
    #[default]
    Strict,
}

/// How soon a change of a server is noticed at the latest: expressions in
/// seconds over `period`, `timeout`, `rise` and `fall`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timing {
    /// Until a server that has died gets no request any more.
    out: String,
    /// Until one that has returned gets its share again.
    back: String,
}

/// How soon a change of a server is noticed at the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// That it has died.
    pub(crate) out: Duration,
    /// That it has returned.
    pub(crate) back: Duration,
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Default for Timing {
    /// What health checks promise.
    fn default() -> Self {
        Timing { out: "fall * period + timeout".into(), back: "rise * period + timeout".into() }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out within {}, back within {}", self.out, self.back)
    }
}

impl Timing {
    /// The bounds of servers that are probed so.
    ///
    /// # Errors
    /// An expression is none, or comes to no time.
    pub(crate) fn bounds(&self, health: &Health) -> Result<Bounds> {
        let bound = |name, text| time(text, health).with_context(|| format!("timing.{name}"));
        Ok(Bounds { out: bound("out", &self.out)?, back: bound("back", &self.back)? })
    }
}

fn time(expression: &str, health: &Health) -> Result<Duration> {
    // The end of a block, where there is none, ends minijinja 2.24 in a panic.
    ensure!(!expression.contains('}'), "{expression:?} is no formula");
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    let timeout = Duration::from_millis(health.timeout_ms).as_secs_f64();
    let context =
        context! { period => health.period, timeout, rise => health.rise, fall => health.fall };
    let value = jinja.compile_expression(expression)?.eval(context)?;
    ensure!(value.is_number(), "{expression:?} comes to {value}, expected seconds");
    let seconds = f64::try_from(value)?;
    Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("{expression:?} comes to {seconds} seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let mut health = Health::new("/");
        health.set_period(Duration::from_millis(300));
        (health.rise, health.fall) = (2, 3);
        health
    }

    #[test]
    fn bounds_follow_from_the_formula() {
        let bounds = Timing::default().bounds(&health()).unwrap();
        let [out, back] = [1_200, 900].map(Duration::from_millis);
        assert_eq!(bounds, Bounds { out, back });
        let timing = Timing { out: "0".into(), back: "2 * period".into() };
        let back = Duration::from_millis(600);
        assert_eq!(timing.bounds(&health()).unwrap(), Bounds { out: Duration::ZERO, back });
    }

    #[test]
    fn what_comes_to_no_time_is_told() {
        let error = |out: &str| {
            let timing = Timing { out: out.into(), ..Timing::default() };
            format!("{:#}", timing.bounds(&health()).unwrap_err())
        };
        assert!(error("perod").starts_with("timing.out: "), "{}", error("perod"));
        assert!(error("period *").contains("syntax error"), "{}", error("period *"));
        assert!(error("period }} 2").contains("no formula"), "{}", error("period }} 2"));
        assert!(error("'soon'").contains("expected seconds"), "{}", error("'soon'"));
        assert!(error("0 - period").contains("-0.3 seconds"), "{}", error("0 - period"));
    }

    #[test]
    fn what_is_strict_is_all_the_rest() {
        use Routing::{Balanced, Cyclic, Fair, Strict, Window};
        let grades = [Fair, Balanced, Window, Cyclic, Strict];
        assert!(grades.is_sorted());
        assert_eq!(Cyclic.to_string(), "cyclic");
    }
}
