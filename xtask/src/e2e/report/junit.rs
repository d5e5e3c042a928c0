//! The results as JUnit XML: a suite for each family.

use anyhow::Result;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

use super::{Results, Run, Target, run::VerdictName};

pub(super) fn render(results: &Results) -> Result<String> {
    let mut report = Report::new(format!("e2e {}", results.target));
    report.set_time(Duration::from_secs_f64(results.seconds));
    for family in results.runs.chunk_by(|a, b| a.family == b.family) {
        report.add_test_suite(suite(family, results));
    }
    Ok(report.to_string()?)
}

fn suite(family: &[Run], results: &Results) -> TestSuite {
    let Target { name, version, world } = &results.target;
    let mut suite = TestSuite::new(family.first().map_or("", |run| run.family));
    suite.set_time(family.iter().map(|run| Duration::from_secs_f64(run.seconds)).sum());
    suite.add_property(("target", name.as_str()));
    suite.add_property(("target_version", version.as_str()));
    suite.add_property(("world", world.word()));
    suite.add_property(("began", results.began.as_str()));
    suite.add_test_cases(family.iter().map(case));
    suite
}

fn case(run: &Run) -> TestCase {
    let mut case = TestCase::new(run.title(), status(run));
    case.set_classname(run.family);
    case.set_time(Duration::from_secs_f64(run.seconds));
    case.add_property(("asserts", run.asserts));
    if run.message.is_some() {
        case.set_system_out(run.evidence());
    }
    case
}

fn status(run: &Run) -> TestCaseStatus {
    let mut status = match run.verdict {
        VerdictName::Pass => return TestCaseStatus::success(),
        VerdictName::Skip | VerdictName::ExpectedFail => TestCaseStatus::skipped(),
        VerdictName::Fail | VerdictName::StaleExpectation => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        VerdictName::SetupFailed | VerdictName::HarnessError => {
            TestCaseStatus::non_success(NonSuccessKind::Error)
        }
    };
    let texts = [run.reason.as_deref(), run.message.as_deref()];
    let texts: Vec<&str> = texts.into_iter().flatten().collect();
    status.set_type(run.verdict.word().to_lowercase());
    status.set_message(texts.join(": "));
    status.set_description(run.asserts);
    status
}
