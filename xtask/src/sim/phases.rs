//! The phases of a run, wherever it is played: faults, healing, strict rotation
//! again, idleness.
//!
//! Owns their order and the clients. What happens when is
//! [`super::operations`]'s; who starts and ends `lb`, the caller.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, Result};
use testbed::{backend::Backend, client::Client, log::EventLog, net::Net};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep, sleep_until},
};

use super::{
    config,
    operations::{Done, Reach, Stage, carry_out},
    plan::Plan,
    random::{Stream, stream},
    workload::{self, Asker},
};

/// How long connections that nobody uses are left to be closed: `lb` keeps
/// them for 4 s, and looks once a second.
const IDLE: Duration = Duration::from_secs(6);

/// How many requests each client sends at the end.
const LAST_REQUESTS: usize = 10;

/// What was done.
pub(crate) struct Played {
    /// The operations as they were carried out.
    pub(crate) done: Vec<Done>,
    /// The number of the first event of the time when all is as at first.
    pub(crate) strict: u64,
}

/// Plays `plan` to its end, when nobody has asked for anything for a while.
/// Clients ask `lb` from `hosts`. Call on a thread with a local task set.
///
/// # Errors
/// A client panics, or the harness fails.
pub(crate) async fn play<N: Net>(
    plan: &Plan,
    (log, began): (&EventLog, Instant),
    (lb, hosts): (SocketAddr, Vec<N>),
    backends: &[Backend],
    stage: &impl Stage,
) -> Result<Played> {
    let stop = Rc::new(Cell::new(false));
    let (aborts, working) = clients(plan, log, (lb, hosts), &stop);
    let reach = Reach { backends, stage, aborts };
    let done = carry_out(plan, (log, began), &reach).await?;
    sleep_until(Instant::now() + config::recovery(plan, &done)).await;
    stop.set(true);
    let mut clients = Vec::new();
    for client in working {
        clients.push(client.await.context("a client panicked")?);
    }
    let strict = log.len();
    let last = clients.into_iter().map(|asker| spawn_local(asker.last(LAST_REQUESTS)));
    for client in last.collect::<Vec<_>>() {
        client.await.context("a client panicked")?;
    }
    sleep(IDLE).await;
    Ok(Played { done, strict })
}

type Working<N> = (Vec<Rc<Notify>>, Vec<JoinHandle<Asker<N>>>);

/// Starts the clients; returns what makes each give up its request, too.
fn clients<N: Net>(
    plan: &Plan,
    log: &EventLog,
    (lb, hosts): (SocketAddr, Vec<N>),
    stop: &Rc<Cell<bool>>,
) -> Working<N> {
    let with_hosts = plan.clients.iter().zip(hosts).enumerate();
    let start = with_hosts.map(|(index, (client, host))| {
        let random = stream(plan.seed, Stream::Client, workload::number(client, index));
        let connection = Client::on(host, &client.name, lb, log);
        let abort = Rc::new(Notify::new());
        let asker = Asker::new(client.clone(), connection, random, abort.clone());
        (abort, spawn_local(asker.work(stop.clone())))
    });
    start.unzip()
}
