//! `cargo xtask e2e`: choose scenarios, run them in parallel, report.

mod balancer;
#[cfg(test)]
mod broken;
mod clock;
pub(crate) mod matrix;
mod network;
mod report;
mod runner;
mod simulated;
pub(crate) mod targets;
mod world;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::programs::{self, Programs};

use report::{Reports, Results};
use runner::{Level, Where};
use targets::{Shape, Target, Typed};

pub(crate) use balancer::Balancer;
pub(crate) use clock::{Clock, seen};
pub(crate) use network::{Network, Stream};
pub(crate) use runner::{Judges, Scenario};
pub(crate) use targets::{Bounds, Routing};
pub(crate) use world::{Place, World, with_processes};

/// A recording client of whatever world.
pub(crate) type Client = testbed::client::Client<Network>;

/// In which world our `lb` is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The program, on real sockets.
    Local,
    /// In process, in virtual time over a simulated network: bounds hold exactly.
    Sim,
}

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// List the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Only scenarios whose name contains this text, or whose catalogue number
    /// it is; repeat it for more.
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Run each scenario so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run so many scenarios at a time [default: twice the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// In which world. Without a process, files or sockets of the operating
    /// system, not every scenario can be played in `sim`.
    #[arg(long, value_enum, default_value = "local", conflicts_with_all = ["release", "lb", "target", "target_cmd"])]
    world: Kind,
    /// Judge the optimised build.
    #[arg(long)]
    release: bool,
    /// Judge this `lb` program instead of building one.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    /// Judge another balancer: nginx, haproxy, caddy, each also with -default
    /// behind it, or a target FILE.toml.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["lb", "target_cmd"])]
    target: Option<String>,
    /// List the balancers that the suite knows, and end.
    #[arg(long)]
    targets: bool,
    /// It is an error (exit code 4) if the target is not installed.
    #[arg(long, requires = "target")]
    require: bool,
    #[command(flatten)]
    own: Own,
    /// Which scenarios: `basic` are those that any load balancer should pass.
    #[arg(long, value_enum, default_value = "full")]
    level: Level,
    #[command(flatten)]
    reports: report::Files,
}

/// A balancer of one's own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Judge a balancer of your own")]
struct Own {
    /// Its command line, e.g. 'python3 lb.py --port {port} --config {config}'.
    /// There are {port}, {config}, {backends} (addresses: as a word of its own
    /// several words, else with commas), {urls}, {health_path}, {health_period}.
    #[arg(long, value_name = "COMMAND", conflicts_with = "lb")]
    target_cmd: Option<String>,
    /// The shape of {config}.
    #[arg(long, value_enum, default_value = "servers", requires = "target_cmd")]
    config_shape: Shape,
    /// What its health checks ask for.
    #[arg(long, value_name = "PATH", default_value = "/health", requires = "target_cmd")]
    health_path: String,
    /// The period of its health checks: told to it by {config} or
    /// {health_period}, or what it has.
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "target_cmd", value_parser = period)]
    health_period: Duration,
    /// The port on which it listens, if it cannot be told one by {port} or
    /// {config}. Scenarios then run one at a time.
    #[arg(long, value_name = "PORT", requires = "target_cmd", value_parser = clap::value_parser!(u16).range(1..))]
    listens_on: Option<u16>,
    /// How it deals its requests, where it is told nothing but that they are to be
    /// dealt in turn. What asserts more than that is skipped.
    #[arg(long, value_enum, default_value = "strict", requires = "target_cmd")]
    routing: Routing,
    /// Something that it cannot do, e.g. active_health; repeat it for more.
    #[arg(long, value_name = "CAPABILITY", requires = "target_cmd")]
    without: Vec<String>,
}

fn period(text: &str) -> Result<Duration, String> {
    let time = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    }?;
    let sane = Duration::from_millis(10)..=Duration::from_secs(3600);
    sane.contains(&time).then_some(time).ok_or("expected 10ms to 1h".into())
}

/// What a run begins with.
struct Opening {
    place: Where,
    programs: Programs,
    reports: Reports,
}

/// Runs the command over the scenarios `all`.
///
/// # Errors
/// The harness itself fails; failed scenarios are an exit code.
#[allow(clippy::disallowed_methods, reason = "when a run was and how long, for whoever reads it")]
pub(crate) async fn run(
    options: Options,
    all: impl Iterator<Item = &'static Scenario>,
) -> Result<ExitCode> {
    if options.targets {
        print!("{}", Target::list()?);
        return Ok(ExitCode::SUCCESS);
    }
    if options.reports.json_schema {
        print!("{}", report::schema());
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(all, &options.filter, options.level);
    if chosen.is_empty() {
        eprintln!("error: no scenario matches; --list shows them all");
        return Ok(ExitCode::from(2));
    }
    if options.list {
        report::list(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    let Opening { place, programs, reports } = match options.open(chosen.len()).await? {
        Ok(opening) => opening,
        Err(end) => return Ok(end),
    };
    let (began, clock) = (SystemTime::now(), Instant::now());
    let jobs = options.jobs();
    let outcomes =
        runner::run_all(&programs, &place, &chosen, options.repeat, jobs, &reports).await;
    let judged = match &place {
        Where::Local => report::Target::of("lb", &programs.lb),
        Where::Sim => report::Target::simulated(),
        Where::Target(target) => report::Target::named(target.name(), &target.version),
    };
    let results = Results::of(judged, began, clock.elapsed(), &outcomes, &options.repeats());
    reports.close(&results, &outcomes)
}

impl Options {
    /// What is judged of `count` scenarios, and what is written of it; or the end
    /// of the run, of which the reason has been told.
    ///
    /// # Errors
    /// Our own programs cannot be built.
    async fn open(&self, count: usize) -> Result<Result<Opening, ExitCode>> {
        let (target, reports) = match (self.target(), Reports::open(&self.reports)) {
            (Ok(Ok(target)), Ok(reports)) => (target.map(Arc::new), reports),
            (Ok(Err(missing)), Ok(_)) => {
                println!("skipped: {missing}");
                println!("0 passed, 0 failed, {count} skipped");
                let code = if self.require { ExitCode::from(4) } else { ExitCode::SUCCESS };
                return Ok(Err(code));
            }
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("error: {error:#}");
                return Ok(Err(ExitCode::from(2)));
            }
        };
        if let Some(target) = &target {
            let name = format!("{} {}", target.name(), target.version);
            reports.out().line(&format!("judging {}: {}", name.trim_end(), target.about()));
        }
        let place = match (target, self.world) {
            (Some(target), _) => Where::Target(target),
            (None, Kind::Local) => Where::Local,
            (None, Kind::Sim) => Where::Sim,
        };
        let mut programs = match &place {
            // Nothing of ours is started.
            Where::Sim | Where::Target(_) => programs::places(self.release),
            Where::Local => programs::build(self.release)?,
        };
        if let Some(lb) = &self.lb {
            programs.lb.clone_from(lb);
        }
        if matches!(place, Where::Local) && !programs.lb.is_file() {
            eprintln!("error: there is no program {}", programs.lb.display());
            return Ok(Err(ExitCode::from(2)));
        }
        if let Where::Target(target) = &place
            && self.own.target_cmd.is_some()
            && let Err(refused) = runner::rehearse(&programs, target, reports.out()).await
        {
            eprintln!("error: {refused}");
            return Ok(Err(ExitCode::FAILURE));
        }
        Ok(Ok(Opening { place, programs, reports }))
    }

    /// How many scenarios are run at a time.
    fn jobs(&self) -> usize {
        match self.own.listens_on {
            Some(_) => 1,
            None => self.jobs.map_or_else(jobs, usize::from),
        }
    }

    /// Whose balancer is to be judged: none is ours. Or why it cannot be, as it
    /// is not installed.
    ///
    /// # Errors
    /// What was typed means no balancer.
    fn target(&self) -> Result<Result<Option<Target>, String>> {
        if let Some(name) = &self.target {
            return Ok(Target::load(name)?.map(Some));
        }
        let Some(command) = &self.own.target_cmd else { return Ok(Ok(None)) };
        let typed = Typed {
            command: command.clone(),
            shape: self.own.config_shape,
            health_path: self.own.health_path.clone(),
            period: self.own.health_period,
            port: self.own.listens_on,
            without: self.own.without.clone(),
            routing: self.own.routing,
        };
        Ok(Ok(Some(Target::typed(typed)?)))
    }

    /// The flags that say again what is judged.
    fn repeats(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if self.world == Kind::Sim {
            words.push("--world=sim".into());
        }
        if self.release {
            words.push("--release".into());
        }
        let mut say = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        if let Some(lb) = &self.lb {
            say("--lb", lb.display().to_string());
        }
        if let Some(target) = &self.target {
            say("--target", target.clone());
        }
        if let Some(command) = &self.own.target_cmd {
            let own = &self.own;
            say("--target-cmd", command.clone());
            say("--config-shape", value_name(own.config_shape));
            say("--health-path", own.health_path.clone());
            say("--routing", value_name(own.routing));
            say("--health-period", humantime::format_duration(own.health_period).to_string());
            if let Some(port) = own.listens_on {
                say("--listens-on", port.to_string());
            }
            own.without.iter().for_each(|can| say("--without", can.clone()));
        }
        match words.is_empty() {
            true => String::new(),
            false => format!(" {}", shell_words::join(words)),
        }
    }
}

/// Runs one scenario against our `lb`.
///
/// # Errors
/// What went wrong, with what shows it.
pub(crate) async fn judge(scenario: &'static Scenario, programs: Programs) -> Result<(), String> {
    evidence(&runner::run_one(scenario, programs, Where::Local, false).await, "")
}

/// The same in virtual time.
///
/// # Errors
/// What went wrong, with what shows it.
pub(crate) async fn judge_in_virtual_time(
    scenario: &'static Scenario,
    programs: Programs,
) -> Result<(), String> {
    evidence(&runner::run_one(scenario, programs, Where::Sim, false).await, " --world=sim")
}

fn evidence(outcome: &runner::Outcome, flags: &str) -> Result<(), String> {
    let run = report::Run::of(outcome, flags);
    let failed = run.message.as_ref().or(run.reason.as_ref());
    match failed {
        None => Ok(()),
        Some(message) => Err(format!("{message}\n\n{}", run.evidence())),
    }
}

/// How many scenarios are run at a time, unless something else is said: most of
/// the time all wait.
fn jobs() -> usize {
    2 * std::thread::available_parallelism().map_or(2, usize::from)
}

/// How a value is typed.
fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn choose(
    all: impl Iterator<Item = &'static Scenario>,
    filters: &[String],
    level: Level,
) -> Vec<&'static Scenario> {
    let wanted = |scenario: &&Scenario| {
        filters.is_empty()
            || filters.iter().any(|f| match f.parse::<u32>() {
                Ok(number) => scenario.number == number,
                Err(_) => scenario.full_name().contains(f.as_str()),
            })
    };
    all.filter(|scenario| scenario.is_of(level)).filter(wanted).collect()
}
