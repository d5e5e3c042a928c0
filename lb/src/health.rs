//! Drives the probes of the core's health state machines.
//!
//! One task a server, each on its own timer: a server that hangs delays no
//! other. Owns when and how a probe is sent; what its result means is the
//! core's to say.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, warn};

use crate::{
    balance::ServerId,
    cluster::LiveCluster,
    config::{Authority, HealthCheck},
    net::{Net, is_local, lacks_descriptors},
    upstream::{Lookup, Upstream, connect_any},
};

/// How much earlier the second probes are than a period after the first, at
/// most, so that servers are not all probed in the same moment.
const SPREAD: f64 = 0.1;

/// When to probe again after this machine was out of descriptors or the like.
const LOCAL_RETRY: Duration = Duration::from_millis(200);

/// How much of a probe's answer is read, out of courtesy: a server whose
/// answer is cut off may log an error.
const COURTESY_BYTES: usize = 64 * 1024;

/// One server's probes.
pub struct Prober<N: Net> {
    /// The network.
    pub net: N,
    /// Takes the results.
    pub cluster: Arc<LiveCluster>,
    /// The server.
    pub id: ServerId,
    /// The server.
    pub upstream: Arc<Upstream>,
    /// Which share of the spread is this server's, from 0 to 1.
    pub phase: f64,
}

impl<N: Net> Prober<N> {
    /// Probes the server for as long as it is configured, as its check says at
    /// the time.
    ///
    /// The first probe is sent at once, the second up to a tenth of a period
    /// early, each further one exactly a period after the one before; all of
    /// them at once when the request path has a suspicion.
    pub async fn run(self) {
        let mut shortened = 1.0 - SPREAD * self.phase;
        let mut lacking_since: Option<Instant> = None;
        let mut lookup = Lookup::new(self.net.clone(), self.upstream.clone());
        while let Some(epoch) = self.cluster.epoch(self.id) {
            let check = self.upstream.check.load_full();
            let period = check.period.mul_f64(std::mem::replace(&mut shortened, 1.0));
            let began = Instant::now();
            let since = lacking_since.filter(|_| self.cluster.is_unchecked(self.id));
            let limit = since.unwrap_or(began) + check.timeout;
            let (result, answer) = match timeout_at(limit, self.ask(&check, &mut lookup)).await {
                Ok(Ok(answer)) => (Ok(answer.status().as_u16()), Some(answer)),
                Ok(Err(error)) => (Err(error), None),
                Err(_) => (Err(io::ErrorKind::TimedOut.into()), None),
            };
            let mut next = began + period;
            if let Err(error) = &result
                && is_local(error)
            {
                // No result: this machine could not ask.
                next = began + period.min(LOCAL_RETRY);
                let since = *lacking_since.get_or_insert(began);
                if self.may_wait(error, (since, began), &check) {
                    sleep_until(next).await;
                    continue;
                }
            } else {
                lacking_since = None;
            }
            if !Arc::ptr_eq(&check, &self.upstream.check.load()) {
                // The answer to a question that is no longer asked.
                continue;
            }
            self.report(&check, epoch, result, began.elapsed());
            if let Some(answer) = answer {
                let _ = timeout_at(limit, finish(answer)).await;
            }
            let _ = timeout_at(next, self.upstream.probe_now.notified()).await;
        }
    }

    /// Whether a probe that this machine lacks something for, for the first time at
    /// `since`, can wait until it is there. The first result of all cannot for longer
    /// than the check's timeout: `lb` begins with it.
    fn may_wait(
        &self,
        error: &io::Error,
        (since, began): (Instant, Instant),
        check: &HealthCheck,
    ) -> bool {
        if since == began {
            warn!("server={} cannot be probed: {error}", self.upstream.name.load());
        }
        if lacks_descriptors(error) {
            self.cluster.want_descriptors();
        }
        let soon = lacks_descriptors(error) && began < since + check.timeout;
        soon || !self.cluster.is_unchecked(self.id)
    }

    fn report(&self, check: &HealthCheck, epoch: u64, result: io::Result<u16>, latency: Duration) {
        let (passed, detail) = match result {
            Ok(status) => (check.expect.contains(status), status.to_string()),
            Err(error) => (false, error.to_string()),
        };
        debug!(
            "server={} probe={} detail=\"{detail}\" latency_ms={:.3}",
            self.upstream.name.load(),
            if passed { "passed" } else { "failed" },
            latency.as_secs_f64() * 1000.0,
        );
        self.cluster.handle_probe((self.id, &self.upstream), epoch, passed, &detail, latency);
    }

    /// Sends one probe on a connection of its own.
    async fn ask(
        &self,
        check: &HealthCheck,
        lookup: &mut Lookup<N>,
    ) -> io::Result<Response<Incoming>> {
        let stream = self.connect(check, lookup).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Its errors reach the request.
            let _ = connection.await;
        });
        sender.send_request(self.request(check)?).await.map_err(io::Error::other)
    }

    fn request(&self, check: &HealthCheck) -> io::Result<Request<Empty<Bytes>>> {
        let probed = check.port.map(|port| Authority { port, ..self.upstream.authority.clone() });
        let host = probed.map_or_else(|| self.upstream.host.clone(), |at| at.to_host_header());
        Request::get(check.path.as_str())
            .header(header::HOST, host)
            .header(
                header::USER_AGENT,
                concat!("lb/", env!("CARGO_PKG_VERSION"), " (health check)"),
            )
            .header(header::CONNECTION, "close")
            .body(Empty::new())
            .map_err(io::Error::other)
    }

    /// Connects to where the server is known to be, and looks its name up
    /// anew beside it: a resolver that hangs or fails takes nobody out. What
    /// it finds in time counts at once.
    async fn connect(&self, check: &HealthCheck, lookup: &mut Lookup<N>) -> io::Result<N::Stream> {
        lookup.begin();
        let known = self.upstream.addresses.load_full();
        if known.is_empty() {
            lookup.ended().await?;
            return self.dial(check, &self.upstream.addresses.load_full()).await;
        }
        let mut dialled = pin!(self.dial(check, &known));
        let failure = tokio::select! {
            biased;
            dialled = &mut dialled => match dialled {
                Ok(stream) => return Ok(stream),
                Err(error) => Some(error),
            },
            _ = lookup.ended(), if lookup.is_under_way() => None,
        };
        if failure.is_some() {
            // It may have moved, and the resolver be about to say where to.
            let _ = timeout(check.timeout / 2, lookup.ended()).await;
        }
        let found = self.upstream.addresses.load_full();
        match failure {
            _ if found != known => self.dial(check, &found).await,
            Some(error) => Err(error),
            None => dialled.await,
        }
    }

    async fn dial(&self, check: &HealthCheck, known: &[SocketAddr]) -> io::Result<N::Stream> {
        let patience = self.upstream.governor.patience();
        let Some(port) = check.port else {
            return connect_any(&self.net, known, patience, check.timeout).await;
        };
        let probed: Vec<_> = known.iter().map(|at| SocketAddr::new(at.ip(), port)).collect();
        connect_any(&self.net, &probed, patience, check.timeout).await
    }
}

/// Reads the rest of a probe's answer, if it is short.
async fn finish(answer: Response<Incoming>) {
    let mut body = answer.into_body();
    let mut left = COURTESY_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}
