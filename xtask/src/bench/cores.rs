//! Which core does what: one for the proxies, another for load and backends.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The proxies' core.
    pub(crate) proxy: usize,
    /// The core of load and backends.
    pub(crate) load: usize,
}

impl Cores {
    /// The first two cores that this process may use; none if it has only one.
    ///
    /// # Errors
    /// The operating system does not say.
    pub(crate) fn find() -> Result<Option<Cores>> {
        let allowed = sched_getaffinity(None).context("cannot ask for this process's cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Ok(cores.next().zip(cores.next()).map(|(proxy, load)| Cores { proxy, load }))
    }
}

/// Pins this thread, and with it all threads and processes that it starts from
/// now on.
///
/// # Errors
/// The operating system refuses.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("cannot pin to core {core}"))
}
