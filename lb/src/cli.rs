//! The command line: what was typed, validated once into a [`Task`].

mod admin;
mod api;
mod ask;

use std::{net::IpAddr, num::NonZeroU32, thread, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use hyper::http::uri::PathAndQuery;
use ipnet::IpNet;

use crate::{
    balance::{Thresholds, WhenAllDown},
    config::{
        Config, DEFAULT_PORT, HealthCheck, Invalid, Server, Settings, StatusSet, Timeouts,
        parse_count, parse_duration, parse_health_path, parse_network, parse_size,
        reject_duplicates,
    },
    dealing::{Backend, Dealing},
};
use api::ApiArgs;

pub use admin::AdminCommand;

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    /// Balance requests.
    Listen(Box<Config>),
    /// Ask something of an `lb` that runs.
    Admin(AdminCommand),
}

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
  lb add-server --url http://10.0.0.6:8080 --weight 2
  lb list-servers";

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance requests over the servers (what `lb` does without a command).
    Listen(Box<ListenArgs>),
    #[command(flatten)]
    Admin(AdminCommand),
}

#[derive(Debug, Args)]
struct ListenArgs {
    /// The port to listen on, as with --port.
    #[arg(value_name = "PORT", conflicts_with = "port")]
    port_alone: Option<u16>,
    /// The port to listen on; 0 means any free one [default: 80].
    #[arg(long)]
    port: Option<u16>,
    /// The address to listen on [default: every address of this machine].
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
    /// A server: http://host:port, host:port, or a port of this machine.
    /// Repeat it for more; requests are dealt in this order. One of weight 3
    /// gets three times as many as one of weight 1, one of weight 0 none.
    #[arg(long = "backend", value_name = "SERVER[,weight=N]")]
    backends: Vec<Backend>,
    /// How requests are dealt: round_robin, least_connections, two_choices,
    /// random, hash (of the client's address), hash:header=NAME or
    /// hash:cookie=NAME [default: round_robin].
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Dealing>,
    #[command(flatten)]
    health: HealthArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    api: ApiArgs,
    /// What to do with a request when no server is healthy.
    #[arg(long, value_enum, default_value = "refuse")]
    when_all_down: WhenAllDownArg,
    /// Statuses that are retried on another server, for idempotent requests:
    /// 502-504 or 429,503 [default: none, answers are passed on].
    #[arg(long, value_name = "CODES")]
    retry_status: Option<StatusSet>,
    /// Send POST and PATCH on fresh connections only, not on one that was in
    /// use within the last second: slower, and no race with a server's close.
    #[arg(long)]
    fresh_posts: bool,
    /// Worker threads [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Print each request as it came and each answer's status line.
    #[arg(long)]
    debug: bool,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The path that probes ask for.
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_health_path)]
    health_path: PathAndQuery,
    /// From one probe to the next: 10s, 200ms or plain seconds.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    health_period: Duration,
    /// How long a probe may take; at most the period is used [default: 2s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    health_timeout: Option<Duration>,
    /// The statuses that count as healthy: 200, 200-399 or 200,204.
    #[arg(long, value_name = "CODES", default_value = "200")]
    health_expect: StatusSet,
    /// Passed probes in a row that bring a server back.
    #[arg(long, allow_hyphen_values = true, value_name = "N", default_value = "1")]
    rise: NonZeroU32,
    /// Failed probes in a row that take a server out.
    #[arg(long, allow_hyphen_values = true, value_name = "N", default_value = "1")]
    fall: NonZeroU32,
}

/// The defaults are those of [`Timeouts`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Timeouts and limits")]
struct LimitArgs {
    /// To connect to a server.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// For a client's request head, from its first byte (408).
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    head_timeout: Duration,
    /// How long an idle client connection is kept.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    idle_timeout: Duration,
    /// For the head of a server's answer (504).
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    response_timeout: Duration,
    /// For a body to make progress, in either direction.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    body_timeout: Duration,
    /// From a request to the head of its answer, over all tries (504) [default: none].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// For requests in flight after the signal to stop.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    drain_timeout: Duration,
    /// The largest request body: 64k, 10M (413) [default: any].
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", value_parser = parse_size)]
    max_body: Option<u64>,
    /// Client connections at one time; one more waits for a second, then it
    /// gets a 503 [default: as many as there are descriptors for].
    #[arg(long, value_name = "N", value_parser = parse_count)]
    max_connections: Option<usize>,
    /// A network or address whose X-Forwarded fields are believed and
    /// appended to. Repeat it for more.
    #[arg(long = "trusted-proxy", value_name = "NET", value_parser = parse_network)]
    trusted_proxies: Vec<IpNet>,
}

impl LimitArgs {
    fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout,
            request_head: self.head_timeout,
            client_idle: self.idle_timeout,
            response_head: self.response_timeout,
            body: self.body_timeout,
            deadline: self.deadline,
            drain: self.drain_timeout,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum WhenAllDownArg {
    /// Answer 503 at once.
    Refuse,
    /// Send to unhealthy servers as a last resort.
    TryAnyway,
}

impl Cli {
    /// Validates what was typed.
    ///
    /// # Errors
    /// Values that are good by themselves do not fit together.
    pub fn into_task(self) -> Result<Task, Invalid> {
        let args = match self.command {
            Some(Command::Admin(command)) => return Ok(Task::Admin(command)),
            Some(Command::Listen(args)) => *args,
            None => self.listen,
        };
        Ok(Task::Listen(Box::new(args.into_config()?)))
    }
}

impl ListenArgs {
    fn into_config(self) -> Result<Config, Invalid> {
        let authorities: Vec<_> = self.backends.iter().map(|b| &b.authority).collect();
        reject_duplicates(&authorities)?;
        let health = self.health.into_health_check();
        let server = |backend: Backend| Server {
            name: backend.authority.to_string(),
            authority: backend.authority,
            weight: backend.weight,
            health: health.clone(),
            wanted: None,
        };
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        Ok(Config {
            bind: self.bind,
            port: self.port.or(self.port_alone).unwrap_or(DEFAULT_PORT),
            workers: self.workers.map_or_else(cores, usize::from),
            max_connections: self.limits.max_connections,
            descriptors: usize::MAX,
            api: self.api.into_api()?,
            servers: self.backends.into_iter().map(server).collect(),
            health: health.clone(),
            settings: Settings {
                dealing: self.algorithm.unwrap_or_default(),
                when_all_down: match self.when_all_down {
                    WhenAllDownArg::Refuse => WhenAllDown::Refuse,
                    WhenAllDownArg::TryAnyway => WhenAllDown::TryAnyway,
                },
                retry_status: self.retry_status.unwrap_or_default(),
                fresh_posts: self.fresh_posts,
                max_body: self.limits.max_body,
                timeouts: self.limits.timeouts(),
                trusted_proxies: self.limits.trusted_proxies,
                debug: self.debug,
            },
        })
    }
}

impl HealthArgs {
    fn into_health_check(self) -> HealthCheck {
        let timeout = self.health_timeout.unwrap_or(HealthCheck::default().timeout);
        HealthCheck {
            path: self.health_path,
            period: self.health_period,
            timeout: timeout.min(self.health_period),
            expect: self.health_expect,
            thresholds: Thresholds { rise: self.rise, fall: self.fall },
        }
    }
}
