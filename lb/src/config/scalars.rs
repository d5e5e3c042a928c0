//! The single values of a configuration file, and those that are nearly so.
//!
//! Owns which function reads each, and what editors are told of it.

use std::{borrow::Cow, net::IpAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use hyper::http::uri::PathAndQuery;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    address::{Authority, Listen, parse_host, parse_port},
    api::{ApiPort, parse_api_host},
    problems::Problems,
    shape::{At, Shape, read_scalar},
    tree::Data,
    values::{
        StatusSet, parse_address, parse_bool, parse_count, parse_duration, parse_format,
        parse_health_path, parse_level, parse_name, parse_network, parse_path, parse_size,
        parse_threshold, parse_wanted, parse_weight, parse_when_all_down, parse_workers,
    },
};
use crate::{
    access_log::Format,
    balance::{Wanted, WhenAllDown},
    dealing::Dealing,
    logs::Level,
};

/// Declares single values: what is written, what it becomes, by which function
/// of [`values`](super::values), an example, and the JSON schema.
macro_rules! scalars {
    ($($(#[$meta:meta])* $name:ident -> $value:ty = $parse:expr, $example:literal, $schema:tt;)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl Shape for $name {
            type Value = $value;

            fn read(at: &At<'_>, problems: &mut Problems) -> Option<$value> {
                read_scalar(at, $example, $parse, problems)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

scalars! {
    /// How requests are dealt.
    Algorithm -> Dealing = str::parse, "round_robin",
        { "type": "string", "examples": ["round_robin", "least_connections", "hash:cookie=sid"],
          "pattern": "^(round_robin|least_connections|two_choices|random|hash(:(header|cookie)=.+)?)$" };
    /// What to do when no server is healthy.
    AllDown -> WhenAllDown = parse_when_all_down, "refuse", { "enum": ["refuse", "try_anyway"] };
    /// Yes or no.
    Bool -> bool = parse_bool, "true", { "type": "boolean" };
    /// A number from 1 on.
    Count -> usize = parse_count, "1000", { "type": "integer", "minimum": 1 };
    /// A number of threads.
    Workers -> usize = parse_workers, "4", { "type": "integer", "minimum": 1, "maximum": 1024 };
    /// A number of bytes.
    Size -> u64 = parse_size, "10M",
        { "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+([kKmMgG]?([iI]?[bB])?)$" };
    /// A network or an address.
    Network -> IpNet = parse_network, "10.0.0.0/8", { "type": "string" };
    /// The target of a probe.
    HealthPath -> PathAndQuery = parse_health_path, "/health",
        { "type": "string", "pattern": "^/[^#]*$" };
    /// A time span.
    Time -> Duration = parse_duration, "10s, 200ms or plain seconds",
        { "type": ["number", "string"], "exclusiveMinimum": 0, "maximum": 86400, "pattern": "^[0-9]" };
    /// A number of probes in a row.
    Threshold -> NonZeroU32 = parse_threshold, "1",
        { "type": "integer", "minimum": 1, "maximum": 4294967295_u32 };
    /// Where a server is.
    Url -> Authority = str::parse, "http://host:port",
        { "type": ["string", "integer"], "minimum": 1, "maximum": 65535 };
    /// A name or an address.
    Host -> String = parse_host, "10.0.0.5", { "type": "string" };
    /// A TCP port.
    Port -> u16 = parse_port, "8080",
        { "type": ["integer", "string"], "minimum": 1, "maximum": 65535, "pattern": "^[0-9]{1,5}$" };
    /// The name of a server.
    Name -> String = parse_name, "a name",
        { "type": ["string", "integer"], "minLength": 1, "maxLength": 64 };
    /// A share of the requests.
    Weight -> u32 = parse_weight, "1",
        { "type": "integer", "minimum": 0, "maximum": 4294967295_u32 };
    /// An address of this machine.
    Address -> IpAddr = parse_address, "127.0.0.1", { "type": "string" };
    /// The port of the admin API.
    AdminPort -> ApiPort = str::parse, "8000",
        { "type": ["integer", "string"], "minimum": 0, "maximum": 65535, "pattern": "^([0-9]{1,5}|off)$" };
    /// A name of this machine.
    HostName -> String = parse_api_host, "lb.example", { "type": "string" };
    /// A path of this machine.
    FilePath -> PathBuf = parse_path, "a path", { "type": "string", "minLength": 1 };
    /// How the lines of requests look.
    LogFormat -> Format = parse_format, "text", { "enum": ["text", "json"] };
    /// The least serious of what is logged.
    LogLevel -> Level = parse_level, "info",
        { "enum": ["off", "error", "warn", "info", "debug", "trace"] };
    /// What is wanted of a server.
    State -> Wanted = parse_wanted, "enabled", { "enum": ["enabled", "draining", "disabled"] };
}

/// Where to listen. Address and port count each for itself.
#[derive(Debug)]
pub(crate) struct ListenAt;

impl Shape for ListenAt {
    type Value = Listen;

    fn read(at: &At<'_>, problems: &mut Problems) -> Option<Listen> {
        read_scalar(at, "8000 or 0.0.0.0:8000", str::parse, problems)
    }

    fn over(upper: Option<Listen>, lower: Option<Listen>) -> Option<Listen> {
        let (upper, lower) = (upper.unwrap_or_default(), lower.unwrap_or_default());
        Some(Listen { bind: upper.bind.or(lower.bind), port: upper.port.or(lower.port) })
    }
}

impl JsonSchema for ListenAt {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"], "minimum": 0, "maximum": 65535,
            "examples": [8000, "0.0.0.0:8000", "[::1]:8000"],
        })
    }
}

/// Status codes: one, a range, several with commas, or a list of these.
#[derive(Debug)]
pub(crate) struct Codes;

impl Shape for Codes {
    type Value = StatusSet;

    fn read(at: &At<'_>, problems: &mut Problems) -> Option<StatusSet> {
        const EXPECTED: &str = "200, 200-399 or 200,204";
        if !matches!(at.node.data, Data::List(_)) {
            return read_scalar(at, EXPECTED, str::parse, problems);
        }
        let sets = at
            .items(problems)?
            .map(|item| read_scalar(&item, EXPECTED, str::parse::<StatusSet>, problems));
        sets.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(StatusSet::union)
    }
}

impl JsonSchema for Codes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Codes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes = json_schema!({
            "type": ["integer", "string"], "minimum": 100, "maximum": 599,
            "examples": [200, "200-399", "200,204"],
        });
        json_schema!({ "anyOf": [codes, { "type": "array", "items": codes }] })
    }
}
