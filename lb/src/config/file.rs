//! What a configuration file can say: its keys, and the three older shapes.
//!
//! The one definition of the keys: reading, the JSON schema, and the flags of
//! the command line, which are laid over it, all follow from it. Nothing is
//! said of what is left out; [`File::into_config`] has the defaults.

use std::{borrow::Cow, path::PathBuf, thread, time::Duration};

use hyper::http::uri::PathAndQuery;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    Config, DEFAULT_PORT, HealthCheck, Listen, Settings,
    problems::Problems,
    scalars::{
        Address, AdminPort, Algorithm, AllDown, Bool, Codes, Count, FilePath, HealthPath, Host,
        HostName, ListenAt, LogFormat, LogLevel, Name, Network, Port, Size, State, Threshold, Time,
        Url, Weight, Workers,
    },
    servers::Servers,
    shape::{At, List, Shape, mapping},
    tree::Data,
};
use crate::logs;

mapping! {
    /// A configuration file, or what the command line says of the same things.
    File {
        /// Where to listen: a port, or an address and a port. Default 80 on
        /// every address of the machine; port 0 is any free one.
        listen: ListenAt,
        /// How requests are dealt. Default round_robin.
        algorithm: Algorithm,
        /// What to do with a request when no server is healthy. Default refuse.
        when_all_down: AllDown,
        /// Answers that send an idempotent request to another server. Default
        /// none.
        retry_status: Codes,
        /// POST and PATCH on fresh connections only. Default false.
        fresh_posts: Bool,
        /// The largest request body. Default any.
        max_body: Size,
        /// Client connections at one time, at most. Default as many as there
        /// are descriptors for.
        max_connections: Count,
        /// Networks and addresses whose X-Forwarded fields are believed.
        /// Default none.
        trusted_proxies: List<Network>,
        /// Worker threads. Default one a core.
        workers: Workers,
        /// Print each request as it came. Default false.
        debug: Bool,
        /// Where the admin API is.
        api: Api,
        /// What is logged.
        logs: Logs,
        /// How the health of a server is checked that says nothing else.
        health: Health,
        /// How long things may take.
        timeouts: Timeouts,
        /// The servers, in the order in which requests are dealt.
        servers: Servers,
        /// The same as servers, in older files.
        capital_servers as "Servers": Servers,
        /// The same as servers, in older files, which listen on 5432 and ask
        /// for /health every 15 s unless they say otherwise.
        server_list: Servers,
    }
}

mapping! {
    /// Where the admin API is served, and to whom.
    Api {
        /// Its port; 0 is any free one, off is none. Default 8000 if that is
        /// free.
        port: AdminPort,
        /// Its address; any but loopback needs a token. Default 127.0.0.1.
        bind: Address,
        /// A Unix socket, which only its owner can use. Default none.
        socket: FilePath,
        /// Names under which clients ask for it, besides localhost and its
        /// addresses. Default none.
        hosts: List<HostName>,
        /// A file with the token that it asks for. Default what the environment
        /// has in LB_API_TOKEN, if anything.
        token_file: FilePath,
    }
}

mapping! {
    /// What is logged.
    Logs {
        /// Where the line of each request goes: a file, - for standard output,
        /// or off. Default -.
        access: FilePath,
        /// How these lines look: text or json. Default text.
        format: LogFormat,
        /// What goes to standard error: off, error, warn, info, debug or trace.
        /// Default info.
        level: LogLevel,
    }
}

mapping! {
    /// How health is checked.
    Health {
        /// What probes ask for. Default /.
        path: HealthPath,
        /// From one probe to the next. Default 10 s.
        period: Time,
        /// How long a probe may take; at most the period is used. Default 2 s.
        timeout: Time,
        /// The statuses that are healthy. Default 200.
        expect: Codes,
        /// Passed probes in a row that bring a server back. Default 1.
        rise: Threshold,
        /// Failed probes in a row that take a server out. Default 1.
        fall: Threshold,
    }
}

mapping! {
    /// How long things may take.
    Timeouts {
        /// To connect to a server. Default 2 s.
        connect: Time,
        /// For a client's request head, from its first byte. Default 10 s.
        head: Time,
        /// How long an idle client connection is kept. Default 60 s.
        idle: Time,
        /// For the head of a server's answer. Default 60 s.
        response: Time,
        /// For a body, or what goes through a tunnel, to make progress, either way. Default 60 s.
        body: Time,
        /// From a request to the head of its answer, over all tries. Default
        /// none.
        deadline: Time,
        /// For what is in flight after the signal to stop. Default 30 s.
        drain: Time,
    }
}

mapping! {
    /// A server.
    Server {
        /// Where it is: http://host:port, host:port, or a port of this machine.
        url: Url,
        /// Where it is, with port, instead of url.
        host: Host,
        /// Where it is, with host, instead of url.
        port: Port,
        /// Its name in logs. Default host:port.
        name: Name,
        /// The same as name, in older files.
        id: Name,
        /// Its share: one of weight 3 gets three times as many requests as one
        /// of weight 1, one of weight 0 none. Default 1.
        weight: Weight,
        /// From one probe to the next. Default as in health.
        health_check_period: Time,
        /// What probes ask for. Default as in health.
        health_check_path: HealthPath,
        /// The port that is probed. Default that of the server.
        health_check_port: Port,
        /// How long a probe may take. Default as in health.
        health_check_timeout: Time,
        /// The statuses that are healthy. Default as in health.
        health_check_expect: Codes,
        /// Passed probes in a row that bring it back. Default as in health.
        rise: Threshold,
        /// Failed probes in a row that take it out. Default as in health.
        fall: Threshold,
        /// What is wanted of it. Default what was wanted so far, at first
        /// enabled.
        state: State,
    }
}

/// The whole: a mapping, or the list of servers alone.
#[derive(Debug)]
pub(super) struct Whole;

impl Shape for Whole {
    type Value = File;

    fn read(at: &At<'_>, problems: &mut Problems) -> Option<File> {
        if let Data::List(_) = at.node.data {
            return Some(File { servers: Servers::read(at, problems), ..File::default() });
        }
        let file = File::read(at, problems)?;
        let lists = ["servers", "Servers", "server_list"];
        let given: Vec<_> = lists.into_iter().filter(|key| at.field(key).is_some()).collect();
        if given.len() > 1 {
            let what = format!("has {}; expected one of them", given.join(" and "));
            problems.push(at.problem(what));
        }
        // What an unfinished file says is not that there are none.
        for servers in given.into_iter().filter_map(|key| at.field(key)) {
            if servers.node.is_null() {
                problems.push(servers.problem("is empty; expected a list, [] for none"));
            }
        }
        Some(file.modern())
    }
}

impl JsonSchema for Whole {
    fn schema_name() -> Cow<'static, str> {
        "Configuration of lb".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let shapes = [generator.subschema_for::<File>(), generator.subschema_for::<Servers>()];
        json_schema!({ "anyOf": shapes })
    }
}

impl File {
    /// What an older file says, in the keys of today.
    fn modern(mut self) -> File {
        self.servers = self.servers.or(self.capital_servers.take());
        let Some(servers) = self.server_list.take() else { return self };
        let old = File {
            listen: Some(Listen { bind: None, port: Some(5432) }),
            health: Some(Health {
                path: Some(PathAndQuery::from_static("/health")),
                period: Some(Duration::from_secs(15)),
                ..Health::default()
            }),
            servers: Some(servers),
            ..File::default()
        };
        self.over(old)
    }

    /// What counts where this and `lower` say different things.
    pub(crate) fn over(self, lower: File) -> File {
        <File as Shape>::over(Some(self), Some(lower)).unwrap_or_default()
    }

    /// The configuration, with the defaults for what is left out.
    pub(crate) fn into_config(self, source: Option<PathBuf>) -> Config {
        let listen = self.listen.unwrap_or_default();
        let mut health = HealthCheck::default();
        self.health.unwrap_or_default().lay_over(&mut health);
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let servers = self.servers.unwrap_or_default();
        Config {
            source,
            bind: listen.bind,
            port: listen.port.unwrap_or(DEFAULT_PORT),
            workers: self.workers.unwrap_or_else(cores),
            max_connections: self.max_connections,
            inherited: Vec::new(),
            descriptors: usize::MAX,
            logs: self.logs.unwrap_or_default().resolved(),
            api: super::Api::of(self.api.unwrap_or_default()),
            servers: servers.into_iter().map(|entry| entry.into_server(&health)).collect(),
            health: capped(health),
            settings: Settings {
                dealing: self.algorithm.unwrap_or_default(),
                when_all_down: self.when_all_down.unwrap_or_default(),
                retry_status: self.retry_status.unwrap_or_default(),
                fresh_posts: self.fresh_posts.unwrap_or_default(),
                max_body: self.max_body,
                trusted_proxies: self.trusted_proxies.unwrap_or_default(),
                debug: self.debug.unwrap_or_default(),
                timeouts: self.timeouts.unwrap_or_default().resolved(),
            },
        }
    }
}

impl Health {
    /// Changes what it says of `check`.
    pub(crate) fn lay_over(self, check: &mut HealthCheck) {
        let Health { path, period, timeout, expect, rise, fall } = self;
        set(&mut check.path, path);
        set(&mut check.period, period);
        set(&mut check.timeout, timeout);
        set(&mut check.expect, expect);
        set(&mut check.thresholds.rise, rise);
        set(&mut check.thresholds.fall, fall);
    }
}

impl Logs {
    fn resolved(self) -> logs::Logs {
        logs::Logs {
            access: self.access.map(|path| path.into_os_string().into()).unwrap_or_default(),
            format: self.format.unwrap_or_default(),
            level: self.level.unwrap_or_default(),
        }
    }
}

impl Timeouts {
    fn resolved(self) -> super::Timeouts {
        let default = super::Timeouts::default();
        super::Timeouts {
            connect: self.connect.unwrap_or(default.connect),
            response_head: self.response.unwrap_or(default.response_head),
            request_head: self.head.unwrap_or(default.request_head),
            client_idle: self.idle.unwrap_or(default.client_idle),
            body: self.body.unwrap_or(default.body),
            deadline: self.deadline,
            drain: self.drain.unwrap_or(default.drain),
        }
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// No probe takes longer than the period.
pub(super) fn capped(check: HealthCheck) -> HealthCheck {
    HealthCheck { timeout: check.timeout.min(check.period), ..check }
}
