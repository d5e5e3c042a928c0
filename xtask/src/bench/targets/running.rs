//! A target that runs, from its start to its end.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Program, Setup, Target};
use crate::bench::{
    backend::HELLO,
    child::{self, Group},
    cores::Cores,
    usage::Processes,
};

/// No target takes this long to start.
const WATCHDOG: Duration = Duration::from_secs(30);

/// From one look whether a target listens to the next.
const LOOK: Duration = Duration::from_millis(50);

/// A target that answers.
pub(crate) struct Running {
    /// Which.
    pub(crate) target: Target,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// What its usage is read from.
    pub(crate) processes: Processes,
    /// Its memory before the load, in KiB.
    pub(crate) idle_kib: u64,
    group: Group,
    folder: TempDir,
}

impl Running {
    /// Starts `program` in front of `servers` and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn start(
        program: &Program,
        servers: &[SocketAddr],
        clients: usize,
        cores: Option<Cores>,
    ) -> Result<Running> {
        let name = program.target.name();
        let folder = child::folder()?;
        let port = portpicker::pick_unused_port().context("no free port")?;
        let setup = Setup { folder: folder.path(), port, servers, clients };
        let mut command = program.target.command(&program.file, &setup)?;
        command.env_remove("RUST_LOG");
        command.stdout(File::create(folder.path().join("stdout"))?);
        command.stderr(File::create(folder.path().join("stderr"))?);
        let group = Group::start(command, cores).with_context(|| format!("cannot start {name}"))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut starting = Starting { addr, group, folder };
        starting.answers().await.with_context(|| format!("{name} does not start"))?;
        let Starting { group, folder, .. } = starting;
        let processes = group.processes()?;
        let idle_kib = processes.resident_kib()?;
        Ok(Running { target: program.target, addr, processes, idle_kib, group, folder })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not let itself be waited for.
    pub(crate) async fn stop(self) -> Result<()> {
        self.group.stop().await?;
        Ok(self.folder.close()?)
    }
}

/// A target of which nobody knows yet whether it answers.
struct Starting {
    addr: SocketAddr,
    group: Group,
    folder: TempDir,
}

impl Starting {
    /// Waits for a whole exchange with a server through the target.
    async fn answers(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.group.ended()? {
                bail!("it ended with {status}: {}", self.said());
            }
            match exchange(self.addr).await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > WATCHDOG => {
                    bail!("not within {WATCHDOG:?}: {error:#}; it says: {}", self.said());
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// The end of what it printed.
    fn said(&self) -> String {
        let file = self.folder.path().join("stderr");
        let text = fs::read(file).unwrap_or_default();
        let end = text.len().saturating_sub(1000);
        String::from_utf8_lossy(&text[end..]).trim().to_owned()
    }
}

async fn exchange(addr: SocketAddr) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
    let answer = client.get(format!("http://{addr}/")).send().await?.error_for_status()?;
    let text = answer.text().await?;
    anyhow::ensure!(text == HELLO, "the answer is {text:?}, expected {HELLO:?}");
    Ok(())
}
