//! How requests are dealt: what was typed, and the key of a request.
//!
//! Owns what the core's [`Algorithm`] leaves to the shell: which part of a
//! request is its key, and randomness. Chooses no server.

use std::{cell::RefCell, net::IpAddr, str::FromStr};

use fastrand::Rng;
use hyper::header::{COOKIE, HeaderMap, HeaderName};

use crate::{
    balance::{Algorithm, Ask, hash},
    config::{Authority, Invalid, invalid, parse_weight},
};

/// How requests are dealt to servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dealing {
    /// The rule. Default in turn.
    pub algorithm: Algorithm,
    /// What [`Algorithm::Hash`] hashes; without meaning for the others.
    pub key: HashKey,
}

/// The part of a request that decides which server it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The IP address at the other end of the connection.
    #[default]
    ClientAddress,
    /// The value of the first field of this name.
    Header(HeaderName),
    /// The value of the first cookie of this name (RFC 6265 §4.2).
    Cookie(String),
}

const KNOWN: &str = "round_robin, least_connections, two_choices, random, hash, \
                     hash:header=NAME or hash:cookie=NAME";

impl FromStr for Dealing {
    type Err = Invalid;

    /// Reads the name of an algorithm; `hash` may say of what: `hash` alone is
    /// of the client's address.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, of) = match text.split_once(':') {
            Some((name, of)) => (name, Some(of)),
            None => (text, None),
        };
        let algorithm = match name {
            "round_robin" => Algorithm::RoundRobin,
            "least_connections" => Algorithm::LeastConnections,
            "two_choices" => Algorithm::TwoChoices,
            "random" => Algorithm::Random,
            "hash" => Algorithm::Hash,
            _ => return invalid(format!("unknown algorithm; expected {KNOWN}")),
        };
        let key = match of {
            None => HashKey::default(),
            Some(_) if algorithm != Algorithm::Hash => {
                return invalid(format!("{name} takes no key; only hash does"));
            }
            Some(of) => parse_key(of)?,
        };
        Ok(Dealing { algorithm, key })
    }
}

fn parse_key(text: &str) -> Result<HashKey, Invalid> {
    let Some((kind @ ("header" | "cookie"), name)) = text.split_once('=') else {
        return invalid(format!(
            "cannot hash {text:?}; expected hash, hash:header=NAME or hash:cookie=NAME"
        ));
    };
    // A cookie's name is a token as a field's is (RFC 6265 §4.1.1).
    let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else {
        return invalid(format!("{name:?} is not the name of a {kind}"));
    };
    Ok(match kind {
        "header" => HashKey::Header(field),
        _ => HashKey::Cookie(name.into()),
    })
}

impl HashKey {
    /// The hash of this part of a request; `None` if it has none.
    pub fn of(&self, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
        match self {
            HashKey::ClientAddress => Some(match client {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            HashKey::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            HashKey::Cookie(name) => cookie(headers, name.as_bytes()).map(hash),
        }
    }
}

/// The value of the first cookie called `name`. Names are compared exactly.
fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

impl Dealing {
    /// What the core must know of a request of `client` with these fields.
    pub fn ask(&self, headers: &HeaderMap, client: IpAddr, random: &RefCell<Rng>) -> Ask {
        match self.algorithm {
            Algorithm::RoundRobin | Algorithm::LeastConnections => Ask::default(),
            Algorithm::TwoChoices | Algorithm::Random => {
                Ask { draw: random.borrow_mut().u64(..), key: None }
            }
            Algorithm::Hash => Ask { draw: 0, key: self.key.of(headers, client) },
        }
    }
}

/// A server on the command line: where it is, and its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is.
    pub authority: Authority,
    /// Its share of the requests; 0 is none. Default 1.
    pub weight: u32,
}

impl FromStr for Backend {
    type Err = Invalid;

    /// Reads a server, as [`Authority`] does, with options behind it:
    /// `8080,weight=3`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.split(',');
        let authority = parts.next().unwrap_or_default().parse()?;
        let mut weight = None;
        for option in parts {
            let Some(("weight", value)) = option.split_once('=') else {
                return invalid(format!("unknown option {option:?}; expected weight=N"));
            };
            let read = parse_weight(value).or_else(|e| invalid(format!("weight {value:?} is {e}")));
            if weight.replace(read?).is_some() {
                return invalid("weight is given twice");
            }
        }
        Ok(Backend { authority, weight: weight.unwrap_or(1) })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = Invalid> + std::fmt::Debug>(text: &str, expected: &str) {
        let got = match text.parse::<T>() {
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("error: {error}"),
        };
        assert!(got.contains(expected), "{text:?}: got {got:?}, expected {expected:?}");
    }

    #[test]
    fn algorithms() {
        check::<Dealing>("round_robin", "RoundRobin");
        check::<Dealing>("least_connections", "LeastConnections");
        check::<Dealing>("two_choices", "TwoChoices");
        check::<Dealing>("random", "Random");
        check::<Dealing>("hash", "Hash, key: ClientAddress");
        check::<Dealing>("hash:header=X-User", "Header(\"x-user\")");
        check::<Dealing>("hash:cookie=Sid", "Cookie(\"Sid\")");
        check::<Dealing>("", "error: unknown algorithm");
        check::<Dealing>("Random", "error: unknown algorithm");
        check::<Dealing>("random:header=a", "error: random takes no key");
        check::<Dealing>("hash:", "error: cannot hash \"\"");
        check::<Dealing>("hash:path", "error: cannot hash \"path\"");
        check::<Dealing>("hash:header=", "error: \"\" is not the name of a header");
        check::<Dealing>("hash:cookie=a b", "error: \"a b\" is not the name of a cookie");
    }

    #[test]
    fn backends() {
        check::<Backend>("8080", "weight: 1");
        check::<Backend>("8080,weight=0", "weight: 0");
        check::<Backend>("http://a:1/,weight=4294967295", "weight: 4294967295");
        check::<Backend>("8080,weight=4294967296", "error: weight \"4294967296\" is not");
        check::<Backend>("8080,weight=-1", "error: weight \"-1\" is not a number");
        check::<Backend>("8080,weight=+1", "error: weight \"+1\" is not a number");
        check::<Backend>("8080,weight=", "error: weight \"\" is not a number");
        check::<Backend>("8080,weight=1,weight=2", "error: weight is given twice");
        check::<Backend>("8080,", "error: unknown option \"\"");
        check::<Backend>("8080,wait=1", "error: unknown option \"wait=1\"");
        check::<Backend>(",weight=1", "error: not a host");
    }

    #[test]
    fn keys() {
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("ann"));
        headers.append(COOKIE, HeaderValue::from_static("xsid=9; SID=8"));
        headers.append(COOKIE, HeaderValue::from_static("a=b;sid=7=x; sid=6"));
        let client = IpAddr::from([127, 0, 0, 1]);
        let key = |of: &str| {
            let dealing: Dealing = format!("hash{of}").parse().unwrap();
            dealing.key.of(&headers, client)
        };
        assert_eq!(key(""), Some(hash(&[127, 0, 0, 1])));
        assert_eq!(key(":header=X-USER"), Some(hash(b"ann")));
        assert_eq!(key(":cookie=sid"), Some(hash(b"7=x")));
        assert_eq!(key(":header=x-none"), None);
        assert_eq!(key(":cookie=si"), None);
    }
}
