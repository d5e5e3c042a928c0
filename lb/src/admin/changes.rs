//! The route that shows what has changed.

use std::{sync::Arc, time::SystemTime};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Admin,
    answer::{Problem, json},
};
use crate::cluster::Change;

/// A change of one server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerChange {
    /// When it was (RFC 3339).
    at: String,
    /// The server's name.
    name: String,
    /// Where it is.
    #[schema(example = "http://127.0.0.1:3003")]
    url: String,
    /// What it was: `up`, `enabled`, `weight 1`; `-` if it was not there.
    from: String,
    /// What it became; `-` if it is no longer there.
    to: String,
    /// Why: `probe failed`, `admin API`.
    cause: String,
    /// More of why: a status code or an error.
    detail: String,
}

/// The last hundred changes of servers, the latest last.
#[utoipa::path(get, path = "/changes", operation_id = "list_changes", responses(
    (status = 200, body = Vec<ServerChange>, description = "The changes."),
    (status = "4XX", body = Problem, description = "It is refused."),
))]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response {
    let changes = admin.control.cluster.history();
    let changes = changes.iter().map(|change| ServerChange::from(&**change));
    json(StatusCode::OK, &changes.collect::<Vec<_>>())
}

impl From<&Change> for ServerChange {
    fn from(change: &Change) -> ServerChange {
        ServerChange {
            at: timestamp(change.at),
            name: change.server.clone(),
            url: format!("http://{}", change.authority),
            from: change.from.clone(),
            to: change.to.clone(),
            cause: change.cause.clone(),
            detail: change.detail.clone(),
        }
    }
}

/// A time of day, as in the log.
pub(super) fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
