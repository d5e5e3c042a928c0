//! One attempt at one server: a connection, the request, the answer's head.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use hyper::{StatusCode, http::response};
use tokio::time::{Instant, Sleep, sleep};
use tracing::warn;

use super::{Exchange, Lease, Outbound};
use crate::{
    balance::{ConnectFailure, Failure},
    config::Timeouts,
    net::{Net, lacks_descriptors},
    upstream::{ConnectError, Connection, RequestBody, Reuse, Target, WireError, connect},
    worker::Worker,
};

/// Above what a connect to a server that is well takes, in one data centre.
const SLOW_CONNECT: Duration = Duration::from_millis(100);

/// Until the next try of a connect for which this machine had no descriptor.
const LOCAL_RETRY: Duration = Duration::from_millis(20);

/// Sends `outbound` to `server`; with `fresh`, on a new connection.
pub(super) async fn attempt<N: Net>(
    worker: &Worker<N>,
    exchange: &mut Exchange<N>,
    outbound: &Outbound,
    server: &Target<N>,
    fresh: bool,
) -> Result<(response::Parts, Lease<N>), Failure> {
    let pool = &server.pool;
    let settings = exchange.settings().clone();
    let reuse = if fresh { Reuse::Never } else { outbound.reuse(settings.fresh_posts) };
    let began = exchange.attempt_began();
    let (mut connection, reused) = match pool.take(server.epoch, reuse, began) {
        Some(connection) => (connection, true),
        // Boxed, so that the future of a request that finds a connection, which
        // is moved about, need not have room for one that does not.
        None => Box::pin(obtain(worker, server, reuse, settings.timeouts.connect)).await?,
    };
    // On a kept connection the request goes out at once.
    let sent = if reused { began } else { Instant::now() };
    exchange.connected(server, (!reused).then_some(sent));
    let used = connection.used;
    let Connection { wire, timer, .. } = &mut *connection;
    let host = outbound.without_host.then_some(&server.pool.upstream.host);
    wire.begin(&outbound.head, host, outbound.body.attempt());
    let method = &outbound.head.method;
    let answer = poll_fn(|cx| wire.poll_head(cx, method, &worker.scratch));
    let answer =
        await_answer(answer, timer.as_mut(), &outbound.body, server, &settings.timeouts, sent)
            .await?;
    let closes = !connection.wire.keeps();
    let dismissed = reused && closes && answer.as_ref().is_ok_and(is_dismissal);
    let broke = answer.as_ref().is_err_and(|error| !matches!(error, WireError::Client));
    if dismissed || reused && broke {
        pool.died(began.saturating_duration_since(used), began);
    }
    match answer {
        // Nobody asked for another protocol: what follows is not HTTP.
        Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS && !outbound.upgrades => {
            Err(Failure::BadAnswer { reused })
        }
        Ok(_) if dismissed && outbound.is_repeatable() => Err(Failure::Sent { reused }),
        Ok(head) => Ok((head, Lease { connection, pool: pool.clone() })),
        Err(error) => Err(classify(&error, reused)),
    }
}

/// Whether an answer that is a connection's last may be what a server says as it closes
/// an idle one, too late to be seen before the request went out (RFC 9110 §15.5.9).
fn is_dismissal(head: &response::Parts) -> bool {
    head.status == StatusCode::REQUEST_TIMEOUT
}

/// What a broken exchange means: whether the request may have been executed.
fn classify(error: &WireError, reused: bool) -> Failure {
    match error {
        WireError::Unsent(_) => Failure::Unsent { reused },
        WireError::Garbage(_) => Failure::BadAnswer { reused },
        _ => Failure::Sent { reused },
    }
}

type Answer = Result<response::Parts, WireError>;

/// Waits for the answer's head: for so long from the end of the request, and
/// for as long as the request's body makes progress.
async fn await_answer<N: Net>(
    answer: impl Future<Output = Answer>,
    mut timer: Pin<&mut Sleep>,
    body: &RequestBody,
    server: &Target<N>,
    timeouts: &Timeouts,
    began: Instant,
) -> Result<Answer, Failure> {
    timer.as_mut().reset(began + timeouts.response_head.min(timeouts.body));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = cut_off(server) => return Err(Failure::HeadTimedOut),
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

/// Resolves when the drain time of a removed server is over: all connections of
/// clients are polled then.
async fn cut_off<N: Net>(server: &Target<N>) {
    let departure = &server.pool.upstream.departure;
    poll_fn(|_| if departure.is_cut() { Poll::Ready(()) } else { Poll::Pending }).await
}

/// Waits for leave to connect, or for a connection to come back; until the
/// server goes out of the rotation. A connect may take as long as `limit`.
async fn obtain<N: Net>(
    worker: &Worker<N>,
    server: &Target<N>,
    reuse: Reuse,
    limit: Duration,
) -> Result<(Box<Connection<N::Stream>>, bool), Failure> {
    let obtained = connect_or_reuse(worker, server, reuse, limit);
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
    limit: Duration,
) -> Result<(Box<Connection<N::Stream>>, bool), Failure> {
    let (pool, upstream) = (&server.pool, &*server.pool.upstream);
    let mut began = None;
    let (error, took) = loop {
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
        let now = Instant::now();
        let began = *began.get_or_insert(now);
        let connected = tokio::select! {
            biased;
            connected = connect(&worker.net, upstream, permit, limit, server.epoch) => connected,
            returned = returned_late(server, reuse) => return Ok((returned, true)),
        };
        let lack = match connected {
            Ok(mut connection) => {
                connection.extra = pool.is_extra(reuse, began);
                return Ok((connection, false));
            }
            Err(ConnectError::Local(lack)) => lack,
            Err(error) => break (error, now.elapsed()),
        };
        if let Some(connection) = pool.take(server.epoch, reuse, Instant::now()) {
            return Ok((connection, true));
        }
        // An idle one, which is not good enough, has what this one lacks; a descriptor
        // any has.
        let of_any = lacks_descriptors(&lack);
        if pool.close_oldest() || of_any && worker.pools.close_oldest() {
            continue;
        }
        let left = limit.saturating_sub(began.elapsed());
        let pause = match (of_any, reuse) {
            (true, _) => {
                worker.shared.cluster.want_descriptors();
                left.min(LOCAL_RETRY)
            }
            (false, Reuse::Never) => Duration::ZERO,
            (false, _) => left,
        };
        if pause.is_zero() {
            break (ConnectError::Local(lack), now.elapsed());
        }
        tokio::select! {
            biased;
            () = pool.returned(), if reuse != Reuse::Never => {}
            () = sleep(pause) => {}
        }
    };
    Err(connect_failed(worker, server, &error, took))
}

/// A connection that comes back while a connect is slow. One that is quick is worth
/// waiting for: it is of use to others, too.
async fn returned_late<N: Net>(server: &Target<N>, reuse: Reuse) -> Box<Connection<N::Stream>> {
    if reuse == Reuse::Never {
        return std::future::pending().await;
    }
    sleep(SLOW_CONNECT).await;
    loop {
        if let Some(connection) = server.pool.take(server.epoch, reuse, Instant::now()) {
            return connection;
        }
        server.pool.returned().await;
    }
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
            warn!("server={} cannot be connected to: {error}", upstream.name.load());
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
