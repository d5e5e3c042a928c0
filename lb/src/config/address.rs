//! Where servers are and where to listen, as the user writes it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::RawFd,
    str::FromStr,
};

use hyper::header::HeaderValue;

use super::values::{Invalid, invalid, whole};

/// The longest name of a host, in characters (RFC 1035 §2.3.4, as text).
const HOST_LIMIT: usize = 253;

/// Where to listen, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// On an address of this machine.
    Address(IpAddr),
    /// On the socket that is inherited as this descriptor.
    Inherited(RawFd),
}

impl FromStr for Bind {
    type Err = Invalid;

    /// Reads an address (`127.0.0.1`, `::1`), or a descriptor as `fd:3`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("fd:").map(str::parse) {
            Some(Ok(fd @ 0..)) => Ok(Bind::Inherited(fd)),
            Some(_) => invalid("is not the number of a descriptor; expected fd:3"),
            None => match text.parse() {
                Ok(address) => Ok(Bind::Address(address)),
                Err(_) => invalid("is not an address; expected 127.0.0.1, ::1 or fd:3"),
            },
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
    const NO_AUTHORITY: &str = "is not a host and a port; expected http://host:port";
    let Ok(uri) = text.parse::<hyper::http::uri::Authority>() else {
        return invalid(NO_AUTHORITY);
    };
    if text.contains('@') {
        return invalid("has a user name; expected http://host:port");
    }
    let (host, port) = text.split_at(uri.host().len());
    if host.is_empty() {
        return invalid("has no host; expected http://host:port");
    }
    let Some(host) = canonical_host(host) else {
        return invalid(
            "has no valid host; expected 1 to 253 letters, digits, dots, hyphens and underscores, or an address",
        );
    };
    let port = match (port.strip_prefix(':'), default_port) {
        (None, _) if !port.is_empty() => return invalid(NO_AUTHORITY),
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

/// A host as [`Authority`] has it, if it is one: a name, such as resolvers and
/// container networks know, or an address. It stands in logs, metrics and
/// fields of requests as it is.
fn canonical_host(text: &str) -> Option<String> {
    let name = |text: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        !text.is_empty() && text.len() <= HOST_LIMIT && text.bytes().all(known)
    };
    let host = text.to_ascii_lowercase();
    let Some(bracketed) = host.strip_prefix('[') else { return name(&host).then_some(host) };
    let inner = bracketed.strip_suffix(']')?;
    // It can be written in several ways.
    let address = |text: &str| text.parse::<Ipv6Addr>().ok();
    match inner.split_once('%') {
        Some((text, zone)) if name(zone) => Some(format!("{}%{zone}", address(text)?)),
        Some(_) => None,
        None => Some(address(inner)?.to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds() {
        assert_eq!("fd:3".parse(), Ok(Bind::Inherited(3)));
        assert_eq!("::1".parse(), Ok(Bind::Address(Ipv6Addr::LOCALHOST.into())));
        for bad in ["", "fd:", "fd:-1", "fd:x", "fd:4294967296", "localhost", "127.0.0.1:80"] {
            assert!(bad.parse::<Bind>().is_err(), "{bad}");
        }
    }

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
        check_authority("http://[0:0::01]", "[::1]:80");
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
    fn hosts() {
        check_authority("http://My_app-1.test.:80", "my_app-1.test.:80");
        check_authority("xn--bcher-kva.example:80", "xn--bcher-kva.example:80");
        check_authority("[fe80::1%eth0]:80", "[fe80::1%eth0]:80");
        let longest = format!("{}:80", "a".repeat(253));
        check_authority(&longest, &longest);
        for bad in [
            "http://a,status=200:80",
            "a=b:80",
            "a'b:80",
            "[a.b]:80",
            "[127.0.0.1]:80",
            "[::1%]:80",
            "[::1%a=b]:80",
            "[::g]:80",
            "a[::1]:80",
            &format!("a{longest}"),
        ] {
            check_authority(bad, "error: has no valid host; expected 1 to 253 letters");
        }
        for bad in ["http://[::1]80:90", "[::1]a", "b\u{fc}cher:80", "a:80:90"] {
            check_authority(bad, "error: is not a host and a port; expected http://host:port");
        }
    }
}
