//! Families of metrics in the two formats that scrapers read.
//!
//! Owns what the formats differ in: OpenMetrics 1.0 names a counter's family
//! without `_total` and has units, infos and an end; the plain text format
//! 0.0.4 has none of these, and the full name everywhere.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
    },
    metrics::MetricType,
    registry::Unit,
};

use crate::stats::{BOUNDS, BUCKETS};

/// Labels of one metric: names and values.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4: what a browser and older scrapers want.
    Plain,
}

impl Format {
    /// The value of the `Content-Type` field.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What an `Accept` field asks for (RFC 9110 §12.5.1): OpenMetrics if it
    /// is named and nothing plain is preferred to it, else plain text, as
    /// browsers and `curl` have no other.
    pub fn for_accept(accept: &str) -> Format {
        let open = quality(accept, |range| range == "application/openmetrics-text");
        let plain = quality(accept, |range| matches!(range, "text/plain" | "text/*"));
        if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Plain }
    }
}

/// The highest quality of the ranges that are wanted; 0 if there is none.
fn quality(accept: &str, is_wanted: impl Fn(&str) -> bool) -> f32 {
    let qualities = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let wanted = parts.next().is_some_and(|range| is_wanted(&range));
        let stated = parts.find_map(|part| Some(part.strip_prefix("q=")?.parse().unwrap_or(0.0)));
        wanted.then(|| stated.unwrap_or(1.0))
    });
    qualities.fold(0.0, f32::max)
}

/// A histogram at one moment.
pub(super) struct Durations {
    /// How many durations were in each bucket alone.
    pub(super) buckets: [u64; BUCKETS],
    /// The sum of all.
    pub(super) seconds: f64,
}

/// Writes families in one format, each with all of its metrics.
pub(super) struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
    format: Format,
}

impl<'a> Families<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>, format: Format) -> Self {
        Families { encoder, format }
    }

    /// A family of counters; its name ends in `_total`.
    pub(super) fn counter<'l, V: EncodeCounterValue + EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        match self.format {
            Format::OpenMetrics => {
                let family = name.trim_end_matches("_total");
                self.family((family, help, kind), metrics, |metric, value| {
                    metric.encode_counter::<NoLabelSet, V, f64>(&value, None)
                })
            }
            // The name is whole already, and a gauge's is left as it is.
            Format::Plain => self
                .family((name, help, kind), metrics, |metric, value| metric.encode_gauge(&value)),
        }
    }

    /// A family of gauges.
    pub(super) fn gauge<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        self.family((name, help, MetricType::Gauge), metrics, |metric, value| {
            metric.encode_gauge(&value)
        })
    }

    /// A family of texts, which are labels; its name ends in `_info`.
    pub(super) fn info<'l>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl IntoIterator<Item = Labels<'l>>,
    ) -> fmt::Result {
        match self.format {
            Format::OpenMetrics => {
                let family = (name.trim_end_matches("_info"), help, MetricType::Info);
                let metrics = metrics.into_iter().map(|labels| (Labels::new(), labels));
                self.family(family, metrics, |metric, labels| metric.encode_info(&labels))
            }
            Format::Plain => {
                self.gauge(name, help, metrics.into_iter().map(|labels| (labels, 1_u64)))
            }
        }
    }

    /// A family of histograms over [`BOUNDS`].
    pub(super) fn histogram<'l>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl IntoIterator<Item = (Labels<'l>, Durations)>,
    ) -> fmt::Result {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        self.family((name, help, MetricType::Histogram), metrics, |metric, durations| {
            let buckets: Vec<(f64, u64)> = bounds.clone().zip(durations.buckets).collect();
            let count = durations.buckets.iter().sum();
            metric.encode_histogram::<NoLabelSet>(durations.seconds, count, &buckets, None)
        })
    }

    fn family<'l, V>(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        metrics: impl IntoIterator<Item = (Labels<'l>, V)>,
        write: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let (name, unit) = match self.format {
            Format::OpenMetrics => split_unit(name),
            Format::Plain => (name, None),
        };
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in metrics {
            if labels.is_empty() {
                write(&mut family, value)?;
            } else {
                write(&mut family.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

/// The unit that a name ends in, which OpenMetrics wants to be told.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    for unit in [Unit::Seconds, Unit::Bytes] {
        let rest = name.strip_suffix(unit.as_str()).and_then(|rest| rest.strip_suffix('_'));
        if let Some(rest) = rest {
            return (rest, Some(unit));
        }
    }
    (name, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Format) {
        assert_eq!(Format::for_accept(accept), expected, "{accept}");
    }

    #[test]
    fn the_format_is_what_is_asked_for() {
        check("", Format::Plain);
        check("*/*", Format::Plain);
        check("text/html,application/xhtml+xml,*/*;q=0.8", Format::Plain);
        check("text/plain;version=0.0.4", Format::Plain);
        check("application/openmetrics-text", Format::OpenMetrics);
        check("text/plain, Application/OpenMetrics-Text; version=1.0.0", Format::OpenMetrics);
        check("application/openmetrics-text;q=0.2,text/plain;q=0.5", Format::Plain);
        check("application/openmetrics-text;q=0, */*", Format::Plain);
        check("application/openmetrics-text;q=nonsense", Format::Plain);
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                      text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        check(accept, Format::OpenMetrics);
    }
}
