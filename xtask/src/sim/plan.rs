//! A plan: one run, written down. Whoever has it can repeat the run.
//!
//! Owns the words of the file and what they mean. Draws nothing: see
//! [`super::draw`]; runs nothing: see [`super::run`].
//!
//! Times are milliseconds of virtual time since the first request may be sent.

mod check;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Where everything random that is not written here comes from: jitter,
    /// losses, each client's requests.
    pub(crate) seed: u64,
    /// How long there are faults; then everything is healed.
    pub(crate) faults_ms: u64,
    /// What `lb` is told.
    #[serde(default)]
    pub(crate) balancer: Balancer,
    /// What all links have in common.
    #[serde(default)]
    pub(crate) network: Network,
    /// In configuration order.
    pub(crate) servers: Vec<Server>,
    /// Who asks.
    pub(crate) clients: Vec<Client>,
    /// What happens on the way, in any order.
    #[serde(default)]
    pub(crate) operations: Vec<Operation>,
}

/// What `lb` is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Balancer {
    /// As `--algorithm`.
    pub(crate) algorithm: String,
    /// From one probe to the next.
    pub(crate) period_ms: u64,
    /// How long a probe may take.
    pub(crate) timeout_ms: u64,
    /// Probes in a row that bring a server back.
    pub(crate) rise: u32,
    /// Probes in a row that take it out.
    pub(crate) fall: u32,
    /// For a connect.
    pub(crate) connect_timeout_ms: u64,
    /// For the head of a server's answer.
    pub(crate) response_timeout_ms: u64,
    /// For what a removed server has in flight.
    pub(crate) drain_ms: u64,
    /// As `--fresh-posts`.
    pub(crate) fresh_posts: bool,
}

/// What all links have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// How long a packet takes at least.
    pub(crate) latency_ms: u64,
    /// How much longer it may take.
    pub(crate) jitter_ms: u64,
    /// The largest packet.
    pub(crate) mtu: u32,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Its name.
    pub(crate) name: String,
    /// Its share.
    #[serde(default = "one")]
    pub(crate) weight: u32,
    /// Whether it is not in the configuration from the start; see
    /// [`What::Add`].
    #[serde(default)]
    pub(crate) spare: bool,
}

/// A client: one request at a time, on a connection that it keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    /// Its name.
    pub(crate) name: String,
    /// How long it waits after an answer, at most.
    pub(crate) pause_ms: u64,
    /// How many of a hundred requests are POSTs.
    pub(crate) posts: u8,
    /// The largest body, in bytes.
    pub(crate) body: usize,
    /// Whether each request has a connection of its own.
    #[serde(default)]
    pub(crate) fresh: bool,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// When.
    pub(crate) at_ms: u64,
    /// For how long; without meaning for what only happens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) for_ms: u64,
    /// What.
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What happens. Everything but `close_idle`, `abort` and `reload` is undone
/// after its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum What {
    /// A server's process is killed, and started again.
    Kill { server: String },
    /// A server's machine dies without a word, and is started again.
    Crash { server: String },
    /// A server stops politely, and is started again.
    Stop { server: String },
    /// A server's queue of connects is full.
    BlackHole { server: String },
    /// A server answers its probes otherwise.
    Health { server: String, answer: Probe },
    /// A server answers requests otherwise.
    Fault { server: String, fault: Fault },
    /// A server closes its idle connections.
    CloseIdle { server: String },
    /// No packet gets from `lb` to a server or client, nor back; with `one_way`
    /// only those to `lb` or from it are lost.
    Partition { host: String, one_way: Way },
    /// Packets take longer, in both directions.
    Slow { host: String, latency_ms: u64 },
    /// Packets are lost, so many of a thousand.
    Lossy { host: String, loss: u16 },
    /// A client's request is given up half way.
    Abort { client: String },
    /// A server is drained, and enabled again.
    Drain { server: String },
    /// A server is disabled, and enabled again.
    Disable { server: String },
    /// A server is removed, and added again at the end.
    Delete { server: String },
    /// A spare server is added, and removed again.
    Add { server: String },
    /// The file is read anew: the servers that are not spare, with these
    /// weights; and from now on these periods and thresholds.
    Reload { period_ms: u64, rise: u32, fall: u32, weights: Vec<u32> },
}

/// Which packets a partition swallows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// All.
    No,
    /// Those from `lb`.
    FromLb,
    /// Those to `lb`.
    ToLb,
}

/// How probes are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Probe {
    /// With a 503.
    Unhealthy,
    /// With a redirect to what is healthy.
    Redirect,
    /// Never.
    Hang,
    /// With a FIN.
    Close,
    /// With a RST.
    Reset,
    /// With what is not HTTP.
    Garbage,
}

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// With a 503.
    Unavailable,
    /// After a second.
    Delay,
    /// Never.
    Hang,
    /// Executed, then a RST.
    ResetAfterRequest,
    /// Executed, then a FIN.
    CloseAfterRequest,
    /// A RST for each connection.
    ResetOnAccept,
    /// A RST instead of reading the body.
    ResetAfterHead,
    /// A RST in the middle of the answer.
    ResetMidBody,
    /// A FIN in the middle of the answer.
    Truncate,
    /// Well, then a FIN without notice.
    CloseAfterAnswer,
    /// Well; a FIN when the next request comes.
    CloseWhenNext,
    /// Well, and no connection is kept.
    NoKeepAlive,
    /// Well, then a FIN, but what comes is still read.
    HalfClose,
    /// In small pieces.
    Drip,
    /// Something that is not HTTP.
    Garbage,
    /// Well, with bytes behind it that nobody asked for.
    ExtraBytes,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            algorithm: "round_robin".into(),
            period_ms: 1000,
            timeout_ms: 500,
            rise: 1,
            fall: 1,
            connect_timeout_ms: 2000,
            response_timeout_ms: 3000,
            drain_ms: 5000,
            fresh_posts: false,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { latency_ms: 1, jitter_ms: 0, mtu: 1500 }
    }
}

fn one() -> u32 {
    1
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// The file cannot be read, or what it says is no plan.
    pub(crate) fn read(path: &Path) -> Result<Plan> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        Plan::parse(&text).with_context(|| name.to_string())
    }

    /// What `text` says.
    ///
    /// # Errors
    /// It is no plan.
    pub(crate) fn parse(text: &str) -> Result<Plan> {
        let plan: Plan = toml::from_str(text)?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as a file has it.
    ///
    /// # Errors
    /// A number is too large for TOML.
    pub(crate) fn to_text(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// The position of the server of this name.
    pub(crate) fn server(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.name == name)
    }
}

impl What {
    /// To whom it happens; nobody if to all.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            What::Kill { server }
            | What::Crash { server }
            | What::Stop { server }
            | What::BlackHole { server }
            | What::Health { server, .. }
            | What::Fault { server, .. }
            | What::CloseIdle { server }
            | What::Drain { server }
            | What::Disable { server }
            | What::Delete { server }
            | What::Add { server } => Some(server),
            What::Partition { host, .. } | What::Slow { host, .. } | What::Lossy { host, .. } => {
                Some(host)
            }
            What::Abort { client } => Some(client),
            What::Reload { .. } => None,
        }
    }
}

/// So many milliseconds.
pub(crate) fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}
