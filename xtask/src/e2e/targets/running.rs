//! A balancer of somebody else as a process, from its start to its end.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use testbed::{
    log::{Event, EventKind, EventLog},
    process::{Process, Signal},
};
use tokio::time::{sleep, timeout};

use super::{Place, Setup, SetupFailed, Target};

/// No balancer takes this long to start.
const START: Duration = Duration::from_secs(15);

/// None takes this long to stop.
const STOP: Duration = Duration::from_secs(5);

/// From one look whether it answers to the next.
const LOOK: Duration = Duration::from_millis(20);

/// Ports that were given out: another scenario may not listen on its yet.
static TAKEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);

/// A balancer that answers.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    pub(super) setup: Setup,
    process: Process,
    _folder: TempDir,
}

impl Running {
    /// Starts it in front of the servers of `setup` and waits until a server of
    /// this run has answered through it; with no server, until it is connected to.
    ///
    /// # Errors
    /// [`SetupFailed`] if it does not.
    pub(crate) async fn start(
        target: &Target,
        setup: Setup,
        name: &str,
        log: &EventLog,
    ) -> Result<Running> {
        let folder = tempfile::Builder::new().prefix("lb-e2e-").tempdir()?;
        let port = target.port().map_or_else(free_port, Ok)?;
        let command = target.command(&Place { folder: folder.path(), port, setup: &setup })?;
        let process = Process::spawn(command, name, log)
            .with_context(|| SetupFailed(format!("{} cannot be started", target.about())))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut running = Running { addr, setup, process, _folder: folder };
        let mut last = String::new();
        let ready = running.ready(log, &mut last);
        let problem = match timeout(START, ready).await {
            Ok(None) => return Ok(running),
            Ok(Some(ended)) => ended,
            Err(_) => format!("after {START:?} no server has answered through it: {last}"),
        };
        running.end().await?;
        Err(SetupFailed(format!("{} was not ready: {problem}", target.name())).into())
    }

    /// Asks until a server of this run has answered; says why if that is not to
    /// be expected any more, and in `last` what was seen last.
    async fn ready(&mut self, log: &EventLog, last: &mut String) -> Option<String> {
        // A path that nobody else asks for: whoever answers it is ours.
        let path = format!("/ready-{}", self.addr.port());
        let url = format!("http://{}{path}", self.addr);
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = match client.timeout(Duration::from_secs(2)).build() {
            Ok(client) => client,
            Err(error) => return Some(error.to_string()),
        };
        let ours = |event: &Event| matches!(&event.kind, EventKind::Received { target, .. } if target.starts_with(&path));
        loop {
            let answered = client.get(&url).send().await;
            let status = answered.as_ref().map(|answer| answer.status().as_u16());
            match status {
                Ok(200) if log.count(0, ours) > 0 => return None,
                Ok(_) if self.setup.servers.is_empty() => return None,
                _ => *last = self.seen(&answered),
            }
            if let Ok(Ok(status)) = timeout(LOOK, self.process.wait()).await {
                let why = if status.success() { "; it must stay in the foreground" } else { "" };
                return Some(format!("it ended before it answered a request, with {status}{why}"));
            }
            sleep(LOOK).await;
        }
    }

    /// What came of a request, for whoever has to find the reason.
    fn seen(&self, answered: &reqwest::Result<reqwest::Response>) -> String {
        let addr = self.addr;
        match answered {
            Ok(answer) => {
                format!("{addr} answers {}, and no server got the request", answer.status())
            }
            Err(error) if error.is_connect() => {
                format!(
                    "nothing listens on {addr}, the port that it was told as {{port}} or in \
                     {{config}}; if it always has the same one, say --listens-on PORT"
                )
            }
            Err(error) if error.is_timeout() => {
                format!("{addr} takes connections, but does not answer")
            }
            Err(_) => format!("{addr} takes connections, but closes them without an answer"),
        }
    }

    /// Sends SIGTERM, unless it has ended.
    pub(crate) fn terminate(&self) {
        // It fails only for one that has ended.
        let _ = self.process.terminate();
    }

    /// Waits for its end; one that does not heed SIGTERM is killed. Returns
    /// whether it was.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub(crate) async fn end(&mut self) -> Result<bool> {
        if self.process.pid().is_none() {
            return Ok(false);
        }
        self.terminate();
        if timeout(STOP, self.process.wait()).await.is_ok() {
            return Ok(false);
        }
        self.process.signal(Signal::KILL)?;
        self.process.wait().await?;
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.terminate();
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.addr.port());
    }
}

/// A free port that no other scenario of this run has been given.
fn free_port() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut free = std::iter::repeat_with(portpicker::pick_unused_port).take(100).flatten();
    let port = free.find(|port| taken.insert(*port)).context("no free port")?;
    Ok(port)
}
