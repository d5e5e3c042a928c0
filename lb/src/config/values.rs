//! Values as the user writes them, on the command line and in files alike.
//!
//! Owns how one value is read and what is said of a bad one. Does not know
//! where it stands or what it is for.

use std::{
    fmt, net::IpAddr, num::NonZeroU32, ops::RangeInclusive, path::PathBuf, str::FromStr,
    time::Duration,
};

use clap::ValueEnum;

use hyper::{Uri, http::uri::PathAndQuery};
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    access_log::Format,
    balance::{Wanted, WhenAllDown},
    logs::Level,
};

/// What is wrong with something that the user wrote. Reads as the end of a
/// sentence that begins with the value.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(String);

pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
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
pub(super) fn whole(text: &str) -> Option<u64> {
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

/// Reads an address of this machine.
///
/// # Errors
/// It is none.
pub fn parse_address(text: &str) -> Result<IpAddr, Invalid> {
    text.parse().or_else(|_| invalid("is not an address; expected 127.0.0.1 or ::1"))
}

/// Reads a path.
///
/// # Errors
/// It is empty.
pub fn parse_path(text: &str) -> Result<PathBuf, Invalid> {
    if text.is_empty() { invalid("is empty; expected a path") } else { Ok(text.into()) }
}

/// Reads how the lines of requests look.
///
/// # Errors
/// It is neither `text` nor `json`.
pub fn parse_format(text: &str) -> Result<Format, Invalid> {
    Format::from_str(text, false).or_else(|_| invalid("is not known; expected text or json"))
}

/// Reads the least serious of what is logged.
///
/// # Errors
/// It is no level.
pub fn parse_level(text: &str) -> Result<Level, Invalid> {
    const EXPECTED: &str = "is not a level; expected off, error, warn, info, debug or trace";
    Level::from_str(text, false).or_else(|_| invalid(EXPECTED))
}

/// Reads a network (`10.0.0.0/8`, `fd00::/8`) or one address. What is mapped into IPv6
/// (RFC 4291 §2.5.5.2) is of IPv4, as clients are.
///
/// # Errors
/// It is neither.
pub fn parse_network(text: &str) -> Result<IpNet, Invalid> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    let net = text.parse::<IpNet>().or_else(|_| one()).map_err(|_| {
        Invalid("is not a network; expected 10.0.0.0/8, fd00::/8 or an address".into())
    })?;
    Ok(match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(prefix)) => IpNet::new(address, prefix).unwrap_or(net),
        _ => net,
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
        assert!(inside("::ffff:10.0.0.0/104", "10.9.8.7") && inside("::ffff:a00:1", "10.0.0.1"));
        assert!(!inside("::ffff:10.0.0.0/104", "11.0.0.1") && inside("::/0", "::ffff:10.0.0.1"));
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
