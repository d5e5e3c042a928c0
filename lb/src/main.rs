//! The `lb` program: parse, run, exit code.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, error::ErrorKind};
use lb::{access_log::AccessLog, cli::Cli, config::Config, net::Tcp, server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match Cli::parse().into_config() {
        Ok(config) => config,
        Err(error) => Cli::command().error(ErrorKind::ValueValidation, error).exit(),
    };
    start_logging();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// State changes and troubles go to standard error; `RUST_LOG` says how many.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}

fn run(config: Config) -> Result<()> {
    raise_descriptor_limit();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let (log, writer) = {
        let _entered = runtime.enter();
        AccessLog::start().context("cannot start the log's thread")?
    };
    let ended = tasks.block_on(&runtime, async {
        let stop = stop_signal()?;
        server::run(Tcp, config, log.clone(), stop).await
    });
    log.close();
    let _ = writer.join();
    ended
}

/// Resolves at the first SIGTERM or SIGINT; the second ends the process.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::task::spawn_local(async move {
        let mut stop = Some(stop);
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            match stop.take() {
                Some(stop) => drop(stop.send(())),
                None => std::process::exit(code),
            }
        }
    });
    Ok(async { drop(stopped.await) })
}

/// Two descriptors a request: as many as the operating system lets us have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}
