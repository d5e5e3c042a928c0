//! The results as one page that needs nothing else: [`Results`] and the
//! timelines go into it as data, and its script draws them.

use anyhow::Result;
use serde::Serialize;

use super::{Results, timeline::Timeline};
use crate::e2e::runner::Outcome;

const PAGE: &str = include_str!("page.html");

/// Where the data goes.
const PLACE: &str = "{data}";

#[derive(Serialize)]
struct Data<'a> {
    results: &'a Results,
    /// One for each run; none if its events are not kept.
    timelines: Vec<Option<Timeline>>,
}

/// The page, with at most `max_events` events of each run whose log is kept.
pub(super) fn render(results: &Results, outcomes: &[Outcome], max_events: usize) -> Result<String> {
    let timelines = outcomes.iter().map(|outcome| timeline(outcome, max_events)).collect();
    let data = serde_json::to_string(&Data { results, timelines })?;
    // Nothing in it can end the element that it stands in.
    let data = data.replace('<', "\\u003c");
    Ok(PAGE.replacen(PLACE, &data, 1))
}

fn timeline(outcome: &Outcome, max_events: usize) -> Option<Timeline> {
    let message = outcome.verdict.failure().map_or("", |failure| &failure.message);
    let kept = !outcome.log.is_empty();
    kept.then(|| Timeline::around(outcome.log.events(), message, max_events))
}
