//! `cargo xtask demo`: something to play with in one command.

use std::{
    io::Write,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use crate::programs;

/// How the demo runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The balancer's port; 0 means any free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
}

/// Runs until Ctrl-C or until the balancer ends.
///
/// # Errors
/// A program cannot be built or started.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let programs = programs::build(false)?;
    let mut backends = Vec::new();
    let mut lb = Command::new(&programs.lb);
    lb.args(["--port", &options.port.to_string(), "--health-period", "2s", "--api-port", "0"]);
    for name in ["A", "B", "C"] {
        let mut command = Command::new(&programs.be);
        command.args(["0", "--name", name, "--events"]);
        let (child, line) = start(command).await?;
        let address = line.strip_prefix("listening on ").context(line.clone())?.trim().to_owned();
        println!("backend {name}: http://{address}/ (process {})", child.id().unwrap_or_default());
        lb.arg(format!("--backend={address}"));
        backends.push(child);
    }
    let (mut balancer, ready) = start(lb).await?;
    let addresses = ready.strip_prefix("ready proxy=").context("the balancer did not start")?;
    let (proxy, admin) = addresses.split_once(" admin=").context("it has no admin API")?;
    let port = proxy.rsplit(':').next().unwrap_or_default();
    println!("balancer:  http://localhost:{port}/ (process {})", balancer.id().unwrap_or_default());
    println!("admin API: http://{admin}/ (the status page)\n");
    println!("To try, in another terminal:");
    println!("  for i in 1 2 3 4 5 6; do curl -si http://localhost:{port}/ | grep x-backend; done");
    println!("  kill -9 {}    # B is gone: no request fails", backends[1].id().unwrap_or_default());
    println!("  curl --parallel --parallel-immediate 'http://localhost:{port}/?n=[1-50]'");
    println!("\nCtrl-C ends it.");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        ended = balancer.wait() => bail!("the balancer ended: {}", ended?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a program, which ends with this one, and returns the first line that
/// it prints; the others go on to this program's standard output.
async fn start(mut command: Command) -> Result<(Child, String)> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let output = child.stdout.take().context("the program's output")?;
    let mut lines = BufReader::new(output).lines();
    let first = lines.next_line().await?.with_context(|| format!("{program} ended at once"))?;
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if writeln!(std::io::stdout(), "{line}").is_err() {
                return;
            }
        }
    });
    Ok((child, first))
}
