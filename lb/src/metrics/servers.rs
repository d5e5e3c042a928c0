//! The metrics that servers have.
//!
//! A server is told by its address as configured, which is unique; names need
//! not be. One that is removed takes its metrics with it.

use std::{fmt, sync::Arc};

use super::families::{Durations, Families, Labels};
use crate::{
    access_log::failure_word,
    balance::{Observed, Wanted},
    cluster::Status,
    stats::{BUCKETS, CLASSES, Counter, FAILURES, Histogram, Tally},
    worker::Load,
};

/// What stands for the server of requests that got none; never an address, as
/// those have a port.
const NONE: &str = "none";

/// A server as one scrape shows it.
struct Shown {
    address: String,
    status: Status,
    tallies: Vec<Arc<Tally>>,
}

pub(super) fn encode(
    families: &mut Families<'_>,
    statuses: &[Status],
    loads: &[Arc<Load>],
) -> fmt::Result {
    let shown = |status: &Status| Shown {
        address: status.upstream.authority.to_string(),
        tallies: status.upstream.stats.tallies(),
        status: status.clone(),
    };
    let servers: Vec<Shown> = statuses.iter().map(shown).collect();
    requests(families, &servers, loads)?;
    attempts(families, &servers)?;
    health(families, &servers)?;
    configured(families, &servers)?;
    pool(families, &servers)
}

impl Shown {
    fn label(&self) -> Labels<'_> {
        vec![("server", &self.address)]
    }

    fn sum(&self, read: impl Fn(&Tally) -> &Counter) -> u64 {
        self.tallies.iter().map(|tally| read(tally).get()).fold(0, u64::wrapping_add)
    }
}

/// One metric for each server.
fn each<'s, V>(
    servers: &'s [Shown],
    value: impl Fn(&'s Shown) -> V,
) -> impl Iterator<Item = (Labels<'s>, V)> {
    servers.iter().map(move |server| (server.label(), value(server)))
}

/// For each server one metric for each value of a label.
fn each_by<'s, T: Copy, V>(
    servers: &'s [Shown],
    (label, values): (&'static str, &[(T, &'s str)]),
    value: impl Fn(&'s Shown, T) -> V,
) -> Vec<(Labels<'s>, V)> {
    let all = |server: &'s Shown| {
        let labelled = |&(of, text): &(T, &'s str)| {
            (vec![("server", &*server.address), (label, text)], value(server, of))
        };
        values.iter().map(labelled).collect::<Vec<_>>()
    };
    servers.iter().flat_map(all).collect()
}

fn durations<'t>(tallies: impl Iterator<Item = &'t Histogram>) -> Durations {
    let (mut buckets, mut nanos) = ([0; BUCKETS], 0_u64);
    for histogram in tallies {
        buckets.iter_mut().zip(histogram.buckets()).for_each(|(sum, count)| *sum += count);
        nanos = nanos.wrapping_add(histogram.nanos());
    }
    Durations { buckets, seconds: nanos as f64 / 1e9 }
}

fn requests(families: &mut Families<'_>, servers: &[Shown], loads: &[Arc<Load>]) -> fmt::Result {
    let classes: Vec<(usize, &str)> = CLASSES.into_iter().enumerate().collect();
    let by_class =
        each_by(servers, ("code", &classes), |s, class| s.sum(|tally| &tally.requests[class]));
    let serverless = |read: &dyn Fn(&Tally) -> u64| -> u64 {
        loads.iter().map(|load| read(&load.stats.serverless)).sum()
    };
    let none = classes.iter().map(|&(class, text)| {
        let labels = vec![("server", NONE), ("code", text)];
        (labels, serverless(&|tally| tally.requests[class].get()))
    });
    families.counter(
        "lb_requests_total",
        "Requests that are over, by the server that answered (none: lb itself, or nobody) and \
         class of status; those without an answer are 4xx.",
        by_class.into_iter().chain(none),
    )?;
    let took = each(servers, |s| durations(s.tallies.iter().map(|tally| &tally.duration)));
    let none = durations(loads.iter().map(|load| &load.stats.serverless.duration));
    families.histogram(
        "lb_request_duration_seconds",
        "From a request's head to the end of its answer. Tunnels are not in it.",
        took.chain([(vec![("server", NONE)], none)]),
    )?;
    families.histogram(
        "lb_time_to_first_byte_seconds",
        "From a request's head to the head of the server's answer, with all attempts.",
        each(servers, |s| durations(s.tallies.iter().map(|tally| &tally.first_byte))),
    )?;
    let ends = [(false, "client_gone"), (true, "server_broke_off")];
    let incomplete = each_by(servers, ("end", &ends), |s, by_server| {
        s.sum(|tally| if by_server { &tally.broke_off } else { &tally.client_gone })
    });
    let gone = serverless(&|tally| tally.client_gone.get());
    families.counter(
        "lb_requests_incomplete_total",
        "Requests that ended before their answer did, by who broke off.",
        incomplete.into_iter().chain([(vec![("server", NONE), ("end", "client_gone")], gone)]),
    )?;
    families.gauge(
        "lb_requests_in_flight",
        "Requests that a server has at the moment, tunnels included.",
        each(servers, |s| s.status.in_flight),
    )?;
    families.counter(
        "lb_response_body_bytes_total",
        "Bytes of body that a server sent and clients were given.",
        each(servers, |s| s.sum(|tally| &tally.body_bytes)),
    )
}

fn attempts(families: &mut Families<'_>, servers: &[Shown]) -> fmt::Result {
    let failures = FAILURES.into_iter().enumerate();
    let failures = failures.map(|(place, failure)| (Some(place), failure_word(failure)));
    let outcomes: Vec<(Option<usize>, &str)> = [(None, "ok")].into_iter().chain(failures).collect();
    families.counter(
        "lb_attempts_total",
        "Attempts of requests at a server by outcome, with the words of the access log; one whose \
         client went away, or whose deadline passed, has none.",
        each_by(servers, ("outcome", &outcomes), |s, failure| {
            s.sum(|tally| failure.map_or(&tally.answered, |place| &tally.failed[place]))
        }),
    )
}

fn health(families: &mut Families<'_>, servers: &[Shown]) -> fmt::Result {
    families.gauge(
        "lb_server_up",
        "Whether a server's probes pass.",
        each(servers, |s| u32::from(s.status.observed == Observed::Up)),
    )?;
    families.gauge(
        "lb_server_eligible",
        "Whether requests are dealt to a server.",
        each(servers, |s| u32::from(s.status.eligible)),
    )?;
    let names = Observed::ALL.map(|state| state.to_string());
    let states: Vec<(Observed, &str)> =
        Observed::ALL.into_iter().zip(names.iter().map(String::as_str)).collect();
    let is = each_by(servers, ("state", &states), |s, state| u32::from(s.status.observed == state));
    families.gauge("lb_server_state", "What is observed of a server: 1 for what it is.", is)?;
    families.counter(
        "lb_server_transitions_total",
        "Changes of what is observed of a server, by what it became.",
        // None becomes unknown again.
        each_by(servers, ("to", &states[1..]), |s, to| s.status.upstream.stats.transitions(to)),
    )
}

fn configured(families: &mut Families<'_>, servers: &[Shown]) -> fmt::Result {
    let names = Wanted::ALL.map(|wanted| wanted.to_string());
    let states: Vec<(Wanted, &str)> =
        Wanted::ALL.into_iter().zip(names.iter().map(String::as_str)).collect();
    families.gauge(
        "lb_server_wanted",
        "What the operator wants of a server: 1 for what it is.",
        each_by(servers, ("state", &states), |s, state| u32::from(s.status.wanted == state)),
    )?;
    families.gauge(
        "lb_server_weight",
        "A server's share of the requests, in proportion to the others'.",
        each(servers, |s| s.status.weight),
    )?;
    let names: Vec<_> = servers.iter().map(|s| s.status.upstream.name.load_full()).collect();
    families.info(
        "lb_server_info",
        "What a server is called.",
        servers.iter().zip(&names).map(|(s, name)| vec![("server", &*s.address), ("name", name)]),
    )
}

fn pool(families: &mut Families<'_>, servers: &[Shown]) -> fmt::Result {
    families.gauge(
        "lb_pool_idle_connections",
        "Connections to a server that wait for a request.",
        each(servers, |s| s.sum(|tally| &tally.idle)),
    )?;
    families.counter(
        "lb_pool_connections_opened_total",
        "Connections that were made for requests; those of probes are not in it.",
        each(servers, |s| s.sum(|tally| &tally.opened)),
    )?;
    families.counter(
        "lb_pool_connections_reused_total",
        "Requests that were sent on a kept connection.",
        each(servers, |s| s.sum(|tally| &tally.reused)),
    )
}
