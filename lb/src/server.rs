//! Assembly: listeners, workers, probers, and the clean stop.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, oneshot},
    task::spawn_local,
};
use tracing::{info, warn};

use crate::{
    accept::Workers,
    access_log::AccessLog,
    admin,
    allocator::give_back,
    care,
    config::Config,
    control::Control,
    metrics::Metrics,
    net::Net,
    serve, service,
    worker::{Shared, Worker},
};

/// Runs the balancer on this thread and its workers until `stop` resolves and
/// what was in flight is finished. `reload` says what to change on the way.
///
/// # Errors
/// It cannot listen, or a thread cannot be started.
pub async fn run<N: Net>(
    net: N,
    config: Config,
    log: Arc<AccessLog>,
    stop: impl Future<Output = ()>,
    reload: impl AsyncFnOnce(Arc<Control>),
) -> Result<()> {
    let listeners = listen(&net, &config)?;
    let (care, charges) = mpsc::unbounded_channel();
    let control = Arc::new(Control::new(config.clone(), care));
    let cluster = control.cluster.clone();
    let shared = Arc::new(Shared::new(&control, config.workers));
    shared.count_tasks();
    let metrics = Metrics::new(control.clone(), shared.clone(), log.clone());
    let api = admin::start(&config.api, config.descriptors, control.clone(), metrics)?;
    let care = care::run(net.clone(), cluster.clone(), charges);
    let caretaker = spawn_local(async {
        tokio::select! {
            () = care => {}
            () = give_back() => {}
        }
    });
    let (workers, finished) = start_workers(&net, &config, &shared, &log)?;
    tokio::pin!(stop);
    let checked = async {
        cluster.checked().await;
        let admin = api.as_ref().map(|api| format!(" admin={api}")).unwrap_or_default();
        log.line(&format!("ready proxy={}{admin}", net.local_addr(&listeners[0])?));
        service::ready();
        if cluster.status().is_empty() {
            warn!("{}", advice(api.as_ref()));
        }
        let accepting = listeners.iter().map(|listener| workers.accept_all(&net, listener));
        tokio::join!(join_all(accepting), reload(control.clone()));
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        biased;
        () = &mut stop => {}
        ended = checked => ended?,
    }
    if let Some(api) = &api {
        api.stopping();
    }
    let drain = control.settings.load().timeouts.drain;
    info!("stopping: finishing what is in flight, for at most {drain:?}");
    service::stopping();
    workers.stop();
    for listener in listeners {
        // From one that is inherited another process accepts.
        if config.inherited.is_empty() {
            workers.accept_waiting(&net, listener).await;
        }
    }
    // Without a sender left, the workers see that nothing more will come.
    drop(workers);
    for worker in finished {
        let _ = worker.await;
    }
    caretaker.abort();
    Ok(())
}

/// What somebody needs to know who has no servers.
fn advice(api: Option<&admin::Running>) -> String {
    let command = match api.map(admin::Running::client_flag) {
        Some(flag) => format!(", or with lb add-server {flag}--url http://HOST:PORT"),
        None => String::new(),
    };
    format!(
        "no server is configured, every request gets a 503: add one with --backend HOST:PORT, in lb.yaml (lb init writes one){command}"
    )
}

/// Listens where the configuration says. Without an address or an inherited
/// socket: on all of IPv4, and of IPv6 where the machine has it.
fn listen<N: Net>(net: &N, config: &Config) -> Result<Vec<N::Listener>> {
    if !config.inherited.is_empty() {
        let inherit = |&fd| net.inherit(fd).with_context(|| format!("cannot listen on fd:{fd}"));
        return config.inherited.iter().map(inherit).collect();
    }
    // Sockets of IPv6 are for that alone.
    let address = config.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_canonical();
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

type Finished = Vec<oneshot::Receiver<()>>;

fn start_workers<N: Net>(
    net: &N,
    config: &Config,
    shared: &Arc<Shared>,
    log: &Arc<AccessLog>,
) -> Result<(Rc<Workers<N>>, Finished)> {
    let mut senders = Vec::new();
    let mut finished = Vec::new();
    for (index, load) in shared.loads.iter().cloned().enumerate() {
        let (sender, orders) = mpsc::unbounded_channel();
        let (done, is_done) = oneshot::channel();
        let (net, shared, log, own_load) = (net.clone(), shared.clone(), log.clone(), load.clone());
        let worker = move || Worker::new(net, shared, own_load, log);
        let end = move || {
            let _ = done.send(());
        };
        if config.workers == 1 {
            // Beside the acceptor: nothing has to change threads.
            let run = serve::run(worker(), orders);
            tokio::task::spawn_local(async {
                run.await;
                end()
            });
        } else {
            start_thread(index, async move || {
                let worker = worker();
                worker.shared.count_tasks();
                serve::run(worker, orders).await;
                end();
            })?;
        }
        senders.push((sender, load));
        finished.push(is_done);
    }
    let workers = Workers::new(senders, shared.clone(), config.max_connections, config.descriptors);
    Ok((workers, finished))
}

/// Runs `body` on a thread with an event loop of its own.
fn start_thread(index: usize, body: impl AsyncFnOnce() + Send + 'static) -> Result<()> {
    let (started, has_started) = std::sync::mpsc::channel();
    let thread = move || match Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            runtime.block_on(body());
        }
        Err(error) => drop(started.send(Err(error))),
    };
    thread::Builder::new().name(format!("lb-worker-{index}")).spawn(thread)?;
    // Whoever ends without a word has panicked.
    let outcome = has_started.recv().map_err(io::Error::other).and_then(|started| started);
    outcome.context("cannot start a worker's event loop")
}
