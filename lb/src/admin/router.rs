//! The routes of the admin API, and its description.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{Method, StatusCode, Uri, header},
    middleware::{Next, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin,
    answer::{Problem, as_it_says},
    changes,
    guard::Entrance,
    health, live, metrics, page, servers,
};

/// For a request's body and the head of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lb admin API",
        description = "Changes and shows a running balancer. GET and HEAD change nothing. \
                       Content types are not looked at: every body is JSON.",
    ),
    modifiers(&Bearer),
    security((), ("token" = []))
)]
struct Description;

/// The token, which is needed where one is configured.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Every route is here, and by that in the description.
fn described() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(servers::list))
        .routes(routes!(servers::add))
        .routes(routes!(servers::update))
        .routes(routes!(servers::delete))
        .routes(routes!(servers::drain))
        .routes(routes!(servers::enable))
        .routes(routes!(servers::disable))
        .routes(routes!(changes::list))
        .routes(routes!(health::show))
        .routes(routes!(metrics::show))
        .routes(routes!(page::show))
        .routes(routes!(live::watch))
        .routes(routes!(description))
}

/// What answers requests that carry an [`Entrance`].
pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::from(described())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(admin.clone(), guard))
        .layer(map_response(as_it_says))
        .with_state(admin)
}

async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let entrance = request.extensions().get::<Entrance>().copied();
    let Some(entrance) = entrance else {
        let error = "nobody knows where this came in";
        return Problem::new(StatusCode::FORBIDDEN, error).into_response();
    };
    if let Err((refusal, problem)) = admin.guard.check(&request, entrance) {
        admin.metrics.count_refusal(refusal);
        return problem.into_response();
    }
    timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| {
        let error = format!("the request's body did not come within {PATIENCE:?}");
        Problem::new(StatusCode::REQUEST_TIMEOUT, error).into_response()
    })
}

async fn unknown_path(uri: Uri) -> Problem {
    let error = format!("{} does not exist; GET /openapi.json says what does", uri.path());
    Problem::new(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    let error = format!("{path} takes no {method}; GET /openapi.json says what it takes");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "describe_api", responses(
    (status = 200, body = Object, description = "An OpenAPI 3.1 document."),
))]
async fn description() -> Result<impl IntoResponse, Problem> {
    let text = described()
        .to_openapi()
        .to_json()
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text))
}
