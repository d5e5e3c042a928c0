//! One client's connection, from its first byte to its end.
//!
//! A connection that is asked for something is driven by hyper behind a
//! `guard`; one that is not is *parked*: all that is left of it is its socket
//! and a timer. Owns no request: that is [`proxy`](crate::proxy)'s.

mod guard;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use hyper::{
    Request,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use self::guard::Guard;
use crate::{
    error::Reason,
    framing::Rest,
    net::{Net, SharedStream},
    proxy::{Client, handle, log_refusal},
    serve::{STOP_PATIENCE, Stops},
    upstream::PIECE_BYTES,
    worker::Worker,
};

/// How long a client whose request was not read to its end may take to read
/// the answer: closed earlier, the connection would be reset, and the answer
/// lost (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// How much of what such a client still sends is read.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// How much of a client's connection is buffered, in each direction: more than
/// the largest head of a request, and enough for a system call to be worth it.
const BUFFER_BYTES: usize = 60 * 1024;

// With one more piece of an answer's body, as a chunk, hyper's buffer ends at a
// power of two.
const _: () = assert!(BUFFER_BYTES + PIECE_BYTES + 16 <= 64 * 1024);

/// A connection between two requests.
struct Parked<S> {
    stream: S,
    since: Instant,
    /// Whether it has ever sent a whole request head.
    has_asked: bool,
}

/// Serves the client at `address` until its connection ends.
pub async fn serve<N: Net>(
    worker: Rc<Worker<N>>,
    stops: &Stops,
    stream: N::Stream,
    address: SocketAddr,
) {
    let mut parked = Parked { stream, since: Instant::now(), has_asked: false };
    while let Some(ahead) = parked.first_bytes(&worker, stops).await {
        let woken = Box::pin(converse(&worker, stops, parked, ahead, address)).await;
        let Some(idle) = woken else { return };
        parked = idle;
    }
}

impl<S: AsyncRead + Unpin> Parked<S> {
    /// The first bytes of the next request; `None` if none are to come.
    async fn first_bytes<N: Net>(&mut self, worker: &Worker<N>, stops: &Stops) -> Option<Vec<u8>> {
        let mut timer = pin!(sleep_until(self.since + worker.settings().timeouts.client_idle));
        poll_fn(|cx| {
            let mut scratch = worker.scratch.borrow_mut();
            let mut read = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    Poll::Ready(Some(read.filled().to_vec()))
                }
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending if stops.ends_idle(self.has_asked) => Poll::Ready(None),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            }
        })
        .await
    }
}

/// Answers requests until the connection ends or has been idle for a while;
/// returns it if it may go on.
async fn converse<N: Net>(
    worker: &Rc<Worker<N>>,
    stops: &Stops,
    parked: Parked<N::Stream>,
    ahead: Vec<u8>,
    address: SocketAddr,
) -> Option<Parked<N::Stream>> {
    let since = parked.since;
    let client = Rc::new(Client::new(address, parked.has_asked, since));
    let timeouts = worker.settings().timeouts;
    let guard = Guard::new(parked.stream, ahead, client.clone(), timeouts);
    let guard = Rc::new(RefCell::new(guard));
    let tunnel = Cell::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        guard.borrow_mut().head_parsed(rest_of(request.body()));
        let answered = handle(worker.clone(), client.clone(), request);
        async {
            let (mut answer, opened) = answered.await;
            if opened.is_some() {
                tunnel.set(opened);
            } else if stops.stopping() {
                // Nobody who was not told so meets a closed connection.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        // One buffer and one plain write cost less than gathering small pieces.
        .writev(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(SharedStream(guard.clone())), service);
    let connection = Some(Box::pin(connection));
    let served = Served { connection, result: Ok(()), guard: &guard, client: &client, stops };
    let ended = served.await;
    let guard = Rc::try_unwrap(guard).ok()?.into_inner();
    let refused = guard.refused().filter(|_| !client.told_the_last.get());
    let unread = guard.has_unread();
    if client.is_http10.get() && guard.is_stuck() {
        client.must_reset.set(true);
    }
    let (stream, ahead) = guard.into_parts();
    if let Some(tunnel) = tunnel.take() {
        if let Err(error) = tunnel.run(&worker.net, stream, &ahead, stops.until_over()).await {
            debug!("client={address} tunnel ended: {error}");
        }
        return None;
    }
    match ended {
        Ended::Idle => {
            let (since, has_asked) = (client.idle_since.get(), client.has_asked.get());
            return Some(Parked { stream, since, has_asked });
        }
        Ended::Stopped if client.must_reset.get() => worker.net.reset_on_close(&stream),
        Ended::Stopped => {}
        Ended::Finished(result) => {
            if let Err(error) = result {
                debug!("client={address} connection ended: {error}");
            }
            hang_up(worker, &client, stream, refused, unread).await;
        }
    }
    None
}

/// Closes a connection so that the client gets what it was answered, or sees that
/// it was cut short.
async fn hang_up<N: Net>(
    worker: &Worker<N>,
    client: &Client,
    mut stream: N::Stream,
    refused: Option<(Reason, Instant)>,
    unread: bool,
) {
    if client.must_reset.get() {
        worker.net.reset_on_close(&stream);
    } else if let Some((reason, began)) = refused {
        log_refusal(worker, client, reason, began);
        let patience = worker.settings().timeouts.body;
        let _ = timeout(patience, refuse(&mut stream, reason)).await;
    } else if unread {
        let _ = timeout(LINGER, linger(&mut stream)).await;
    }
}

/// What follows the head of a request with this body.
fn rest_of(body: &Incoming) -> Rest {
    match body.size_hint().exact() {
        Some(0) => Rest::Nothing,
        Some(length) => Rest::Length(length),
        None => Rest::chunked(),
    }
}

/// Answers a request that never became one, and closes.
///
/// # Errors
/// The client is gone.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    reason: Reason,
) -> io::Result<()> {
    stream.write_all(&reason.closing_answer()).await?;
    let _ = timeout(LINGER, linger(stream)).await;
    Ok(())
}

/// Reads what the client still sends, so that it can read the answer.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut left = LINGER_BYTES;
    let mut scratch = [0; 4096];
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => return Ok(()),
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// How a conversation ended.
enum Ended {
    /// The client has not asked for anything for a while.
    Idle,
    /// The worker stops.
    Stopped,
    /// hyper has seen its end.
    Finished(hyper::Result<()>),
}

/// A connection driven by hyper, until it ends, idles, or the worker stops; and
/// what is left of a request whose answer is over.
struct Served<'a, C, S> {
    /// Until hyper has seen its end.
    connection: Option<Pin<Box<C>>>,
    /// What hyper says of it then.
    result: hyper::Result<()>,
    guard: &'a RefCell<Guard<S>>,
    client: &'a Client,
    stops: &'a Stops,
}

impl<C, S> Future for Served<'_, C, S>
where
    C: Future<Output = hyper::Result<()>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(result) = connection.as_mut().poll(cx)
        {
            // A request that it has not read to its end has none now.
            self.connection = None;
            self.result = result;
        }
        let rest = self.client.poll_rest(cx);
        if self.connection.is_none() {
            ready!(rest);
            return Poll::Ready(Ended::Finished(std::mem::replace(&mut self.result, Ok(()))));
        }
        let mut guard = self.guard.borrow_mut();
        if guard.poll_parking(cx).is_ready() {
            return Poll::Ready(Ended::Idle);
        }
        // One that has asked before may have its next request on the way: it
        // is parked first.
        let never_asks = guard.is_idle() && !self.client.has_asked.get();
        if self.stops.impatient()
            && (never_asks || guard.poll_partial(cx, STOP_PATIENCE).is_ready())
            || self.stops.over()
        {
            return Poll::Ready(Ended::Stopped);
        }
        Poll::Pending
    }
}

impl<C, S> Drop for Served<'_, C, S> {
    fn drop(&mut self) {
        self.connection = None;
        self.client.drop_rest();
    }
}
