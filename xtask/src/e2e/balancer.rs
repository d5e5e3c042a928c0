//! The balancer under test, as a process.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use crate::programs;

use super::{
    simulated::{self, Site},
    targets::{Bounds, Observer, Running, Target, Unsupported},
};
use anyhow::{Context, Result, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};
use testbed::{
    backend::Backend,
    log::{Event, EventKind, EventLog},
    process::{Process, Signal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What is noted of one that has to be killed.
pub(crate) const UNHEEDED: &str = "it does not end on SIGTERM, and is killed after 5 s each time";

/// How long the admin API may take, before a scenario gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running balancer.
pub(crate) struct Balancer {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    name: String,
    log: EventLog,
    kind: Kind,
}

/// Whose balancer it is.
enum Kind {
    /// Ours, which says what it does.
    Own {
        /// Where its admin API listens, if it was started with one.
        admin: Option<SocketAddr>,
        process: Box<Process>,
        ended: bool,
    },
    /// Ours, in this process.
    Simulated { process: simulated::Process, ended: bool },
    /// Somebody else's, which is asked.
    Foreign(Box<(Running, Observer)>),
}

impl Balancer {
    /// Starts `target` with the task that is in `flags`, and waits until its
    /// rotation is seen to begin.
    pub(crate) async fn start_target(
        target: &Target,
        name: &str,
        servers: &[SocketAddr],
        flags: &[&str],
        backends: &[Backend],
        log: &EventLog,
    ) -> Result<Self> {
        let setup = target.setup(servers, flags)?;
        let running = Running::start(target, setup.clone(), name, log).await?;
        let addr = running.addr;
        let mut observer = Observer::new(addr, target, &setup, backends, log)?;
        observer.begin().await?;
        let kind = Kind::Foreign(Box::new((running, observer)));
        Ok(Balancer { addr, name: name.into(), log: log.clone(), kind })
    }

    /// Starts `program` in front of `servers` and waits until it is ready. It
    /// listens on any free port, or on the `inherited` socket.
    pub(crate) async fn start(
        program: &Path,
        name: &str,
        inherited: Option<&TcpListener>,
        servers: &[SocketAddr],
        flags: &[&str],
        log: &EventLog,
    ) -> Result<Self> {
        let mut command = programs::command(program);
        command.env_remove("RUST_LOG").env_remove("LB_API_TOKEN").env("RUST_BACKTRACE", "1");
        command.args(["--health-path", "/health"]);
        if let Some(listener) = inherited {
            let parent_fd = listener.try_clone()?.into();
            command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }])?;
            command.args(["--bind", "fd:3"]);
        } else {
            command.args(["--bind", "127.0.0.1", "--port", "0"]);
        }
        for server in servers {
            command.arg(format!("--backend={server}"));
        }
        if !flags.contains(&"--api-port") {
            command.arg("--no-api");
        }
        command.args(flags);
        let mark = log.len();
        let process = Process::spawn(command, name, log)
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (addr, admin) = ready(name, mark, log).await?;
        let kind = Kind::Own { admin, process: Box::new(process), ended: false };
        Ok(Balancer { addr, name: name.into(), log: log.clone(), kind })
    }

    /// Starts ours in this process, in front of `servers`, and waits until it is
    /// ready.
    pub(crate) async fn start_simulated(
        site: &Site,
        name: &str,
        servers: &[SocketAddr],
        flags: &[&str],
        log: &EventLog,
    ) -> Result<Self> {
        let probes = ["--health-path", "/health"].map(String::from).into_iter();
        let servers = servers.iter().map(|server| format!("--backend={server}"));
        let flags = probes.chain(servers).chain(flags.iter().copied().map(String::from));
        let mark = log.len();
        let process = simulated::Process::start(site, name, flags.collect(), log)?;
        let (addr, _) = ready(name, mark, log).await?;
        let kind = Kind::Simulated { process, ended: false };
        Ok(Balancer { addr, name: name.into(), log: log.clone(), kind })
    }

    /// The number of its process; none once it has ended.
    pub(crate) fn pid(&self) -> Result<Option<u32>> {
        Ok(self.own()?.pid())
    }

    /// The process of our own.
    ///
    /// # Errors
    /// [`Unsupported`] with any other: scenarios that look into ours are not
    /// for it.
    fn own(&self) -> Result<&Process> {
        match &self.kind {
            Kind::Own { process, .. } => Ok(process),
            Kind::Simulated { .. } => bail!(Unsupported("it is about lb's process".into())),
            Kind::Foreign(_) => bail!(Unsupported("it is about lb's own log or signals".into())),
        }
    }

    /// # Errors
    /// [`Unsupported`] with any but our own, which says what it does.
    fn speaks(&self) -> Result<()> {
        match &self.kind {
            Kind::Own { .. } | Kind::Simulated { .. } => Ok(()),
            Kind::Foreign(_) => bail!(Unsupported("it is about lb's own log".into())),
        }
    }

    /// Waits until it has said, at or after `mark`, that `backend` is in `state`;
    /// or until that is seen from outside.
    pub(crate) async fn says(
        &mut self,
        mark: u64,
        backend: &Backend,
        state: &str,
    ) -> Result<Event> {
        if let Kind::Foreign(both) = &mut self.kind {
            return both.1.sees(backend, state).await;
        }
        let (server, to) = (format!("server={} ", backend.addr()), format!(" to={state} "));
        let what = format!("the balancer to find {} {state}", backend.name());
        let found = |line: &str| line.contains(&server) && line.contains(&to);
        Ok(self.log.wait_from(mark, &what, printed(&self.name, found)).await?)
    }

    /// How long it may take to notice that a server has died or returned; none
    /// for ours, which says when it does.
    pub(crate) fn notices_within(&self) -> Bounds {
        match &self.kind {
            Kind::Own { .. } | Kind::Simulated { .. } => Bounds::default(),
            Kind::Foreign(both) => both.1.bounds(),
        }
    }

    /// How often it has said so since `mark`.
    pub(crate) fn said(&self, mark: u64, text: &str) -> Result<usize> {
        self.speaks()?;
        Ok(self.log.count(mark, printed(&self.name, |line| line.contains(text))))
    }

    /// Its lines with `text` before the event `end`.
    pub(crate) fn lines_before(&self, end: u64, text: &str) -> Result<Vec<String>> {
        self.speaks()?;
        let line = |event: Event| match event.kind {
            EventKind::Output { source, line } if *source == *self.name => Some(line),
            _ => None,
        };
        let lines = self.log.events().into_iter().take_while(|event| event.seq < end);
        Ok(lines.filter_map(line).filter(|line| line.contains(text)).collect())
    }

    /// Waits for a line with `text`, at or after `mark`.
    pub(crate) async fn prints(&self, mark: u64, text: &str) -> Result<Event> {
        self.speaks()?;
        let what = format!("the balancer to print {text:?}");
        Ok(self.log.wait_from(mark, &what, printed(&self.name, |l| l.contains(text))).await?)
    }

    /// How many of `requests` requests had their first attempt at each server,
    /// by the access log.
    pub(crate) async fn first_attempts(
        &self,
        requests: usize,
    ) -> Result<BTreeMap<SocketAddr, usize>> {
        let mut counts = BTreeMap::new();
        for server in self.dealt(requests).await?.into_iter().flatten() {
            *counts.entry(server).or_insert(0) += 1;
        }
        Ok(counts)
    }

    /// The server of the first attempt of each request so far, by the access
    /// log, once `requests` of them are over; in the order of their ends.
    pub(crate) async fn dealt(&self, requests: usize) -> Result<Vec<Option<SocketAddr>>> {
        self.speaks()?;
        let over = |line: &str| line.contains(" total_ms=");
        let what = format!("the log lines of {requests} requests");
        self.log.wait_count(0, requests, &what, printed(&self.name, over)).await?;
        let first_server = |event: Event| match event.kind {
            EventKind::Output { source, line } if *source == *self.name && over(&line) => {
                // "failed=127.0.0.1:80:refused@0.1,..." or "server=127.0.0.1:80".
                let word = |key| line.split(' ').find_map(|word| word.strip_prefix(key));
                let failed =
                    word("failed=").and_then(|list: &str| list.split(",").next()?.rsplit_once(":"));
                let first = failed.map(|(server, _)| server).or_else(|| word("server="));
                Some(first.and_then(|text| text.parse().ok()))
            }
            _ => None,
        };
        Ok(self.log.events().into_iter().filter_map(first_server).collect())
    }

    /// Where its admin API is.
    pub(crate) fn admin(&self) -> Result<SocketAddr> {
        let Kind::Own { admin, .. } = &self.kind else {
            bail!(Unsupported("it is about lb's admin API".into()));
        };
        admin.context("the balancer has no admin API; --api-port 0 gives it one")
    }

    /// Asks its admin API on a connection of its own. Returns the status and the
    /// body of the answer.
    pub(crate) async fn api(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let admin = self.admin()?;
        let length = body.len();
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer of the admin API")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| head.to_owned())?, body.to_owned()))
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    /// Sends any signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(self.own()?.signal(signal)?)
    }

    /// Sends SIGTERM, unless it has ended.
    pub(crate) fn terminate(&self) -> Result<()> {
        match &self.kind {
            Kind::Own { ended: true, .. } => Ok(()),
            Kind::Own { process, .. } => Ok(process.terminate()?),
            Kind::Simulated { process, .. } => {
                process.terminate();
                Ok(())
            }
            Kind::Foreign(both) => {
                both.0.terminate();
                Ok(())
            }
        }
    }

    /// Waits for its end; that of our own must be a clean one.
    pub(crate) async fn exited(&mut self) -> Result<()> {
        let status = match &mut self.kind {
            Kind::Own { ended: true, .. } | Kind::Simulated { ended: true, .. } => return Ok(()),
            Kind::Simulated { process, ended } => {
                *ended = true;
                process.wait().await?;
                return self.expect_no_error();
            }
            Kind::Foreign(both) => {
                if both.0.end().await? {
                    self.log.note(UNHEEDED);
                }
                return Ok(());
            }
            Kind::Own { process, ended, .. } => {
                let status = process.wait().await?;
                *ended = true;
                status
            }
        };
        ensure!(status.success(), "{} ended with {status}, expected exit code 0", self.name);
        self.expect_no_error()
    }

    fn expect_no_error(&self) -> Result<()> {
        let error = |line: &str| line.contains(" ERROR ") || line.starts_with("ERROR ");
        let panic = |line: &str| line.contains("panicked at") || error(line);
        ensure!(
            self.log.count(0, printed(&self.name, panic)) == 0,
            "{} reported an error or a panic",
            self.name
        );
        Ok(())
    }

    /// How many servers it has put out, if it says so.
    pub(crate) fn put_out(&self) -> usize {
        self.said(0, " from=up ").unwrap_or(0)
    }
}

/// Waits until `name` has said, at or after `mark`, that it is ready, and where
/// it and its admin API listen.
async fn ready(name: &str, mark: u64, log: &EventLog) -> Result<(SocketAddr, Option<SocketAddr>)> {
    let ready = |line: &str| line.starts_with("ready ") || line.starts_with("error: ");
    let event = log.wait_from(mark, "the balancer to be ready", printed(name, ready)).await?;
    let line = event.kind.to_string();
    let address = |key| -> Option<SocketAddr> {
        line.split_once(key)?.1.split(['"', ' ']).next()?.parse().ok()
    };
    match address("ready proxy=") {
        Some(addr) => Ok((addr, address(" admin="))),
        None => bail!("the balancer did not start: {line}"),
    }
}

/// Whether an event is a line of the process `name` that `matches`.
fn printed<'a>(
    name: &'a str,
    matches: impl Fn(&str) -> bool + 'a,
) -> impl FnMut(&Event) -> bool + 'a {
    move |event| match &event.kind {
        EventKind::Output { source, line } => **source == *name && matches(line),
        _ => false,
    }
}
