//! One attempt at one server: a connection, the request, the answer's head.

use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::TrySendError, header};
use tokio::time::Instant;

use super::{AttemptBody, Exchange, Lease, Outbound};
use crate::{
    balance::{ConnectFailure, Failure, Member},
    net::Net,
    upstream::{ConnectError, Connection, Pool, Upstream, connect},
    worker::Worker,
};

/// Sends `outbound` to `server`; with `fresh`, on a new connection.
pub(super) async fn attempt<N: Net>(
    worker: &Worker<N>,
    exchange: &mut Exchange<N>,
    outbound: &mut Outbound,
    server: &Member<Upstream>,
    fresh: bool,
) -> Result<(Response<Incoming>, Lease<N>), Failure> {
    let pool = worker.pools.of(server.id);
    let repeatable = outbound.is_repeatable();
    let reusable =
        if fresh { None } else { pool.take(server.epoch, repeatable, exchange.attempt_began()) };
    let (mut connection, reused) = match reusable {
        Some(connection) => (connection, true),
        None => obtain(worker, &pool, server, fresh, repeatable).await?,
    };
    exchange.connected(server, reused);
    if connection.sender.ready().await.is_err() {
        return Err(Failure::Unsent { reused });
    }
    let request = take_request(outbound, server).ok_or(Failure::BadAnswer)?;
    let answer = connection.sender.try_send_request(request);
    connection.deadline.as_mut().reset(Instant::now() + worker.shared.timeouts.response_head);
    let answer = tokio::select! {
        biased;
        answer = answer => answer,
        () = connection.deadline.as_mut() => return Err(Failure::HeadTimedOut),
    };
    match answer {
        // Nobody asked for another protocol: what follows is not HTTP.
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err(Failure::BadAnswer)
        }
        Ok(response) => Ok((response, Lease { connection, pool })),
        Err(error) => Err(classify(error, outbound, reused)),
    }
}

/// Waits for leave to connect, or for a connection to come back.
async fn obtain<N: Net>(
    worker: &Worker<N>,
    pool: &Pool<N>,
    server: &Member<Upstream>,
    fresh: bool,
    repeatable: bool,
) -> Result<(Connection<N::Stream>, bool), Failure> {
    let upstream = &*server.server;
    let permit = loop {
        tokio::select! {
            biased;
            permit = upstream.governor.acquire() => break permit,
            () = pool.returned(), if !fresh => {}
        }
        if let Some(connection) = pool.take(server.epoch, repeatable, Instant::now()) {
            return Ok((connection, true));
        }
    };
    let limit = worker.shared.timeouts.connect;
    let error = match connect(&worker.net, upstream, permit, limit, server.epoch).await {
        Ok(connection) => return Ok((connection, false)),
        Err(error) => error,
    };
    let cluster = &worker.shared.cluster;
    match error {
        ConnectError::Refused(error) => {
            cluster.handle_connect_failure(server, ConnectFailure::Refused, &error.to_string());
            Err(Failure::ConnectRefused)
        }
        ConnectError::TimedOut { evidence } => {
            if evidence {
                cluster.handle_connect_failure(server, ConnectFailure::TimedOut, "no answer");
            }
            Err(Failure::ConnectTimedOut)
        }
    }
}

/// The request for one attempt; its head is kept if it may be needed again.
fn take_request(
    outbound: &mut Outbound,
    server: &Member<Upstream>,
) -> Option<Request<AttemptBody>> {
    let mut head =
        if outbound.is_repeatable() { outbound.head.clone()? } else { outbound.head.take()? };
    if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, server.server.host.clone());
    }
    Some(Request::from_parts(head, outbound.body.attempt()))
}

fn classify(
    mut error: TrySendError<Request<AttemptBody>>,
    outbound: &mut Outbound,
    reused: bool,
) -> Failure {
    if let Some(unsent) = error.take_message() {
        // The body was not touched either: hyper hands back what it never began.
        outbound.head = Some(unsent.into_parts().0);
        return Failure::Unsent { reused };
    }
    let error = error.into_error();
    match error.is_parse() && !reused {
        true => Failure::BadAnswer,
        false => Failure::Sent { reused },
    }
}
