//! The servers of a configuration file: a list of URLs and mappings.
//!
//! Owns what holds among them: each is there once, by whatever spelling.

use std::{borrow::Cow, collections::HashMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    Authority, HealthCheck,
    file::{Health, Server, capped},
    problems::Problems,
    scalars::Url,
    shape::{At, Shape},
    tree::Data,
};

/// The list of servers.
#[derive(Debug)]
pub(crate) struct Servers;

impl Shape for Servers {
    type Value = Vec<Entry>;

    fn read(at: &At<'_>, problems: &mut Problems) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        let (mut authorities, mut names) = (HashMap::new(), HashMap::new());
        for item in at.items(problems)? {
            let Some(entry) = Entry::read(&item, problems) else { continue };
            let mut once = |seen: &mut HashMap<String, usize>, key: String, keys: &[&str]| {
                let Some(first) = seen.insert(key, item.node.line) else { return };
                let field = keys.iter().find_map(|key| item.field(key));
                let field = field.as_ref().unwrap_or(&item);
                let what = format!(
                    "{} is there twice, first in line {first}; expected each server once",
                    field.shown()
                );
                problems.push(field.problem(what));
            };
            once(&mut authorities, entry.authority.to_string(), &["url", "host"]);
            if let Some(name) = &entry.server.name {
                once(&mut names, name.clone(), &["name", "id"]);
            }
            entries.push(entry);
        }
        Some(entries)
    }
}

impl JsonSchema for Servers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Servers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let server = generator.subschema_for::<Server>();
        let entry = json_schema!({ "anyOf": [generator.subschema_for::<Url>(), server] });
        json_schema!({ "type": ["array", "null"], "items": entry })
    }
}

/// An entry of the list: a URL, or a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where the server is.
    pub(crate) authority: Authority,
    /// What else is said of it.
    pub(crate) server: Server,
}

impl Entry {
    fn read(at: &At<'_>, problems: &mut Problems) -> Option<Entry> {
        let Data::Mapping(_) = &at.node.data else {
            let authority = Url::read(at, problems)?;
            return Some(Entry { authority, server: Server::default() });
        };
        let mut server = Server::read(at, problems)?;
        if at.field("name").is_some() && at.field("id").is_some() {
            problems.push(at.problem("has name and id; expected one of them"));
        }
        server.name = server.name.or(server.id.take());
        let authority = authority(at, &mut server, problems)?;
        Some(Entry { authority, server })
    }

    /// The server, which is checked as `default` says where this does not.
    pub(super) fn into_server(self, default: &HealthCheck) -> super::Server {
        let Entry { authority, server } = self;
        let mut health = default.clone();
        let said = Health {
            path: server.health_check_path,
            period: server.health_check_period,
            timeout: server.health_check_timeout,
            expect: server.health_check_expect,
            rise: server.rise,
            fall: server.fall,
        };
        said.lay_over(&mut health);
        health.port = server.health_check_port;
        super::Server {
            name: server.name.unwrap_or_else(|| authority.to_string()),
            authority,
            weight: server.weight.unwrap_or(1),
            health: capped(health),
            wanted: server.state,
        }
    }
}

/// Where a server is, by its URL or by its host and port.
fn authority(at: &At<'_>, server: &mut Server, problems: &mut Problems) -> Option<Authority> {
    let given = ["url", "host", "port"].map(|key| at.field(key).is_some());
    let mut wrong = |what| {
        problems.push(at.problem(what));
        None
    };
    match given {
        [true, false, false] => server.url.take(),
        [false, true, true] => {
            let (host, port) = (server.host.take(), server.port.take());
            host.zip(port).map(|(host, port)| Authority { host, port })
        }
        [true, ..] => wrong("has url and host or port; expected url alone"),
        [false, true, false] => wrong("has host and no port; expected port: 8080"),
        [false, false, true] => wrong("has port and no host; expected host: 10.0.0.5"),
        [false, false, false] => wrong("has no url; expected url: http://host:port"),
    }
}
