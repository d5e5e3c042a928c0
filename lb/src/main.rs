//! The `lb` program: parse, run, exit code.

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, error::ErrorKind};
use lb::{
    access_log::AccessLog,
    cli::{AdminCommand, Cli, Task},
    config::Config,
    net::Tcp,
    output::{Output, Stream},
    server,
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::disable_transparent_huge_pages,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last lines of the logs may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Of a connection's buffers only the first page is ever used: huge pages
    // would make all of them resident. Where it cannot be said they stay.
    let _ = disable_transparent_huge_pages(true);
    let done = match Cli::parse().into_task() {
        Ok(Task::Listen(config)) => run(*config),
        Ok(Task::Admin(command)) => ask(command),
        Err(error) => Cli::command().error(ErrorKind::ValueValidation, error).exit(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If nobody reads it, the exit code must do.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// State changes and troubles go to standard error; `RUST_LOG` says how many.
fn start_logging(stderr: Output) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || stderr.clone())
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(false)
        .init();
}

fn ask(command: AdminCommand) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command.run());
    // A name that is still being looked up does not keep us here.
    runtime.shutdown_background();
    done
}

fn run(config: Config) -> Result<()> {
    let stdout = Output::start(Stream::Stdout).context("cannot start the log's thread")?;
    let stderr = Output::start(Stream::Stderr).context("cannot start the log's thread")?;
    start_logging(stderr.clone());
    let config = Config { descriptors: connections_for(raise_descriptor_limit()), ..config };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let log = Arc::new(AccessLog::new(stdout.clone()));
        let ended = server::run(Tcp, config, log, stop, async |_| {}).await;
        // A reader that has stopped reading does not keep us here.
        let _ = timeout(LAST_WORDS, async { tokio::join!(stdout.close(), stderr.close()) }).await;
        ended
    })
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

/// How many clients fit into `descriptors`: three fifths of them, as the others
/// are wanted for servers, probes, listeners and logs. Clients that have no room
/// wait in the kernel's queue instead of failing.
fn connections_for(descriptors: Option<u64>) -> usize {
    const OTHERS: u64 = 32;
    match descriptors {
        Some(limit) => {
            usize::try_from(limit.saturating_sub(OTHERS) * 3 / 5).unwrap_or(usize::MAX).max(1)
        }
        None => usize::MAX,
    }
}

/// As many descriptors as the operating system lets us have; returns how many,
/// `None` if there is no limit.
fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
        return limit.current;
    }
    limit.maximum
}
