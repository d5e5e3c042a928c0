//! What the body of a request says of a server: read leniently, judged whole,
//! answered with all of its mistakes at once.

use std::{num::NonZeroU32, time::Duration};

use axum::http::StatusCode;
use hyper::http::uri::PathAndQuery;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::Problem;
use super::judge::Judge;
use crate::{
    balance::Wanted,
    config::{
        Authority, HealthCheck, Server, StatusSet, parse_name, parse_port, parse_wanted,
        parse_weight,
    },
};

/// A server, as a client describes it. What is left out, or null, has its
/// default in `/add` and stays as it is in `/update`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object with the fields of a server")]
pub(super) struct ServerBody {
    /// Where it is: `http://host:port`.
    #[schema(value_type = String, required, example = "http://127.0.0.1:3003")]
    url: Option<Value>,
    /// Its name in logs and metrics. Default `host:port`.
    #[schema(value_type = Option<String>, example = "server3")]
    name: Option<Value>,
    /// Its share of the requests; with 0 it is probed and gets none. Default 1.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 4_294_967_295_u32)]
    weight: Option<Value>,
    /// From one probe to the next: seconds, or a text like `200ms`. More than
    /// zero, at most a day. Default that of `--health-period`; likewise below.
    #[schema(value_type = Option<Seconds>)]
    health_check_period: Option<Value>,
    /// How long a probe may take, in the same form; at most the period is used.
    #[schema(value_type = Option<Seconds>)]
    health_check_timeout: Option<Value>,
    /// The port that is probed. Default that of the server.
    #[schema(value_type = Option<u16>, minimum = 1)]
    health_check_port: Option<Value>,
    /// The target of the probe.
    #[schema(value_type = Option<String>, example = "/health")]
    health_check_path: Option<Value>,
    /// The statuses that are healthy: `200`, `200-399` or `200,204`.
    #[schema(value_type = Option<String>, example = "200-399")]
    health_check_expect: Option<Value>,
    /// Passed probes in a row that bring it back.
    #[schema(value_type = Option<u32>, minimum = 1)]
    rise: Option<Value>,
    /// Failed probes in a row that take it out.
    #[schema(value_type = Option<u32>, minimum = 1)]
    fall: Option<Value>,
    /// What is wanted of it: `enabled`, `draining` or `disabled`.
    #[schema(value_type = Option<String>, example = "enabled")]
    state: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// A duration: seconds, or a text like `200ms`.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what Judge::duration reads")]
pub(super) enum Seconds {
    Number(f64),
    Text(String),
}

/// The address alone, for what is done to a server as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object with the field url")]
pub(super) struct UrlBody {
    /// Which server: `http://host:port`.
    #[schema(value_type = String, required, example = "http://127.0.0.1:3003")]
    url: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// The fields that [`ServerBody`] knows.
const FIELDS: &str = "url, name, weight, health_check_period, health_check_timeout, \
                      health_check_port, health_check_path, health_check_expect, rise, fall or state";

/// What a body says of a server, valid; `None` where it says nothing.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// Which server.
    pub(super) authority: Authority,
    name: Option<String>,
    weight: Option<u32>,
    period: Option<Duration>,
    timeout: Option<Duration>,
    port: Option<u16>,
    path: Option<PathAndQuery>,
    expect: Option<StatusSet>,
    rise: Option<NonZeroU32>,
    fall: Option<NonZeroU32>,
    wanted: Option<Wanted>,
}

impl Edit {
    /// Reads the body of `/add` and `/update`.
    pub(super) fn parse(body: &[u8]) -> Result<Edit, Problem> {
        const WEIGHT: &str = "a whole number from 0 to 4294967295";
        const PORT: &str = "a port from 1 to 65535";
        const STATE: &str = "enabled, draining or disabled";
        let raw: ServerBody = read_json(body)?;
        let mut judge = Judge::default();
        let authority = judge.url(raw.url);
        let name = judge.text("name", raw.name, "1 to 64 letters, digits and signs", parse_name);
        let weight = judge.number("weight", raw.weight, WEIGHT, parse_weight);
        let period = judge.duration("health_check_period", raw.health_check_period);
        let timeout = judge.duration("health_check_timeout", raw.health_check_timeout);
        let port = judge.number("health_check_port", raw.health_check_port, PORT, parse_port);
        let path = judge.path("health_check_path", raw.health_check_path);
        let expect = judge.statuses("health_check_expect", raw.health_check_expect);
        let rise = judge.count("rise", raw.rise);
        let fall = judge.count("fall", raw.fall);
        let wanted = judge.text("state", raw.state, STATE, parse_wanted);
        judge.unknown(&raw.unknown, FIELDS);
        let edit = |authority| Edit {
            authority,
            name,
            weight,
            period,
            timeout,
            port,
            path,
            expect,
            rise,
            fall,
            wanted,
        };
        judge.finish(authority.map(edit))
    }

    /// Changes `server` to what the body says.
    pub(super) fn apply(self, server: &mut Server, default: &HealthCheck) {
        server.name = self.name.unwrap_or_else(|| server.name.clone());
        server.weight = self.weight.unwrap_or(server.weight);
        server.wanted = self.wanted.or(server.wanted);
        let check = &mut server.health;
        // One that was cut to the period may grow again with it.
        let was_cut = check.timeout == check.period;
        let so_far = if was_cut { check.timeout.max(default.timeout) } else { check.timeout };
        check.period = self.period.unwrap_or(check.period);
        check.timeout = self.timeout.unwrap_or(so_far).min(check.period);
        check.port = self.port.or(check.port);
        check.path = self.path.unwrap_or_else(|| check.path.clone());
        check.expect = self.expect.unwrap_or_else(|| check.expect.clone());
        check.thresholds.rise = self.rise.unwrap_or(check.thresholds.rise);
        check.thresholds.fall = self.fall.unwrap_or(check.thresholds.fall);
    }

    /// The server that the body describes.
    pub(super) fn into_server(self, default: &HealthCheck) -> Server {
        let authority = self.authority.clone();
        let name = authority.to_string();
        let mut server =
            Server { name, authority, weight: 1, health: default.clone(), wanted: None };
        self.apply(&mut server, default);
        server
    }
}

/// Reads a body that only says which server: its URL as it is or as a JSON
/// string, or an object with the field `url`.
pub(super) fn parse_url(body: &[u8]) -> Result<Authority, Problem> {
    let text = body.trim_ascii();
    let raw = match text.first() {
        Some(b'{') => read_json(text)?,
        Some(b'"') => UrlBody { url: Some(read_json(text)?), ..UrlBody::default() },
        Some(_) => {
            let url = Some(String::from_utf8_lossy(text).into());
            UrlBody { url, ..UrlBody::default() }
        }
        None => UrlBody::default(),
    };
    let mut judge = Judge::default();
    let authority = judge.url(raw.url);
    judge.unknown(&raw.unknown, "url");
    judge.finish(authority)
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let (status, what) = if error.is_data() {
            (StatusCode::UNPROCESSABLE_ENTITY, "the body is not what is expected")
        } else {
            (StatusCode::BAD_REQUEST, "the body is not JSON")
        };
        Problem::new(status, format!("{what}: {error}"))
    })
}
