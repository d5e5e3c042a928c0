//! Where the admin API is served, and to whom.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use super::{
    file::Api as Keys,
    values::{Invalid, invalid},
};

/// The port of the admin API unless told otherwise.
pub const DEFAULT_API_PORT: u16 = 8000;

/// Where the admin API is served, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// Where it listens; port 0 means any free one, `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether somebody asked for it: names its address, its port, its hosts or its
    /// token file. If not, `lb` does without where the port is taken.
    pub required: bool,
    /// The path of a Unix socket that it listens on too. Default none.
    pub socket: Option<PathBuf>,
    /// Names, in lower case, under which clients may ask for it, besides
    /// `localhost` and its addresses. Default none.
    pub hosts: Vec<String>,
    /// The file with the token that it asks for. Default none: what the
    /// environment has in `LB_API_TOKEN`, if anything.
    pub token_file: Option<PathBuf>,
}

/// The port of the admin API, as the user writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiPort {
    /// `off`: it listens on no port.
    Off,
    /// This one; 0 means any free one.
    Port(u16),
}

impl FromStr for ApiPort {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => Ok(ApiPort::Off),
            _ => text.parse().map(ApiPort::Port).or_else(|_| {
                invalid("is not a port; expected 1 to 65535, 0 for any free one, or off")
            }),
        }
    }
}

/// Reads a name under which clients ask for the admin API.
///
/// # Errors
/// It is no name of a host.
pub fn parse_api_host(text: &str) -> Result<String, Invalid> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(known) {
        return invalid("is not the name of a host; expected one without scheme and port");
    }
    Ok(text.to_ascii_lowercase())
}

impl Api {
    /// What the user wrote; for the rest, loopback's default port if that is
    /// free.
    pub(super) fn of(keys: Keys) -> Api {
        let port = match keys.port {
            Some(ApiPort::Off) => None,
            Some(ApiPort::Port(port)) => Some(port),
            None => Some(DEFAULT_API_PORT),
        };
        let address = keys.bind.unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST));
        Api {
            listen: port.map(|port| SocketAddr::new(address, port)),
            required: keys.port.is_some()
                || keys.bind.is_some()
                || keys.token_file.is_some()
                || keys.hosts.is_some(),
            socket: keys.socket,
            hosts: keys.hosts.unwrap_or_default(),
            token_file: keys.token_file,
        }
    }
}
