//! Assembly: listeners, workers, probers, and the clean stop.

use std::{
    cell::Cell,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use hyper::header::HeaderValue;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    access_log::AccessLog,
    cluster::LiveCluster,
    config::Config,
    dealing::Asker,
    health::Prober,
    net::Net,
    serve::{self, Handover},
    upstream::{Pools, Reuse},
    worker::{Load, Shared, Worker},
};

/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs the balancer on this thread and its workers until `stop` resolves and
/// what was in flight is finished.
///
/// # Errors
/// It cannot listen, or a thread cannot be started.
pub async fn run<N: Net>(
    net: N,
    config: Config,
    log: Arc<AccessLog>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let listeners = listen(&net, &config)?;
    let cluster =
        Arc::new(LiveCluster::new(&config.servers, config.dealing.algorithm, config.when_all_down));
    let probers = start_probers(&net, &config, &cluster);
    let (workers, finished) = start_workers(&net, &config, &cluster, &log)?;
    tokio::pin!(stop);
    let checked = async {
        cluster.checked().await;
        log.line(&format!("ready proxy={}", net.local_addr(&listeners[0])?));
        if config.servers.is_empty() {
            warn!(
                "no server is configured, every request gets a 503: add one with --backend HOST:PORT"
            );
        }
        let accepting = listeners.iter().map(|listener| accept_all(&net, listener, &workers));
        join_all(accepting).await;
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        () = &mut stop => {}
        ended = checked => ended?,
    }
    for listener in listeners {
        accept_waiting(&net, listener, &workers).await;
    }
    info!("stopping: finishing what is in flight, for at most {:?}", config.timeouts.drain);
    // Without a sender left, the workers see that nothing more will come.
    drop(workers);
    for worker in finished {
        let _ = worker.await;
    }
    drop(probers);
    Ok(())
}

/// Listens where the configuration says. Without an address: on all of IPv4,
/// and of IPv6 where the machine has it.
fn listen<N: Net>(net: &N, config: &Config) -> Result<Vec<N::Listener>> {
    let address = config.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let first = listen_on(net, SocketAddr::new(address, config.port))?;
    if config.bind.is_some() {
        return Ok(vec![first]);
    }
    let port = net.local_addr(&first)?.port();
    match net.listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        Ok(second) => Ok(vec![first, second]),
        Err(error) => {
            warn!("not listening on IPv6: [::]:{port}: {error}");
            Ok(vec![first])
        }
    }
}

fn listen_on<N: Net>(net: &N, address: SocketAddr) -> Result<N::Listener> {
    let port = address.port();
    let error = match net.listen(address) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            bail!(
                "cannot listen on {address}: port {port} is taken; choose another with --port, or --port 0 for any free one"
            )
        }
        io::ErrorKind::PermissionDenied => {
            bail!(
                "cannot listen on {address}: port {port} needs rights that this process lacks; choose one above 1023 with --port"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            bail!("cannot listen on {address}: this machine does not have that address; see --bind")
        }
        _ => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

fn start_probers<N: Net>(net: &N, config: &Config, cluster: &Arc<LiveCluster>) -> JoinSet<()> {
    let mut probers = JoinSet::new();
    let servers = cluster.servers();
    let count = servers.len() as f64;
    for (index, ((id, upstream), server)) in servers.into_iter().zip(&config.servers).enumerate() {
        let prober = Prober {
            net: net.clone(),
            cluster: cluster.clone(),
            id,
            upstream,
            check: server.health.clone(),
            phase: index as f64 / count,
        };
        probers.spawn_local(prober.run());
    }
    probers
}

/// Where accepted connections go: the least loaded worker.
struct Workers<N: Net> {
    each: Vec<(mpsc::UnboundedSender<Handover<N>>, Arc<Load>)>,
    shared: Arc<Shared>,
    max_connections: usize,
    turn: Cell<usize>,
}

impl<N: Net> Workers<N> {
    /// Waits until one more connection is allowed.
    async fn room(&self) {
        let connections = || self.each.iter().map(|(_, load)| load.connections()).sum::<usize>();
        while connections() >= self.max_connections {
            let closed = self.shared.connection_closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if connections() >= self.max_connections {
                closed.await;
            }
        }
    }

    fn hand_over(&self, connection: Handover<N>) {
        // Ties go round, or short connections would all go to the first.
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let count = self.each.len();
        let order = (0..count).map(|index| index.wrapping_add(turn) % count);
        let Some(least) = order.min_by_key(|&index| self.each[index].1.connections()) else {
            return;
        };
        let (sender, load) = &self.each[least];
        load.connection_assigned();
        // A worker that is gone takes its connections with it.
        let _ = sender.send(connection);
    }
}

type Finished = Vec<oneshot::Receiver<()>>;

fn start_workers<N: Net>(
    net: &N,
    config: &Config,
    cluster: &Arc<LiveCluster>,
    log: &Arc<AccessLog>,
) -> Result<(Workers<N>, Finished)> {
    let loads: Box<[Arc<Load>]> = (0..config.workers).map(|_| Arc::default()).collect();
    let period = config.servers.iter().map(|server| server.health.period).min();
    let retry_after = period.unwrap_or(Duration::from_secs(10)).as_secs().max(1);
    let shared = Arc::new(Shared {
        cluster: cluster.clone(),
        timeouts: config.timeouts,
        retry_status: config.retry_status.clone(),
        reuse_for_posts: if config.fresh_posts { Reuse::Never } else { Reuse::Recent },
        debug: config.debug,
        retry_after: HeaderValue::from(retry_after),
        loads: loads.clone(),
        connection_closed: Notify::new(),
        retries: AtomicUsize::new(0),
        retry_over: Notify::new(),
    });
    let mut senders = Vec::new();
    let mut finished = Vec::new();
    for (index, load) in loads.into_iter().enumerate() {
        let (sender, handovers) = mpsc::unbounded_channel();
        let (done, is_done) = oneshot::channel();
        let (net, shared, log, own_load) = (net.clone(), shared.clone(), log.clone(), load.clone());
        let asker = Asker::new(config.dealing.clone());
        let (started, has_started) = std::sync::mpsc::channel();
        let body = move || {
            let runtime =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let _ = started.send(runtime.as_ref().err().map(io::Error::kind));
            let Ok(runtime) = runtime else { return };
            let pools = Pools::new(net.clone());
            let worker = Worker { net, shared, asker, load: own_load, pools, log };
            runtime.block_on(serve::run(worker, handovers));
            let _ = done.send(());
        };
        thread::Builder::new().name(format!("lb-worker-{index}")).spawn(body)?;
        if let Ok(Some(error)) = has_started.recv() {
            return Err(io::Error::from(error)).context("cannot start a worker's event loop");
        }
        senders.push((sender, load));
        finished.push(is_done);
    }
    let max_connections = config.max_connections;
    Ok((Workers { each: senders, shared, max_connections, turn: Cell::new(0) }, finished))
}

/// Accepts connections for ever, and hands them over.
async fn accept_all<N: Net>(net: &N, listener: &N::Listener, workers: &Workers<N>) {
    loop {
        workers.room().await;
        match net.accept(listener).await {
            Ok(connection) => workers.hand_over(connection),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Accepts those who were already waiting: closing the listener would reset them.
async fn accept_waiting<N: Net>(net: &N, listener: N::Listener, workers: &Workers<N>) {
    while let Ok(Ok(connection)) = timeout(Duration::ZERO, net.accept(&listener)).await {
        workers.hand_over(connection);
    }
}

/// A connection that was reset while it waited is nobody's loss; being out of
/// descriptors or memory is waited out.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, NotConnected};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected) {
        warn!("cannot accept connections: {error}; trying again in {ACCEPT_PAUSE:?}");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
