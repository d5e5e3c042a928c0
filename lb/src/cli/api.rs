//! Flags that say where the admin API is served.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::Args;

use crate::config::{Api, Invalid, invalid};

/// The defaults are those of [`Api::by_default`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Admin API")]
pub(super) struct ApiArgs {
    /// The admin API's port; 0 means any free one, off means none. Without
    /// this flag lb does without it where 8000 is taken [default: 8000].
    #[arg(long, value_name = "PORT")]
    api_port: Option<ApiPort>,
    /// The admin API's address. Any but loopback needs a token
    /// [default: 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    api_bind: Option<IpAddr>,
    /// A Unix socket for the admin API, which only its owner can use.
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// A name under which clients ask for the admin API, besides localhost and
    /// its addresses. Repeat it for more.
    #[arg(long = "api-host", value_name = "NAME", value_parser = parse_host)]
    api_hosts: Vec<String>,
    /// A file with the token that the admin API asks for; without it, the
    /// token in the environment's LB_API_TOKEN, if there is one.
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// No admin API.
    #[arg(long, conflicts_with_all = ["api_port", "api_bind", "api_socket"])]
    no_api: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ApiPort {
    Off,
    Port(u16),
}

impl FromStr for ApiPort {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "off" => Ok(ApiPort::Off),
            _ => text.parse().map(ApiPort::Port).or_else(|_| {
                invalid("not a port; expected 1 to 65535, 0 for any free one, or off")
            }),
        }
    }
}

fn parse_host(text: &str) -> Result<String, Invalid> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(known) {
        return invalid("not the name of a host; expected one without scheme and port");
    }
    Ok(text.to_ascii_lowercase())
}

impl ApiArgs {
    /// # Errors
    /// There is an address to listen on, and no port.
    pub(super) fn into_api(self) -> Result<Api, Invalid> {
        let off = self.no_api || self.api_port == Some(ApiPort::Off);
        if off && self.api_bind.is_some() {
            return invalid("--api-bind needs a port, and --api-port is off");
        }
        let required = self.api_port.is_some() || self.api_bind.is_some();
        let default = Api::by_default();
        let at = |default: SocketAddr| {
            let port = match self.api_port {
                Some(ApiPort::Port(port)) => port,
                _ => default.port(),
            };
            SocketAddr::new(self.api_bind.unwrap_or(default.ip()), port)
        };
        Ok(Api {
            listen: default.listen.filter(|_| !off).map(at),
            required,
            socket: self.api_socket,
            hosts: self.api_hosts,
            token_file: self.api_token_file,
        })
    }
}
