//! `cargo xtask demo`: something to play with in one command.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::programs;

/// How the demo runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The balancer's port; 0 means any free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
}

/// A child that does not outlive the demo.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs until Ctrl-C or until the balancer ends.
///
/// # Errors
/// A program cannot be built or started.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let programs = programs::build(false)?;
    let mut backends = Vec::new();
    let mut lb = Command::new(&programs.lb);
    lb.args(["--port", &options.port.to_string(), "--health-period", "2s"]);
    for name in ["A", "B", "C"] {
        let mut command = Command::new(&programs.be);
        command.args(["0", "--name", name, "--events"]);
        let (child, line) = start(command)?;
        let address = line.strip_prefix("listening on ").context(line.clone())?.trim().to_owned();
        println!("backend {name}: http://{address}/ (process {})", child.0.id());
        lb.arg(format!("--backend={address}"));
        backends.push(child);
    }
    let (mut balancer, ready) = start(lb)?;
    let address = ready.strip_prefix("ready proxy=").context("the balancer did not start")?;
    let port = address.rsplit(':').next().unwrap_or_default();
    println!("balancer:  http://localhost:{port}/ (process {})\n", balancer.0.id());
    println!("To try, in another terminal:");
    println!("  for i in 1 2 3 4 5 6; do curl -si http://localhost:{port}/ | grep x-backend; done");
    println!("  kill -9 {}    # B is gone: no request fails", backends[1].0.id());
    println!("  curl --parallel --parallel-immediate 'http://localhost:{port}/?n=[1-50]'");
    println!("\nCtrl-C ends it.");
    let watch = tokio::task::spawn_blocking(move || balancer.0.wait());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        ended = watch => bail!("the balancer ended: {}", ended??),
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a program and returns the first line that it prints; the others go on
/// to this program's standard output.
fn start(mut command: Command) -> Result<(Guarded, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = Guarded(child.with_context(|| format!("cannot start {program}"))?);
    let output = child.0.stdout.take().context("the program's output")?;
    let mut lines = BufReader::new(output).lines();
    let first = lines.next().with_context(|| format!("{program} ended at once"))??;
    std::thread::spawn(move || {
        let mut printed = lines.map_while(std::io::Result::ok);
        // Until nobody reads any more.
        while printed.next().is_some_and(|line| writeln!(std::io::stdout(), "{line}").is_ok()) {}
    });
    Ok((child, first))
}
