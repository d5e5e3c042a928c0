//! A strict reader of what a scrape returns: more is checked than Prometheus
//! insists on, so that every scraper can read it.

use std::collections::{BTreeMap, BTreeSet};

use lb::metrics::Format;

/// All metrics of a scrape, by name and sorted labels: `name{a="b",c="d"}`.
pub(crate) struct Scrape {
    values: BTreeMap<String, f64>,
    /// Families by name, with their type.
    pub(crate) families: BTreeMap<String, String>,
}

/// A family while its metrics are read.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
}

/// A metric as its line has it.
struct Metric<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl Scrape {
    /// Reads `text`; panics where it breaks a rule of its format.
    #[track_caller]
    pub(crate) fn read(text: &str, format: Format) -> Scrape {
        let mut scrape = Scrape { values: BTreeMap::new(), families: BTreeMap::new() };
        let text = match format {
            Format::OpenMetrics => text.strip_suffix("# EOF\n").expect("no end"),
            Format::Plain => text,
        };
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "an empty or open line");
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no help: {line}"));
            let (name, help) = help.split_once(' ').expect("help without a text");
            assert!(is_name(name) && !help.trim().is_empty(), "{line}");
            let line = lines.next().expect("a family has a type");
            let kind = line.strip_prefix(&format!("# TYPE {name} ")).expect(line);
            if format == Format::OpenMetrics
                && let Some(unit) = ["seconds", "bytes"].iter().find(|unit| name.ends_with(**unit))
            {
                assert_eq!(lines.next(), Some(&*format!("# UNIT {name} {unit}")));
            }
            let twice = scrape.families.insert(name.into(), kind.into());
            assert!(twice.is_none(), "{name} comes twice");
            let family = Family { name, kind };
            let mut metrics = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let metric = Metric::read(line);
                family.check_name(&metric, format);
                metrics.push(metric);
            }
            if kind == "histogram" {
                check_histograms(&metrics);
            }
            metrics.into_iter().for_each(|metric| scrape.insert(metric));
        }
        scrape
    }

    /// The value of one metric, which must be there.
    #[track_caller]
    pub(crate) fn get(&self, metric: &str) -> f64 {
        self.find(metric).unwrap_or_else(|| panic!("no {metric} among\n{}", self.list()))
    }

    /// The value of one metric.
    pub(crate) fn find(&self, metric: &str) -> Option<f64> {
        self.values.get(metric).copied()
    }

    /// All metrics that contain `text`, one a line, as `name{labels} value`.
    pub(crate) fn with(&self, text: &str) -> Vec<String> {
        let found = self.values.iter().filter(|(metric, _)| metric.contains(text));
        found.map(|(metric, value)| format!("{metric} {value}")).collect()
    }

    /// The names of all metrics.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.values.keys().map(|metric| metric.split('{').next().unwrap()).collect()
    }

    fn list(&self) -> String {
        self.with("").join("\n")
    }

    #[track_caller]
    fn insert(&mut self, metric: Metric<'_>) {
        let Metric { name, mut labels, value } = metric;
        labels.sort();
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}={text:?}")).collect();
        let key = match labels.is_empty() {
            true => name.to_string(),
            false => format!("{name}{{{}}}", labels.join(",")),
        };
        assert!(self.values.insert(key.clone(), value).is_none(), "{key} comes twice");
    }
}

impl Family<'_> {
    #[track_caller]
    fn check_name(&self, metric: &Metric<'_>, format: Format) {
        let suffix = metric.name.strip_prefix(self.name);
        let suffix = suffix.unwrap_or_else(|| panic!("{} is not of {}", metric.name, self.name));
        let good = match (self.kind, format) {
            ("counter", Format::OpenMetrics) => suffix == "_total" && metric.value >= 0.0,
            ("counter", Format::Plain) => suffix.is_empty() && self.name.ends_with("_total"),
            ("gauge", _) => suffix.is_empty(),
            ("histogram", _) => ["_bucket", "_sum", "_count"].contains(&suffix),
            ("info", Format::OpenMetrics) => suffix == "_info" && metric.value == 1.0,
            _ => false,
        };
        assert!(good, "{} is no {}", metric.name, self.kind);
        let reserved = ["_total", "_created", "_bucket", "_count", "_sum", "_info"];
        let reserved = reserved.iter().any(|suffix| self.name.ends_with(suffix));
        assert!(format == Format::Plain || !reserved, "{} ends in a reserved word", self.name);
    }
}

impl<'a> Metric<'a> {
    #[track_caller]
    fn read(line: &'a str) -> Metric<'a> {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
        let (name, mut rest) = line.split_at(end);
        assert!(is_name(name), "{line}");
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                let (key, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(key) && !key.contains(':'), "{line}");
                assert!(labels.iter().all(|(other, _)| *other != key), "{key} twice: {line}");
                let (text, behind) = unescape(behind).unwrap_or_else(|| panic!("{line}"));
                labels.push((key, text));
                match behind.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => {
                        rest = behind.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                        break;
                    }
                }
            }
        }
        let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(value.is_finite(), "{line}");
        Metric { name, labels, value }
    }

    /// Its labels but for `le`, and its bound.
    fn split_bound(&self) -> (Vec<&(&'a str, String)>, Option<f64>) {
        let bound = self.labels.iter().find(|(key, _)| *key == "le");
        let bound = bound.map(|(_, text)| match &**text {
            "+Inf" => f64::INFINITY,
            text => text.parse().unwrap(),
        });
        (self.labels.iter().filter(|(key, _)| *key != "le").collect(), bound)
    }
}

/// The text up to the closing quote, and what is behind that.
fn unescape(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return Some((text, rest.as_str())),
            '\\' => text.push(match rest.next()? {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            other => text.push(other),
        }
    }
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Buckets rise, in bound and in count, to `+Inf`, which is the count of all.
#[track_caller]
fn check_histograms(metrics: &[Metric<'_>]) {
    let named = |suffix: &'static str| metrics.iter().filter(move |m| m.name.ends_with(suffix));
    assert_eq!(named("_count").count(), named("_sum").count());
    for count in named("_count") {
        let (labels, _) = count.split_bound();
        let of_this = named("_bucket").filter(|bucket| bucket.split_bound().0 == labels);
        let buckets: Vec<(f64, f64)> =
            of_this.map(|bucket| (bucket.split_bound().1.unwrap(), bucket.value)).collect();
        for pair in buckets.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1, "{labels:?} {buckets:?}");
        }
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count.value)), "{labels:?}");
        let sum = named("_sum").find(|sum| sum.split_bound().0 == labels).unwrap();
        assert!(sum.value >= 0.0 && (sum.value > 0.0) == (count.value > 0.0), "{labels:?}");
    }
}
