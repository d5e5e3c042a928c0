//! nginx: one worker. It has no health checks of its own.

use std::path::Path;

use tokio::process::Command;

use super::{KEPT, Setup};

/// What follows the program's name.
pub(super) fn arguments(command: &mut Command, setup: &Setup<'_>, config: &Path) {
    command.arg("-p").arg(setup.folder).arg("-c").arg(config).args(["-e", "stderr"]);
}

/// The configuration. Uploads are streamed, as the others do it: by default
/// nginx writes one of 1 MiB into a file first.
pub(super) fn config(setup: &Setup<'_>) -> String {
    let servers: String =
        setup.servers.iter().map(|server| format!("    server {server};\n")).collect();
    // Its workers give up root's rights, and may not enter the folder then.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let (port, kept) = (setup.port, KEPT.max(setup.servers.len()));
    // A client and a server each, and what is kept.
    let connections = 2 * setup.clients + kept + 64;
    format!(
        r#"{user}daemon off;
worker_processes 1;
pid nginx.pid;
events {{ worker_connections {connections}; }}
http {{
  log_format line '$remote_addr [$time_local] "$request" $status $upstream_addr '
    '$body_bytes_sent $upstream_connect_time $upstream_header_time $request_time $request_id';
  access_log access.log line buffer=64k flush=1s;
  client_body_temp_path client;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_max_body_size 0;
  keepalive_requests 1000000000;
  upstream servers {{
    zone servers 2m;
{servers}    keepalive {kept};
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto http;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-Id $request_id;
    }}
  }}
}}
"#
    )
}
