//! What a plan tells `lb`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use lb::{
    balance::{Thresholds, Wanted},
    config::{Api, Authority, Config, HealthCheck, Server, Settings, StatusSet, Timeouts},
    dealing::Dealing,
    logs::Logs,
};

use super::{
    operations::Done,
    plan::{Balancer, Plan, What, millis},
};

/// Where `lb` listens.
pub(crate) const PORT: u16 = 80;

/// Where servers listen.
const SERVER_PORT: u16 = 8080;

/// Connections that `lb` may have.
const DESCRIPTORS: usize = 10_000;

/// What may change of a plan's settings on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    /// From one probe to the next.
    pub(crate) period: Duration,
    /// How long a probe may take.
    pub(crate) timeout: Duration,
    /// Probes in a row that bring a server back.
    pub(crate) rise: u32,
    /// Probes in a row that take it out.
    pub(crate) fall: u32,
}

impl Check {
    /// How servers are probed at first.
    pub(crate) fn first(plan: &Plan) -> Check {
        let Balancer { period_ms, timeout_ms, rise, fall, .. } = plan.balancer;
        Check { period: millis(period_ms), timeout: millis(timeout_ms), rise, fall }
    }

    /// How they are probed after this operation.
    pub(crate) fn after(&mut self, what: &What) {
        if let What::Reload { period_ms, rise, fall, .. } = what {
            (self.period, self.rise, self.fall) = (millis(*period_ms), *rise, *fall);
        }
    }

    /// How they were probed when all of `done` had been.
    pub(crate) fn last(plan: &Plan, done: &[Done]) -> Check {
        let mut check = Check::first(plan);
        done.iter().for_each(|done| check.after(&plan.operations[done.operation].what));
        check
    }

    fn to_lb(&self) -> HealthCheck {
        let count = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        HealthCheck {
            port: None,
            path: hyper::http::uri::PathAndQuery::from_static("/health"),
            period: self.period,
            timeout: self.timeout,
            expect: StatusSet::only(200),
            thresholds: Thresholds { rise: count(self.rise), fall: count(self.fall) },
        }
    }
}

/// Within which all servers are back after the last fault (contract, Health:
/// "back at most rise x period + timeout after it recovers").
pub(crate) fn recovery(plan: &Plan, done: &[Done]) -> Duration {
    let check = Check::last(plan, done);
    check.period * check.rise + check.timeout + round_trip(plan) * 2
}

/// There and back, at worst, on a usual link.
pub(crate) fn round_trip(plan: &Plan) -> Duration {
    millis(2 * (plan.network.latency_ms + plan.network.jitter_ms + 1))
}

/// Where the server at this position is.
pub(crate) fn address(index: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, index as u8 + 1)), SERVER_PORT)
}

/// What names it in the configuration.
pub(crate) fn authority(index: usize) -> Authority {
    let address = address(index);
    Authority { host: address.ip().to_string(), port: address.port() }
}

/// The server at this position, with this weight.
pub(crate) fn server(plan: &Plan, index: usize, weight: u32, check: &Check) -> Server {
    Server {
        name: plan.servers[index].name.clone(),
        authority: authority(index),
        weight,
        health: check.to_lb(),
        wanted: None::<Wanted>,
    }
}

/// The configuration at the start.
pub(crate) fn first(plan: &Plan) -> Config {
    let weights: Vec<u32> = listed(plan).map(|index| plan.servers[index].weight).collect();
    of(plan, &weights, &Check::first(plan))
}

/// The positions of the servers that the file lists.
pub(crate) fn listed(plan: &Plan) -> impl Iterator<Item = usize> {
    (0..plan.servers.len()).filter(|index| !plan.servers[*index].spare)
}

/// The configuration of the servers in the file with these weights.
pub(crate) fn of(plan: &Plan, weights: &[u32], check: &Check) -> Config {
    let with_weights = listed(plan).zip(weights);
    let servers = with_weights.map(|(index, weight)| server(plan, index, *weight, check));
    Config {
        source: None,
        bind: Some(super::run::LB),
        port: PORT,
        inherited: Vec::new(),
        workers: 1,
        max_connections: None,
        descriptors: DESCRIPTORS,
        logs: Logs::default(),
        api: Api::default(),
        servers: servers.collect(),
        health: check.to_lb(),
        settings: settings(&plan.balancer),
    }
}

fn settings(balancer: &Balancer) -> Settings {
    let timeouts = Timeouts {
        connect: millis(balancer.connect_timeout_ms),
        response_head: millis(balancer.response_timeout_ms),
        drain: millis(balancer.drain_ms),
        ..Timeouts::default()
    };
    Settings {
        // A name that is none was refused when the plan was checked.
        dealing: balancer.algorithm.parse::<Dealing>().unwrap_or_default(),
        fresh_posts: balancer.fresh_posts,
        timeouts,
        ..Settings::default()
    }
}
