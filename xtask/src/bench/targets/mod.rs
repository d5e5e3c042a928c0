//! What is measured: `lb` and its peers, set up alike.
//!
//! All of them keep connections alive on both sides, deal in rotation, set
//! X-Forwarded-For, -Proto and -Host and a new X-Request-Id, stream uploads, write an access log line a
//! request into a file, use one core, and (but nginx, which cannot) probe each
//! server every ten seconds.

mod caddy;
mod haproxy;
mod lb;
mod nginx;
mod running;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::process::Command;

use super::child::command;
use crate::programs::{self, find};

pub(crate) use running::Running;

/// Idle connections to servers that a target may keep, at least.
const KEPT: usize = 1024;

/// A proxy that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// This workspace's balancer.
    Lb,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Caddy.
    Caddy,
}

/// A target that is there.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Which.
    pub(crate) target: Target,
    /// The program.
    pub(crate) file: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
}

/// What a target is to do.
pub(crate) struct Setup<'a> {
    /// A folder of its own, for its files.
    pub(crate) folder: &'a Path,
    /// The port to listen on.
    pub(crate) port: u16,
    /// The servers.
    pub(crate) servers: &'a [SocketAddr],
    /// How many clients may be connected at a time.
    pub(crate) clients: usize,
}

impl Target {
    /// Its name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Lb => "lb",
            Target::Nginx => "nginx",
            Target::Haproxy => "haproxy",
            Target::Caddy => "caddy",
        }
    }

    /// The command of `program`, with its configuration written.
    fn command(self, program: &Path, setup: &Setup<'_>) -> Result<Command> {
        let (name, config) = match self {
            Target::Lb => ("lb.none", String::new()),
            Target::Nginx => ("nginx.conf", nginx::config(setup)),
            Target::Haproxy => ("haproxy.cfg", haproxy::config(setup)),
            Target::Caddy => ("Caddyfile", caddy::config(setup)),
        };
        let file = setup.folder.join(name);
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = command(program);
        match self {
            Target::Lb => lb::arguments(&mut command, setup),
            Target::Nginx => nginx::arguments(&mut command, setup, &file),
            Target::Haproxy => haproxy::arguments(&mut command, &file),
            Target::Caddy => caddy::arguments(&mut command, setup, &file),
        }
        Ok(command)
    }
}

impl Program {
    /// The target's program, if it is installed; `lb` is the one that is given.
    pub(crate) fn find(target: Target, lb: &Path) -> Option<Program> {
        let file = if target == Target::Lb { Some(lb.to_owned()) } else { find(target.name()) }?;
        let flag = match target {
            Target::Lb => "--version",
            Target::Nginx | Target::Haproxy => "-v",
            Target::Caddy => "version",
        };
        let version = programs::version(&file, &[flag]).unwrap_or_else(|| "unknown".into());
        Some(Program { target, file, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn setup<'a>(folder: &'a Path, servers: &'a [SocketAddr]) -> Setup<'a> {
        Setup { folder, port: 8000, servers, clients: 512 }
    }

    #[test]
    fn every_configuration_names_every_server() {
        let servers = ["127.0.1.1:9", "127.0.1.2:9"].map(|server| server.parse().unwrap());
        let setup = setup(Path::new("/nowhere"), &servers);
        for config in [nginx::config(&setup), haproxy::config(&setup), caddy::config(&setup)] {
            for text in ["127.0.1.1:9", "127.0.1.2:9", "8000"] {
                assert!(config.contains(text), "no {text} in {config}");
            }
        }
    }
}
