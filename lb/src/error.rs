//! The balancer's own answers.
//!
//! Each has one stable reason code, the same in the response field
//! `X-LB-Reason` and in the log, so that a 502 of `lb` is never taken for a
//! server's.

use hyper::StatusCode;

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
    /// The client's body broke off while it was being forwarded.
    ClientBody,
    /// The client sent nothing of its body for too long.
    BodyTimeout,
    /// The request's transfer coding is not `chunked`.
    UnknownTransferCoding,
}

impl Reason {
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
            Reason::NoServer => StatusCode::SERVICE_UNAVAILABLE,
            Reason::ConnectFailed | Reason::ServerClosed | Reason::BadAnswer => {
                StatusCode::BAD_GATEWAY
            }
            Reason::ConnectTimeout | Reason::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
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
            Reason::ClientBody => "The request's body ended early.",
            Reason::BodyTimeout => "The request's body did not come in time.",
            Reason::UnknownTransferCoding => "This transfer coding is not supported.",
        }
    }
}
