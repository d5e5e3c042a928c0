//! What the admin API answers: JSON, and what is wrong with a request.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::control::Refused;

/// One thing that is wrong.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct Mistake {
    /// A sentence for people.
    pub(super) error: String,
    /// The field of the body, or of the request's head, that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Value>,
    /// What it should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<String>,
}

/// Why a request was refused. Nothing has changed then.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// The first mistake.
    #[serde(flatten)]
    first: Box<Mistake>,
    /// All of them, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Mistake>,
}

impl Problem {
    /// One that no field is to blame for.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        let first = Mistake { error: error.into(), ..Mistake::default() };
        Problem { status, first: first.into(), errors: Vec::new() }
    }

    /// The same, with the field that is to blame.
    pub(super) fn in_field(self, field: &str, value: Option<Value>, expected: &str) -> Problem {
        let (field, expected) = (Some(field.into()), Some(expected.into()));
        let first = Mistake { field, value, expected, ..*self.first };
        Problem { first: first.into(), ..self }
    }

    /// Of the answer.
    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Several mistakes of one request.
    pub(super) fn of_all(status: StatusCode, mistakes: Vec<Mistake>) -> Problem {
        let first = Box::new(mistakes.first().cloned().unwrap_or_default());
        let errors = if mistakes.len() > 1 { mistakes } else { Vec::new() };
        Problem { status, first, errors }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let (status, authority, expected) = match &refused {
            Refused::Unknown(authority) => {
                (StatusCode::NOT_FOUND, authority, "a server that GET /servers lists")
            }
            Refused::Duplicate(authority) => {
                (StatusCode::CONFLICT, authority, "a server that GET /servers does not list")
            }
        };
        let url = Value::from(authority.to_url());
        Problem::new(status, refused.to_string()).in_field("url", Some(url), expected)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self);
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"lb\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// An answer of one line of JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Nothing that is answered has keys that are no strings, which alone fail.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(text)).into_response()
}

/// The answer as a browser may have it: not kept, as it is old in a moment and
/// not for everybody, and not taken for something else than it says it is.
pub(super) async fn as_it_says(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
