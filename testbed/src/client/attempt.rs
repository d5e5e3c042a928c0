//! One request in the log: sent, then answered or failed, never neither.
//!
//! Owns the bookkeeping of a request from its nonce to its outcome, also when
//! its future is dropped half way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;

use super::reply::{ClientError, Reply};
use super::{Client, Request};
use crate::event::excerpt;
use crate::log::{EventKind, EventLog};
use crate::net::Net;

pub(super) struct Attempt {
    log: EventLog,
    client: Arc<str>,
    nonce: u64,
    method: Arc<str>,
    timeout: Duration,
    /// The answer's status once its head is read.
    pub(super) status: Option<u16>,
    /// What has been read of the answer's head, at most an excerpt.
    pub(super) head: Arc<[u8]>,
    /// Whether the outcome is logged.
    settled: bool,
}

impl Attempt {
    /// Gives the request a nonce and logs it as sent.
    pub(super) fn new<N: Net>(client: &Client<N>, request: &Request) -> Self {
        let attempt = Self {
            log: client.log.clone(),
            client: Arc::clone(&client.name),
            nonce: client.log.next_nonce(),
            method: request.method().into(),
            timeout: client.timeout,
            status: None,
            head: Arc::default(),
            settled: false,
        };
        attempt.log.record(EventKind::Sent {
            client: Arc::clone(&attempt.client),
            nonce: attempt.nonce,
            method: Arc::clone(&attempt.method),
            target: request.target().to_owned(),
            body: request.digest(),
            head: excerpt(request.head(&client.host(), attempt.nonce).as_bytes()),
        });
        attempt
    }

    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }

    pub(super) fn method(&self) -> Arc<str> {
        Arc::clone(&self.method)
    }

    pub(super) fn note(&self, what: impl fmt::Display) {
        let (client, nonce) = (&self.client, self.nonce);
        self.log.note(format!("client={client} nonce={nonce} {what}"));
    }

    /// Logs the outcome of a whole exchange.
    pub(super) fn settle<T>(
        mut self,
        result: Result<Result<(Reply, T), ClientError>, Elapsed>,
    ) -> Result<(Reply, T), ClientError> {
        let (reply, rest) = self.in_time(result)?;
        self.answered(&reply);
        Ok((reply, rest))
    }

    /// Logs a failed start; a good one is settled later.
    pub(super) fn settle_start<T>(
        &mut self,
        result: Result<Result<T, ClientError>, Elapsed>,
    ) -> Result<T, ClientError> {
        self.in_time(result)
    }

    fn in_time<T>(
        &mut self,
        result: Result<Result<T, ClientError>, Elapsed>,
    ) -> Result<T, ClientError> {
        let late = |_| Err(ClientError::TimedOut(self.timeout));
        let result = result.unwrap_or_else(late);
        if let Err(error) = &result {
            self.failed(error.to_string());
        }
        result
    }

    fn answered(&mut self, reply: &Reply) {
        self.settled = true;
        self.log.record(EventKind::Answered {
            client: Arc::clone(&self.client),
            nonce: self.nonce,
            status: reply.status,
            backend: reply.backend.as_deref().map(Arc::from),
            echo: reply.number("x-nonce"),
            received: reply.number("x-received"),
            promised: reply.number("x-body"),
            body: reply.digest(),
            head: Arc::clone(&self.head),
        });
    }

    fn failed(&mut self, error: String) {
        self.settled = true;
        self.log.record(EventKind::Failed {
            client: Arc::clone(&self.client),
            nonce: self.nonce,
            status: self.status,
            error,
            head: Arc::clone(&self.head),
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.settled {
            self.failed("aborted by the client".to_owned());
        }
    }
}
