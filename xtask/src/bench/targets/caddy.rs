//! Caddy: one core by its runtime's variable; X-Forwarded-* are its default.

use std::path::Path;

use tokio::process::Command;

use super::{KEPT, Setup};

/// What follows the program's name. Its own files go to the folder too.
pub(super) fn arguments(command: &mut Command, setup: &Setup<'_>, config: &Path) {
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
    command.env("GOMAXPROCS", "1");
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(variable, setup.folder);
    }
}

/// The configuration.
pub(super) fn config(setup: &Setup<'_>) -> String {
    let servers: String = setup.servers.iter().map(|server| format!(" {server}")).collect();
    let (port, log) = (setup.port, setup.folder.join("access.log"));
    let log = log.display();
    format!(
        "{{
	admin off
	auto_https off
}}
http://:{port} {{
	bind 127.0.0.1
	log {{
		output file {log} {{
			roll_disabled
		}}
	}}
	reverse_proxy {{
		to{servers}
		lb_policy round_robin
		header_up X-Request-Id {{http.request.uuid}}
		health_uri /
		health_interval 10s
		health_timeout 2s
		transport http {{
			compression off
			keepalive_idle_conns {KEPT}
			keepalive_idle_conns_per_host {KEPT}
		}}
	}}
}}
"
    )
}
