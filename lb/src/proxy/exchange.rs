//! One request as the log tells it, from its head to the last byte back.
//!
//! Owns the counts of requests in flight: an exchange counts from its
//! beginning until it is dropped, however it ends.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use hyper::{Method, Request, StatusCode, Uri, Version, body::Incoming, header::HeaderValue};
use tokio::time::Instant;

use crate::{
    access_log::{Attempt, Entry, Outcome},
    balance::Failure,
    error::Reason,
    feed::Passed,
    headers::Origin,
    net::Net,
    upstream::{Pool, Target},
    worker::{Held, Worker},
};

/// The rest of a request, on its way to the server.
type Rest = Pin<Box<dyn Future<Output = ()>>>;

/// A client's connection, as its requests need to know it.
pub struct Client {
    /// Its address; an IPv4 client of an IPv6 socket is IPv4.
    pub address: SocketAddr,
    /// The address as text, for the log.
    pub text: String,
    /// Its IP address, as the forwarded fields say it.
    pub forwarded_for: HeaderValue,
    /// Whether its connection must end with a reset: to an HTTP/1.0 client an
    /// answer that broke off would look whole otherwise.
    pub must_reset: Cell<bool>,
    /// Whether it may take the end of its connection for that of the answer.
    pub is_http10: Cell<bool>,
    /// Whether it has sent a whole request head yet.
    pub has_asked: Cell<bool>,
    /// Whether a request of it is being answered.
    pub active: Cell<bool>,
    /// Whether that request has been read to its end.
    pub sent_all: Cell<bool>,
    /// Who has read ahead, and waits until the request at hand is over.
    pub reader: Cell<Option<Waker>>,
    /// What is left of a request whose answer is over. It holds on to this
    /// client, so whoever drives the connection takes it out in the end.
    rest: RefCell<Option<Rest>>,
    /// Whether it was told that an answer is the last: nobody asks for another.
    pub told_the_last: Cell<bool>,
    /// When its last request was over.
    pub idle_since: Cell<Instant>,
}

impl Client {
    /// The client at `address`, idle since `since`; `has_asked` if it has sent
    /// a request before.
    pub fn new(address: SocketAddr, has_asked: bool, since: Instant) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let text = address.ip().to_string();
        let forwarded_for =
            HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Client {
            text: address.to_string(),
            address,
            forwarded_for,
            must_reset: Cell::default(),
            is_http10: Cell::default(),
            has_asked: Cell::new(has_asked),
            active: Cell::default(),
            sent_all: Cell::default(),
            reader: Cell::default(),
            rest: RefCell::default(),
            told_the_last: Cell::default(),
            idle_since: Cell::new(since),
        }
    }

    /// Goes on with the rest of a request whose answer is over; resolves when
    /// there is none.
    pub fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Its end tells this client that it is idle: it must not be borrowed.
        let Some(mut rest) = self.rest.take() else { return Poll::Ready(()) };
        let polled = rest.as_mut().poll(cx);
        if polled.is_pending() {
            self.rest.replace(Some(rest));
        }
        polled
    }

    /// Gives up what is left of a request.
    pub fn drop_rest(&self) {
        drop(self.rest.take());
    }
}

/// One request and its answer.
pub struct Exchange<N: Net> {
    worker: Rc<Worker<N>>,
    settings: Held,
    client: Rc<Client>,
    method: Method,
    target: Uri,
    version: Version,
    id: Option<HeaderValue>,
    began: Instant,
    connected: Option<Instant>,
    answered: Option<Instant>,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    server: Option<Rc<Pool<N>>>,
    /// Empty for nearly all requests, so it costs no allocation.
    failed: Vec<Attempt>,
    bytes: u64,
    ended: Option<Instant>,
    outcome: Outcome,
}

impl<N: Net> Exchange<N> {
    /// The head of `request` has been read.
    pub fn begin(worker: Rc<Worker<N>>, client: Rc<Client>, request: &Request<Incoming>) -> Self {
        worker.load.request_began();
        client.has_asked.set(true);
        client.active.set(true);
        client.sent_all.set(false);
        let settings = worker.settings();
        if settings.debug {
            worker.log.debug_request(client.address, request);
        }
        Exchange {
            settings,
            client,
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            id: None,
            began: Instant::now(),
            connected: None,
            answered: None,
            status: None,
            reason: None,
            server: None,
            failed: Vec::new(),
            bytes: 0,
            ended: None,
            outcome: Outcome::ClientGone,
            worker,
        }
    }

    /// Who asks, for the forwarded fields.
    pub fn origin(&self) -> Origin<'_> {
        let ip = self.client_ip();
        let trusted = self.settings.trusted_proxies.iter().any(|net| net.contains(&ip));
        Origin { address: &self.client.forwarded_for, trusted }
    }

    /// What holds for this request.
    pub fn settings(&self) -> &Held {
        &self.settings
    }

    /// When the request's head had been read.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// What the request is called.
    pub fn set_id(&mut self, id: HeaderValue) {
        self.id = Some(id);
    }

    /// The client's IP address.
    pub fn client_ip(&self) -> IpAddr {
        self.client.address.ip()
    }

    /// There is a connection to `server`; a fresh one since `connected`.
    pub fn connected(&mut self, server: &Target<N>, connected: Option<Instant>) {
        match connected {
            Some(_) => server.pool.tally.opened.add(1),
            None => server.pool.tally.reused.add(1),
        }
        self.server = Some(server.pool.pool());
        self.connected = connected;
    }

    /// An attempt came to nothing.
    pub fn attempt_failed(&mut self, server: &Target<N>, failure: Failure) {
        server.pool.tally.attempt_failed(failure);
        self.server = None;
        self.failed.push(Attempt {
            server: server.pool.upstream.clone(),
            failure,
            at: Instant::now(),
        });
    }

    /// The answer of a server that was to be retried is the best there is.
    pub fn settle_for(&mut self, server: &Target<N>) {
        self.server = Some(server.pool.pool());
    }

    /// The head of a server's answer is here.
    pub fn answered(&mut self, status: StatusCode, version: Version) {
        self.status = Some(status);
        self.client.is_http10.set(self.version == Version::HTTP_10);
        let now = *self.answered.insert(Instant::now());
        if let Some(pool) = &self.server {
            pool.tally.first_byte.observe(now - self.began);
        }
        if self.settings.debug {
            self.worker.log.debug_answer(status, version);
        }
    }

    /// `lb` answers itself.
    pub fn refused(&mut self, reason: Reason) {
        self.status = Some(reason.status());
        self.reason = Some(reason);
        self.server = None;
        self.worker.load.stats.refused(reason);
    }

    /// Bytes that a client sent through its tunnel.
    pub fn count_sent(&self, bytes: u64) {
        self.worker.load.stats.body_bytes.add(bytes);
    }

    /// Bytes of the answer's body passed on.
    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(pool) = &self.server {
            pool.tally.body_bytes.add(bytes as u64);
        }
    }

    /// What the status page may see of it.
    fn passed(&self, ended: Instant) -> Passed {
        let failed = |attempt: &Attempt| (attempt.server.number, attempt.failure);
        Passed {
            server: self.server.as_ref().map(|pool| pool.upstream.number),
            status: self.status,
            safe: self.method.is_safe(),
            began: self.began,
            took: ended - self.began,
            failed: self.failed.iter().map(failed).collect(),
            outcome: self.outcome,
        }
    }

    /// When the attempt at hand began. The first begins with the request,
    /// which saves a look at the clock.
    pub fn attempt_began(&self) -> Instant {
        if self.failed.is_empty() { self.began } else { Instant::now() }
    }

    /// The whole answer has been read. Returns when.
    pub fn complete(&mut self) -> Instant {
        self.outcome = Outcome::Complete;
        *self.ended.insert(Instant::now())
    }

    /// The client is told that this answer is its connection's last.
    pub fn is_the_last(&self) {
        self.client.told_the_last.set(true);
    }

    /// Whether the server has refused the request: the rest of its body will
    /// not be read.
    pub fn is_refusal(&self) -> bool {
        self.status.is_some_and(|status| status.as_u16() >= 400)
    }

    /// The answer is over and the request is not: `rest` sees to it, with this
    /// exchange in it.
    pub fn goes_on(self: Box<Self>, rest: impl FnOnce(Box<Self>) -> Rest) {
        let client = self.client.clone();
        client.rest.replace(Some(rest(self)));
    }

    /// Whether the client has sent its request to the end.
    pub fn has_sent_all(&self) -> bool {
        self.client.sent_all.get()
    }

    /// The client broke off in the middle of its request.
    pub fn client_broke_off(&mut self) {
        self.outcome = Outcome::ClientGone;
        self.ended = None;
    }

    /// `lb` stops before the answer is over. A client that has had nothing of
    /// it is told nothing, which is no fault of its own.
    fn stopped(&mut self) {
        self.outcome = Outcome::Stopped;
        self.client.must_reset.set(self.status.is_some() && self.version == Version::HTTP_10);
        self.status.get_or_insert(StatusCode::SERVICE_UNAVAILABLE);
    }

    /// The server broke off in the middle of its answer.
    pub fn break_off(&mut self) {
        self.outcome = Outcome::ServerBrokeOff;
        self.client.must_reset.set(self.version == Version::HTTP_10);
    }
}

impl<N: Net> Drop for Exchange<N> {
    fn drop(&mut self) {
        if self.worker.stopped.get() && self.outcome == Outcome::ClientGone {
            self.stopped();
        }
        self.worker.load.request_ended();
        let ended = self.ended.unwrap_or_else(Instant::now);
        self.client.active.set(false);
        self.client.idle_since.set(ended);
        if let Some(reader) = self.client.reader.take() {
            reader.wake();
        }
        let tally = self.server.as_ref().map(|pool| &*pool.tally);
        let took = ended - self.began;
        self.worker.load.stats.request_over(tally, self.status, took, self.outcome);
        if self.worker.tap.is_watched() {
            self.worker.tap.record(self.passed(ended));
        }
        let entry = Entry {
            client: &self.client.text,
            id: self.id.as_ref(),
            method: self.method.as_str(),
            path: self.target.path(),
            query: self.target.query(),
            status: self.status,
            reason: self.reason,
            server: self.server.as_ref().map(|pool| &*pool.upstream),
            failed: &self.failed,
            bytes: self.bytes,
            began: self.began,
            connected: self.connected,
            answered: self.answered,
            ended,
            outcome: self.outcome,
        };
        self.worker.log.request(&entry);
    }
}

/// Logs and counts an answer to a client whose request never became one.
/// It was waited for since `began`.
pub fn log_refusal<N: Net>(worker: &Worker<N>, client: &Client, reason: Reason, began: Instant) {
    let now = Instant::now();
    let stats = &worker.load.stats;
    stats.refused(reason);
    stats.request_over(None, Some(reason.status()), now - began, Outcome::Complete);
    worker.log.request(&Entry {
        client: &client.text,
        id: None,
        method: "-",
        path: "-",
        query: None,
        status: Some(reason.status()),
        reason: Some(reason),
        server: None,
        failed: &[],
        bytes: 0,
        began,
        connected: None,
        answered: None,
        ended: now,
        outcome: Outcome::Complete,
    });
}
