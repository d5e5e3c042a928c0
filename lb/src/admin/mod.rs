//! The admin API: HTTP and JSON, to look at a running balancer and change it.
//!
//! Owns its sockets, who may ask, and what is said in which words. Decides
//! nothing about servers: every change is [`Control`]'s. It has a thread of
//! its own, so that no question, however long its answer, holds up a request
//! or the acceptor.

mod token;

mod listen;
mod room;

mod guard;
mod router;

mod changes;
mod health;
mod live;
mod metrics;
mod page;
mod recent;
mod servers;

mod body;
mod judge;
mod posted;

mod answer;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use axum::{Extension, Router};
use tokio::{runtime::Builder, sync::oneshot};

use crate::{
    allocator::give_back,
    config::{Api, DEFAULT_API_PORT},
    control::Control,
    metrics::Metrics,
};
use guard::{Entrance, Guard};
use listen::{Listeners, SocketFile};
use live::Live;
use token::Secret;

pub use room::PLACES;
pub use token::Token;

/// What the routes answer from.
#[derive(Debug)]
struct Admin {
    control: Arc<Control>,
    metrics: Metrics,
    guard: Guard,
    stopping: AtomicBool,
    live: Live,
}

impl Admin {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A running admin API. Dropped, it ends, and its Unix socket is removed.
#[derive(Debug)]
pub struct Running {
    admin: Arc<Admin>,
    addr: Option<SocketAddr>,
    socket: Option<SocketFile>,
    /// Behind the file, which goes before the socket does.
    _stop: oneshot::Sender<()>,
}

impl Running {
    /// From now on the balancer is not ready any more.
    pub fn stopping(&self) {
        self.admin.stopping.store(true, Ordering::Relaxed);
    }

    /// What a command has to say to find it, with a blank behind it; nothing
    /// where it is looked for anyway.
    pub fn client_flag(&self) -> String {
        match self.addr {
            Some(addr) if addr.ip() == Ipv4Addr::LOCALHOST && addr.port() == DEFAULT_API_PORT => {
                String::new()
            }
            Some(addr) if addr.ip() == Ipv4Addr::LOCALHOST => {
                format!("--api-port {} ", addr.port())
            }
            _ => format!("--api {self} "),
        }
    }
}

/// Where it is: `127.0.0.1:8000`, or `unix:PATH` if it has only that.
impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addr, &self.socket) {
            (Some(addr), _) => addr.fmt(f),
            (None, Some(socket)) => socket.fmt(f),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

/// Serves the admin API as `api` says, at most `places` connections at one time, until
/// the result is dropped. `None` if it shall not be, or if the default port is taken and
/// nobody asked for it.
///
/// # Errors
/// It cannot listen where it shall, or would listen for others than this
/// machine without a token.
pub fn start(
    api: &Api,
    places: usize,
    control: Arc<Control>,
    metrics: Metrics,
) -> Result<Option<Running>> {
    if api.listen.is_none() && api.socket.is_none() {
        return Ok(None);
    }
    let token = Secret::find(api.token_file.as_deref())?;
    let bound = api.listen.map(|addr| addr.ip());
    if token.current().is_none() && !bound.is_none_or(|address| address.is_loopback()) {
        refuse(bound)?;
    }
    let mut listeners = Listeners::open(api)?;
    let (addr, socket) = (listeners.addr(), listeners.take_socket_file());
    if addr.is_none() && socket.is_none() {
        return Ok(None);
    }
    let guard = Guard { bound, hosts: api.hosts.clone(), token };
    let (stopping, live) = (AtomicBool::new(false), Live::default());
    let admin = Arc::new(Admin { control, metrics, guard, stopping, live });
    let (stop, stopped) = oneshot::channel();
    serve((listeners, places), admin.clone(), stopped)?;
    Ok(Some(Running { admin, addr, socket, _stop: stop }))
}

/// The admin API for a caller in this process: without a socket, and with leave
/// for all that the owner of the Unix socket may do.
pub fn in_process(control: Arc<Control>, metrics: Metrics) -> Router {
    let guard = Guard { bound: None, hosts: Vec::new(), token: Secret::default() };
    let (stopping, live) = (AtomicBool::new(false), Live::default());
    let admin = Arc::new(Admin { control, metrics, guard, stopping, live });
    router::router(admin).layer(Extension(Entrance::Unix))
}

fn refuse(bound: Option<IpAddr>) -> Result<()> {
    let address = bound.map_or_else(String::new, |address| format!(" on {address}"));
    bail!(
        "the admin API{address} could be reached from other machines and needs a token; give one with --api-token-file FILE or LB_API_TOKEN"
    )
}

fn serve(
    (listeners, places): (Listeners, usize),
    admin: Arc<Admin>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listeners = {
        let _entered = runtime.enter();
        listeners.register(places)?
    };
    let router = router::router(admin.clone());
    let body = move || {
        runtime.block_on(async {
            tokio::select! {
                () = listeners.serve(router, &admin.control.cluster) => {}
                () = live::run(&admin) => {}
                () = give_back() => {}
                _ = stopped => {}
            }
        });
    };
    let thread = thread::Builder::new().name("lb-admin".into());
    thread.spawn(body).context("cannot start the admin API's thread")?;
    Ok(())
}
