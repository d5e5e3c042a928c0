//! A balancer of somebody else as a process, from its start to its end.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
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

/// A balancer that answers.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    pub(super) setup: Setup,
    process: Process,
    _folder: TempDir,
    _port: Option<UdpSocket>,
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
        let (port, taken) = match target.port() {
            Some(port) => (port, None),
            None => free_port().map(|(port, taken)| (port, Some(taken)))?,
        };
        let command = target.command(&Place { folder: folder.path(), port, setup: &setup })?;
        let process = Process::spawn(command, name, log)
            .with_context(|| SetupFailed(format!("{} cannot be started", target.about())))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut running = Running { addr, setup, process, _folder: folder, _port: taken };
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
    }
}

/// A free port that nobody else is given while the socket lives, neither another
/// scenario nor another run of the suite: two balancers that share a port (HAProxy
/// and Caddy set SO_REUSEPORT) would share their requests. TCP is left to the
/// balancer; what is held is the UDP port of that number, which is looked at
/// before a port is taken for free.
fn free_port() -> Result<(u16, UdpSocket)> {
    let free = std::iter::repeat_with(portpicker::pick_unused_port).take(100).flatten();
    let mut taken =
        free.filter_map(|port| Some((port, UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?)));
    taken.next().context("no free port")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_port_is_given_out_once() {
        let taken: Vec<_> = (0..100).map(|_| free_port().unwrap()).collect();
        let ports: BTreeSet<u16> = taken.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports.len(), 100);
        assert!(ports.iter().all(|port| !portpicker::is_free(*port)));
        // Whoever looks for a port elsewhere has one of these for a moment.
        assert!(ports.iter().any(|port| portpicker::is_free_tcp(*port)));
    }
}
