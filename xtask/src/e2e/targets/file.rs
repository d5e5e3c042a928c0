//! Target files: how a balancer is found, configured, started and judged.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use super::{
    claims::{Routing, Timing},
    setup::Health,
};

/// What a target file says. With `like = "NAME"` it says only how it differs from
/// that built-in target; what that one is known to fail it does not take over.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetFile {
    /// Its name in reports.
    pub(crate) name: String,
    /// What it is and how it is set up, in a sentence.
    pub(crate) about: String,
    /// The program: a name on the path, or a path.
    pub(crate) program: String,
    /// What makes the program tell its version.
    #[serde(default)]
    pub(crate) version: Vec<String>,
    /// The command line; `{program}`, `{port}`, `{config}`, `{folder}`,
    /// `{backends}`, `{urls}`, `{health_path}` and `{health_period}` are replaced.
    pub(crate) command: String,
    /// The name of the configuration file.
    #[serde(default = "config_file")]
    pub(crate) config_file: String,
    /// Its text, as a Jinja template over `port`, `folder`, `servers`,
    /// `algorithm`, `health` and `options`.
    #[serde(default)]
    pub(crate) config: String,
    /// What its template does besides.
    #[serde(default)]
    pub(crate) options: BTreeSet<String>,
    /// How evenly it claims to deal in turn.
    #[serde(default)]
    pub(crate) routing: Routing,
    /// How soon it claims to notice that a server has died or returned.
    #[serde(default)]
    pub(crate) timing: Timing,
    /// The shortest period between probes that it can be told, in milliseconds.
    #[serde(default)]
    pub(crate) shortest_period_ms: u64,
    /// What it can do beyond dealing in turn.
    #[serde(default)]
    pub(crate) can: BTreeSet<String>,
    /// What it cannot do, and why.
    #[serde(default)]
    pub(crate) lacks: BTreeMap<String, String>,
    /// Scenarios that it is known to fail each time, and why.
    #[serde(default)]
    pub(crate) known: BTreeMap<String, String>,
    /// Scenarios that it is known to fail now and then, and why.
    #[serde(default)]
    pub(crate) sometimes: BTreeMap<String, String>,
}

fn config_file() -> String {
    "config".into()
}

/// The targets that the suite brings along.
const BUILT_IN: &[&str] = &[
    include_str!("../../../targets/nginx.toml"),
    include_str!("../../../targets/nginx-default.toml"),
    include_str!("../../../targets/nginx-non-idempotent.toml"),
    include_str!("../../../targets/haproxy.toml"),
    include_str!("../../../targets/haproxy-default.toml"),
    include_str!("../../../targets/haproxy-retry-all.toml"),
    include_str!("../../../targets/caddy.toml"),
    include_str!("../../../targets/caddy-default.toml"),
    include_str!("../../../targets/caddy-passive.toml"),
];

impl TargetFile {
    /// The built-in target of this name, or the one in this file.
    ///
    /// # Errors
    /// There is none, or it is not valid.
    pub(crate) fn load(name: &str) -> Result<TargetFile> {
        if name.ends_with(".toml") {
            let text = std::fs::read_to_string(name)
                .with_context(|| format!("cannot read the target file {name}"))?;
            return TargetFile::parse(&text).with_context(|| format!("the target file {name}"));
        }
        let all = TargetFile::built_in()?;
        let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        let known = names.join(", ");
        let found = all.iter().find(|target| target.name == name).cloned();
        found.with_context(|| {
            format!("no target {name:?}: there are {known}, or a file that ends in .toml")
        })
    }

    /// All that the suite brings along.
    ///
    /// # Errors
    /// None but mistakes of ours.
    pub(crate) fn built_in() -> Result<Vec<TargetFile>> {
        BUILT_IN.iter().map(|text| TargetFile::parse(text)).collect()
    }

    /// What `text` says.
    ///
    /// # Errors
    /// It is not valid.
    pub(crate) fn parse(text: &str) -> Result<TargetFile> {
        let mut table: Table = toml::from_str(text)?;
        let file: TargetFile = match table.remove("like") {
            // Mistakes are told with their lines.
            None => toml::from_str(text)?,
            Some(base) => {
                let base = base.as_str().context("like: expected the name of a target")?;
                let mut whole = TargetFile::base(base)?;
                whole.extend(table);
                whole.try_into()?
            }
        };
        ensure!(!file.command.trim().is_empty(), "command: expected a command line");
        ensure!(!file.name.trim().is_empty(), "name: expected a name");
        if let Some(both) = file.can.iter().find(|can| file.lacks.contains_key(*can)) {
            anyhow::bail!("{both} is both in `can` and in `lacks`");
        }
        // Whether they are formulas at all.
        file.timing.bounds(&Health::new("/"))?;
        Ok(file)
    }

    /// What others are said to be like.
    fn base(name: &str) -> Result<Table> {
        for text in BUILT_IN {
            let mut table: Table = toml::from_str(text)?;
            if table.get("name").and_then(Value::as_str) == Some(name) {
                table.retain(|key, _| key != "known" && key != "sometimes");
                return Ok(table);
            }
        }
        anyhow::bail!("like: there is no target {name:?}")
    }

    /// Why it cannot do something, unless it can.
    pub(crate) fn reason_against(&self, need: &str) -> Option<String> {
        if self.can.contains(need) {
            return None;
        }
        Some(match self.lacks.get(need) {
            Some(reason) => reason.clone(),
            None => format!("{} is not known to offer {need}", self.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{e2e::Scenario, scenarios};

    #[test]
    fn built_in_targets_are_valid_and_know_scenarios_that_exist() {
        let names: BTreeSet<String> = scenarios::all().map(Scenario::full_name).collect();
        for target in TargetFile::built_in().unwrap() {
            for known in target.known.keys().chain(target.sometimes.keys()) {
                assert!(names.contains(known), "{}: no scenario {known}", target.name);
            }
        }
    }

    #[test]
    fn one_that_is_like_another_says_how_it_differs() {
        let text = "like='nginx'\nname='mine'\n[known]\n'fields/hosts'='why'";
        let (mine, nginx) = (TargetFile::parse(text).unwrap(), TargetFile::load("nginx").unwrap());
        assert_eq!((&*mine.name, &mine.about, &mine.config), ("mine", &nginx.about, &nginx.config));
        assert_eq!((mine.known.len(), mine.sometimes.len()), (1, 0));
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| format!("{:#}", TargetFile::parse(text).unwrap_err());
        assert!(error("name = 'x'").contains("missing field `about`"));
        let both = "name='x'\nabout='x'\nprogram='x'\ncommand='x'\ncan=['a']\nlacks={a='b'}";
        assert!(error(both).contains("a is both in `can` and in `lacks`"));
        let timing = "name='x'\nabout='x'\nprogram='x'\ncommand='x'\ntiming.back='2 * perod'";
        assert!(error(timing).contains("timing.back: "), "{}", error(timing));
        assert!(error("like='ngnix'").contains("like: there is no target \"ngnix\""));
        let error = format!("{:#}", TargetFile::load("ngnix").unwrap_err());
        assert!(error.contains("nginx-default"), "{error}");
    }
}
