//! The routes that show and change servers.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::Number;
use utoipa::ToSchema;

use super::{
    Admin,
    answer::{Problem, json},
    body::{Edit, ServerBody, UrlBody, parse_url},
    changes::timestamp,
    posted::Posted,
};
use crate::{balance::Wanted, cluster::Status};

/// Why something changed, in the log.
const CAUSE: &str = "admin API";

/// A server as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerStatus {
    /// Its name in logs and metrics.
    name: String,
    /// Where it is.
    #[schema(example = "http://127.0.0.1:3003")]
    url: String,
    /// Its share of the requests.
    weight: u32,
    /// What is wanted of it: `enabled`, `draining` or `disabled`.
    #[schema(example = "enabled")]
    wanted: String,
    /// What is observed of it: `checking`, `up`, `suspect` or `down`.
    #[schema(example = "up")]
    observed: String,
    /// Whether requests are dealt to it.
    eligible: bool,
    /// Requests that it has at the moment.
    in_flight: u32,
    /// Since when it is observed so (RFC 3339); null before the first probe.
    since: Option<String>,
    /// Why: `probe failed`.
    cause: Option<String>,
    /// More of why: a status code or an error.
    detail: Option<String>,
    /// From one probe to the next, in seconds.
    #[schema(value_type = f64, example = 10)]
    health_check_period: Number,
    /// How long a probe may take, in seconds.
    #[schema(value_type = f64, example = 2)]
    health_check_timeout: Number,
    /// The port that is probed; null if it is the server's own.
    health_check_port: Option<u16>,
    /// The target of the probe.
    #[schema(example = "/")]
    health_check_path: String,
    /// The statuses that are healthy.
    #[schema(example = "200-399")]
    health_check_expect: String,
    /// Passed probes in a row that bring it back.
    rise: u32,
    /// Failed probes in a row that take it out.
    fall: u32,
}

/// A server that is no longer there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Where it was.
    #[schema(example = "http://127.0.0.1:3003")]
    deleted: String,
}

/// All servers, in configuration order.
#[utoipa::path(get, path = "/servers", operation_id = "list_servers", responses(
    (status = 200, body = Vec<ServerStatus>, description = "The servers."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response {
    let servers = admin.control.cluster.status();
    json(StatusCode::OK, &servers.iter().map(ServerStatus::from).collect::<Vec<_>>())
}

/// Adds a server at the end of configuration order. It gets no request before
/// a probe passes.
#[utoipa::path(post, path = "/add", operation_id = "add_server", request_body = ServerBody, responses(
    (status = 200, body = ServerStatus, description = "The server as it stands now."),
    (status = 409, body = Problem, description = "There is one at that address already."),
    (status = 422, body = Problem, description = "A field is wrong."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Posted(body): Posted,
) -> Result<Response, Problem> {
    let server = Edit::parse(&body)?.into_server(&admin.control.default_check());
    shown(&admin.control.add(server, CAUSE)?)
}

/// Changes what the body names of a server, and nothing else.
#[utoipa::path(post, path = "/update", operation_id = "update_server", request_body = ServerBody, responses(
    (status = 200, body = ServerStatus, description = "The server as it stands now."),
    (status = 404, body = Problem, description = "There is none at that address."),
    (status = 422, body = Problem, description = "A field is wrong."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn update(
    State(admin): State<Arc<Admin>>,
    Posted(body): Posted,
) -> Result<Response, Problem> {
    let edit = Edit::parse(&body)?;
    let (authority, default) = (edit.authority.clone(), admin.control.default_check());
    let apply = |server: &mut _| edit.apply(server, &default);
    shown(&admin.control.update(&authority, apply, CAUSE)?)
}

/// Removes a server; what it has in flight goes on, for at most the drain
/// time. The body may also be the URL alone, as it is or as a JSON string.
#[utoipa::path(post, path = "/delete", operation_id = "delete_server", request_body = UrlBody, responses(
    (status = 200, body = Deleted, description = "It is no longer there."),
    (status = 404, body = Problem, description = "There is none at that address."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn delete(
    State(admin): State<Arc<Admin>>,
    Posted(body): Posted,
) -> Result<Response, Problem> {
    let authority = parse_url(&body)?;
    admin.control.delete(&authority, CAUSE)?;
    Ok(json(StatusCode::OK, &Deleted { deleted: authority.to_url() }))
}

/// Lets a server finish what it has, and gives it nothing new. The body is as
/// for `/delete`.
#[utoipa::path(post, path = "/drain", operation_id = "drain_server", request_body = UrlBody, responses(
    (status = 200, body = ServerStatus, description = "The server as it stands now."),
    (status = 404, body = Problem, description = "There is none at that address."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn drain(
    State(admin): State<Arc<Admin>>,
    Posted(body): Posted,
) -> Result<Response, Problem> {
    want(&admin, &body, Wanted::Draining)
}

/// Gives a server requests again, once it is healthy. The body is as for
/// `/delete`.
#[utoipa::path(post, path = "/enable", operation_id = "enable_server", request_body = UrlBody, responses(
    (status = 200, body = ServerStatus, description = "The server as it stands now."),
    (status = 404, body = Problem, description = "There is none at that address."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn enable(
    State(admin): State<Arc<Admin>>,
    Posted(body): Posted,
) -> Result<Response, Problem> {
    want(&admin, &body, Wanted::Enabled)
}

/// Gives a server nothing until it is enabled. The body is as for `/delete`.
#[utoipa::path(post, path = "/disable", operation_id = "disable_server", request_body = UrlBody, responses(
    (status = 200, body = ServerStatus, description = "The server as it stands now."),
    (status = 404, body = Problem, description = "There is none at that address."),
    (status = "4XX", body = Problem, description = "It is refused, and nothing has changed."),
))]
pub(super) async fn disable(
    State(admin): State<Arc<Admin>>,
    Posted(body): Posted,
) -> Result<Response, Problem> {
    want(&admin, &body, Wanted::Disabled)
}

fn want(admin: &Admin, body: &[u8], wanted: Wanted) -> Result<Response, Problem> {
    shown(&admin.control.want(&parse_url(body)?, wanted, CAUSE)?)
}

fn shown(status: &Status) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &ServerStatus::from(status)))
}

impl From<&Status> for ServerStatus {
    fn from(status: &Status) -> ServerStatus {
        let (upstream, check) = (&status.upstream, status.upstream.check.load());
        let last = upstream.last_change.load();
        let last = last.as_deref();
        ServerStatus {
            name: upstream.name.load().to_string(),
            url: upstream.authority.to_url(),
            weight: status.weight,
            wanted: status.wanted.to_string(),
            observed: status.observed.to_string(),
            eligible: status.eligible,
            in_flight: status.in_flight,
            since: last.map(|change| timestamp(change.at)),
            cause: last.map(|change| change.cause.clone()),
            detail: last.map(|change| change.detail.clone()),
            health_check_period: seconds(check.period),
            health_check_timeout: seconds(check.timeout),
            health_check_port: check.port,
            health_check_path: check.path.to_string(),
            health_check_expect: check.expect.to_string(),
            rise: check.thresholds.rise.get(),
            fall: check.thresholds.fall.get(),
        }
    }
}

/// Seconds as people write them: 10, not 10.0.
fn seconds(duration: Duration) -> Number {
    let fraction = Number::from_f64(duration.as_secs_f64());
    match duration.subsec_nanos() {
        0 => duration.as_secs().into(),
        _ => fraction.unwrap_or_else(|| duration.as_secs().into()),
    }
}
