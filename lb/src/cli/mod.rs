//! The command line: what was typed, validated once.
//!
//! Owns the commands. The flags of one, and what follows from them, are in a
//! file of its own.

mod listen;

use clap::{Parser, Subcommand};

use self::listen::ListenArgs;
use crate::config::{Config, Invalid};

/// An HTTP load balancer: round robin with health checks; a client sees no
/// error while one healthy server exists.
#[derive(Debug, Parser)]
#[command(name = "lb", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    listen: ListenArgs,
}

const EXAMPLES: &str = "\
Examples:
  lb --port 8000 --backend 8080 --backend 8081
  lb listen --port 8000 --backend http://10.0.0.5:8080 --health-path /health --health-period 5s";

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance requests over the servers (what `lb` does without a command).
    Listen(ListenArgs),
}

impl Cli {
    /// Validates what was typed.
    ///
    /// # Errors
    /// Values that are good by themselves do not fit together.
    pub fn into_config(self) -> Result<Config, Invalid> {
        let args = match self.command {
            Some(Command::Listen(args)) => args,
            None => self.listen,
        };
        args.into_config()
    }
}
