//! `cargo xtask slow`: `slowhttptest` beside a normal client.
//!
//! A thousand connections dribble heads or bodies, or read their answers byte by
//! byte, while one client asks a hundred times a second. It is measured before,
//! beside and after. `lb` must answer it without an error, and its 99th percentile
//! may double at most, which is not asked below 5 ms; what its peers do is for
//! comparison. Slow ones that are told to go come again: there are some to the end.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use testbed::process::raise_descriptor_limit;
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    backend::{Backend, PAGE_PATH},
    child::command,
    chosen, find as find_targets, idle,
    targets::{Running, Target},
    until_stopped,
};
use crate::programs::{self, find};

/// From one request of the normal client to the next.
const PACE: Duration = Duration::from_millis(10);

/// One request in so many is on a connection of its own.
const FRESH: usize = 10;

/// Below this no percentile is worth a word: the machine has other things to do.
const LEAST: Duration = Duration::from_millis(5);

/// How slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Heads that never end (slowloris).
    Heads,
    /// Bodies that never end.
    Bodies,
    /// Answers that are hardly read.
    Reads,
}

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this; repeat it for more.
    #[arg(long, value_name = "NAME", value_enum)]
    mode: Vec<Mode>,
    /// Only this target; repeat it for more [default: all that are installed].
    #[arg(long, value_name = "NAME", value_enum)]
    target: Vec<Target>,
    /// How many slow connections.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: u16,
    /// For how long, in seconds; the client is measured for half as long before,
    /// and after.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u16).range(2..))]
    seconds: u16,
    /// Measure this `lb` program instead of building one.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
}

/// What the normal client saw.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    errors: usize,
}

/// Runs the command.
///
/// # Errors
/// A program is missing or does not work; what `lb` does wrong is an exit code.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let slow = find("slowhttptest");
    let slow = slow.context("slowhttptest is not installed; apt-get install slowhttptest")?;
    let lb = match &options.lb {
        Some(file) => file.canonicalize().with_context(|| format!("no {}", file.display()))?,
        None => programs::build(true)?.lb,
    };
    let (programs, missing) = find_targets(&chosen(&options.target), &lb);
    missing.iter().for_each(|name| println!("{name} is not installed, and skipped"));
    ensure!(!programs.is_empty(), "there is nothing to measure");
    raise_descriptor_limit();
    let servers = Backend::start()?.servers(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut broken = false;
    println!("target   mode    requests  calm p50/p99 ms  beside p50/p99 ms  errors  slow ones");
    let measured = async {
        for mode in chosen(&options.mode) {
            for program in &programs {
                let clients = usize::from(options.connections) + 64;
                let target = Running::start(program, &servers, clients, None).await?;
                let (calm, beside, many) = measure(options, &slow, mode, target.addr).await?;
                target.stop().await?;
                let name = program.target.name();
                println!("{}", line(name, mode, &calm, &beside, &many));
                let all = u64::from(options.connections);
                ensure!(many.connected + many.closed >= all, "slowhttptest made no {all}: {many}");
                broken |= program.target == Target::Lb && is_broken(&calm, &beside);
            }
        }
        Ok(())
    };
    runtime.block_on(until_stopped(measured))?;
    if broken {
        println!("lb has errors, or its 99th percentile more than doubles");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The normal client while all is calm, and beside slow ones, and what became of
/// those.
async fn measure(
    options: &Options,
    slow: &Path,
    mode: Mode,
    target: SocketAddr,
) -> Result<(Seen, Seen, Many)> {
    let time = Duration::from_secs(options.seconds.into());
    let mut calm = ask_for(target, time / 2).await;
    let (many, beside) = tokio::join!(attack(options, slow, mode, target), ask_for(target, time));
    let many = many?;
    let after = ask_for(target, time / 2).await;
    calm.times.extend(after.times);
    calm.errors += after.errors;
    Ok((calm, beside, many))
}

/// Slow ones until the time is over. slowhttptest ends as soon as all of its
/// connections were closed; then it is started again.
async fn attack(options: &Options, slow: &Path, mode: Mode, target: SocketAddr) -> Result<Many> {
    let end = Instant::now() + Duration::from_secs(options.seconds.into());
    let mut many = Many::default();
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            return Ok(many);
        }
        let mut program = command(slow);
        program.args(mode.flags()).args(["-c", &options.connections.to_string(), "-r", "100"]);
        program.args(["-l", &left.to_string(), "-p", "3", "-v", "1"]);
        // A thousand larger ones would fill the memory that the kernel has for TCP,
        // of which the servers and the normal client have theirs.
        let path = if mode == Mode::Reads { PAGE_PATH } else { "/" };
        program.args(["-u", &format!("http://{target}{path}")]).stdin(Stdio::null());
        program.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = program.output().await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "slowhttptest: {}: {said}", output.status);
        many.add(&said);
    }
}

impl Mode {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Mode::Heads => &["-H", "-i", "10", "-x", "24"],
            Mode::Bodies => &["-B", "-i", "10", "-x", "10", "-s", "8192"],
            Mode::Reads => &["-X", "-n", "5", "-w", "512", "-y", "1024", "-z", "32"],
        }
    }
}

/// Asks at an even pace for so long.
async fn ask_for(target: SocketAddr, time: Duration) -> Seen {
    let (end, mut seen, mut kept) = (Instant::now() + time, Seen::default(), None);
    let mut pace = interval(PACE);
    // What is late is late for all that were to follow it, too.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        let due = pace.tick().await;
        if due >= end {
            break;
        }
        let fresh = number % FRESH == 0;
        let stream = if fresh { None } else { kept.take() };
        match ask(target, stream).await {
            Ok(stream) => {
                seen.times.push(due.elapsed());
                kept = Some(stream);
            }
            Err(_) => seen.errors += 1,
        }
    }
    seen
}

async fn ask(target: SocketAddr, kept: Option<TcpStream>) -> Result<TcpStream> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => idle::connect(target).await?,
    };
    idle::ask(&mut stream).await?;
    Ok(stream)
}

/// What became of the slow ones.
#[derive(Debug, Default, PartialEq, Eq)]
struct Many {
    /// Connected when the time was over.
    connected: u64,
    /// Closed before by the target.
    closed: u64,
    errors: u64,
}

impl Many {
    /// Adds what slowhttptest says of its connections in the end.
    fn add(&mut self, said: &str) {
        let last = |name: &str| {
            let line = said.lines().rev().find(|line| line.contains(name));
            let words = line.into_iter().flat_map(str::split_whitespace);
            words.filter_map(|word| word.parse::<u64>().ok()).next().unwrap_or_default()
        };
        self.connected = last("connected:");
        self.closed += last("closed:");
        self.errors += last("error:");
    }
}

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connected, {} closed, {} errors", self.connected, self.closed, self.errors)
    }
}

impl Seen {
    fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        idle::quantile(&sorted, share)
    }
}

fn is_broken(calm: &Seen, beside: &Seen) -> bool {
    let doubled = beside.quantile(0.99) > LEAST.max(2 * calm.quantile(0.99));
    doubled || calm.errors + beside.errors > 0 || beside.times.is_empty()
}

fn line(name: &str, mode: Mode, calm: &Seen, beside: &Seen, many: &Many) -> String {
    let ms = |seen: &Seen, share| seen.quantile(share).as_secs_f64() * 1e3;
    format!(
        "{name:<8} {:<7} {:>8}  {:>6.2} / {:<6.2}  {:>7.2} / {:<7.2}  {:>6}  {many}",
        format!("{mode:?}").to_lowercase(),
        beside.times.len(),
        ms(calm, 0.5),
        ms(calm, 0.99),
        ms(beside, 0.5),
        ms(beside, 0.99),
        calm.errors + beside.errors,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ms: u64, errors: usize) -> Seen {
        Seen { times: vec![Duration::from_millis(ms); 100], errors }
    }

    #[test]
    fn an_error_or_more_than_the_double_is_broken() {
        for (calm, beside, broken) in [
            (seen(10, 0), seen(20, 0), false),
            (seen(10, 0), seen(21, 0), true),
            (seen(1, 0), seen(5, 0), false),
            (seen(1, 0), seen(1, 1), true),
            (seen(1, 0), Seen::default(), true),
        ] {
            assert_eq!(is_broken(&calm, &beside), broken);
        }
    }

    #[test]
    fn what_became_of_them_is_added_up() {
        let said =
            "initializing: 0\npending:   0\nconnected:  7\nconnected:  938\nerror: 0\nclosed: 62\n";
        let mut many = Many::default();
        many.add("connected: 0\nerror: 1\nclosed: 999\n");
        many.add(said);
        assert_eq!(many, Many { connected: 938, closed: 1061, errors: 1 });
    }
}
