//! Where the admin API is served, and to whom.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// The port of the admin API unless told otherwise.
pub const DEFAULT_API_PORT: u16 = 8000;

/// Where the admin API is served, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Api {
    /// Where it listens; port 0 means any free one, `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether somebody asked for it. If not, `lb` does without where the port
    /// is taken.
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

impl Api {
    /// On loopback's default port, if that is free.
    pub fn by_default() -> Api {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        Api { listen: Some(SocketAddr::new(loopback, DEFAULT_API_PORT)), ..Api::default() }
    }
}
