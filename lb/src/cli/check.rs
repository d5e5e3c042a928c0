//! `lb check`: what is wrong with a configuration file.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;

use super::loader;
use crate::config::{self, Config};

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The file; - is standard input [default: what a bare lb would read].
    file: Option<PathBuf>,
    /// Print the JSON schema of the file, for editors.
    #[arg(long, conflicts_with = "file")]
    schema: bool,
}

impl CheckArgs {
    /// Prints a line for each mistake to standard error, and 1 is the exit
    /// code; or one line to standard output if all is good.
    ///
    /// # Errors
    /// There is no file to check, or nobody takes the output.
    pub fn run(self) -> Result<ExitCode> {
        if self.schema {
            io::stdout().write_all(config::schema().as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        let Some(path) = self.file.or_else(loader::found) else {
            bail!("there is no lb.yaml, servers.yaml or config.yaml here; name the file to check");
        };
        let (name, read) = if path.as_os_str() == "-" {
            let name = "standard input".to_owned();
            let read = config::read_from(Ok(io::stdin()), &name);
            (name, read)
        } else {
            (path.display().to_string(), config::read(&path))
        };
        match read {
            Ok(file) => {
                writeln!(io::stdout(), "{name} is good: {}", summary(&file.into_config(None)))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(problems) => {
                writeln!(io::stderr(), "{problems}")?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

fn summary(config: &Config) -> String {
    let servers = match config.servers.len() {
        0 => "no server".into(),
        1 => "1 server".into(),
        count => format!("{count} servers"),
    };
    match config.bind {
        Some(bind) => {
            format!("{servers}, listens on {}", std::net::SocketAddr::new(bind, config.port))
        }
        None => format!("{servers}, listens on port {}", config.port),
    }
}
