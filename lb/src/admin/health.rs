//! The route that shows whether the balancer itself is ready.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Admin, answer::json};

/// The balancer as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`, `no server is eligible` or `stopping`.
    #[schema(example = "ready")]
    status: String,
    /// How many servers requests are dealt to.
    eligible: usize,
    /// How many servers are configured.
    servers: usize,
}

/// Whether requests are better sent elsewhere. Needs no token.
#[utoipa::path(get, path = "/health", operation_id = "show_health", security(()), responses(
    (status = 200, body = Readiness, description = "It is ready."),
    (status = 503, body = Readiness, description = "No server is eligible, or it is stopping."),
))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Response {
    let servers = admin.control.cluster.status();
    let eligible = servers.iter().filter(|server| server.eligible).count();
    let (code, status) = match (admin.is_stopping(), eligible) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, 0) => (StatusCode::SERVICE_UNAVAILABLE, "no server is eligible"),
        (false, _) => (StatusCode::OK, "ready"),
    };
    json(code, &Readiness { status: status.into(), eligible, servers: servers.len() })
}
