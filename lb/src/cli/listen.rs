//! The flags of `lb listen`: what was typed, in the keys of the configuration
//! file, so that both have one set of defaults.

use std::{ffi::OsString, net::IpAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use hyper::http::uri::PathAndQuery;
use ipnet::IpNet;

use super::{
    api::ApiArgs,
    loader::{Inherited, Loader},
};
use crate::{
    access_log::Format,
    balance::WhenAllDown,
    config::{
        Bind, Entry, File, HealthKeys, Invalid, Listen, LogKeys, ServerKeys, StatusSet,
        TimeoutKeys, invalid, parse_count, parse_duration, parse_health_path, parse_network,
        parse_size, parse_threshold, parse_when_all_down, parse_workers,
    },
    dealing::{Backend, Dealing},
    logs::Level,
    service,
};

#[derive(Debug, Args)]
pub(super) struct ListenArgs {
    /// The configuration file, YAML or JSON; flags win over it [default:
    /// without servers on the command line, the first that this folder has of
    /// lb.yaml, servers.yaml, config.yaml (.yml, .json) and server_db.json].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The port to listen on, as with --port.
    #[arg(value_name = "PORT", conflicts_with = "port")]
    port_alone: Option<u16>,
    /// The port to listen on; 0 means any free one [default: 80].
    #[arg(long)]
    port: Option<u16>,
    /// The address to listen on [default: every address of this machine], or
    /// the descriptor of a listening socket that is inherited; repeat that for
    /// more. Without --bind and --port the sockets of systemd are taken.
    #[arg(long, value_name = "ADDR|fd:N")]
    bind: Vec<Bind>,
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
    /// What to do with a request when no server is healthy: refuse it (503),
    /// or try_anyway, as a last resort [default: refuse].
    #[arg(long, value_name = "WHAT", value_parser = parse_when_all_down)]
    when_all_down: Option<WhenAllDown>,
    /// Statuses that are retried on another server, for idempotent requests:
    /// 502-504 or 429,503 [default: none, answers are passed on].
    #[arg(long, value_name = "CODES")]
    retry_status: Option<StatusSet>,
    /// Send POST and PATCH on fresh connections only, not on one that was in
    /// use within the last second: slower, and no race with a server's close.
    #[arg(long)]
    fresh_posts: bool,
    /// Worker threads [default: one a core].
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    workers: Option<usize>,
    /// Print each request as it came and each answer's status line.
    #[arg(long)]
    debug: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The path that probes ask for [default: /].
    #[arg(long, value_name = "PATH", value_parser = parse_health_path)]
    health_path: Option<PathAndQuery>,
    /// From one probe to the next: 10s, 200ms or plain seconds [default: 10s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    health_period: Option<Duration>,
    /// How long a probe may take; at most the period is used [default: 2s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    health_timeout: Option<Duration>,
    /// The statuses that count as healthy: 200, 200-399 or 200,204 [default: 200].
    #[arg(long, value_name = "CODES")]
    health_expect: Option<StatusSet>,
    /// Passed probes in a row that bring a server back [default: 1].
    #[arg(long, allow_hyphen_values = true, value_name = "N", value_parser = parse_threshold)]
    rise: Option<NonZeroU32>,
    /// Failed probes in a row that take a server out [default: 1].
    #[arg(long, allow_hyphen_values = true, value_name = "N", value_parser = parse_threshold)]
    fall: Option<NonZeroU32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Timeouts and limits")]
struct LimitArgs {
    /// To connect to a server [default: 2s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    connect_timeout: Option<Duration>,
    /// For a client's request head, from its first byte (408) [default: 10s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    head_timeout: Option<Duration>,
    /// How long an idle client connection is kept [default: 60s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    idle_timeout: Option<Duration>,
    /// For the head of a server's answer (504) [default: 60s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    response_timeout: Option<Duration>,
    /// For a body, or what goes through a tunnel, to make progress, either way [default: 60s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    body_timeout: Option<Duration>,
    /// From a request to the head of its answer, over all tries (504) [default: none].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// For requests in flight after the signal to stop [default: 30s].
    #[arg(long, allow_hyphen_values = true, value_name = "TIME", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
struct LogArgs {
    /// Where the line of each request goes: a file, - for standard output, or
    /// off. SIGUSR1 opens the file anew, for whoever has renamed it [default: -].
    #[arg(
        long,
        value_name = "PATH|-|off",
        value_parser = OsStringValueParser::new().try_map(parse_destination)
    )]
    access_log: Option<PathBuf>,
    /// How the line of each request looks: text or json [default: text].
    #[arg(long, value_enum, hide_possible_values = true)]
    log_format: Option<Format>,
    /// What goes to standard error, unless RUST_LOG says it: off, error, warn,
    /// info, debug or trace [default: info].
    #[arg(long, value_enum, hide_possible_values = true)]
    log_level: Option<Level>,
}

fn parse_destination(text: OsString) -> Result<PathBuf, Invalid> {
    if text.is_empty() { invalid("no path; expected a file, - or off") } else { Ok(text.into()) }
}

impl ListenArgs {
    /// What the flags say, in the keys of the file.
    ///
    /// # Errors
    /// A server is there twice.
    pub(super) fn into_loader(self) -> Result<Loader, Invalid> {
        let mut entries: Vec<Entry> = Vec::new();
        for backend in self.backends {
            if entries.iter().any(|other| other.authority == backend.authority) {
                return invalid(format!("server {} is listed twice", backend.authority));
            }
            let server = ServerKeys { weight: Some(backend.weight), ..ServerKeys::default() };
            entries.push(Entry { authority: backend.authority, server });
        }
        let port = self.port.or(self.port_alone);
        let (bind, inherited) = where_to_listen(&self.bind, port)?;
        let no_api = self.api.no_api;
        let flags = File {
            listen: Some(Listen { bind, port }),
            algorithm: self.algorithm,
            when_all_down: self.when_all_down,
            retry_status: self.retry_status,
            fresh_posts: self.fresh_posts.then_some(true),
            max_body: self.limits.max_body,
            max_connections: self.limits.max_connections,
            trusted_proxies: Some(self.limits.trusted_proxies.clone())
                .filter(|nets| !nets.is_empty()),
            workers: self.workers,
            debug: self.debug.then_some(true),
            api: Some(self.api.into_keys()?),
            logs: Some(LogKeys {
                access: self.logs.access_log,
                format: self.logs.log_format,
                level: self.logs.log_level,
            }),
            health: Some(self.health.into_keys()),
            timeouts: Some(self.limits.into_keys()),
            servers: Some(entries).filter(|entries| !entries.is_empty()),
            ..File::default()
        };
        Ok(Loader::new(flags, self.config).inheriting(inherited).without_api(no_api))
    }
}

/// The address, if one was given, or the inherited sockets: those that were
/// named, or those of systemd if nothing was said.
fn where_to_listen(
    bind: &[Bind],
    port: Option<u16>,
) -> Result<(Option<IpAddr>, Inherited), Invalid> {
    match bind {
        [] if port.is_none() => return Ok((None, Inherited::Unasked(service::sockets()?))),
        [] => return Ok((None, Inherited::default())),
        [Bind::Address(address)] => return Ok((Some(*address), Inherited::default())),
        _ => {}
    }
    let mut inherited = Vec::new();
    for bind in bind {
        match *bind {
            Bind::Inherited(fd) if !inherited.contains(&fd) => inherited.push(fd),
            Bind::Inherited(fd) => return invalid(format!("--bind fd:{fd} is given twice")),
            Bind::Address(_) => {
                return invalid("--bind takes one address, or descriptors alone: fd:3");
            }
        }
    }
    if port.is_some() {
        return invalid("a port cannot be chosen with --bind fd:N: the socket has one already");
    }
    Ok((None, Inherited::Named(inherited)))
}

impl HealthArgs {
    fn into_keys(self) -> HealthKeys {
        HealthKeys {
            path: self.health_path,
            period: self.health_period,
            timeout: self.health_timeout,
            expect: self.health_expect,
            rise: self.rise,
            fall: self.fall,
        }
    }
}

impl LimitArgs {
    fn into_keys(self) -> TimeoutKeys {
        TimeoutKeys {
            connect: self.connect_timeout,
            head: self.head_timeout,
            idle: self.idle_timeout,
            response: self.response_timeout,
            body: self.body_timeout,
            deadline: self.deadline,
            drain: self.drain_timeout,
        }
    }
}
