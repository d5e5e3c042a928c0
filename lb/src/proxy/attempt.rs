//! One attempt at one server: a connection, the request, the answer's head.

use std::{future::Future, pin::Pin, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::TrySendError,
    header::{self, HeaderValue},
};
use tokio::time::{Instant, Sleep, timeout};
use tracing::warn;

use super::{Exchange, Lease, Outbound};
use crate::{
    balance::{ConnectFailure, Failure},
    config::Timeouts,
    net::Net,
    upstream::{AttemptBody, ConnectError, Connection, RequestBody, Reuse, Target, connect},
    worker::Worker,
};

/// Sends `outbound` to `server`; with `fresh`, on a new connection.
pub(super) async fn attempt<N: Net>(
    worker: &Worker<N>,
    exchange: &mut Exchange<N>,
    outbound: &mut Outbound,
    server: &Target<N>,
    fresh: bool,
) -> Result<(Response<Incoming>, Lease<N>), Failure> {
    let pool = &server.pool;
    let for_posts = worker.shared.reuse_for_posts;
    let reuse = if fresh { Reuse::Never } else { outbound.reuse(for_posts) };
    let (mut connection, reused) = match pool.take(server.epoch, reuse, exchange.attempt_began()) {
        Some(connection) => (connection, true),
        // Boxed, so that the future of a request that finds a connection, which
        // is moved about, need not have room for one that does not.
        None => Box::pin(obtain(worker, server, reuse)).await?,
    };
    exchange.connected(server, reused);
    if !connection.sender.is_ready() && !Box::pin(becomes_ready(worker, &mut connection)).await {
        return Err(Failure::Unsent { reused });
    }
    // Gone only if it was sent and must not be sent again.
    let request = take_request(outbound, server).ok_or(Failure::Sent { reused })?;
    let answer = connection.sender.try_send_request(request);
    let (timer, timeouts) = (connection.timer.as_mut(), &worker.shared.timeouts);
    match await_answer(answer, timer, &outbound.body, timeouts).await? {
        // Nobody asked for another protocol: what follows is not HTTP.
        Ok(response)
            if response.status() == StatusCode::SWITCHING_PROTOCOLS && !outbound.upgrades =>
        {
            Err(Failure::BadAnswer)
        }
        Ok(response) => Ok((response, Lease { connection, pool: pool.clone() })),
        Err(error) => Err(classify(error, outbound, reused)),
    }
}

/// Whether a connection whose last request may still be on its way takes a new
/// one, soon.
async fn becomes_ready<N: Net>(worker: &Worker<N>, connection: &mut Connection<N::Stream>) -> bool {
    let ready = timeout(worker.shared.timeouts.connect, connection.sender.ready());
    matches!(ready.await, Ok(Ok(())))
}

type Answer = Result<Response<Incoming>, TrySendError<Request<AttemptBody>>>;

/// Waits for the answer's head: for so long from the end of the request, and
/// for as long as the request's body makes progress.
async fn await_answer(
    answer: impl Future<Output = Answer>,
    mut timer: Pin<&mut Sleep>,
    body: &RequestBody,
    timeouts: &Timeouts,
) -> Result<Answer, Failure> {
    let began = Instant::now();
    timer.as_mut().reset(began + timeouts.response_head.min(timeouts.body));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = timer.as_mut() => {}
        }
        let now = Instant::now();
        let progressed = body.progressed().unwrap_or(began).max(began);
        let over = body.is_over();
        let deadline = progressed + if over { timeouts.response_head } else { timeouts.body };
        if deadline <= now {
            let client_is_silent = !over && body.is_awaited();
            return Err(if client_is_silent {
                Failure::BodyTimedOut
            } else {
                Failure::HeadTimedOut
            });
        }
        // The body may end meanwhile, and another limit hold then.
        timer.as_mut().reset(deadline.min(now + timeouts.response_head));
    }
}

/// Waits for leave to connect, or for a connection to come back; until the
/// server goes out of the rotation.
async fn obtain<N: Net>(
    worker: &Worker<N>,
    server: &Target<N>,
    reuse: Reuse,
) -> Result<(Connection<N::Stream>, bool), Failure> {
    let obtained = connect_or_reuse(worker, server, reuse);
    tokio::pin!(obtained);
    loop {
        let changed = server.pool.upstream.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !worker.shared.cluster.deals(server.id) {
            return Err(Failure::WentOut);
        }
        tokio::select! {
            biased;
            obtained = &mut obtained => return obtained,
            () = changed => {}
        }
    }
}

async fn connect_or_reuse<N: Net>(
    worker: &Worker<N>,
    server: &Target<N>,
    reuse: Reuse,
) -> Result<(Connection<N::Stream>, bool), Failure> {
    let (pool, upstream) = (&server.pool, &*server.pool.upstream);
    let acquired = upstream.governor.acquire();
    tokio::pin!(acquired);
    let permit = loop {
        tokio::select! {
            biased;
            permit = &mut acquired => break permit,
            () = pool.returned(), if reuse != Reuse::Never => {}
        }
        if let Some(connection) = pool.take(server.epoch, reuse, Instant::now()) {
            return Ok((connection, true));
        }
    };
    let limit = worker.shared.timeouts.connect;
    let began = Instant::now();
    let error = match connect(&worker.net, upstream, permit, limit, server.epoch).await {
        Ok(connection) => return Ok((connection, false)),
        Err(error) => error,
    };
    if reuse != Reuse::Never
        && matches!(error, ConnectError::Local(_))
        && timeout(limit, pool.returned()).await.is_ok()
        && let Some(connection) = pool.take(server.epoch, reuse, Instant::now())
    {
        return Ok((connection, true));
    }
    Err(connect_failed(worker, server, &error, began.elapsed()))
}

/// What a connect that failed after `took` means for the request; tells the
/// cluster what it says of the server.
fn connect_failed<N: Net>(
    worker: &Worker<N>,
    server: &Target<N>,
    error: &ConnectError,
    took: Duration,
) -> Failure {
    let upstream = &*server.pool.upstream;
    let blame = |failure, detail: &str| {
        let cluster = &worker.shared.cluster;
        cluster.handle_connect_failure((server.id, upstream), server.epoch, failure, detail, took);
    };
    match error {
        ConnectError::Refused(error) => {
            blame(ConnectFailure::Refused, &error.to_string());
            Failure::ConnectRefused
        }
        ConnectError::Local(error) => {
            warn!("server={} cannot be connected to: {error}", upstream.name);
            Failure::NoResources
        }
        ConnectError::TimedOut { evidence } => {
            if *evidence {
                blame(ConnectFailure::TimedOut, "no answer");
            }
            Failure::ConnectTimedOut
        }
    }
}

/// The request for one attempt; its head is kept if it may be needed again.
fn take_request<N: Net>(
    outbound: &mut Outbound,
    server: &Target<N>,
) -> Option<Request<AttemptBody>> {
    let mut head =
        if outbound.is_repeatable() { outbound.head.clone()? } else { outbound.head.take()? };
    if outbound.without_host {
        head.headers.insert(header::HOST, server.pool.upstream.host.clone());
    }
    if outbound.body.is_chunked() {
        // Said aloud, or hyper would send a GET's body as none.
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
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
