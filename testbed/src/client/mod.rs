//! A client that tells the log what it asked and what it got.
//!
//! Owns one keep-alive connection to what is under test, and the rule that
//! nothing is ever sent twice: an error after the first byte was written is a
//! failure. Never judges an answer beyond its framing: see [`crate::ledger`].
//! Called by scenarios.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::http1::Inbox;
use crate::log::{EventKind, EventLog};
use crate::net::{Loopback, Net};
use attempt::Attempt;
use reading::Reader;

pub use reply::{ClientError, Reply};
pub use request::Request;

mod attempt;
mod reading;
mod reply;
mod request;

/// How long a request takes at most, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// A client with at most one connection and one request at a time.
pub struct Client<N: Net = Loopback> {
    name: Arc<str>,
    addr: SocketAddr,
    log: EventLog,
    net: N,
    /// The connection, while it is whole and nobody awaits an answer on it.
    kept: Option<N::Stream>,
    fresh: bool,
    timeout: Duration,
}

/// A request that is written and whose answer is not read yet. Dropped, it
/// closes the connection and is logged as failed.
#[must_use = "the answer is read by `read`"]
pub struct Pending<'c, N: Net = Loopback> {
    client: &'c mut Client<N>,
    stream: N::Stream,
    attempt: Attempt,
}

impl Client {
    /// A client of `addr` on real sockets. Connects when it first has to.
    pub fn new(name: &str, addr: SocketAddr, log: &EventLog) -> Self {
        Self::on(Loopback, name, addr, log)
    }
}

impl<N: Net> Client<N> {
    /// A client of `addr` on `net`. Connects when it first has to.
    pub fn on(net: N, name: &str, addr: SocketAddr, log: &EventLog) -> Self {
        Self {
            name: name.into(),
            addr,
            log: log.clone(),
            net,
            kept: None,
            fresh: false,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Its name in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether each request gets a new connection. Default false.
    pub fn fresh(&mut self, fresh: bool) {
        self.fresh = fresh;
    }

    /// How long a request takes at most, from connect to the answer's end.
    /// Default [`DEFAULT_TIMEOUT`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Closes the connection with a FIN, if there is one.
    pub fn close(&mut self) {
        self.kept = None;
    }

    /// Whether a connection is kept. It may have been closed from afar.
    pub fn is_connected(&self) -> bool {
        self.kept.is_some()
    }

    /// GETs `target`.
    ///
    /// # Errors
    /// If no whole answer is read: see [`ClientError`].
    pub async fn get(&mut self, target: &str) -> Result<Reply, ClientError> {
        self.send(Request::new("GET", target)).await
    }

    /// POSTs `body` to `target`.
    ///
    /// # Errors
    /// If no whole answer is read: see [`ClientError`].
    pub async fn post(
        &mut self,
        target: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<Reply, ClientError> {
        self.send(Request::new("POST", target).body(body)).await
    }

    /// Sends a request and reads the answer, both at the same time.
    ///
    /// # Errors
    /// If no whole answer is read: see [`ClientError`].
    pub async fn send(&mut self, request: Request) -> Result<Reply, ClientError> {
        let mut attempt = Attempt::new(self, &request);
        let time = self.timeout;
        let whole = self.exchange(&request, &mut attempt);
        let result = timeout(time, whole).await;
        let (reply, stream) = attempt.settle(result)?;
        self.keep(stream, &reply);
        Ok(reply)
    }

    /// Writes a request whole; the answer is read later. For requests that fit
    /// into socket buffers: nothing is read meanwhile.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn start(&mut self, request: Request) -> Result<Pending<'_, N>, ClientError> {
        let mut attempt = Attempt::new(self, &request);
        let time = self.timeout;
        let write = async {
            let mut stream = self.connection().await?;
            let bytes = request.bytes(&self.host(), attempt.nonce());
            stream.write_all(&bytes).await.map_err(ClientError::Write)?;
            Ok(stream)
        };
        let result = timeout(time, write).await;
        let stream = attempt.settle_start(result)?;
        Ok(Pending { client: self, stream, attempt })
    }

    /// Writes a request whole and closes the connection at once, as a client
    /// that has lost its patience. Logged as failed. Returns the nonce.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn send_and_abort(&mut self, request: Request) -> Result<u64, ClientError> {
        let pending = self.start(request).await?;
        Ok(pending.nonce())
    }

    /// Sends raw bytes on a new connection and reads until the other side
    /// closes; nothing is added and nothing is checked.
    /// The timeout ends it too, with what was read by then.
    ///
    /// # Errors
    /// If it cannot connect.
    pub async fn raw(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ClientError> {
        self.log.record(EventKind::wrote(&self.name, bytes));
        let connect = self.net.connect(self.addr);
        let mut stream = connect.await.map_err(ClientError::Connect)?;
        let mut inbox = Inbox::default();
        let talk = async {
            // Whoever answers before the end of a request may close as well.
            let _ = stream.write_all(bytes).await;
            while let Ok(1..) = inbox.fill(&mut stream).await {}
        };
        let _ = timeout(self.timeout, talk).await;
        self.log.record(EventKind::read(&self.name, inbox.data()));
        Ok(inbox.data().to_vec())
    }

    async fn exchange(
        &mut self,
        request: &Request,
        attempt: &mut Attempt,
    ) -> Result<(Reply, N::Stream), ClientError> {
        let mut stream = self.connection().await?;
        let bytes = request.bytes(&self.host(), attempt.nonce());
        let reply = Self::converse(&mut stream, request, bytes, attempt).await?;
        Ok((reply, stream))
    }

    /// Writes and reads at the same time.
    async fn converse(
        stream: &mut N::Stream,
        request: &Request,
        bytes: Vec<u8>,
        attempt: &mut Attempt,
    ) -> Result<Reply, ClientError> {
        let (read, write) = tokio::io::split(stream);
        let write = request.write(bytes, write);
        let read = Reader::new(read, attempt).paced(request.read_pace);
        let read = read.reply(request.method());
        tokio::pin!(write, read);
        let mut written: Option<io::Result<()>> = None;
        let reply = loop {
            tokio::select! {
                biased;
                done = &mut write, if written.is_none() => written = Some(done),
                reply = &mut read => break reply,
            }
        };
        match (reply, written) {
            // An answer to half a request leaves the connection in the middle.
            (Ok(reply), Some(Ok(()))) => Ok(reply),
            (Ok(reply), _) => Ok(Reply { reusable: false, ..reply }),
            // The reason why nothing came may be that nothing went.
            (Err(ClientError::NoAnswer(read)), Some(Err(error))) => {
                let text = format!("{error}, then {read}");
                Err(ClientError::Write(io::Error::new(error.kind(), text)))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The kept connection if it is still good, else a new one.
    async fn connection(&mut self) -> Result<N::Stream, ClientError> {
        let kept = self.kept.take().filter(|_| !self.fresh);
        if let Some(stream) = kept.filter(|stream| self.net.is_quiet(stream)) {
            return Ok(stream);
        }
        let connect = self.net.connect(self.addr);
        connect.await.map_err(ClientError::Connect)
    }

    fn keep(&mut self, stream: N::Stream, reply: &Reply) {
        self.kept = (reply.reusable && !self.fresh).then_some(stream);
    }

    fn host(&self) -> String {
        self.addr.to_string()
    }
}

impl<N: Net> Pending<'_, N> {
    /// The request's nonce.
    pub fn nonce(&self) -> u64 {
        self.attempt.nonce()
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// If no whole answer is read: see [`ClientError`].
    pub async fn read(self) -> Result<Reply, ClientError> {
        let (client, mut stream, mut attempt) = (self.client, self.stream, self.attempt);
        let method = attempt.method();
        let whole = async {
            let reply = Reader::new(&mut stream, &mut attempt).reply(&method).await?;
            Ok((reply, ()))
        };
        let result = timeout(client.timeout, whole).await;
        let (reply, ()) = attempt.settle(result)?;
        client.keep(stream, &reply);
        Ok(reply)
    }
}

impl<N: Net> fmt::Debug for Client<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} of {})", self.name, self.addr)
    }
}
