//! What is counted and observed, as Prometheus reads it.
//!
//! Owns the names and the help of all metrics ([`Metrics`]) and the formats
//! (`families`). Counts nothing itself, and serves nothing: whoever answers the
//! scrape calls [`Metrics::encode`]. Every label is from the configuration or a
//! fixed list, never from a client.

mod families;
mod process;
mod servers;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, encoding::text, registry::Registry,
};

use self::families::Families;
use crate::{
    access_log::AccessLog,
    control::Control,
    error::Reason,
    stats::{CLASSES, Counter, WorkerStats},
    worker::Shared,
};

pub use families::Format;

/// Why the admin API turned a request away before any route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It asked under a name that is not this API's.
    Host,
    /// A page of others made the browser ask.
    Page,
    /// It showed no token.
    NoToken,
    /// It showed another token.
    WrongToken,
}

impl Refusal {
    const ALL: [Refusal; 4] = [Self::Host, Self::Page, Self::NoToken, Self::WrongToken];

    fn code(self) -> &'static str {
        match self {
            Refusal::Host => "host",
            Refusal::Page => "page",
            Refusal::NoToken => "no_token",
            Refusal::WrongToken => "wrong_token",
        }
    }
}

/// The metrics of a running balancer; shared by all who are asked for them.
#[derive(Clone, Debug)]
pub struct Metrics {
    control: Arc<Control>,
    shared: Arc<Shared>,
    log: Arc<AccessLog>,
    refusals: Arc<[AtomicU64; Refusal::ALL.len()]>,
}

impl Metrics {
    /// Of the balancer that `control` changes and whose workers share `shared`.
    pub fn new(control: Arc<Control>, shared: Arc<Shared>, log: Arc<AccessLog>) -> Metrics {
        Metrics { control, shared, log, refusals: Arc::default() }
    }

    /// Counts a request that the admin API turned away.
    pub fn count_refusal(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All metrics as they stand. Takes the cluster's lock for a moment and
    /// reads `/proc`: not for a thread that serves requests.
    pub fn encode(&self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape { metrics: self.clone(), format }));
        let mut text = String::new();
        // Writing to memory cannot fail.
        let _ = match format {
            Format::OpenMetrics => text::encode(&mut text, &registry),
            Format::Plain => text::encode_registry(&mut text, &registry),
        };
        text
    }

    fn balancer(&self, families: &mut Families<'_>) -> fmt::Result {
        let loads = &self.shared.loads;
        let stats = |read: &dyn Fn(&WorkerStats) -> &Counter| -> u64 {
            loads.iter().map(|load| read(&load.stats).get()).sum()
        };
        let turned_away = self.shared.turned_away.load(Ordering::Relaxed);
        families.counter(
            "lb_client_requests_total",
            "Requests that are over, by class of status; those without an answer are 4xx. \
             Unlike lb_requests_total this stays when servers are removed.",
            (0..CLASSES.len()).map(|class| {
                (vec![("code", CLASSES[class])], stats(&|stats| &stats.requests[class]))
            }),
        )?;
        families.gauge(
            "lb_client_requests_in_flight",
            "Requests that have begun and are not over.",
            [(vec![], loads.iter().map(|load| load.requests() as u64).sum::<u64>())],
        )?;
        families.gauge(
            "lb_client_connections",
            "Client connections that are open.",
            [(vec![], loads.iter().map(|load| load.connections() as u64).sum::<u64>())],
        )?;
        families.counter(
            "lb_client_connections_accepted_total",
            "Client connections that were accepted, those that found no room included.",
            [(vec![], loads.iter().map(|load| load.accepted()).sum::<u64>() + turned_away)],
        )?;
        families.counter(
            "lb_request_body_bytes_total",
            "Bytes of body that clients sent.",
            [(vec![], stats(&|stats| &stats.body_bytes))],
        )?;
        let errors = Reason::ALL.into_iter().enumerate().map(|(place, reason)| {
            let unserved = if reason == Reason::TooManyConnections { turned_away } else { 0 };
            (vec![("reason", reason.code())], stats(&|stats| &stats.errors[place]) + unserved)
        });
        families.counter(
            "lb_errors_total",
            "Answers of lb's own, by the reason that stands in X-LB-Reason.",
            errors,
        )
    }

    fn operation(&self, families: &mut Families<'_>) -> fmt::Result {
        let reloads = self.control.reloads.counts();
        families.counter(
            "lb_config_reloads_total",
            "New configurations, by what became of them.",
            [
                (vec![("result", "success")], reloads.succeeded),
                (vec![("result", "failure")], reloads.failed),
            ],
        )?;
        families.gauge(
            "lb_config_last_reload_successful",
            "Whether the last new configuration could be read; 1 before the first.",
            [(vec![], u64::from(!reloads.last_failed))],
        )?;
        let loaded = reloads.loaded.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        families.gauge(
            "lb_config_last_reload_success_timestamp_seconds",
            "When the configuration that holds was loaded, since the Unix epoch.",
            [(vec![], loaded.as_secs_f64())],
        )?;
        families.counter(
            "lb_access_log_lines_dropped_total",
            "Lines of the access log that came faster than they could be written, or not at all.",
            [(vec![], self.log.lost())],
        )?;
        families.counter(
            "lb_admin_refusals_total",
            "Requests that the admin API turned away before any route, by reason: a Host that \
             is not its own, a page of others, no token, a wrong one.",
            Refusal::ALL.map(|refusal| {
                let count = self.refusals[refusal as usize].load(Ordering::Relaxed);
                (vec![("reason", refusal.code())], count)
            }),
        )?;
        families.gauge(
            "lb_workers",
            "Threads that serve requests.",
            [(vec![], self.shared.loads.len() as u64)],
        )?;
        families.gauge(
            "lb_tasks",
            "Tasks of these threads and of the care for servers that are not over.",
            [(vec![], self.shared.tasks() as u64)],
        )?;
        families.info(
            "lb_build_info",
            "Which lb this is.",
            [vec![("version", env!("CARGO_PKG_VERSION"))]],
        )?;
        process::encode(families)
    }
}

/// The metrics on their way into one format.
#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    format: Format,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Metrics { control, shared, .. } = &self.metrics;
        let mut families = Families::new(encoder, self.format);
        servers::encode(&mut families, &control.cluster.status(), &shared.loads)?;
        self.metrics.balancer(&mut families)?;
        self.metrics.operation(&mut families)
    }
}
