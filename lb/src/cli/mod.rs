//! The command line: what was typed, validated once.
//!
//! Owns the commands. The flags of each, and what follows from them, are in a
//! file of its own.

mod admin;
mod api;
mod ask;
mod check;
mod init;
mod listen;
mod loader;

use std::io;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use self::listen::ListenArgs;
pub use self::{admin::AdminCommand, check::CheckArgs, init::InitArgs, loader::Loader};
use crate::{config::Invalid, documents};

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
  lb listen --port 8000 --backend http://10.0.0.5:8080 --health-path /health --health-period 5s
  lb init && lb check lb.yaml && lb
  lb add-server --url http://10.0.0.6:8080 --weight 2
  lb list-servers";

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance requests over the servers (what `lb` does without a command).
    Listen(Box<ListenArgs>),
    /// Say what is wrong with a configuration file.
    Check(CheckArgs),
    /// Write a configuration file to start from.
    Init(InitArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, in roff.
    Man,
    #[command(flatten)]
    Admin(AdminCommand),
}

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    /// Balance requests.
    Listen(Box<Loader>),
    /// Ask something of an `lb` that runs.
    Admin(AdminCommand),
    /// Check a file.
    Check(CheckArgs),
    /// Write a file.
    Init(InitArgs),
    /// Print this text, if it could be made.
    Print(io::Result<Vec<u8>>),
}

impl Cli {
    /// Validates what was typed.
    ///
    /// # Errors
    /// Values that are good by themselves do not fit together.
    pub fn into_task(self) -> Result<Task, Invalid> {
        Ok(match self.command {
            None => Task::Listen(Box::new(self.listen.into_loader()?)),
            Some(Command::Listen(args)) => Task::Listen(Box::new(args.into_loader()?)),
            Some(Command::Check(args)) => Task::Check(args),
            Some(Command::Init(args)) => Task::Init(args),
            Some(Command::Completions { shell }) => Task::Print(Ok(documents::completions(shell))),
            Some(Command::Man) => Task::Print(documents::manual()),
            Some(Command::Admin(command)) => Task::Admin(command),
        })
    }
}
