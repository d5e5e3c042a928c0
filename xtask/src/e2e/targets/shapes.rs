//! Configuration files of the usual shapes, for balancers that read one.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::Setup;

/// How a file says which servers there are. All of them are JSON where the name
/// says so, else YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// `Servers:` with `host` and `port`.
    Servers,
    /// A list of `name`, `url`, `weight` and `health_check_period` in seconds.
    List,
    /// JSON: `{"server_list": [{"id", "host", "port"}]}`.
    ServerList,
    /// `listen`, `health` and `servers`, as `lb` has it.
    Lb,
}

impl Shape {
    /// The file's name.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Shape::Servers => "servers.yaml",
            Shape::List => "config.yaml",
            Shape::ServerList => "server_db.json",
            Shape::Lb => "lb.yaml",
        }
    }

    /// The file's text.
    pub(super) fn write(self, port: u16, setup: &Setup) -> String {
        let period = setup.health.period_s;
        let each = |line: &dyn Fn(&super::setup::Server) -> String| -> String {
            setup.servers.iter().map(line).collect()
        };
        match self {
            Shape::Servers => {
                let servers = each(&|s| format!("  - host: {}\n    port: {}\n", s.host, s.port));
                format!("Servers:\n{servers}")
            }
            Shape::List => each(&|s| {
                format!(
                    "- name: {}\n  url: {}\n  weight: {}\n  health_check_period: {period}\n",
                    s.name, s.url, s.weight
                )
            }),
            Shape::ServerList => {
                let entry = |(id, s): (usize, &super::setup::Server)| json!({"id": id + 1, "host": s.host, "port": s.port.to_string()});
                let servers: Vec<_> = setup.servers.iter().enumerate().map(entry).collect();
                format!("{}\n", json!({ "server_list": servers }))
            }
            Shape::Lb => {
                let path = &setup.health.path;
                let period =
                    humantime::format_duration(Duration::from_millis(setup.health.period_ms));
                let servers =
                    each(&|s| format!("  - {{url: \"{}\", weight: {}}}\n", s.url, s.weight));
                format!(
                    "listen: {port}\nhealth: {{path: {path}, period: {period}}}\nservers:\n{servers}"
                )
            }
        }
    }
}
