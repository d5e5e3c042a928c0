//! The balancer's own answers.
//!
//! Each has one stable reason code, the same in the response field
//! `X-LB-Reason` and in the log, so that a 502 of `lb` is never taken for a
//! server's.

use hyper::StatusCode;

/// The content type of `lb`'s own answers.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// Why `lb` answers a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request breaks HTTP's rules in a way that cannot be forwarded.
    BadRequest,
    /// TRACE or CONNECT.
    MethodNotAllowed,
    /// No server is healthy, or none is configured.
    NoServer,
    /// Every eligible server refused the connection or was unreachable.
    ConnectFailed,
    /// The connect timed out at the last server tried.
    ConnectTimeout,
    /// The server closed or reset the connection without an answer.
    ServerClosed,
    /// The server's answer was not HTTP.
    BadAnswer,
    /// The server did not begin to answer in time.
    ResponseTimeout,
    /// The request's head did not come in time.
    HeadTimeout,
    /// The request line is too long.
    UriTooLong,
    /// The request's head is too large, or has too many fields.
    HeadTooLarge,
    /// The request's body is larger than the operator allows.
    BodyTooLarge,
    /// There are as many client connections as there may be.
    TooManyConnections,
    /// The request's deadline has passed.
    DeadlineExceeded,
    /// The client's body broke off while it was being forwarded.
    ClientBody,
    /// The client sent nothing of its body for too long.
    BodyTimeout,
    /// The request's transfer coding is not `chunked`.
    UnknownTransferCoding,
}

impl Reason {
    /// All there are, in the order of their discriminants.
    pub const ALL: [Reason; Reason::UnknownTransferCoding as usize + 1] = [
        Reason::BadRequest,
        Reason::MethodNotAllowed,
        Reason::NoServer,
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::ServerClosed,
        Reason::BadAnswer,
        Reason::ResponseTimeout,
        Reason::HeadTimeout,
        Reason::UriTooLong,
        Reason::HeadTooLarge,
        Reason::BodyTooLarge,
        Reason::TooManyConnections,
        Reason::DeadlineExceeded,
        Reason::ClientBody,
        Reason::BodyTimeout,
        Reason::UnknownTransferCoding,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Reason::BadRequest => "bad_request",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::NoServer => "no_server",
            Reason::ConnectFailed => "connect_failed",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::ServerClosed => "server_closed",
            Reason::BadAnswer => "bad_answer",
            Reason::ResponseTimeout => "response_timeout",
            Reason::HeadTimeout => "head_timeout",
            Reason::UriTooLong => "uri_too_long",
            Reason::HeadTooLarge => "head_too_large",
            Reason::BodyTooLarge => "body_too_large",
            Reason::TooManyConnections => "too_many_connections",
            Reason::DeadlineExceeded => "deadline_exceeded",
            Reason::ClientBody => "client_body",
            Reason::BodyTimeout => "body_timeout",
            Reason::UnknownTransferCoding => "unknown_transfer_coding",
        }
    }

    /// The status of the answer (RFC 9110 §15.5, §15.6).
    pub fn status(self) -> StatusCode {
        match self {
            Reason::BadRequest | Reason::ClientBody => StatusCode::BAD_REQUEST,
            Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::NoServer | Reason::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
            Reason::ConnectFailed | Reason::ServerClosed | Reason::BadAnswer => {
                StatusCode::BAD_GATEWAY
            }
            Reason::ConnectTimeout | Reason::ResponseTimeout | Reason::DeadlineExceeded => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Reason::HeadTimeout | Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Reason::UriTooLong => StatusCode::URI_TOO_LONG,
            Reason::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Reason::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// One sentence for whoever reads the answer.
    pub fn sentence(self) -> &'static str {
        match self {
            Reason::BadRequest => "The request is not valid HTTP.",
            Reason::MethodNotAllowed => "This method is not forwarded.",
            Reason::NoServer => "No healthy server is available.",
            Reason::ConnectFailed => "No server could be connected to.",
            Reason::ConnectTimeout => "Connecting to the server took too long.",
            Reason::ServerClosed => "The server closed the connection without an answer.",
            Reason::BadAnswer => "The server's answer was not valid HTTP.",
            Reason::ResponseTimeout => "The server did not answer in time.",
            Reason::HeadTimeout => "The request's head did not come in time.",
            Reason::UriTooLong => "The request line is longer than 8 KiB.",
            Reason::HeadTooLarge => {
                "The request's head is larger than 32 KiB or has more than 100 fields."
            }
            Reason::BodyTooLarge => "The request's body is too large.",
            Reason::TooManyConnections => "There are too many connections at the moment.",
            Reason::DeadlineExceeded => "No server answered before the request's deadline.",
            Reason::ClientBody => "The request's body ended early.",
            Reason::BodyTimeout => "The request's body did not come in time.",
            Reason::UnknownTransferCoding => "This transfer coding is not supported.",
        }
    }

    /// The body of the answer.
    pub fn text(self) -> String {
        format!("{} {}\n", self.status().as_u16(), self.sentence())
    }

    /// A whole answer, for a client whose request never became one; the
    /// connection ends with it.
    pub fn closing_answer(self) -> Vec<u8> {
        let (status, text) = (self.status(), self.text());
        let phrase = status.canonical_reason().unwrap_or_default();
        let retry = if self == Reason::TooManyConnections { "Retry-After: 1\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {phrase}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\n\
             X-LB-Reason: {}\r\n{retry}Connection: close\r\n\r\n{text}",
            status.as_u16(),
            text.len(),
            self.code(),
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_where_their_discriminants_say() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason:?}");
        }
    }
}
