//! What the balancer is to do, validated.
//!
//! Values here are valid by construction: whoever holds a [`Config`] need not
//! check it again. What the user wrote, on the command line or in a file, is
//! parsed into these types at the edge.

mod address;
mod api;
mod file;
mod problems;
mod read;
mod scalars;
mod servers;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod values;

use std::{fmt, net::IpAddr, os::fd::RawFd, path::PathBuf, time::Duration};

use hyper::http::uri::PathAndQuery;
use ipnet::IpNet;

pub use self::{
    address::{Authority, Bind, Listen, parse_host, parse_port},
    api::{Api, ApiPort, DEFAULT_API_PORT, parse_api_host},
    problems::Problems,
    read::{parse, schema},
    values::{
        Invalid, StatusSet, parse_address, parse_bool, parse_count, parse_duration, parse_format,
        parse_health_path, parse_level, parse_name, parse_network, parse_path, parse_size,
        parse_threshold, parse_wanted, parse_weight, parse_when_all_down, parse_workers,
    },
};
pub(crate) use self::{
    file::{
        Api as ApiKeys, File, Health as HealthKeys, Logs as LogKeys, Server as ServerKeys,
        Timeouts as TimeoutKeys,
    },
    read::{MAX_BYTES, read, read_from},
    servers::Entry,
    values::invalid,
};
use crate::{
    balance::{Thresholds, Wanted, WhenAllDown},
    dealing::Dealing,
    logs::Logs,
};

/// The port that `lb` listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 80;

/// Everything that a run of `lb` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it came from; `None` if it is the command line's alone.
    pub source: Option<PathBuf>,
    /// Where to listen; `None` is every address of the machine, IPv4 and IPv6.
    pub bind: Option<IpAddr>,
    /// The port to listen on; 0 means any free one.
    pub port: u16,
    /// Inherited listening sockets, by number; they take the place of `bind`
    /// and `port`. Default none.
    pub inherited: Vec<RawFd>,
    /// Worker threads.
    pub workers: usize,
    /// Client connections at one time, at most; one more waits for a second,
    /// then it gets a 503. Default none.
    pub max_connections: Option<usize>,
    /// How many connections this process has descriptors for; what is more
    /// waits in the kernel's queue.
    pub descriptors: usize,
    /// What is logged, and where to.
    pub logs: Logs,
    /// Where the admin API is served.
    pub api: Api,
    /// The servers, in configuration order.
    pub servers: Vec<Server>,
    /// How the health of a server is checked that says nothing else.
    pub health: HealthCheck,
    /// What holds for each request.
    pub settings: Settings,
}

/// What holds for each request, from its beginning to its end: a change while
/// `lb` runs counts for the requests that begin after it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// How requests are dealt to the servers. Default in turn.
    pub dealing: Dealing,
    /// What to do with a request when no server is healthy.
    pub when_all_down: WhenAllDown,
    /// Answers with these statuses are retried on another server if the
    /// request is idempotent. Default none: a server's 5xx is passed on.
    pub retry_status: StatusSet,
    /// Requests that must not be executed twice go out on fresh connections
    /// only. Default false: also on one that was in use within the last second.
    pub fresh_posts: bool,
    /// The largest request body, in bytes (413). Default none: any size.
    pub max_body: Option<u64>,
    /// Whose forwarded fields are believed. Default nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// Print each request's head and each answer's status line.
    pub debug: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
}

impl Config {
    /// What differs of what only holds from the start on.
    pub fn fixed_differences(&self, other: &Config) -> Vec<&'static str> {
        let differences = [
            ("the address to listen on", self.address() != other.address()),
            ("the number of workers", self.workers != other.workers),
            ("the limit of connections", self.max_connections != other.max_connections),
            ("what is logged", self.logs != other.logs),
            ("where the admin API is", self.api != other.api),
        ];
        named(differences)
    }

    fn address(&self) -> (Option<IpAddr>, u16, &[RawFd]) {
        (self.bind, self.port, &self.inherited)
    }
}

impl Settings {
    /// What differs, by name.
    pub fn differences(&self, other: &Settings) -> Vec<&'static str> {
        let Settings { dealing, when_all_down, retry_status, fresh_posts, .. } = self;
        let differences = [
            ("algorithm", *dealing != other.dealing),
            ("when_all_down", *when_all_down != other.when_all_down),
            ("retry_status", *retry_status != other.retry_status),
            ("fresh_posts", *fresh_posts != other.fresh_posts),
            ("max_body", self.max_body != other.max_body),
            ("trusted_proxies", self.trusted_proxies != other.trusted_proxies),
            ("debug", self.debug != other.debug),
            ("timeouts", self.timeouts != other.timeouts),
        ];
        named(differences)
    }
}

fn named<const N: usize>(differences: [(&'static str, bool); N]) -> Vec<&'static str> {
    differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to a server. Default 2 s: the kernel repeats a lost SYN after 1 s.
    pub connect: Duration,
    /// From the end of the request to the head of the answer. Default 60 s.
    pub response_head: Duration,
    /// For a client's request head, from its first byte. Default 10 s.
    pub request_head: Duration,
    /// How long an idle client connection is kept. Default 60 s.
    pub client_idle: Duration,
    /// For a body, or what goes through a tunnel, to make progress, either way. Default 60 s.
    pub body: Duration,
    /// From a request's head to the head of its answer, over all tries.
    /// Default none.
    pub deadline: Option<Duration>,
    /// For requests in flight after the signal to stop. Default 30 s.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(2),
            response_head: Duration::from_secs(60),
            request_head: Duration::from_secs(10),
            client_idle: Duration::from_secs(60),
            body: Duration::from_secs(60),
            deadline: None,
            drain: Duration::from_secs(30),
        }
    }
}

/// One server and how its health is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name in logs; `host:port` unless configured.
    pub name: String,
    /// Where it is.
    pub authority: Authority,
    /// Its share of the requests; with 0 it is probed and gets none. Default 1.
    pub weight: u32,
    /// How it is probed.
    pub health: HealthCheck,
    /// What the operator wants of it; `None` is whatever was wanted so far,
    /// [`Wanted::Enabled`] at first.
    pub wanted: Option<Wanted>,
}

/// How a server's health is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port that is probed. Default that of the server.
    pub port: Option<u16>,
    /// The target of the probe, a GET. Default `/`.
    pub path: PathAndQuery,
    /// From the beginning of one probe to the beginning of the next. Default 10 s.
    pub period: Duration,
    /// How long a probe may take; never more than the period. Default 2 s.
    pub timeout: Duration,
    /// The statuses that count as healthy. Default 200 alone.
    pub expect: StatusSet,
    /// Probes in a row that change the state.
    pub thresholds: Thresholds,
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HealthCheck { port, path, period, timeout, expect, thresholds } = self;
        let Thresholds { rise, fall } = thresholds;
        if let Some(port) = port {
            write!(f, ":{port}")?;
        }
        write!(
            f,
            "{path} every {period:?} timeout {timeout:?} expect {expect} rise {rise} fall {fall}"
        )
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            port: None,
            path: PathAndQuery::from_static("/"),
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            expect: StatusSet::only(200),
            thresholds: Thresholds::default(),
        }
    }
}
