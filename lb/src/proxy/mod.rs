//! One request: head rules, pick, attempts, and the body back.
//!
//! Owns the attempt loop and the exchange (what the log says of a request).
//! The rules of failover are the core's ([`next_step`]); connections are
//! [`upstream`](crate::upstream)'s.

mod attempt;
mod exchange;
mod relay;

use std::rc::Rc;

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{self, HeaderValue},
    http::request,
};

use crate::{
    balance::{Failure, Next, ServerId, next_step},
    error::Reason,
    headers::{is_idempotent, prepare_request, prepare_response},
    net::Net,
    upstream::{RequestBody, Reuse, Target},
    worker::Worker,
};

pub use exchange::{Client, Exchange};
pub use relay::{AnswerBody, Lease, Relay};

/// A request on its way, as often as it takes.
pub struct Outbound {
    /// `None` while an attempt has it that may not be repeated.
    head: Option<request::Parts>,
    body: RequestBody,
    idempotent: bool,
    /// HTTP/1.0 may do without; a server gets its own name then.
    without_host: bool,
}

impl Outbound {
    /// Whether it may be executed, and sent, once more.
    fn is_repeatable(&self) -> bool {
        self.idempotent && self.body.is_whole()
    }

    /// Which kept connections will do: what cannot be repeated once it is on
    /// its way, whatever the method, should not meet one that is dying.
    fn reuse(&self, for_posts: Reuse) -> Reuse {
        match (self.idempotent, self.body.is_short()) {
            (true, true) => Reuse::Any,
            (false, true) => for_posts,
            (_, false) => Reuse::Never,
        }
    }
}

/// Answers one request of `client`.
pub async fn handle<N: Net>(
    worker: Rc<Worker<N>>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<AnswerBody<N>> {
    let mut exchange = Exchange::begin(worker.clone(), client, &request);
    let idempotent = is_idempotent(&request);
    let (mut head, body) = request.into_parts();
    if let Err(reason) = prepare_request(&mut head, exchange.forwarded_for()) {
        return own_answer(&worker, exchange, reason);
    }
    let Some(first) = worker.pick(&head.headers, exchange.client_ip()) else {
        return own_answer(&worker, exchange, Reason::NoServer);
    };
    let without_host = !head.headers.contains_key(header::HOST);
    let body = RequestBody::new(body, idempotent, exchange.attempt_began());
    let mut outbound = Outbound { head: Some(head), body, idempotent, without_host };
    match forward(&worker, &mut exchange, &mut outbound, first).await {
        Ok((response, lease)) => relay(exchange, response, lease, outbound.body),
        Err(reason) => own_answer(&worker, exchange, reason),
    }
}

/// Tries servers until one answers or the rules say stop.
async fn forward<N: Net>(
    worker: &Worker<N>,
    exchange: &mut Exchange<N>,
    outbound: &mut Outbound,
    first: Target<N>,
) -> Result<(Response<Incoming>, Lease<N>), Reason> {
    let mut server = first;
    let mut tried: Vec<ServerId> = Vec::new();
    let mut fresh = false;
    let mut elsewhere = 0;
    // Held from the first budgeted retry until an answer is chosen.
    let mut budget = None;
    // A server's own error, better than one of ours when all tries are used up.
    let mut spare = None;
    let failure = loop {
        let failure = match attempt::attempt(worker, exchange, outbound, &server, fresh).await {
            Ok(answered) => {
                let status = answered.0.status().as_u16();
                if !outbound.is_repeatable() || !worker.shared.retry_status.contains(status) {
                    return Ok(answered);
                }
                spare = Some((server.clone(), answered));
                Failure::RetriedStatus(status)
            }
            Err(failure) => failure,
        };
        exchange.attempt_failed(&server, failure);
        if outbound.body.has_failed() {
            return Err(Reason::ClientBody);
        }
        match next_step(failure, outbound.is_repeatable(), elsewhere) {
            Next::FreshConnection => {
                fresh = true;
                continue;
            }
            Next::Elsewhere => {}
            Next::ElsewhereWithinBudget => {
                elsewhere += 1;
                if budget.is_none() {
                    budget = worker.shared.retry_permit().await;
                }
                if budget.is_none() {
                    break failure;
                }
            }
            Next::GiveUp => break failure,
        }
        // One that went out while the request waited was not tried: should it
        // come back when the others have failed, it is its turn.
        if failure != Failure::WentOut {
            tried.push(server.id);
        }
        let Some(next) = worker.next_untried(server.place, &tried) else {
            break failure;
        };
        server = next;
        fresh = false;
    };
    let (server, answered) = spare.ok_or(reason_of(failure))?;
    exchange.settle_for(&server);
    Ok(answered)
}

/// The reason that the client gets when `failure` was the last.
fn reason_of(failure: Failure) -> Reason {
    match failure {
        Failure::ConnectRefused | Failure::NoResources | Failure::WentOut => Reason::ConnectFailed,
        Failure::ConnectTimedOut => Reason::ConnectTimeout,
        Failure::Unsent { .. } | Failure::Sent { .. } => Reason::ServerClosed,
        Failure::BadAnswer | Failure::RetriedStatus(_) => Reason::BadAnswer,
        Failure::HeadTimedOut => Reason::ResponseTimeout,
        Failure::BodyTimedOut => Reason::BodyTimeout,
    }
}

fn relay<N: Net>(
    mut exchange: Exchange<N>,
    response: Response<Incoming>,
    lease: Lease<N>,
    request: RequestBody,
) -> Response<AnswerBody<N>> {
    let (mut head, incoming) = response.into_parts();
    exchange.answered(head.status, head.version);
    prepare_response(&mut head.headers);
    // hyper writes the version that the client speaks, if told the newest.
    head.version = hyper::Version::HTTP_11;
    Response::from_parts(head, AnswerBody::Relayed(Relay::new(incoming, lease, request, exchange)))
}

/// One of `lb`'s own answers: a sentence, and the reason code in `X-LB-Reason`.
fn own_answer<N: Net>(
    worker: &Worker<N>,
    mut exchange: Exchange<N>,
    reason: Reason,
) -> Response<AnswerBody<N>> {
    exchange.refused(reason);
    let text = format!("{} {}\n", reason.status().as_u16(), reason.sentence());
    let _ = exchange.complete();
    let body = AnswerBody::Own { sentence: Some(Bytes::from(text)), _exchange: exchange };
    let mut response = Response::new(body);
    *response.status_mut() = reason.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-lb-reason", HeaderValue::from_static(reason.code()));
    match reason {
        Reason::NoServer => {
            headers.insert(header::RETRY_AFTER, worker.shared.retry_after.clone());
        }
        Reason::BadRequest
        | Reason::ClientBody
        | Reason::BodyTimeout
        | Reason::UnknownTransferCoding => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Reason::MethodNotAllowed => {
            let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");
            headers.insert(header::ALLOW, allowed);
        }
        _ => {}
    }
    response
}
