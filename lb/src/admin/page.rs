//! The status page: one file, without anything from elsewhere.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rustix::rand::{GetRandomFlags, getrandom};

use super::answer::Problem;

/// What stands for the nonce in the page.
const PLACE: &str = "{nonce}";

const PAGE: &str = include_str!("page.html");

/// The status page, for people. Needs no token: it asks for it, and knows
/// nothing by itself.
#[utoipa::path(get, path = "/", operation_id = "show_page", security(()), responses(
    (status = 200, body = String, content_type = "text/html", description = "A page that shows GET /live."),
))]
pub(super) async fn show() -> Result<Response, Problem> {
    let failed = |error: &dyn std::fmt::Display| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no page: {error}"))
    };
    let nonce = new_nonce().map_err(|error| failed(&error))?;
    let policy = policy(&nonce).map_err(|error| failed(&error))?;
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((fields, PAGE.replace(PLACE, &nonce)).into_response())
}

/// Only what is in the page runs, and it talks to nobody but us.
fn policy(nonce: &str) -> Result<HeaderValue, header::InvalidHeaderValue> {
    HeaderValue::from_str(&format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    ))
}

/// 128 bits that nobody can guess, in hexadecimal.
fn new_nonce() -> rustix::io::Result<String> {
    let mut bits = [0; 16];
    getrandom(&mut bits, GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_page_is_under_the_policy() {
        for tag in ["<script", "<style"] {
            let with_nonce = format!("{tag} nonce=\"{PLACE}\">");
            assert_eq!(PAGE.matches(tag).count(), PAGE.matches(&with_nonce).count(), "{tag}");
        }
        for unsafe_way in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!PAGE.contains(unsafe_way), "{unsafe_way}");
        }
        for elsewhere in ["http://", "https://", "@import", "url("] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn no_two_pages_have_the_same_nonce() {
        assert_ne!(new_nonce().unwrap(), new_nonce().unwrap());
    }
}
