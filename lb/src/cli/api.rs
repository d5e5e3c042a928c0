//! Flags that say where the admin API is served.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use crate::config::{ApiKeys, ApiPort, Invalid, invalid, parse_api_host};

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
    #[arg(long = "api-host", value_name = "NAME", value_parser = parse_api_host)]
    api_hosts: Vec<String>,
    /// A file with the token that the admin API asks for; without it, the
    /// token in the environment's LB_API_TOKEN, if there is one.
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// No admin API.
    #[arg(long, conflicts_with_all = ["api_port", "api_bind", "api_socket"])]
    pub(super) no_api: bool,
}

impl ApiArgs {
    /// What the flags say, in the keys of the file.
    ///
    /// # Errors
    /// There is an address to listen on, and no port.
    pub(super) fn into_keys(self) -> Result<ApiKeys, Invalid> {
        let off = self.no_api || self.api_port == Some(ApiPort::Off);
        if off && self.api_bind.is_some() {
            return invalid("--api-bind needs a port, and --api-port is off");
        }
        Ok(ApiKeys {
            port: self.api_port,
            bind: self.api_bind,
            socket: self.api_socket,
            hosts: Some(self.api_hosts).filter(|hosts| !hosts.is_empty()),
            token_file: self.api_token_file,
        })
    }
}
