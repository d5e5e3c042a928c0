//! The route that Prometheus scrapes.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};

use super::Admin;
use crate::metrics::Format;

/// What is counted and observed, for Prometheus: as OpenMetrics 1.0 if `Accept`
/// prefers it, else in the plain text format 0.0.4.
#[utoipa::path(get, path = "/metrics", operation_id = "show_metrics", responses(
    (status = 200, content_type = "text/plain", body = String, description = "All metrics."),
))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
) -> impl IntoResponse + use<> {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::for_accept(&accepts.collect::<Vec<_>>().join(","));
    ([(header::CONTENT_TYPE, format.content_type())], admin.metrics.encode(format))
}
