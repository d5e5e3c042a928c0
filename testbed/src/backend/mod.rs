//! A server that can be killed, revived and broken.
//!
//! Owns the handle through which a scenario commands a backend. The backend
//! itself is a task (`supervisor`) with a task for each connection
//! (`connection`); they know no scenario, and no balancer. Everything that
//! happens to a backend is in its [`EventLog`].
//!
//! A normal answer is 200 with the backend's text, or what the query asks for:
//! `?size=N` (a pattern of N bytes that follows from the nonce), `&chunked=1`,
//! `?echo=1` (the request's body, as it comes), `?status=N`. It says who
//! answered (`X-Backend`), which request (`X-Nonce`), what body was read
//! (`X-Received`) and what body is meant (`X-Body`); an echo says only the
//! first two.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::fault::{Fault, Health};
use crate::log::{EventKind, EventLog};
use crate::net::{Loopback, Net};
use shared::Shared;
use supervisor::{Command, Supervisor};

mod act;
mod answer;
mod connection;
mod flood;
mod probe;
mod request_body;
mod shared;
mod supervisor;

/// A handle on a backend; clones share it. With the last one the backend ends.
#[derive(Clone)]
pub struct Backend {
    inner: Arc<Inner>,
}

/// What a backend is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    bind: SocketAddr,
    health_path: String,
    health: Health,
    body: Vec<u8>,
    fault: Fault,
    armed: Vec<(Fault, u64)>,
    down: bool,
}

struct Inner {
    shared: Arc<Shared>,
    addr: SocketAddr,
    commands: mpsc::UnboundedSender<Command>,
}

impl Backend {
    /// A backend of this name on any free port of 127.0.0.1, healthy at
    /// `/health`, that says `Hello From NAME`.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            bind: (Ipv4Addr::LOCALHOST, 0).into(),
            health_path: "/health".to_owned(),
            health: Health::default(),
            body: format!("Hello From {name}\n").into_bytes(),
            fault: Fault::None,
            armed: Vec::new(),
            down: false,
        }
    }

    /// Its name, which it says in `X-Backend`.
    pub fn name(&self) -> &str {
        &self.inner.shared.name
    }

    /// Where it listens, or will again.
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.inner.addr.port()
    }

    /// `http://ADDR`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.addr)
    }

    /// Closes the listener and resets all connections, as when its process is
    /// killed. On return connects are refused and `Killed` is the backend's
    /// last event.
    pub async fn kill(&self) {
        let (done, killed) = oneshot::channel();
        self.command(Command::Kill(done));
        // Without a supervisor there is nothing left to kill.
        let _ = killed.await;
    }

    /// Closes the listener, finishes the requests in flight, closes the
    /// connections with a FIN. Returns when all that is done and logged as
    /// `Stopped`, or when somebody kills or revives it meanwhile.
    pub async fn stop(&self) {
        let _ = self.order_stop().1.await;
    }

    /// Begins what [`Backend::stop`] does, and returns once connects are
    /// refused.
    pub async fn begin_stop(&self) {
        let _ = self.order_stop().0.await;
    }

    fn order_stop(&self) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
        let ((deaf, is_deaf), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        self.command(Command::Stop(deaf, done));
        (is_deaf, is_done)
    }

    /// Listens again, on the same port; no-op if it does. On return connects
    /// succeed and `Revived` is logged.
    ///
    /// # Errors
    /// If the system has no socket left.
    pub async fn revive(&self) -> io::Result<()> {
        let (done, revived) = oneshot::channel();
        self.command(Command::Revive(done));
        revived.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Accepts nothing and lets connects hang from now on, as when packets are
    /// dropped; open connections go on. Ends with `revive` or `kill`.
    ///
    /// # Errors
    /// `Unsupported` where the network cannot: see [`Net::black_hole`].
    pub async fn black_hole(&self) -> io::Result<()> {
        let (done, dark) = oneshot::channel();
        self.command(Command::BlackHole(done));
        dark.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Closes the connections that wait for a request, with a FIN each.
    pub fn close_idle(&self) {
        self.command(Command::CloseIdle);
    }

    fn command(&self, command: Command) {
        // It fails only with the runtime gone; the answer then says so.
        let _ = self.inner.commands.send(command);
    }

    /// How it answers health probes from now on.
    pub fn set_health(&self, health: Health) {
        self.inner.shared.set_health(health);
    }

    /// How it answers health probes at the moment.
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// What it does with traffic requests from now on, after the armed faults.
    pub fn set_fault(&self, fault: Fault) {
        self.inner.shared.stand(fault);
    }

    /// What it does with the next `times` traffic requests, after those armed
    /// before.
    pub fn arm(&self, fault: Fault, times: u64) {
        self.inner.shared.arm(fault, times);
    }

    /// No faults from now on. Parked requests stay parked.
    pub fn clear(&self) {
        self.inner.shared.clear();
    }

    /// Lets go all requests whose [`Fault::Park`] has begun (or another fault
    /// that waits for it), and one piece of each answer behind a
    /// [`Fault::Gate`].
    pub fn release(&self) {
        self.inner.shared.release();
    }

    /// How many requests are parked.
    pub fn parked(&self) -> usize {
        self.inner.shared.parked()
    }

    /// The panics of its tasks. They are also in the log: see
    /// [`EventLog::panics`]. A scenario with any of them has failed.
    pub fn panics(&self) -> Vec<String> {
        self.inner.shared.panics()
    }
}

impl Builder {
    /// Listens here instead; port 0 is any free one.
    #[must_use]
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.bind = addr;
        self
    }

    /// The path of health probes. Default `/health`. A request for it that has a
    /// nonce is traffic nevertheless.
    #[must_use]
    pub fn health_path(mut self, path: &str) -> Self {
        self.health_path = path.to_owned();
        self
    }

    /// The answer to health probes. Default 200.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// The body of a normal answer.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// As [`Backend::set_fault`], before the first connection.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// As [`Backend::arm`], before the first connection.
    #[must_use]
    pub fn arm(mut self, fault: Fault, times: u64) -> Self {
        self.armed.push((fault, times));
        self
    }

    /// Has its port and refuses connects until `revive`.
    #[must_use]
    pub fn down(mut self) -> Self {
        self.down = true;
        self
    }

    /// Starts on real sockets.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(self, log: &EventLog) -> io::Result<Backend> {
        self.start_on(Loopback, log).await
    }

    /// Starts on `net`, on the current tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_on<N: Net>(self, net: N, log: &EventLog) -> io::Result<Backend> {
        let (hold, addr) = net.reserve(self.bind).await?;
        let listener = match self.down {
            true => None,
            false => Some(net.listen(&hold).await?),
        };
        let listens = !self.down;
        let shared = Arc::new(self.shared(log, addr, listens));
        let (commands, obeyed) = mpsc::unbounded_channel();
        let supervisor = Supervisor::new(net, hold, listener, Arc::clone(&shared));
        tokio::spawn(supervisor.run(obeyed));
        let inner = Inner { shared, addr, commands };
        Ok(Backend { inner: Arc::new(inner) })
    }

    /// What the first connection meets, in the log too.
    fn shared(self, log: &EventLog, addr: SocketAddr, listens: bool) -> Shared {
        let shared = Shared::new(self.name.into(), log.clone(), self.health_path, self.body);
        shared.record(EventKind::Started { backend: Arc::clone(&shared.name), addr, listens });
        if self.fault != Fault::None {
            shared.stand(self.fault);
        }
        for (fault, times) in self.armed {
            shared.arm(fault, times);
        }
        if self.health != Health::default() {
            shared.set_health(self.health);
        }
        shared
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({} at {})", self.name(), self.addr())
    }
}

fn gone() -> io::Error {
    io::Error::other("the backend's task is gone")
}
