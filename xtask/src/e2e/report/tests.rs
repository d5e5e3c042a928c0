//! What reports say of a run that has every verdict.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use testbed::{
    body::BodyDigest,
    fault::{Fault, Health},
    log::{Event, EventKind, EventLog},
};

use super::{results::WorldName, timeline::telling, *};
use crate::e2e::{
    Clock,
    runner::{Failure, Scenario, Verdict},
};

#[path = "../../../../tests/browser.rs"]
#[allow(dead_code, reason = "the tests of the status page use the rest")]
mod browser;

const fn scenario(number: u32, name: &'static str) -> Scenario {
    Scenario {
        judges: crate::e2e::Judges::Ours,
        simulated: false,
        number,
        group: if number < 3 { "rotation" } else { "failover" },
        name,
        clock: Clock::Events,
        asserts: "who is asked # says <b>A</b>",
        run: |_| Box::pin(async { Ok(()) }),
    }
}

static SCENARIOS: [Scenario; 7] = [
    scenario(1, "passes"),
    scenario(2, "fails"),
    scenario(3, "is_known"),
    scenario(4, "is_stale"),
    scenario(5, "is_skipped"),
    scenario(6, "never_starts"),
    scenario(7, "is_broken"),
];

/// What is meant to break whoever does not escape it.
const NASTY: &str = "dealt A</script><script>alert(1)</script>, nonce=2\n\u{1b}[31m% | \"é\"";

/// Two backends of which one dies, and two clients; the third request fails.
fn history() -> EventLog {
    let log = EventLog::new();
    let (c1, a, b): (Arc<str>, Arc<str>, Arc<str>) = ("c1".into(), "A".into(), "B".into());
    let addr = "127.0.0.1:1".parse().unwrap();
    for backend in [&a, &b] {
        let backend = Arc::clone(backend);
        log.record(EventKind::Started { backend, addr, listens: true });
    }
    for (nonce, backend) in [(1, &a), (2, &b), (3, &a)] {
        let (connection, body) = (nonce, BodyDigest::default());
        let head: Arc<[u8]> = Arc::from(&b"GET /</script> HTTP/1.1\r\nX: \0\xff\r\n\r\n"[..]);
        let (client, backend) = (Arc::clone(&c1), Arc::clone(backend));
        log.record(EventKind::Sent {
            client: Arc::clone(&client),
            nonce,
            method: "GET".into(),
            target: "/</script>".into(),
            body,
            head: Arc::clone(&head),
        });
        if nonce == 3 {
            let fault = Fault::RawAnswer(b"</script>".into());
            log.record(EventKind::Armed { backend: Arc::clone(&b), fault, times: Some(1) });
            log.record(EventKind::HealthSet { backend: Arc::clone(&b), health: Health::Hang });
            log.record(EventKind::Killed { backend: Arc::clone(&a) });
            let error = "no answer".into();
            log.record(EventKind::Failed { client, nonce, status: None, error, head });
            break;
        }
        log.record(EventKind::Accepted { backend: Arc::clone(&backend), connection, peer: addr });
        log.record(EventKind::Received {
            backend: Arc::clone(&backend),
            connection,
            nonce: Some(nonce),
            method: "GET".into(),
            target: "/".into(),
            head: Arc::clone(&head),
        });
        log.record(EventKind::Answered {
            client,
            nonce,
            status: 200,
            backend: Some(backend),
            echo: None,
            received: None,
            promised: None,
            body,
            head: Arc::from(&b"HTTP/1.1 200 OK\r\n\r\n"[..]),
        });
    }
    log.record(EventKind::wrote(&"port 4711".into(), &[b'x'; 9000]));
    log.record(EventKind::Probed { backend: b, status: 0 });
    for _ in 0..20 {
        log.record(EventKind::Output { source: "lb0".into(), line: "state </script>".into() });
    }
    log
}

fn outcomes() -> Vec<Outcome> {
    let failure = || Failure::new(NASTY);
    let verdicts = [
        Verdict::Pass,
        Verdict::Fail(failure()),
        Verdict::ExpectedFail(failure(), "no retries # yet".into()),
        Verdict::StaleExpectation("no retries".into()),
        Verdict::Skip("no weights".into()),
        Verdict::SetupFailed(failure()),
        Verdict::Fail(Failure { message: "the scenario panicked".into(), panicked: true }),
    ];
    let outcome = |(scenario, verdict): (&'static Scenario, Verdict)| {
        let log = if verdict.failure().is_some() { history() } else { EventLog::new() };
        Outcome { scenario, took: Duration::from_millis(1234), verdict, log }
    };
    SCENARIOS.iter().zip(verdicts).map(outcome).collect()
}

fn results_of(outcomes: &[Outcome]) -> Results {
    let target = Target { name: "lb".into(), version: "0.1.0".into(), world: WorldName::Local };
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    Results::of(target, began, Duration::from_secs(9), outcomes, " --release")
}

fn results() -> Results {
    results_of(&outcomes())
}

#[track_caller]
fn check_close(count: usize, line: &str, code: u8) {
    let results = results_of(&outcomes()[..count]);
    assert_eq!((&*results.totals.to_string(), results.exit_code()), (line, code));
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    crate::Cli::command().debug_assert();
}

#[test]
fn the_closing_line_and_the_exit_code() {
    check_close(1, "1 passed, 0 failed, 0 skipped", 0);
    check_close(2, "1 passed, 1 failed, 0 skipped", 1);
    check_close(3, "1 passed, 1 failed, 0 skipped, 1 failed as expected", 1);
    check_close(7, "1 passed, 4 failed, 1 skipped, 1 failed as expected", 3);
    let outcomes: Vec<_> = outcomes().drain(2..5).collect();
    assert_eq!(results_of(&outcomes[..1]).exit_code(), 0, "what is expected is no failure");
    assert_eq!(results_of(&outcomes[1..2]).exit_code(), 1, "what is stale is one");
}

#[test]
fn runs_of_a_scenario_are_told_apart() {
    let twice: Vec<_> = [outcomes(), outcomes()]
        .into_iter()
        .flat_map(|mut o| o.drain(..1).collect::<Vec<_>>())
        .collect();
    let results = results_of(&twice);
    let titles: Vec<_> = results.runs.iter().map(Run::title).collect();
    assert_eq!(titles, ["rotation/passes [run 1 of 2]", "rotation/passes [run 2 of 2]"]);
    assert!(tap::render(&results).contains("ok 2 - rotation/passes [run 2 of 2]\n"));
}

#[test]
fn tap_has_a_line_for_each_run_and_yaml_for_what_is_to_be_said() {
    let text = tap::render(&results());
    let points: Vec<_> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        points,
        [
            "TAP version 14",
            "# lb 0.1.0, 2001-09-09T01:46:40Z",
            "1..7",
            "ok 1 - rotation/passes",
            "not ok 2 - rotation/fails",
            r"not ok 3 - failover/is_known # TODO no retries \# yet",
            "not ok 4 - failover/is_stale",
            "ok 5 - failover/is_skipped # SKIP no weights",
            "not ok 6 - failover/never_starts",
            "not ok 7 - failover/is_broken",
            "# 1 passed, 4 failed, 1 skipped, 1 failed as expected",
        ]
    );
    let block = text.split("not ok 2").nth(1).unwrap().split("  ...\n").next().unwrap();
    let message = block.lines().find_map(|line| line.strip_prefix("  message: ")).unwrap();
    assert_eq!(serde_json::from_str::<String>(message).unwrap(), NASTY);
    assert!(
        block.contains("  repeat_with: \"cargo xtask e2e --filter rotation/fails --release\"\n")
    );
    assert!(block.contains("    - \"seq=0 at_ms="), "{block}");
}

#[test]
fn junit_has_a_suite_for_each_family() {
    let text = junit::render(&results()).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&text).unwrap();
    let suites: Vec<_> = report
        .test_suites
        .iter()
        .map(|s| (s.name.as_str(), s.tests, s.failures, s.errors))
        .collect();
    assert_eq!(suites, [("rotation", 2, 1, 0), ("failover", 5, 1, 2)]);
    let fails = &report.test_suites[0].test_cases[1];
    let quick_junit::TestCaseStatus::NonSuccess { message, .. } = &fails.status else { panic!() };
    // XML has no escapes; what a terminal does with them is left out.
    let message = message.as_ref().unwrap().as_str();
    assert_eq!(message, NASTY.replace("\u{1b}[31m", ""));
    assert!(fails.system_out.as_ref().unwrap().as_str().contains("event=started backend=A"));
}

#[test]
fn json_says_all_and_the_schema_is_up_to_date() {
    let json: Value = serde_json::from_str(&json::render(&results()).unwrap()).unwrap();
    let run = &json["runs"][1];
    assert_eq!((&run["verdict"], &run["message"]), (&json!("fail"), &json!(NASTY)));
    assert_eq!((&run["seconds"], &json["target"]["version"]), (&json!(1.234), &json!("0.1.0")));
    assert_eq!(json["runs"][4]["reason"], "no weights");
    let kept = include_str!("../../../../docs/e2e.schema.json");
    let renew = "renew it: cargo xtask e2e --json-schema > docs/e2e.schema.json";
    assert!(kept == schema(), "{renew}");
}

#[test]
fn annotations_and_the_summary_mean_what_they_say() {
    let results = results();
    assert_eq!(
        github::annotation(&results.runs[1]),
        "::error title=rotation/fails::who is asked # says <b>A</b>%0Adealt A</script><script>alert(1)\
         </script>, nonce=2%0A\u{1b}[31m%25 | \"é\"%0Ato repeat it: cargo xtask e2e --filter \
         rotation/fails --release"
    );
    let summary = github::summary(&results);
    let rows = summary.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(rows, 1 + 4, "{summary}");
    assert!(summary.contains("dealt A&lt;/script>"), "{summary}");
    assert!(summary.starts_with("### lb 0.1.0: 1 passed, 4 failed"), "{summary}");
}

#[test]
fn what_cannot_be_written_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Some(folder.path().join(name));
    let options = |junit, json| Files {
        junit,
        json,
        tap: None,
        html: None,
        html_all: false,
        html_events: 400,
        json_schema: false,
    };
    let error = |options| Reports::open(&options).err().map(|error| format!("{error:#}"));
    let missing = error(options(at("no/such.xml"), None)).unwrap();
    assert!(missing.starts_with("cannot write ") && missing.contains("No such file"), "{missing}");
    let twice = error(options(Some("-".into()), Some("-".into())));
    assert_eq!(twice.as_deref(), Some("two reports go to -"));
    fs::write(at("old.json").unwrap(), "{".repeat(1 << 20)).unwrap();
    let reports = Reports::open(&options(None, at("old.json"))).unwrap();
    assert_eq!(fs::metadata(at("old.json").unwrap()).unwrap().len(), 1 << 20);
    let outcomes = outcomes();
    reports.close(&results_of(&outcomes[..1]), &outcomes[..1]).unwrap();
    let text = fs::read_to_string(at("old.json").unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["totals"]["passed"], 1);
}

/// What stands before the data in the page.
const DATA: &str = r#"<script type="application/json" id="data">"#;

/// What is said of a balancer can be checked, as it was known or not.
#[test]
fn what_fails_as_expected_has_its_trace_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (reports, outcomes) = (folder.path().join("new"), outcomes());
    let written = Reports::into_folder(&reports, "nginx-1.2").unwrap();
    written.write(&results_of(&outcomes), &outcomes).unwrap();
    let json = fs::read_to_string(reports.join("nginx-1.2.json")).unwrap();
    let page = fs::read_to_string(reports.join("nginx-1.2.html")).unwrap();
    let text = page.lines().find_map(|line| line.strip_prefix(DATA)).unwrap();
    let data = &serde_json::from_str::<Value>(text.trim_end_matches("</script>")).unwrap();
    let known = &serde_json::from_str::<Value>(&json).unwrap()["runs"][2];
    assert_eq!(known["verdict"], "expected_fail");
    assert_eq!(known["events"].as_array().unwrap().len(), history().len() as usize);
    let raw = |event: &&Value| event["raw"].as_str().is_some_and(|raw| raw.starts_with("GET /"));
    let events = data["timelines"][2]["events"].as_array().unwrap();
    assert_eq!(events.iter().filter(raw).count(), 6, "{events:?}");
}

#[test]
fn a_long_history_keeps_its_end_and_what_the_message_names() {
    let log = history();
    for _ in 0..5000 {
        log.note("x");
    }
    let kept = telling(log.events(), "nonce=2: was lost", 100);
    assert_eq!(kept.len(), 100);
    let of_it = |event: &&Event| event.nonce() == Some(2);
    assert_eq!(kept.iter().filter(of_it).count(), log.events().iter().filter(of_it).count());
    assert!(kept.iter().any(|event| matches!(event.kind, EventKind::Killed { .. })));
    assert!(kept.iter().all(|event| event.nonce() != Some(1)));
    assert!(kept.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!(kept.last().map(|event| event.seq), Some(log.len() - 1));
}

#[test]
fn nothing_in_the_data_ends_the_script() {
    let (outcomes, page) = (outcomes(), include_str!("page.html"));
    let text = html::render(&results_of(&outcomes), &outcomes, 400).unwrap();
    assert_eq!(text.matches("</script").count(), page.matches("</script").count());
    assert_eq!(text.matches("<script").count(), page.matches("<script").count());
}

/// How much wider the page is than its window, in pixels.
const EXCESS: &str = "document.documentElement.scrollWidth - document.documentElement.clientWidth";

/// How much of the timeline cannot be scrolled to, in pixels.
const HIDDEN: &str = "(() => {
    const [scroll, frame] = ['scroll', 'frame'].map((id) => document.getElementById(id));
    const [inner, outer] = [scroll, frame].map((node) => node.getBoundingClientRect().right);
    return Math.max(0, Math.round(inner - outer));
})()";

#[test]
fn the_page_shows_a_failure_to_its_last_byte() {
    if !browser::is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.html");
    let outcomes = outcomes();
    fs::write(&file, html::render(&results_of(&outcomes), &outcomes, 400).unwrap()).unwrap();
    let mut page = browser::Browser::open(&format!("file://{}", file.display()), 1200, 900);
    page.until("document.querySelectorAll('tbody tr').length === 7");

    // What is looked for is shown, and nothing else.
    let shown =
        "[...document.querySelectorAll('tbody tr')].filter((row) => row.offsetParent).length";
    page.eval("document.querySelector('#filters button').click()");
    assert_eq!(page.eval(shown), 4);
    page.eval("document.getElementById('find').focus()");
    page.call("Input.insertText", json!({ "text": "rotation fails" }));
    page.until(&format!("{shown} === 1"));

    // A click opens it: a lane for each party, bands where a server was ill.
    page.eval("document.querySelector('tbody tr:not([hidden]) td').click()");
    page.until("document.querySelectorAll('.lane-label').length === 5");
    let lanes =
        "[...document.querySelectorAll('.lane-label')].map((label) => label.innerText.trim())";
    assert_eq!(page.eval(lanes), json!(["c1", "port 4711", "A", "B", "lb0"]));
    assert_eq!(page.eval("document.querySelector('.told').textContent"), NASTY);
    let bands = "[...document.querySelectorAll('[data-band]')].map((band) => band.dataset.band)";
    assert_eq!(page.eval(bands), json!(["fault", "sick", "dead"]));
    let strip = "[...document.querySelectorAll('#strip button')].map((cell) => cell.innerText)";
    assert_eq!(page.eval(strip), json!(["A", "B", "×"]));

    // A click on a request shows its bytes; so does the keyboard.
    let click = |nonce: u32| {
        format!(
            "document.querySelector('.request[data-nonce=\"{nonce}\"]').dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))"
        )
    };
    page.eval(&click(2));
    let bytes = "[...document.querySelectorAll('#panel .bytes')].map((bytes) => bytes.textContent)";
    let head = "GET /</script> HTTP/1.1\\r\\n\nX: \\x00\\xff\\r\\n\n\\r\\n\n";
    assert_eq!(page.eval(bytes), json!([head, head, "HTTP/1.1 200 OK\\r\\n\n\\r\\n\n"]));
    let lit = "document.querySelectorAll('svg .on').length";
    assert_eq!(page.eval(lit), 2);
    page.eval("document.querySelector('svg [tabindex=\"0\"]').focus()");
    page.press_enter();
    page.until("document.querySelector('#panel h2').innerText === 'A'");

    // Nothing overflows, whatever is open.
    for scheme in ["light", "dark"] {
        page.prefer(scheme);
        for width in [360, 700, 1200] {
            page.resize(width, 900);
            assert_eq!(page.eval(EXCESS), 0, "{scheme}, {width} px");
            assert_eq!(page.eval(HIDDEN), 0, "{scheme}, {width} px");
            assert_eq!(page.eval(browser::FAINT_TEXTS), json!([]), "{scheme}, {width} px");
        }
    }
    page.resize(360, 900);
    page.eval("location.hash = ''");
    page.until("!document.getElementById('overview').hidden");
    assert_eq!(page.eval(EXCESS), 0);
    for scheme in ["light", "dark"] {
        page.prefer(scheme);
        assert_eq!(page.eval(browser::FAINT_TEXTS), json!([]), "{scheme}");
    }

    let noise = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
    for noise in noise.map(|name| page.events_of(name)) {
        assert!(noise.is_empty(), "{noise:?}");
    }
    assert!(page.events_of("Page.javascriptDialogOpening").is_empty());
}
