//! What happens to whom, and when.
//!
//! Owns the order in which operations begin and end, and what each does. What
//! is done is noted in the event log before it is done. How `lb` and the network
//! are reached is the [`Stage`]'s.

use std::{rc::Rc, time::Duration};

use anyhow::Result;
use lb::balance::Wanted;
use testbed::{backend::Backend, fault, fault::Health, log::EventLog};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    config::Check,
    network::Link,
    plan::{Fault, Plan, Probe, Way, What, millis},
};

/// An operation that began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Its position in the plan.
    pub(crate) operation: usize,
    /// Whether it began; else it ended.
    pub(crate) begins: bool,
    /// The number of the event just before it.
    pub(crate) seq: u64,
    /// When, since the run began.
    pub(crate) at: Duration,
}

/// Where a plan is played: how `lb` is told of changes, and what can be done to
/// the network.
///
/// # Errors
/// In all of them: the harness fails. What `lb` refuses is none, as another
/// operation may have done it.
pub(crate) trait Stage {
    /// The file is read anew, with these weights.
    async fn reload(&self, plan: &Plan, weights: &[u32], check: &Check) -> Result<()>;

    /// The operator wants this of a server.
    async fn want(&self, server: usize, wanted: Wanted) -> Result<()>;

    /// A server joins.
    async fn add(&self, plan: &Plan, server: usize, check: &Check) -> Result<()>;

    /// A server leaves.
    async fn delete(&self, server: usize) -> Result<()>;

    /// Changes both directions between `lb` and a host; the flag says whether
    /// it is the one from `lb`.
    fn link(&self, host: &str, change: &mut dyn FnMut(&mut Link, bool));

    /// Makes all links as usual again.
    fn heal(&self);
}

/// All that operations reach.
pub(crate) struct Reach<'a, S> {
    /// In the plan's order.
    pub(crate) backends: &'a [Backend],
    pub(crate) stage: &'a S,
    /// In the order of the plan's clients.
    pub(crate) aborts: Vec<Rc<Notify>>,
}

/// Carries out all of a plan's operations; on return the time of faults is
/// over and everything is undone.
///
/// # Errors
/// The harness fails.
pub(crate) async fn carry_out(
    plan: &Plan,
    (log, origin): (&EventLog, Instant),
    reach: &Reach<'_, impl Stage>,
) -> Result<Vec<Done>> {
    let began = Instant::now();
    let mut done = Vec::new();
    let mut check = Check::first(plan);
    for (at, operation, begins) in schedule(plan) {
        sleep_until(began + millis(at)).await;
        let what = &plan.operations[operation].what;
        let verb = if begins { "begins" } else { "ends" };
        let seq = log.note(format!("operation={} {verb} {what:?}", operation + 1));
        done.push(Done { operation, begins, seq, at: origin.elapsed() });
        check.after(what);
        reach.apply(plan, what, begins, &check).await?;
    }
    sleep_until(began + millis(plan.faults_ms)).await;
    log.note("healed");
    reach.stage.heal();
    Ok(done)
}

/// Beginnings and ends in order: time, operation, whether it begins.
fn schedule(plan: &Plan) -> Vec<(u64, usize, bool)> {
    let mut schedule = Vec::new();
    for (index, operation) in plan.operations.iter().enumerate() {
        schedule.push((operation.at_ms, index, true));
        if operation.what.ends() {
            let end = (operation.at_ms + operation.for_ms).min(plan.faults_ms);
            schedule.push((end, index, false));
        }
    }
    schedule.sort_by_key(|(at, index, begins)| (*at, !begins, *index));
    schedule
}

impl What {
    /// Whether it is undone after its time.
    pub(crate) fn ends(&self) -> bool {
        !matches!(self, What::CloseIdle { .. } | What::Abort { .. } | What::Reload { .. })
    }
}

impl<S: Stage> Reach<'_, S> {
    async fn apply(&self, plan: &Plan, what: &What, begins: bool, check: &Check) -> Result<()> {
        match what {
            What::Partition { host, one_way } => {
                let spared = match one_way {
                    Way::No => None,
                    Way::FromLb => Some(false),
                    Way::ToLb => Some(true),
                };
                self.cut(host, begins, spared);
            }
            What::Slow { host, latency_ms } => {
                let latency = if begins { *latency_ms } else { plan.network.latency_ms };
                self.link(host, |link, _| link.latency = millis(latency));
            }
            What::Lossy { host, loss } => {
                self.link(host, |link, _| link.loss = if begins { *loss } else { 0 });
            }
            What::Abort { client } => {
                let index = plan.clients.iter().position(|other| other.name == *client);
                if let Some(abort) = index.and_then(|index| self.aborts.get(index)) {
                    abort.notify_waiters();
                }
            }
            What::Reload { weights, .. } => {
                self.stage.reload(plan, weights, check).await?;
            }
            What::Drain { server } | What::Disable { server } => {
                let wanted = match (begins, what) {
                    (false, _) => Wanted::Enabled,
                    (true, What::Drain { .. }) => Wanted::Draining,
                    (true, _) => Wanted::Disabled,
                };
                self.stage.want(plan.server(server).unwrap_or_default(), wanted).await?;
            }
            What::Delete { server } | What::Add { server } => {
                let index = plan.server(server).unwrap_or_default();
                let adds = matches!(what, What::Add { .. }) == begins;
                match adds {
                    true => self.stage.add(plan, index, check).await?,
                    false => self.stage.delete(index).await?,
                }
            }
            What::Crash { server } => {
                let backend = &self.backends[plan.server(server).unwrap_or_default()];
                // Nobody hears the end, and whoever speaks later is reset.
                if begins {
                    self.cut(server, true, None);
                    backend.kill().await;
                } else {
                    drop(backend.revive().await);
                    self.cut(server, false, None);
                }
            }
            What::Kill { server }
            | What::Stop { server }
            | What::BlackHole { server }
            | What::Health { server, .. }
            | What::Fault { server, .. }
            | What::CloseIdle { server } => {
                let backend = &self.backends[plan.server(server).unwrap_or_default()];
                apply_to_backend(backend, what, begins).await;
            }
        }
        Ok(())
    }

    /// Cuts the links between `lb` and a host, or mends them; but not the spared
    /// one, that from `lb` or the other.
    fn cut(&self, host: &str, cuts: bool, spared: Option<bool>) {
        self.link(host, |link, outward| match (spared == Some(outward), cuts) {
            (true, _) => {}
            (false, true) => link.cuts += 1,
            (false, false) => link.cuts = link.cuts.saturating_sub(1),
        });
    }

    fn link(&self, host: &str, mut change: impl FnMut(&mut Link, bool)) {
        self.stage.link(host, &mut change);
    }
}

async fn apply_to_backend(backend: &Backend, what: &What, begins: bool) {
    match what {
        What::CloseIdle { .. } => backend.close_idle(),
        What::Kill { .. } if begins => backend.kill().await,
        What::Stop { .. } if begins => backend.begin_stop().await,
        // On a simulated network it can, on others it may not.
        What::BlackHole { .. } if begins => drop(backend.black_hole().await),
        What::Kill { .. } | What::Stop { .. } | What::BlackHole { .. } => {
            drop(backend.revive().await)
        }
        What::Health { answer, .. } => {
            backend.set_health(if begins { answer.to_testbed() } else { Health::default() });
        }
        What::Fault { fault, .. } => {
            backend.set_fault(if begins { fault.to_testbed() } else { fault::Fault::None });
        }
        _ => {}
    }
}

impl Probe {
    fn to_testbed(self) -> Health {
        match self {
            Probe::Unhealthy => Health::Status(503),
            Probe::Redirect => Health::Redirect("/ok".into()),
            Probe::Hang => Health::Hang,
            Probe::Close => Health::Close,
            Probe::Reset => Health::Reset,
            Probe::Garbage => Health::Raw(b"\x16\x03 no HTTP\r\n\r\n".to_vec()),
        }
    }
}

impl Fault {
    fn to_testbed(self) -> fault::Fault {
        use fault::Fault as To;
        match self {
            Fault::Unavailable => To::Status(503),
            Fault::Delay => To::Delay(Duration::from_secs(1)),
            Fault::Hang => To::Hang,
            Fault::ResetAfterRequest => To::ResetAfterRequest,
            Fault::CloseAfterRequest => To::CloseAfterRequest,
            Fault::ResetOnAccept => To::ResetOnAccept,
            Fault::ResetAfterHead => To::ResetAfterHead,
            Fault::ResetMidBody => To::ResetMidBody { after: 20 },
            Fault::Truncate => To::Truncate { after: 20 },
            Fault::CloseAfterAnswer => To::CloseAfterAnswer,
            Fault::CloseWhenNext => To::CloseWhenNext,
            Fault::NoKeepAlive => To::NoKeepAlive,
            Fault::HalfClose => To::HalfClose,
            Fault::Drip => To::Drip { chunk: 512, every: Duration::from_millis(20) },
            Fault::Garbage => To::Garbage,
            Fault::ExtraBytes => To::ExtraBytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        }
    }
}
