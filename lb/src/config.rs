//! What the balancer is to do, validated.
//!
//! Values here are valid by construction: whoever holds a [`Config`] need not
//! check it again. What the user typed is parsed into these types at the edge
//! (the command line's `FromStr`s).

mod api;
mod fields;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use hyper::{Uri, header::HeaderValue, http::uri::PathAndQuery};
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    balance::{Thresholds, Wanted, WhenAllDown},
    dealing::Dealing,
};

pub use api::{Api, DEFAULT_API_PORT};
pub use fields::{parse_name, parse_wanted, parse_weight};

/// The port that `lb` listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 80;

/// Everything that a run of `lb` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; `None` is every address of the machine, IPv4 and IPv6.
    pub bind: Option<IpAddr>,
    /// The port to listen on; 0 means any free one.
    pub port: u16,
    /// Worker threads.
    pub workers: usize,
    /// Client connections at one time, at most; one more waits for a second,
    /// then it gets a 503. Default none.
    pub max_connections: Option<usize>,
    /// How many connections this process has descriptors for; what is more
    /// waits in the kernel's queue.
    pub descriptors: usize,
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
            ("the address to listen on", (self.bind, self.port) != (other.bind, other.port)),
            ("the number of workers", self.workers != other.workers),
            ("the limit of connections", self.max_connections != other.max_connections),
        ];
        named(differences)
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
    /// For a body to make progress, in either direction. Default 60 s.
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
        let HealthCheck { path, period, timeout, expect, thresholds } = self;
        let Thresholds { rise, fall } = thresholds;
        write!(
            f,
            "{path} every {period:?} timeout {timeout:?} expect {expect} rise {rise} fall {fall}"
        )
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            path: PathAndQuery::from_static("/"),
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            expect: StatusSet(vec![200..=200]),
            thresholds: Thresholds::default(),
        }
    }
}

/// The host and port of a server. Compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// A name or an address; IPv6 without brackets; lower case.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

impl Authority {
    /// The value of a `Host` field for this server.
    pub fn to_host_header(&self) -> HeaderValue {
        // Its characters were checked when it was parsed.
        HeaderValue::from_str(&self.to_string()).unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// `http://host:port`.
    pub fn to_url(&self) -> String {
        format!("http://{self}")
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is wrong with something that the user wrote. Reads as the end of a
/// sentence that begins with the value.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(String);

pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

impl FromStr for Authority {
    type Err = Invalid;

    /// Reads a URL (`http://host:port`), `host:port`, or a port alone, which
    /// is one of this machine.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return Ok(Authority { host: "localhost".into(), port: parse_port(text)? });
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return invalid(format!("an IPv6 address needs brackets and a port: [{text}]:8080"));
        }
        let (rest, default_port) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (rest, Some(80)),
            Some((scheme, _)) => {
                return invalid(format!("scheme {scheme} is not supported, expected http"));
            }
            None => (text, None),
        };
        let authority = match rest.split_once('/') {
            None | Some((_, "")) => rest.trim_end_matches('/'),
            Some((_, path)) => {
                return invalid(format!(
                    "a server has no path, got /{path}; expected http://host:port"
                ));
            }
        };
        parse_authority(authority, default_port)
    }
}

fn parse_port(text: &str) -> Result<u16, Invalid> {
    match text.parse::<u32>() {
        Ok(port @ 1..=65535) => Ok(port as u16),
        _ => invalid(format!("port {text} is out of range, expected 1 to 65535")),
    }
}

fn parse_authority(text: &str, default_port: Option<u16>) -> Result<Authority, Invalid> {
    let Ok(uri) = text.parse::<hyper::http::uri::Authority>() else {
        return invalid("not a host and a port; expected http://host:port, host:port or a port");
    };
    if text.contains('@') {
        return invalid("a server's URL takes no user name; expected http://host:port");
    }
    let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if host.is_empty() {
        return invalid("the host is missing; expected http://host:port, host:port or a port");
    }
    let port_text = text.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.contains(']'));
    let port = match (port_text, default_port) {
        (Some(port), _) => parse_port(port)?,
        (None, Some(port)) => port,
        (None, None) => {
            return invalid("the port is missing; expected http://host:port, host:port or a port");
        }
    };
    Ok(Authority { host, port })
}

/// A set of status codes; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let (low, high) = (range.start(), range.end());
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for StatusSet {
    type Err = Invalid;

    /// Reads codes and ranges: `200`, `200-399`, `200,204,300-399`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.split(',')
            .map(|part| parse_status_range(part.trim()))
            .collect::<Result<_, _>>()
            .map(StatusSet)
    }
}

fn parse_status_range(text: &str) -> Result<RangeInclusive<u16>, Invalid> {
    let code = |text: &str| match text.parse::<u16>() {
        Ok(code @ 100..=599) if text.len() == 3 => Ok(code),
        _ => invalid(format!("{text:?} is not a status code; expected 200, 200-399 or 200,204")),
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (code(low.trim())?, code(high.trim())?),
        None => (code(text)?, code(text)?),
    };
    if low > high {
        return invalid(format!("the range {text} is empty, its first code is the larger"));
    }
    Ok(low..=high)
}

/// Reads a duration: `10s`, `200ms`, `1m 30s`, or plain seconds (`10`, `0.5`).
///
/// # Errors
/// It is none of these, or zero, or longer than a day.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    match seconds.or_else(|| humantime::parse_duration(text).ok()) {
        Some(duration) if duration.is_zero() => invalid("must be longer than zero"),
        Some(duration) if duration > DAY => invalid("must be at most one day"),
        Some(duration) => Ok(duration),
        None => invalid("not a duration; expected 10s, 200ms or plain seconds"),
    }
}

/// Reads a size in bytes: `64k`, `10M`, `1G` (powers of 1024) or plain bytes.
///
/// # Errors
/// It is none of these, or more than can be counted.
pub fn parse_size(text: &str) -> Result<u64, Invalid> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return invalid("not a size; expected bytes, or 64k, 10M, 1G"),
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)) {
        Some(size) => Ok(size),
        None => invalid("not a size; expected bytes, or 64k, 10M, 1G"),
    }
}

/// Reads a count of at least 1.
///
/// # Errors
/// It is none.
pub fn parse_count(text: &str) -> Result<usize, Invalid> {
    match text.parse() {
        Ok(0) | Err(_) => invalid("not a count; expected 1 or more"),
        Ok(count) => Ok(count),
    }
}

/// Reads a network (`10.0.0.0/8`, `fd00::/8`) or one address.
///
/// # Errors
/// It is neither.
pub fn parse_network(text: &str) -> Result<IpNet, Invalid> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| one())
        .map_err(|_| Invalid("not a network; expected 10.0.0.0/8, fd00::/8 or an address".into()))
}

/// Reads the path of a probe: it begins with `/` and may have a query.
///
/// # Errors
/// It does not begin with `/` or has characters that a request target cannot have.
pub fn parse_health_path(text: &str) -> Result<PathAndQuery, Invalid> {
    if !text.starts_with('/') {
        return invalid("must begin with /");
    }
    let uri = text.parse::<Uri>().ok().and_then(|uri| uri.path_and_query().cloned());
    match uri {
        Some(path) if !text.contains('#') => Ok(path),
        _ => invalid("not a path that a request can ask for"),
    }
}

/// Checks that no server is listed twice.
///
/// # Errors
/// Names the first server that is.
pub fn reject_duplicates(servers: &[&Authority]) -> Result<(), Invalid> {
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].contains(server) {
            return invalid(format!("server {server} is listed twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_authority(text: &str, expected: &str) {
        let got = match text.parse::<Authority>() {
            Ok(authority) => authority.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert!(got.starts_with(expected), "{text:?}: got {got:?}, expected {expected:?}");
    }

    #[test]
    fn authorities() {
        check_authority("8080", "localhost:8080");
        check_authority("127.0.0.1:8080", "127.0.0.1:8080");
        check_authority("http://Example.org", "example.org:80");
        check_authority("HTTP://example.org:81/", "example.org:81");
        check_authority("http://[::1]:8080", "[::1]:8080");
        check_authority("[::1]:8080", "[::1]:8080");
        check_authority("http://[::1]", "[::1]:80");
        check_authority("::1", "error: an IPv6 address needs brackets");
        check_authority("0", "error: port 0 is out of range");
        check_authority("65536", "error: port 65536 is out of range");
        check_authority("example.org", "error: the port is missing");
        check_authority("example.org:", "error: port  is out of range");
        check_authority(":8080", "error: ");
        check_authority("", "error: ");
        check_authority("a b:80", "error: not a host and a port");
        check_authority("https://example.org", "error: scheme https is not supported");
        check_authority("http://example.org/app", "error: a server has no path, got /app");
        check_authority("http://me@example.org", "error: a server's URL takes no user name");
    }

    #[test]
    fn durations() {
        let millis = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(millis("10s"), Ok(10_000));
        assert_eq!(millis("200ms"), Ok(200));
        assert_eq!(millis("0.5"), Ok(500));
        assert_eq!(millis("3"), Ok(3_000));
        for bad in ["", "0", "0s", "-1", "ten", "2d", "NaN", "inf", "1e30"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [("0", 0), ("512", 512), ("64k", 65_536), ("10MiB", 10_485_760)] {
            assert_eq!(parse_size(text), Ok(size));
        }
        for bad in ["", "k", "-1", "1.5M", "1T", "99999999999999999999", "18014398509481984k"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        let inside = |net: &str, ip: &str| {
            parse_network(net).unwrap().contains(&ip.parse::<IpAddr>().unwrap())
        };
        assert!(inside("10.0.0.0/8", "10.9.8.7") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("::1", "::1") && !inside("127.0.0.1", "127.0.0.2"));
        for bad in ["", "10.0.0.0/33", "localhost", "10.0.0"] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn status_sets() {
        let set: StatusSet = "200-299, 304".parse().unwrap();
        assert_eq!(
            [200, 299, 300, 304, 404].map(|s| set.contains(s)),
            [true, true, false, true, false]
        );
        assert_eq!(set.to_string(), "200-299,304");
        for bad in ["", "2xx", "399-200", "200-", "99", "600", "0200", "200,,201"] {
            assert!(bad.parse::<StatusSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn health_paths() {
        assert!(parse_health_path("/health?deep=1").is_ok());
        for bad in ["", "health", "http://a/", "/a b", "/a#b"] {
            assert!(parse_health_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn duplicates_are_found_in_any_spelling() {
        let parse = |text: &str| text.parse::<Authority>().unwrap();
        assert!(reject_duplicates(&[&parse("HTTP://A:80/"), &parse("a:80")]).is_err());
        assert!(reject_duplicates(&[&parse("a:80"), &parse("a:81")]).is_ok());
    }
}
