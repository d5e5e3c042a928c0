//! Servers that are killed, and servers that misbehave.
//!
//! Owns three in processes of their own, which die by SIGKILL, and three in this
//! process, which can do everything else wrong. At any time no more than one of
//! each is in trouble: so there is always a healthy one.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use fastrand::Rng;
use testbed::{
    backend::Backend,
    fault::{Fault, Health},
    keeper::PortKeeper,
    log::{Event, EventKind, EventLog},
    process::Process,
};

use super::disruptions::Effect;
use crate::{e2e::with_processes, programs};

/// A sample backend in a process of its own, on a port that it keeps.
pub(super) struct Mortal {
    pub(super) name: &'static str,
    port: PortKeeper,
    life: Mutex<Life>,
}

/// What there is of it at the moment.
#[derive(Default)]
struct Life {
    process: Option<(Process, EventLog)>,
    /// How far the log has been taken.
    taken: u64,
    /// What the lives before have left.
    left: Vec<Event>,
}

impl Mortal {
    /// One that is dead.
    pub(super) fn new(name: &'static str) -> Result<Self> {
        Ok(Mortal { name, port: PortKeeper::reserve()?, life: Mutex::default() })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Starts it, and waits until it listens.
    pub(super) async fn start(&self, program: &Path) -> Result<()> {
        let mut command = programs::command(program);
        command.arg(self.port.port().to_string());
        command.args(["--reuse-port", "--events", "--health-path", "/health", "--name", self.name]);
        let log = EventLog::with_watchdog(Duration::from_secs(30));
        let process = Process::spawn(command, self.name, &log)?;
        let listens = |event: &Event| matches!(&event.kind, EventKind::Output { line, .. } if line.starts_with("listening on"));
        log.wait("the server to listen", listens).await?;
        let mut life = self.life();
        life.taken = 0;
        life.process = Some((process, log));
        Ok(())
    }

    /// Kills it.
    pub(super) async fn kill(&self) -> Result<()> {
        let (mut process, log) = self.life().process.take().context("it is dead already")?;
        process.kill9()?;
        process.wait().await?;
        let mut life = self.life();
        let last = log.events_from(life.taken);
        life.left.extend(last);
        Ok(())
    }

    /// What it has said since it was last asked, for the ledger.
    pub(super) fn take(&self) -> Vec<Event> {
        let mut life = self.life();
        let mut events = std::mem::take(&mut life.left);
        if let Some((_, log)) = &life.process {
            let news = log.events_from(life.taken);
            let taken = news.len() as u64;
            events.extend(news);
            life.taken += taken;
        }
        drop(life);
        with_processes(events)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server in this process does wrong for a while.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// With requests.
    Request(Fault),
    /// With probes.
    Probe(Health),
    /// Its listener is closed and its connections are reset.
    Death,
    /// It finishes what it has and listens no longer.
    Stop,
    /// Connects hang.
    BlackHole,
}

impl Trouble {
    /// Any of them.
    pub(super) fn draw(random: &mut Rng) -> Self {
        let ms = Duration::from_millis;
        match random.u32(0..20) {
            0 => Trouble::Death,
            1 => Trouble::Stop,
            2 => Trouble::BlackHole,
            3 => Trouble::Probe(Health::Status(500)),
            4 => Trouble::Probe(Health::Hang),
            5 => Trouble::Probe(Health::Reset),
            6 => Trouble::Request(Fault::ResetAfterRequest),
            7 => Trouble::Request(Fault::CloseAfterRequest),
            8 => Trouble::Request(Fault::ResetOnAccept),
            9 => Trouble::Request(Fault::CloseAfterAnswer),
            10 => Trouble::Request(Fault::CloseWhenNext),
            11 => Trouble::Request(Fault::NoKeepAlive),
            12 => Trouble::Request(Fault::Http10CloseDelimited),
            13 => Trouble::Request(Fault::Truncate { after: 700 }),
            14 => Trouble::Request(Fault::TruncateChunked { after: 700 }),
            15 => Trouble::Request(Fault::ResetMidBody { after: 700 }),
            16 => Trouble::Request(Fault::Status(500)),
            17 => Trouble::Request(Fault::Park),
            18 => Trouble::Request(Fault::Delay(ms(random.u64(1..200)))),
            _ => Trouble::Request(Fault::Drip { chunk: 500, every: ms(1) }),
        }
    }

    /// What it may cost clients.
    pub(super) fn effect(&self) -> Effect {
        match self {
            Trouble::Request(
                Fault::Truncate { .. } | Fault::TruncateChunked { .. } | Fault::ResetMidBody { .. },
            )
            | Trouble::Death => Effect::Truncates,
            Trouble::Request(
                Fault::ResetAfterRequest
                | Fault::CloseAfterRequest
                | Fault::ResetOnAccept
                | Fault::CloseAfterAnswer
                | Fault::CloseWhenNext,
            )
            | Trouble::Stop => Effect::Cuts,
            Trouble::Request(Fault::Status(status)) => Effect::Says(*status),
            Trouble::Request(_) | Trouble::Probe(_) | Trouble::BlackHole => Effect::None,
        }
    }

    /// Begins it.
    pub(super) async fn begin(&self, server: &Backend) -> Result<()> {
        match self {
            Trouble::Request(fault) => server.set_fault(fault.clone()),
            Trouble::Probe(health) => server.set_health(health.clone()),
            Trouble::Death => server.kill().await,
            Trouble::Stop => server.begin_stop().await,
            Trouble::BlackHole => server.black_hole().await?,
        }
        Ok(())
    }
}

/// Ends whatever it was.
pub(super) async fn heal(server: &Backend) -> Result<()> {
    server.clear();
    server.release();
    server.set_health(Health::default());
    Ok(server.revive().await?)
}
