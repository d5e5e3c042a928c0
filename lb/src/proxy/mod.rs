//! One request: head rules, pick, attempts, and the body back.
//!
//! Owns the attempt loop and the exchange (what the log says of a request).
//! The rules of failover are the core's ([`next_step`]); connections are
//! [`upstream`](crate::upstream)'s.

mod attempt;
mod exchange;
mod relay;
mod tunnel;

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http_body::Body;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    http::{request, response},
};
use tokio::time::timeout_at;

use crate::{
    balance::{Failure, Next, ServerId, next_step},
    error::{Reason, TEXT},
    headers::{
        REASON, REQUEST_ID, is_idempotent, prepare_request, prepare_response, upgrade_offer,
    },
    net::Net,
    upstream::{RequestBody, Reuse, Target},
    worker::Worker,
};

pub use exchange::{Client, Exchange, log_refusal};
pub use relay::{AnswerBody, Lease, Relay};
pub use tunnel::Tunnel;

/// An answer, and the tunnel behind it if it opens one.
pub type Answered<N> = (Response<AnswerBody<N>>, Option<Box<Tunnel<N>>>);

/// A request on its way, as often as it takes.
pub struct Outbound {
    head: request::Parts,
    body: RequestBody,
    idempotent: bool,
    /// Whether the client offers to speak another protocol.
    upgrades: bool,
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
    fn reuse(&self, fresh_posts: bool) -> Reuse {
        match (self.idempotent, self.body.is_short()) {
            (true, true) => Reuse::Any,
            (false, true) if !fresh_posts => Reuse::Recent,
            _ => Reuse::Never,
        }
    }
}

/// Answers one request of `client`, which is busy from this call on.
pub fn handle<N: Net>(
    worker: Rc<Worker<N>>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Answered<N>> {
    // Boxed: it is moved about, to the very end of the answer.
    let exchange = Box::new(Exchange::begin(worker.clone(), client, &request));
    answer(worker, exchange, request)
}

async fn answer<N: Net>(
    worker: Rc<Worker<N>>,
    mut exchange: Box<Exchange<N>>,
    request: Request<Incoming>,
) -> Answered<N> {
    let idempotent = is_idempotent(&request);
    let (mut head, body) = request.into_parts();
    let settings = exchange.settings().clone();
    let max_body = settings.max_body.unwrap_or(u64::MAX);
    let offers = upgrade_offer(&head).filter(|_| body.is_end_stream());
    let prepared = prepare_request(&mut head, exchange.origin());
    if let Err(reason) = prepared.and_then(|()| check_length(&body, max_body)) {
        return (own_answer(&worker, exchange, reason, !body.is_end_stream()), None);
    }
    exchange.set_id(request_id(&worker, &mut head.headers));
    let upgrades = offers.is_some();
    if let Some(protocols) = offers {
        head.headers.insert(header::UPGRADE, protocols);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let Some(first) = worker.pick(&settings.dealing, &head.headers, exchange.client_ip()) else {
        return (own_answer(&worker, exchange, Reason::NoServer, !body.is_end_stream()), None);
    };
    let without_host = !head.headers.contains_key(header::HOST);
    let body = RequestBody::new(body, max_body, exchange.attempt_began(), &worker.load);
    let outbound = Outbound { head, body, idempotent, upgrades, without_host };
    let mut spare = None;
    let forwarded = match settings.timeouts.deadline {
        None => forward(&worker, &mut exchange, &outbound, first, &mut spare).await,
        Some(limit) => {
            let deadline = exchange.began() + limit;
            let forwarded = forward(&worker, &mut exchange, &outbound, first, &mut spare);
            // Boxed, so that those without a deadline need no room for it.
            let forwarded = Box::pin(timeout_at(deadline, forwarded)).await;
            forwarded.unwrap_or(Err(Reason::DeadlineExceeded))
        }
    };
    let forwarded = forwarded.or_else(|reason| {
        let (server, answered) =
            spare.filter(|_| outbound.body.failure().is_none()).ok_or(reason)?;
        exchange.settle_for(&server);
        Ok(answered)
    });
    match forwarded {
        Ok(answered) if answered.0.status == StatusCode::SWITCHING_PROTOCOLS => {
            let (response, tunnel) = Tunnel::open(exchange, answered);
            (response, Some(tunnel))
        }
        Ok(answered) => {
            let patience = settings.timeouts.body;
            (relay(exchange, answered, outbound.body, patience), None)
        }
        Err(reason) => {
            let unread = !outbound.body.is_over();
            (own_answer(&worker, exchange, reason, unread), None)
        }
    }
}

/// A body that says that it is too large is not read at all.
fn check_length(body: &Incoming, limit: u64) -> Result<(), Reason> {
    match body.size_hint().exact() {
        Some(length) if length > limit => Err(Reason::BodyTooLarge),
        _ => Ok(()),
    }
}

/// The request's `X-Request-Id`, made where the client sent none, or an empty
/// one; of several the first.
fn request_id<N: Net>(worker: &Worker<N>, headers: &mut HeaderMap) -> HeaderValue {
    let sent = headers.get(&REQUEST_ID).filter(|id| !id.is_empty()).cloned();
    let id = sent.unwrap_or_else(|| worker.new_request_id());
    headers.insert(&REQUEST_ID, id.clone());
    id
}

/// A server's own error, better than one of ours when all tries or all time are used
/// up.
type Spare<N> = Option<(Target<N>, (response::Parts, Lease<N>))>;

/// Tries servers until one answers or the rules say stop.
async fn forward<N: Net>(
    worker: &Worker<N>,
    exchange: &mut Exchange<N>,
    outbound: &Outbound,
    first: Target<N>,
    spare: &mut Spare<N>,
) -> Result<(response::Parts, Lease<N>), Reason> {
    let mut server = first;
    let mut tried: Vec<ServerId> = Vec::new();
    let mut fresh = false;
    let mut elsewhere = 0;
    // Held from the first budgeted retry until an answer is chosen.
    let mut budget = None;
    loop {
        let failure = match attempt::attempt(worker, exchange, outbound, &server, fresh).await {
            Ok(mut answered) => {
                let status = answered.0.status.as_u16();
                if !outbound.is_repeatable() || !exchange.settings().retry_status.contains(status) {
                    server.pool.tally.answered.add(1);
                    return Ok(answered);
                }
                // The request's body is for the next.
                answered.1.connection.wire.stop_upload();
                *spare = Some((server.clone(), answered));
                Failure::RetriedStatus(status)
            }
            Err(failure) => failure,
        };
        // The client's doing is no failure of the server.
        if let Some(reason) = outbound.body.failure() {
            return Err(reason);
        }
        exchange.attempt_failed(&server, failure);
        if !outbound.body.is_whole() {
            return Err(reason_of(failure));
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
                    return Err(reason_of(failure));
                }
            }
            Next::GiveUp => return Err(reason_of(failure)),
        }
        // One that went out while the request waited was not tried: should it
        // come back when the others have failed, it is its turn.
        if failure != Failure::WentOut {
            tried.push(server.id);
        }
        let Some(next) = worker.next_untried(server.place, &tried) else {
            return Err(reason_of(failure));
        };
        server = next;
        fresh = false;
    }
}

/// The reason that the client gets when `failure` was the last.
fn reason_of(failure: Failure) -> Reason {
    match failure {
        Failure::ConnectRefused | Failure::NoResources | Failure::WentOut => Reason::ConnectFailed,
        Failure::ConnectTimedOut => Reason::ConnectTimeout,
        Failure::Unsent { .. } | Failure::Sent { .. } => Reason::ServerClosed,
        Failure::BadAnswer { .. } | Failure::RetriedStatus(_) => Reason::BadAnswer,
        Failure::HeadTimedOut => Reason::ResponseTimeout,
        Failure::BodyTimedOut => Reason::BodyTimeout,
    }
}

fn relay<N: Net>(
    mut exchange: Box<Exchange<N>>,
    (mut head, mut lease): (response::Parts, Lease<N>),
    request: RequestBody,
    patience: Duration,
) -> Response<AnswerBody<N>> {
    exchange.answered(head.status, head.version);
    if let Some(kept) = prepare_response(&mut head.headers) {
        lease.connection.idle_limit = lease.connection.idle_limit.min(kept);
    }
    lease.connection.wire.detach_upload();
    if head.status.as_u16() >= 400 && !request.is_over() {
        // The server has seen enough: the rest of the body will not be read.
        exchange.is_the_last();
        head.headers.insert(header::CONNECTION, CLOSE);
    }
    // hyper writes the version that the client speaks, if told the newest.
    head.version = hyper::Version::HTTP_11;
    Response::from_parts(head, AnswerBody::Relayed(Relay::new(lease, request, exchange, patience)))
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// One of `lb`'s own answers: a sentence, and the reason code in `X-LB-Reason`.
/// With `unread` of the request the connection cannot carry another.
fn own_answer<N: Net>(
    worker: &Worker<N>,
    mut exchange: Box<Exchange<N>>,
    reason: Reason,
    unread: bool,
) -> Response<AnswerBody<N>> {
    exchange.refused(reason);
    // What follows a CONNECT may be another protocol, not a request.
    let closes = unread
        || matches!(
            reason,
            Reason::BadRequest
                | Reason::MethodNotAllowed
                | Reason::ClientBody
                | Reason::BodyTimeout
                | Reason::BodyTooLarge
                | Reason::UnknownTransferCoding
        );
    if closes {
        exchange.is_the_last();
    }
    let text = reason.text();
    let _ = exchange.complete();
    let body = AnswerBody::Own { sentence: Some(Bytes::from(text)), _exchange: exchange };
    let mut response = Response::new(body);
    *response.status_mut() = reason.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    headers.insert(&REASON, HeaderValue::from_static(reason.code()));
    if closes {
        headers.insert(header::CONNECTION, CLOSE);
    }
    match reason {
        Reason::NoServer => {
            headers.insert(header::RETRY_AFTER, worker.shared.cluster.retry_after().into());
        }
        Reason::MethodNotAllowed => {
            let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");
            headers.insert(header::ALLOW, allowed);
        }
        _ => {}
    }
    response
}
