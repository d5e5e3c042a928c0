//! HAProxy: one thread, connections to servers shared as freely as it can.

use std::path::Path;

use tokio::process::Command;

use super::{KEPT, Setup};

/// What follows the program's name. It writes its log to standard output.
pub(super) fn arguments(command: &mut Command, config: &Path) {
    command.args(["-db", "-f"]).arg(config);
}

/// The configuration. HAProxy gives a quarter of the descriptors that `maxconn`
/// makes it expect to idle connections to servers; with fewer clients than here
/// it would connect anew for most requests. Without `no strict-limits` it refuses to start where it
/// may not have descriptors for all its clients being served at once.
pub(super) fn config(setup: &Setup<'_>) -> String {
    let server = |(n, server)| format!("  server s{n} {server}\n");
    let servers: String = setup.servers.iter().enumerate().map(server).collect();
    let (port, clients) = (setup.port, setup.clients.max(8 * KEPT) + 64);
    format!(
        "global
  nbthread 1
  maxconn {clients}
  no strict-limits
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  option redispatch 1
  http-reuse always
  option forwardfor
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  default_backend servers
backend servers
  balance roundrobin
  option httpchk GET /
  default-server check inter 10s
{servers}"
    )
}
