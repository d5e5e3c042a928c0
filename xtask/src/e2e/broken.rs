//! Small balancers with one fault each: the suite convicts each of its fault,
//! and of nothing else, and acquits the sound one.
//!
//! Which scenarios convict it is written in each balancer's own file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};

use super::{
    Scenario,
    report::Reports,
    runner::{Level, Verdict, Where, run_all},
    targets::{Routing, Shape, Target, Typed},
};
use crate::{programs, scenarios};

/// Balancers that are judged at one time: most of the time all wait.
const AT_ONCE: usize = 4;

/// Scenarios of each at one time.
const JOBS: usize = 4;

/// The interpreter itself: what is on the path may be a script that looks for it.
fn python() -> Option<String> {
    let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let said = asked.ok().filter(|asked| asked.status.success())?.stdout;
    Some(String::from_utf8(said).unwrap().trim().to_owned())
}

/// All of them, by name.
fn balancers() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/balancers");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension() == Some("py".as_ref())).collect();
    files.sort();
    files
}

/// The scenarios that its file says convict it; none for the sound one.
fn expected(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("# convicted by: "));
    line.into_iter().flat_map(|names| names.split(", ")).map(str::to_owned).collect()
}

/// What is wrong with the verdicts on it, if anything is.
async fn judge(python: &str, file: &Path, chosen: &[&'static Scenario]) -> Option<String> {
    let program = shell_words::quote(file.to_str().unwrap()).into_owned();
    let options = "--port {port} --health-period {health_period} {backends}";
    let target = Target::typed(Typed {
        command: format!("{python} -S -B {program} {options}"),
        shape: Shape::Servers,
        health_path: "/health".into(),
        period: Duration::from_millis(200),
        port: None,
        without: Vec::new(),
        routing: Routing::Strict,
    });
    let target = Arc::new(target.unwrap());
    let (programs, reports) = (programs::places(false), Reports::none());
    let place = Where::Target(target);
    let outcomes = run_all(&programs, &place, chosen, 1, JOBS, &reports).await;
    let convicted: Vec<_> =
        outcomes.iter().filter(|outcome| !matches!(outcome.verdict, Verdict::Pass)).collect();
    let got: BTreeSet<String> =
        convicted.iter().map(|outcome| outcome.scenario.full_name()).collect();
    let expected = expected(file);
    if got == expected {
        return None;
    }
    let said = convicted.iter().map(|outcome| {
        let message = outcome.verdict.failure().map_or("", |failure| &failure.message);
        format!("\n  {}: {message}", outcome.scenario.full_name())
    });
    let name = file.file_name().unwrap().display();
    Some(format!("{name}: convicted by {got:?}, expected {expected:?}{}", said.collect::<String>()))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_convicted_of_its_own_fault() {
    let Some(python) = python() else {
        assert!(std::env::var_os("CI").is_none(), "CI lacks python3");
        eprintln!("skipped: python3 not found");
        return;
    };
    let chosen: Vec<_> = scenarios::all().filter(|scenario| scenario.is_of(Level::Basic)).collect();
    let balancers = balancers();
    assert!(balancers.len() > 10, "{balancers:?}");
    let verdicts = stream::iter(&balancers).map(|file| judge(&python, file, &chosen));
    let wrong: Vec<String> =
        verdicts.buffer_unordered(AT_ONCE).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_names_scenarios_that_any_balancer_should_pass() {
    let basic = scenarios::all().filter(|scenario| scenario.is_of(Level::Basic));
    let basic: BTreeSet<String> = basic.map(Scenario::full_name).collect();
    for file in balancers() {
        let strange: Vec<_> = expected(&file).difference(&basic).cloned().collect();
        assert!(strange.is_empty(), "{}: no basic scenarios {strange:?}", file.display());
        let sound = file.ends_with("sound.py");
        assert_eq!(expected(&file).is_empty(), sound, "{}: what convicts it?", file.display());
    }
}
