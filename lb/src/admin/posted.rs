//! The body of a request to the admin API, whole and bounded.

use axum::{
    extract::{FromRequest, Request},
    http::StatusCode,
};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::answer::Problem;

/// The longest body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How much of a longer one is read and thrown away, in bytes, so that its
/// sender comes to read the answer.
const COURTESY_BYTES: usize = 1024 * 1024;

/// A body. Content types are not looked at.
#[derive(Debug)]
pub(super) struct Posted(pub(super) Vec<u8>);

impl<S: Sync> FromRequest<S> for Posted {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let mut incoming = request.into_body();
        let (mut body, mut length) = (Vec::new(), 0);
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| {
                let error = format!("the request's body broke off: {error}");
                Problem::new(StatusCode::BAD_REQUEST, error)
            })?;
            let data = frame.into_data().unwrap_or_else(|_| Bytes::new());
            length += data.len();
            if length <= BODY_LIMIT {
                body.extend_from_slice(&data);
            } else if length > COURTESY_BYTES {
                break;
            }
        }
        if length > BODY_LIMIT {
            let error = format!("the body is longer than {BODY_LIMIT} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        Ok(Posted(body))
    }
}
