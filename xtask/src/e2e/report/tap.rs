//! The results as TAP 14 (<https://testanything.org>): a line for each run, and
//! a block of YAML where there is something to say.

use std::fmt::Write;

use serde_json::json;

use super::{Results, Run, run::VerdictName};

pub(super) fn render(results: &Results) -> String {
    let mut text = String::from("TAP version 14\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# {}, {}", one_line(&results.target.to_string()), results.began);
    let _ = writeln!(text, "1..{}", results.runs.len());
    for (place, run) in results.runs.iter().enumerate() {
        point(&mut text, place + 1, run);
    }
    let _ = writeln!(text, "# {}", results.totals);
    text
}

fn point(text: &mut String, number: usize, run: &Run) {
    let reason = run.reason.as_deref().unwrap_or_default();
    let (word, directive) = match run.verdict {
        VerdictName::Pass => ("ok", String::new()),
        VerdictName::Skip => ("ok", format!(" # SKIP {}", escaped(reason))),
        VerdictName::ExpectedFail => ("not ok", format!(" # TODO {}", escaped(reason))),
        _ => ("not ok", String::new()),
    };
    let _ = writeln!(text, "{word} {number} - {}{directive}", escaped(&run.title()));
    let _ = writeln!(text, "  ---");
    for (key, value) in [
        ("asserts", json!(run.asserts)),
        ("verdict", json!(run.verdict)),
        ("duration_ms", json!((run.seconds * 1e3).round())),
    ] {
        let _ = writeln!(text, "  {key}: {value}");
    }
    if let Some(message) = &run.message {
        // A string of JSON is one of YAML.
        let _ = writeln!(text, "  message: {}", json!(message));
        let _ = writeln!(text, "  repeat_with: {}", json!(run.repeat_with));
        list(text, "events", &run.events);
        list(text, "balancer", &run.balancer);
    }
    let _ = writeln!(text, "  ...");
}

fn list(text: &mut String, key: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {key}:");
    for line in lines {
        let _ = writeln!(text, "    - {}", json!(line));
    }
}

/// In a description `#` begins a directive, and a line's end ends it.
fn escaped(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('#', "\\#")
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}
