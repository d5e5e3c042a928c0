//! One request as the log tells it, from its head to the last byte back.
//!
//! Owns the counts of requests in flight: an exchange counts from its
//! beginning until it is dropped, however it ends.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use hyper::{Method, Request, StatusCode, Uri, Version, body::Incoming, header::HeaderValue};
use tokio::time::Instant;

use crate::{
    access_log::{Attempt, Entry, Outcome},
    balance::Failure,
    error::Reason,
    net::Net,
    upstream::{Pool, Target},
    worker::Worker,
};

/// A client's connection, as its requests need to know it.
#[derive(Debug)]
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
    /// Whether it has sent a whole request head yet.
    pub has_asked: Cell<bool>,
}

impl Client {
    /// The client at `address`.
    pub fn new(address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let text = address.ip().to_string();
        let forwarded_for =
            HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Client {
            text: address.to_string(),
            address,
            forwarded_for,
            must_reset: Cell::default(),
            has_asked: Cell::default(),
        }
    }
}

/// One request and its answer.
pub struct Exchange<N: Net> {
    worker: Rc<Worker<N>>,
    client: Rc<Client>,
    method: Method,
    target: Uri,
    version: Version,
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
        if worker.shared.debug {
            worker.log.debug_request(client.address, request);
        }
        Exchange {
            client,
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
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

    /// The client's address for `X-Forwarded-For`.
    pub fn forwarded_for(&self) -> &HeaderValue {
        &self.client.forwarded_for
    }

    /// The client's IP address.
    pub fn client_ip(&self) -> IpAddr {
        self.client.address.ip()
    }

    /// There is a connection to `server`.
    pub fn connected(&mut self, server: &Target<N>, reused: bool) {
        self.server = Some(server.pool.pool());
        // A reused connection took no time to connect.
        self.connected = (!reused).then(Instant::now);
    }

    /// An attempt came to nothing.
    pub fn attempt_failed(&mut self, server: &Target<N>, failure: Failure) {
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
        self.answered = Some(Instant::now());
        if self.worker.shared.debug {
            self.worker.log.debug_answer(status, version);
        }
    }

    /// `lb` answers itself.
    pub fn refused(&mut self, reason: Reason) {
        self.status = Some(reason.status());
        self.reason = Some(reason);
        self.server = None;
    }

    /// Bytes of the answer's body passed on.
    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
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

    /// The server broke off in the middle of its answer.
    pub fn break_off(&mut self) {
        self.outcome = Outcome::ServerBrokeOff;
        self.client.must_reset.set(self.version == Version::HTTP_10);
    }
}

impl<N: Net> Drop for Exchange<N> {
    fn drop(&mut self) {
        self.worker.load.request_ended();
        let entry = Entry {
            client: &self.client.text,
            method: &self.method,
            target: &self.target,
            status: self.status,
            reason: self.reason,
            server: self.server.as_ref().map(|pool| &*pool.upstream),
            failed: &self.failed,
            bytes: self.bytes,
            began: self.began,
            connected: self.connected,
            answered: self.answered,
            ended: self.ended.unwrap_or_else(Instant::now),
            outcome: self.outcome,
        };
        self.worker.log.request(&entry);
    }
}
