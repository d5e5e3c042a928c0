//! Values as the user writes them, on the command line and in files alike.
//!
//! Owns how one value is read and what is said of a bad one. Does not know
//! where it stands or what it is for.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use hyper::{Uri, header::HeaderValue, http::uri::PathAndQuery};
use ipnet::IpNet;
use thiserror::Error;

use crate::balance::{Wanted, WhenAllDown};

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
            return invalid(format!("needs brackets and a port; expected [{text}]:8080"));
        }
        let (rest, default_port) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (rest, Some(80)),
            Some((scheme, _)) => {
                return invalid(format!("has the scheme {scheme}; expected http://host:port"));
            }
            None => (text, None),
        };
        let authority = match rest.split_once('/') {
            None | Some((_, "")) => rest.trim_end_matches('/'),
            Some((_, path)) => {
                return invalid(format!("has the path /{path}; expected http://host:port"));
            }
        };
        parse_authority(authority, default_port)
    }
}

/// Reads the port of a server.
///
/// # Errors
/// It is none, or 0.
pub fn parse_port(text: &str) -> Result<u16, Invalid> {
    match whole(text) {
        Some(port @ 1..=65535) => Ok(port as u16),
        _ => invalid("is not a port; expected 1 to 65535"),
    }
}

fn parse_authority(text: &str, default_port: Option<u16>) -> Result<Authority, Invalid> {
    let Ok(uri) = text.parse::<hyper::http::uri::Authority>() else {
        return invalid("is not a host and a port; expected http://host:port");
    };
    if text.contains('@') {
        return invalid("has a user name; expected http://host:port");
    }
    let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if host.is_empty() {
        return invalid("has no host; expected http://host:port");
    }
    let port_text = text.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.contains(']'));
    let port = match (port_text, default_port) {
        (Some(""), _) | (None, None) => {
            return invalid("has no port; expected http://host:port");
        }
        (Some(port), _) => match parse_port(port) {
            Ok(port) => port,
            Err(_) => return invalid(format!("has port {port}; expected 1 to 65535")),
        },
        (None, Some(port)) => port,
    };
    Ok(Authority { host, port })
}

/// A set of status codes; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// The set of one status.
    pub fn only(status: u16) -> StatusSet {
        StatusSet(vec![status..=status])
    }

    /// What is in any of `sets`.
    pub fn union(sets: Vec<StatusSet>) -> StatusSet {
        StatusSet(sets.into_iter().flat_map(|set| set.0).collect())
    }

    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (low, high) if low == high => write!(f, "{comma}{low}")?,
                (low, high) => write!(f, "{comma}{low}-{high}")?,
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
        _ => invalid("is no set of status codes; expected 200, 200-399 or 200,204"),
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (code(low.trim())?, code(high.trim())?),
        None => (code(text)?, code(text)?),
    };
    if low > high {
        return invalid(format!("has the empty range {text}; expected the smaller code first"));
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
        Some(duration) if duration.is_zero() => {
            invalid("must be longer than zero; expected 10s, 200ms or plain seconds")
        }
        Some(duration) if duration > DAY => {
            invalid("must be at most one day; expected 10s, 200ms or plain seconds")
        }
        Some(duration) => Ok(duration),
        None => invalid("is not a duration; expected 10s, 200ms or plain seconds"),
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
        _ => return invalid("is not a size; expected bytes, or 64k, 10M, 1G"),
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)) {
        Some(size) => Ok(size),
        None => invalid("is not a size; expected bytes, or 64k, 10M, 1G"),
    }
}

/// Reads a count of at least 1.
///
/// # Errors
/// It is none.
pub fn parse_count(text: &str) -> Result<usize, Invalid> {
    match whole(text).map(usize::try_from) {
        Some(Ok(count @ 1..)) => Ok(count),
        _ => invalid("is not a count; expected 1 or more"),
    }
}

/// Reads how many probes in a row change a server's state.
///
/// # Errors
/// It is not a number from 1 on, or more than 32 bits hold.
pub fn parse_threshold(text: &str) -> Result<NonZeroU32, Invalid> {
    match whole(text).and_then(|count| u32::try_from(count).ok()).and_then(NonZeroU32::new) {
        Some(count) => Ok(count),
        None => invalid("is not a number of probes; expected 1 or more"),
    }
}

/// Reads a number of threads.
///
/// # Errors
/// It is not a number from 1 to 1024.
pub fn parse_workers(text: &str) -> Result<usize, Invalid> {
    match whole(text) {
        Some(count @ 1..=1024) => Ok(count as usize),
        _ => invalid("is not a number of threads; expected 1 to 1024"),
    }
}

/// Reads a weight.
///
/// # Errors
/// It is not a whole number that 32 bits hold.
pub fn parse_weight(text: &str) -> Result<u32, Invalid> {
    match whole(text).map(u32::try_from) {
        Some(Ok(weight)) => Ok(weight),
        _ => invalid(format!("is not a weight; expected a number from 0 to {}", u32::MAX)),
    }
}

/// A whole number, without a sign.
fn whole(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// Reads yes or no.
///
/// # Errors
/// It is neither `true` nor `false`.
pub fn parse_bool(text: &str) -> Result<bool, Invalid> {
    text.parse().or_else(|_| invalid("is not a boolean; expected true or false"))
}

/// Reads what to do with a request when no server is healthy.
///
/// # Errors
/// It is neither `refuse` nor `try_anyway`.
pub fn parse_when_all_down(text: &str) -> Result<WhenAllDown, Invalid> {
    match text {
        "refuse" => Ok(WhenAllDown::Refuse),
        "try_anyway" => Ok(WhenAllDown::TryAnyway),
        _ => invalid("is not known; expected refuse or try_anyway"),
    }
}

/// Reads what is wanted of a server.
///
/// # Errors
/// It is not `enabled`, `draining` or `disabled`.
pub fn parse_wanted(text: &str) -> Result<Wanted, Invalid> {
    match text {
        "enabled" => Ok(Wanted::Enabled),
        "draining" => Ok(Wanted::Draining),
        "disabled" => Ok(Wanted::Disabled),
        _ => invalid("is not a state; expected enabled, draining or disabled"),
    }
}

/// Reads the name of a server: letters, digits and signs, which stand in the
/// lines of the log without quotes.
///
/// # Errors
/// It is empty, longer than 64 characters, or has others.
pub fn parse_name(text: &str) -> Result<String, Invalid> {
    const EXPECTED: &str = "expected 1 to 64 letters, digits and signs";
    let allowed = |c: char| c.is_alphanumeric() || c.is_ascii_graphic() && !"\"'`=,".contains(c);
    if text.is_empty() {
        return invalid(format!("is empty; {EXPECTED}"));
    }
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return invalid(format!("has the character {bad:?}; {EXPECTED}"));
    }
    match text.chars().count() {
        ..=64 => Ok(text.into()),
        count => invalid(format!("has {count} characters; {EXPECTED}")),
    }
}

/// Reads the host of a server: a name or an address.
///
/// # Errors
/// It is neither, or it brings a port or more.
pub fn parse_host(text: &str) -> Result<String, Invalid> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(address.to_string());
    }
    let wrong = || invalid("is not a host; expected a name or an address, and its port in port");
    let Ok(authority) = parse_authority(text, Some(80)) else { return wrong() };
    if authority.to_string() == format!("{}:80", text.to_ascii_lowercase()) {
        Ok(authority.host)
    } else {
        wrong()
    }
}

/// Where to listen; what is left out is for the default to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub bind: Option<IpAddr>,
    /// The port; 0 is any free one.
    pub port: Option<u16>,
}

impl FromStr for Listen {
    type Err = Invalid;

    /// Reads a port, or an address and a port.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(port) = whole(text).and_then(|port| u16::try_from(port).ok()) {
            return Ok(Listen { bind: None, port: Some(port) });
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Listen { bind: Some(address.ip()), port: Some(address.port()) }),
            Err(_) => {
                invalid("is not a place to listen; expected 8000, 0.0.0.0:8000 or [::1]:8000")
            }
        }
    }
}

/// Reads a network (`10.0.0.0/8`, `fd00::/8`) or one address.
///
/// # Errors
/// It is neither.
pub fn parse_network(text: &str) -> Result<IpNet, Invalid> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| one()).map_err(|_| {
        Invalid("is not a network; expected 10.0.0.0/8, fd00::/8 or an address".into())
    })
}

/// Reads the path of a probe: it begins with `/` and may have a query.
///
/// # Errors
/// It does not begin with `/` or has characters that a request target cannot have.
pub fn parse_health_path(text: &str) -> Result<PathAndQuery, Invalid> {
    if !text.starts_with('/') {
        return invalid("must begin with /; expected a path such as /health");
    }
    let uri = text.parse::<Uri>().ok().and_then(|uri| uri.path_and_query().cloned());
    match uri {
        Some(path) if !text.contains('#') => Ok(path),
        _ => invalid("is not a path that a request can ask for; expected one such as /health"),
    }
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
        check_authority("::1", "error: needs brackets and a port; expected [::1]:8080");
        check_authority("0", "error: is not a port");
        check_authority("65536", "error: is not a port");
        check_authority("a:65536", "error: has port 65536; expected 1 to 65535");
        check_authority("example.org", "error: has no port; expected http://host:port");
        check_authority("example.org:", "error: has no port");
        check_authority(":8080", "error: ");
        check_authority("", "error: ");
        check_authority("a b:80", "error: is not a host and a port");
        check_authority("https://example.org", "error: has the scheme https; expected http://");
        check_authority("http://example.org/app", "error: has the path /app");
        check_authority("http://me@example.org", "error: has a user name");
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
}
