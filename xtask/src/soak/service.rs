//! The balancer in service, and those before it.
//!
//! Owns the listening socket that they inherit one after the other, the
//! configuration file and the access log. One balancer at a time is in service;
//! one that was replaced finishes what it has, and must end cleanly.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testbed::{log::EventLog, process::Signal};
use tokio::{sync::Mutex, task::JoinSet, time::timeout};

use crate::{bench::Processes, e2e::Balancer};

/// How long anything may take that a balancer is asked for.
const WATCHDOG: Duration = Duration::from_secs(30);

/// How long one that was replaced may take to end: its drain time, and more.
const END: Duration = Duration::from_secs(60);

/// All of them.
pub(super) struct Service {
    program: PathBuf,
    listener: TcpListener,
    folder: TempDir,
    current: Mutex<Current>,
    leaving: Mutex<JoinSet<Result<()>>>,
}

struct Current {
    balancer: Balancer,
    log: EventLog,
    /// How many there have been, it included.
    lives: usize,
}

/// What a balancer uses and says of itself at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Which life it is, from 1.
    pub(super) life: usize,
    pub(super) resident_kib: u64,
    /// What of it is in no file.
    pub(super) heap_kib: u64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    pub(super) tasks: u64,
    pub(super) in_flight: u64,
    pub(super) connections: u64,
    /// Answers of 2xx that it has counted in this life.
    pub(super) counted: u64,
}

impl Service {
    /// Starts the first one with the configuration `text`.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start(program: &Path, text: &str) -> Result<Service> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let folder = tempfile::Builder::new().prefix("lb-soak-").tempdir()?;
        fs::write(folder.path().join("lb.yaml"), text)?;
        let first = begin(program, &listener, folder.path(), 1).await?;
        let program = program.to_owned();
        let (current, leaving) = (Mutex::new(first), Mutex::default());
        Ok(Service { program, listener, folder, current, leaving })
    }

    /// Where all of them listen.
    pub(super) fn addr(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Puts `text` in the file's place, as an editor does, and sends SIGHUP; before it
    /// the same with a `mistake`, if there is one. Nobody starts in between: one that
    /// starts with a mistake rightly refuses to.
    ///
    /// # Errors
    /// One is not read, or not found to be what it is.
    pub(super) async fn reload(&self, mistake: Option<&str>, text: &str) -> Result<()> {
        let current = self.current.lock().await;
        if let Some(mistake) = mistake {
            self.put(&current, mistake, " refused, everything stays as it was").await?;
        }
        self.put(&current, text, " applied").await
    }

    async fn put(&self, current: &Current, text: &str, said: &str) -> Result<()> {
        let (file, new) = (self.file("lb.yaml"), self.file("lb.yaml.new"));
        fs::write(&new, text)?;
        let mark = current.log.len();
        fs::rename(new, file)?;
        current.balancer.hang_up()?;
        current.balancer.prints(mark, said).await.context("a reload")?;
        Ok(())
    }

    /// Starts another on the same listening socket, and asks this one to end.
    ///
    /// # Errors
    /// The other does not start.
    pub(super) async fn restart(&self) -> Result<()> {
        let mut current = self.current.lock().await;
        let lives = current.lives + 1;
        let next = begin(&self.program, &self.listener, self.folder.path(), lives).await?;
        let last = std::mem::replace(&mut *current, next);
        last.balancer.terminate()?;
        let mut leaving = self.leaving.lock().await;
        // Those that have ended well by now are forgotten.
        while let Some(ended) = leaving.try_join_next() {
            ended??;
        }
        leaving.spawn(end(last, lives - 1));
        Ok(())
    }

    /// Gives the access log another file.
    ///
    /// # Errors
    /// There is none to be renamed, or nobody to be told.
    pub(super) async fn rotate_log(&self) -> Result<()> {
        let current = self.current.lock().await;
        fs::rename(self.file("access.log"), self.file("access.log.1"))?;
        current.balancer.signal(Signal::USR1)
    }

    /// Asks the admin API for a change: it is made, or refused for a reason.
    ///
    /// # Errors
    /// Neither.
    pub(super) async fn change(&self, path: &str, body: &str) -> Result<()> {
        let current = self.current.lock().await;
        let (status, text) = current.balancer.api("POST", path, body).await?;
        ensure!(matches!(status, 200 | 404 | 409), "{path} {body}: {status} {text}");
        Ok(())
    }

    /// Whether requests are dealt to the server at `addr`.
    ///
    /// # Errors
    /// The API does not say.
    pub(super) async fn deals_to(&self, addr: SocketAddr) -> Result<bool> {
        let current = self.current.lock().await;
        let (_, text) = current.balancer.api("GET", "/servers", "").await?;
        let servers: Vec<Value> = serde_json::from_str(&text)?;
        let url = format!("http://{addr}");
        Ok(servers.iter().any(|server| server["url"] == *url && server["eligible"] == true))
    }

    /// Looks at the one in service.
    ///
    /// # Errors
    /// It has ended, or does not answer.
    pub(super) async fn look(&self) -> Result<Look> {
        let current = self.current.lock().await;
        let (_, metrics) = current.balancer.api("GET", "/metrics", "").await?;
        let metric = |name: &str| -> Result<u64> {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).with_context(|| format!("no {name}"))
        };
        let processes = Processes::of(current.balancer.pid()?.context("it has ended")?);
        Ok(Look {
            life: current.lives,
            resident_kib: processes.resident_kib()?,
            heap_kib: processes.anonymous_kib()?,
            descriptors: processes.descriptors()?,
            threads: processes.threads()?,
            tasks: metric("lb_tasks")?,
            in_flight: metric("lb_client_requests_in_flight")?,
            connections: metric("lb_client_connections")?,
            counted: metric("lb_client_requests_total{code=\"2xx\"}")?,
        })
    }

    /// What the one in service said last.
    pub(super) async fn last_words(&self) -> String {
        self.current.lock().await.log.tail(20)
    }

    /// Ends the one in service, and waits for all.
    ///
    /// # Errors
    /// One of them does not end cleanly.
    pub(super) async fn end(&self) -> Result<()> {
        let mut current = self.current.lock().await;
        let mut leaving = self.leaving.lock().await;
        while let Some(ended) = leaving.join_next().await {
            ended??;
        }
        current.balancer.terminate()?;
        let exited = timeout(END, current.balancer.exited());
        exited.await.with_context(|| format!("still there {END:?} after SIGTERM"))?
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn begin(
    program: &Path,
    listener: &TcpListener,
    folder: &Path,
    lives: usize,
) -> Result<Current> {
    let log = EventLog::with_watchdog(WATCHDOG);
    let file = |name| folder.join(name).display().to_string();
    let (config, access_log) = (file("lb.yaml"), file("access.log"));
    let flags = [
        "--config",
        &config,
        "--access-log",
        &access_log,
        "--api-port",
        "0",
        "--workers",
        "2",
        "--health-period",
        "500ms",
        // No stall of the machine is a server's fault.
        "--fall",
        "3",
    ];
    let name = format!("lb{lives}");
    let balancer = Balancer::start(program, &name, Some(listener), &[], &flags, &log).await?;
    Ok(Current { balancer, log, lives })
}

/// Waits for the end of the one that has been replaced.
async fn end(mut last: Current, life: usize) -> Result<()> {
    let exited = timeout(END, last.balancer.exited()).await;
    exited
        .unwrap_or_else(|_| Err(anyhow::anyhow!("still there {END:?} after SIGTERM")))
        .with_context(|| {
            format!("life {life} of lb did not end well; it said\n{}", last.log.tail(5))
        })
}
