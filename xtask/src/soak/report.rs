//! The run as JSON, and as one page that needs nothing else.

use std::fmt::Write;

use serde::Serialize;

use super::{Evidence, Sample, churn::Counts, plot, verdict::Check};
use crate::bench::escape;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;\
color:#24292f;background:#fff}\
table{border-collapse:collapse;width:100%}td,th{padding:4px 8px;text-align:left;\
vertical-align:top;border-bottom:1px solid #d0d7de}\
.good{color:#1a7f37}.bad{color:#cf222e}.none{color:#57606a}\
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}\
td,th{border-color:#30363d}.good{color:#3fb950}.bad{color:#f85149}.none{color:#9198a1}}";

/// What is written.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// The command that runs the same again.
    command: String,
    /// Whether everything holds that could be judged.
    holds: bool,
    checks: &'a [Check],
    happened: Counts,
    requests: usize,
    retries: usize,
    /// Errors that are nobody's fault.
    excused: &'a std::collections::BTreeMap<&'static str, usize>,
    /// Errors that are, the first of them.
    errors: &'a [String],
    samples: &'a [Sample],
}

impl<'a> Report<'a> {
    pub(super) fn new(command: String, evidence: &'a Evidence, checks: &'a [Check]) -> Self {
        let totals = &evidence.totals;
        Report {
            command,
            holds: holds(checks),
            checks,
            happened: evidence.counts,
            requests: totals.ledger.requests,
            retries: totals.ledger.retries,
            excused: &totals.excused,
            errors: &totals.errors,
            samples: &evidence.samples,
        }
    }

    /// A page.
    pub(super) fn html(&self) -> String {
        let (class, word) = if self.holds { ("good", "holds") } else { ("bad", "broken") };
        let mut body = format!(
            "<h1>lb soak: <span class=\"{class}\">{word}</span></h1>\n<p><code>{}</code></p>\n\
             <table>\n",
            escape(&self.command)
        );
        for check in self.checks {
            let (class, mark) = mark(check);
            let (what, seen) = (escape(check.what), escape(&check.seen));
            let _ = writeln!(
                body,
                "<tr><td class=\"{class}\">{mark}</td><td>{what}</td><td>{seen}</td></tr>"
            );
        }
        let Counts { kills, reloads, refused, restarts, troubles, changes } = self.happened;
        let _ = writeln!(
            body,
            "</table>\n<p>{} requests, {} of them repeated on the way, through {kills} SIGKILLs, \
             {troubles} faults of servers, {reloads} reloads, {refused} refused files, {changes} \
             changes over the API and {restarts} restarts. Dashed lines are restarts.</p>",
            self.requests, self.retries
        );
        for (class, text) in self.errors.iter().map(|error| ("bad", error.clone())).chain(
            self.excused.iter().map(|(why, count)| ("none", format!("excused {count}: {why}"))),
        ) {
            let _ = writeln!(body, "<p class=\"{class}\">{}</p>", escape(&text));
        }
        body.push_str(&plot::all(self.samples));
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <title>lb soak</title><style>{STYLE}{}</style></head>\n<body>\n{body}</body></html>\n",
            plot::STYLE
        )
    }
}

/// Whether nothing is broken.
pub(super) fn holds(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.holds != Some(false))
}

/// A class and a word for it.
pub(super) fn mark(check: &Check) -> (&'static str, &'static str) {
    match check.holds {
        Some(true) => ("good", "good"),
        Some(false) => ("bad", "BROKEN"),
        None => ("none", "open"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::{tests::evidence, verdict::judge};

    #[test]
    fn the_page_says_the_verdict_and_escapes_what_was_seen() {
        let mut evidence = evidence();
        evidence.totals.error_count = 1;
        evidence.totals.errors.push("<GET> & more".into());
        let checks = judge(&evidence);
        let page = Report::new("cargo xtask soak".into(), &evidence, &checks).html();
        assert!(page.contains(">broken</span>"), "{page}");
        assert!(page.contains("&lt;GET&gt; &amp; more"), "{page}");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn the_json_has_the_samples() {
        let evidence = evidence();
        let checks = judge(&evidence);
        let report = Report::new("cargo xtask soak".into(), &evidence, &checks);
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["holds"], true);
        assert_eq!(value["samples"].as_array().unwrap().len(), evidence.samples.len());
        assert_eq!(value["happened"]["kills"], 3);
    }
}
