//! One connection's bytes through `lb`, in virtual time: for whoever wants to
//! know what becomes of arbitrary bytes, thousands of times a minute.
//!
//! Owns a network with one server and one client. Judges nothing.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use lb::output::Output;
use testbed::{
    backend::Backend,
    fault::Fault,
    log::{Event, EventLog},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::Notify,
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    config::{self, PORT},
    host::Host,
    network::{Link, Network},
    plan::Plan,
    random::{Stream, stream},
    run::{Balancer, LB, virtual_time},
};

/// One way. Longer than it takes anybody to do something.
const LATENCY: Duration = Duration::from_millis(1);

/// Longer than every timeout of `lb`: a connection that is still open then will
/// not be closed.
const FOR_EVER: Duration = Duration::from_secs(600);

/// What the client does, and the server.
pub(crate) struct Exchange<'a> {
    /// What the client writes, a piece at a time.
    pub(crate) pieces: Vec<&'a [u8]>,
    /// Whether it says then that there is no more.
    pub(crate) finishes: bool,
    /// What the server answers the first request with.
    pub(crate) fault: Fault,
    /// What the client writes when it has read this much: an answer's end.
    pub(crate) next: Option<Next<'a>>,
}

/// What comes once there is a whole answer.
pub(crate) struct Next<'a> {
    /// Whether these bytes have a whole answer in them.
    pub(crate) when: &'a dyn Fn(&[u8]) -> bool,
    /// What is written then; the server answers it as it should.
    pub(crate) bytes: &'a [u8],
}

/// What became of it.
pub(crate) struct Outcome {
    /// All that the client read, until `lb` closed the connection.
    pub(crate) read: Vec<u8>,
    /// How much of it had come before the next bytes were written, if they were.
    pub(crate) first: Option<usize>,
    /// What happened at the server.
    pub(crate) events: Vec<Event>,
}

impl Exchange<'_> {
    /// Carries it out, and sees that nothing of it is left.
    ///
    /// # Errors
    /// The connection is never closed, something is left in flight, or the
    /// harness fails.
    pub(crate) fn carry_out(&self, seed: u64) -> Result<Outcome> {
        let plan = Plan::parse(PLAN)?;
        fastrand::seed(stream(seed, Stream::Balancer, 0).u64(..));
        let link = Link { latency: LATENCY, jitter: Duration::ZERO, loss: 0, cuts: 0 };
        let client = "10.0.2.1".parse()?;
        let addresses = [LB, config::address(0).ip(), client];
        let random = stream(seed, Stream::Network, 0);
        // The network outlives the sockets, which the runtime owns.
        let (network, hosts) = Network::new(&addresses, link, plan.network.mtu, random);
        let runtime = virtual_time()?;
        runtime.block_on(self.run(&plan, network.clone(), &hosts))
    }

    async fn run(&self, plan: &Plan, network: Arc<Network>, hosts: &[Host]) -> Result<Outcome> {
        spawn_local(network.run());
        let log = EventLog::new();
        let server = Backend::builder("A").bind(config::address(0));
        let server = server.start_on(hosts[1].clone(), &log).await?;
        let (host, config) = (hosts[0].clone(), config::first(plan));
        let mut lb = Balancer::start(host, config, &Output::in_memory()).await?;
        server.set_fault(self.fault.clone());
        let conversed = timeout(FOR_EVER, self.converse(&hosts[2], &server)).await;
        let (read, first) = conversed.context("the connection is never closed")??;
        lb.stop().await?;
        for status in lb.control.cluster.status() {
            ensure!(status.in_flight == 0, "{} in flight at the end", status.in_flight);
        }
        Ok(Outcome { read, first, events: log.events() })
    }

    async fn converse(&self, host: &Host, server: &Backend) -> Result<(Vec<u8>, Option<usize>)> {
        let stream = lb::net::Net::connect(host, SocketAddr::new(LB, PORT)).await?;
        let (mut reader, mut writer) = split(stream);
        let answered = Rc::new(Notify::new());
        let write = {
            let answered = answered.clone();
            async move {
                for piece in &self.pieces {
                    // Whoever answers before the end may close as well.
                    let _ = writer.write_all(piece).await;
                    sleep(3 * LATENCY).await;
                }
                if let Some(next) = &self.next {
                    answered.notified().await;
                    let _ = writer.write_all(next.bytes).await;
                } else if self.finishes {
                    let _ = writer.shutdown().await;
                }
                writer
            }
        };
        let read = async {
            let (mut read, mut first) = (Vec::new(), None);
            // A reset is an end like any other.
            while reader.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
                let next = self.next.as_ref().filter(|_| first.is_none());
                if next.is_some_and(|next| (next.when)(&read)) {
                    first = Some(read.len());
                    server.clear();
                    answered.notify_one();
                }
            }
            answered.notify_one();
            (read, first)
        };
        let (read, _writer) = tokio::join!(read, write);
        Ok(read)
    }
}

/// One server, one client and no faults.
const PLAN: &str = "\
seed = 0
faults_ms = 0
servers = [{ name = \"A\" }]
clients = [{ name = \"c\", pause_ms = 0, posts = 0, body = 0 }]
";
