//! The `lb` program: parse, run, exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, error::ErrorKind};
use lb::{
    access_log::AccessLog,
    admin,
    allocator::Allocator,
    cli::{AdminCommand, Cli, Loader, Task},
    config::Config,
    control::Control,
    net::Tcp,
    reload::{self, Source, Watch},
    server,
};
use rustix::{
    process::{Resource, Rlimit, Signal, getrlimit, setrlimit},
    thread::disable_transparent_huge_pages,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tracing::info;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How long the last lines of the logs may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Of a connection's buffers only the first page is ever used: huge pages
    // would make all of them resident. Where it cannot be said they stay.
    let _ = disable_transparent_huge_pages(true);
    let task = match Cli::parse().into_task() {
        Ok(task) => task,
        Err(error) => Cli::command().error(ErrorKind::ValueValidation, error).exit(),
    };
    let done = match task {
        Task::Listen(loader) => listen(*loader),
        Task::Admin(command) => ask(command),
        Task::Check(args) => args.run(),
        Task::Init(args) => args.run(),
        Task::Print(text) => print(text),
    };
    done.unwrap_or_else(|error| {
        say(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn say(error: &str) {
    // If nobody reads it, the exit code must do.
    let _ = writeln!(io::stderr(), "error: {error}");
}

fn listen(loader: Loader) -> Result<ExitCode> {
    let watch = loader.source().map(Watch::start);
    match loader.load() {
        Ok(config) => {
            let load = Box::new(move |file| Ok(loader.load_open(file)?));
            let source = watch.map(|watch| Source { load, watch });
            run(config, source).map(|()| ExitCode::SUCCESS)
        }
        Err(problems) => {
            problems.lines().for_each(|line| say(&line));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints what was asked for. A reader that has seen enough is no mistake.
fn print(text: io::Result<Vec<u8>>) -> Result<ExitCode> {
    let text = text?;
    match io::stdout().write_all(&text).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn ask(command: AdminCommand) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command.run());
    // A name that is still being looked up does not keep us here.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

fn run(config: Config, source: Option<Source>) -> Result<()> {
    let (log, stderr) = config.logs.start()?;
    let log = Arc::new(log);
    if let Some(source) = &config.source {
        info!("the configuration is that of {}", source.display());
    }
    let descriptors = connections_for(raise_descriptor_limit(), config.workers);
    let config = Config { descriptors, ..config };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let ended = runtime.block_on(async {
        let stop = stop_signal()?;
        let hangups = hangups()?;
        let reload = async |control: Arc<Control>| reload::run(&control, source, hangups).await;
        reopen_on_signal(log.clone())?;
        outlive_full_files()?;
        let ended = server::run(Tcp, config, log.clone(), stop, reload).await;
        // A reader that has stopped reading does not keep us here; what the
        // other logs have lost is said on standard error.
        let _ = timeout(LAST_WORDS, log.close()).await;
        let _ = timeout(LAST_WORDS, stderr.close()).await;
        ended
    });
    // Nor does a name that is still being looked up.
    runtime.shutdown_background();
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

/// Each SIGHUP from now on.
fn hangups() -> Result<mpsc::UnboundedReceiver<()>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        while hangup.recv().await.is_some() && sender.send(()).is_ok() {}
    });
    Ok(receiver)
}

/// Opens the access log anew at each SIGUSR1.
fn reopen_on_signal(log: Arc<AccessLog>) -> Result<()> {
    let mut renamed = signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?;
    tokio::task::spawn_local(async move {
        while renamed.recv().await.is_some() {
            log.reopen();
        }
    });
    Ok(())
}

/// A file that may grow no more (`ulimit -f`) is a write that fails, which the
/// logs tell, not the end of the process.
fn outlive_full_files() -> Result<()> {
    let beyond = SignalKind::from_raw(Signal::XFSZ.as_raw());
    signal(beyond).map(drop).context("cannot catch SIGXFSZ")
}

/// How many clients fit into `descriptors`: half of what `workers` threads, listeners,
/// logs, probes and the admin API leave, as each may need a connection to a server.
/// Clients that have no room wait in the kernel's queue instead of failing.
fn connections_for(descriptors: Option<u64>, workers: usize) -> usize {
    // Each event loop has four.
    let others = 32 + 4 * workers as u64;
    match descriptors {
        Some(limit) => {
            let left = limit.saturating_sub(others);
            // The admin API never has more than clients have.
            let clients = (left - (admin::PLACES as u64).min(left / 3)) / 2;
            usize::try_from(clients).unwrap_or(usize::MAX).max(1)
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
