//! The simulation itself: that it is deterministic, and that what it found
//! stays found.

use std::{path::PathBuf, process::Command};

use xxhash_rust::xxh3::xxh3_64;

use super::{draw::draw, plan::Plan, replay::verdict, run::Run};
use crate::programs::workspace;

/// Names the seed whose digest the test process is to print.
const ASKED: &str = "SIM_DIGEST_OF";

fn digest(run: &Run) -> u64 {
    let events: String = run.events.iter().map(|event| format!("{event}\n")).collect();
    // The lines of requests begin with the time of day.
    let told = run.access.lines().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest));
    xxh3_64((events + &told.collect::<Vec<_>>().join("\n")).as_bytes())
}

fn digest_of(seed: u64) -> u64 {
    digest(&verdict(&draw(seed)).unwrap().0)
}

/// Plans that are kept: found by seeds, or written by hand.
fn kept_plans() -> Vec<PathBuf> {
    let folder = workspace().join("tests/plans");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_seed_gives_the_same_events_twice() {
    for seed in [1, 6, 17] {
        assert_eq!(digest_of(seed), digest_of(seed), "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_events_in_another_process_place_and_time_zone() {
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sim::tests::the_digest_that_another_process_asks_for", "--nocapture"])
        .env(ASKED, "6")
        .env("TZ", "Pacific/Chatham")
        .env("LANG", "tr_TR.UTF-8")
        .env("RUST_LOG", "trace")
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let text = String::from_utf8(other.stdout).unwrap();
    let expected = format!("digest={}", digest_of(6));
    assert!(text.contains(&expected), "expected {expected}: {text}");
}

#[test]
fn the_digest_that_another_process_asks_for() {
    if let Ok(seed) = std::env::var(ASKED) {
        println!("digest={}", digest_of(seed.parse().unwrap()));
    }
}

#[test]
fn some_seeds_are_without_a_violation() {
    for seed in 1..=30 {
        let (_, wrong) = verdict(&draw(seed)).unwrap();
        assert!(wrong.is_empty(), "cargo xtask sim --seeds 1 --seed {seed}: {wrong:#?}");
    }
}

#[test]
fn kept_plans_are_without_a_violation() {
    for file in kept_plans() {
        let (_, wrong) = verdict(&Plan::read(&file).unwrap()).unwrap();
        let name = file.file_name().unwrap().display();
        assert!(wrong.is_empty(), "cargo xtask sim --replay tests/plans/{name}: {wrong:#?}");
    }
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    for seed in 1..=50 {
        let plan = draw(seed);
        let text = plan.to_text().unwrap();
        assert_eq!(Plan::parse(&text).unwrap(), plan, "{text}");
    }
}

#[test]
fn a_mistake_in_a_plan_is_told() {
    let good = "seed = 1\nfaults_ms = 9\nservers = [{name = \"A\"}]\n\
        clients = [{name = \"c\", pause_ms = 1, posts = 0, body = 0}]\n";
    Plan::parse(good).unwrap();
    for (more, told) in [
        ("balancer.algorithm = \"rond_robin\"", "unknown algorithm"),
        ("network.mtu = 40", "mtu is less than 68"),
        ("[[operations]]\ndo = \"kill\"\nserver = \"A\"\nat_ms = 1\nfor_s = 5", "`for_s`"),
        ("[[operations]]\ndo = \"kill\"\nserver = \"B\"\nat_ms = 1", "no server B"),
        ("[[operations]]\ndo = \"abort\"\nclient = \"c\"\nat_ms = 9", "after the faults"),
    ] {
        let error = format!("{:#}", Plan::parse(&format!("{good}{more}\n")).unwrap_err());
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn dropping_an_operation_moves_nothing_else_before_it() {
    let plan = draw(6);
    let last = plan.operations.iter().map(|operation| operation.at_ms).max().unwrap();
    let mut shorter = plan.clone();
    shorter.operations.retain(|operation| operation.at_ms < last);
    let (whole, part) = (verdict(&plan).unwrap().0, verdict(&shorter).unwrap().0);
    let until =
        whole.done.iter().find(|done| plan.operations[done.operation].at_ms == last).unwrap();
    let lines = |run: &Run| -> Vec<String> {
        run.events.iter().take(until.seq as usize).map(ToString::to_string).collect()
    };
    assert_eq!(lines(&whole), lines(&part));
}
