//! What the kernel counts of this process, by the names that all Prometheus
//! clients give it.

use std::fmt;

use procfs::{
    ProcResult, WithCurrentSystemInfo, boot_time_secs,
    process::{LimitValue, Process},
    ticks_per_second,
};

use super::families::Families;

/// What `/proc` says of this process.
struct Usage {
    cpu_seconds: f64,
    /// `None` where the kernel does not say when it was started itself (`subset=pid`).
    start_time_seconds: Option<f64>,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_fds: u64,
    /// `None` is no limit.
    max_fds: Option<u64>,
}

impl Usage {
    fn read() -> ProcResult<Usage> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
        let max_fds = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        Ok(Usage {
            cpu_seconds: seconds(stat.utime + stat.stime),
            start_time_seconds: boot_time_secs()
                .ok()
                .map(|boot| boot as f64 + seconds(stat.starttime)),
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads.unsigned_abs(),
            open_fds: process.fd_count()? as u64,
            max_fds,
        })
    }
}

/// Nothing where `/proc` cannot be read.
pub(super) fn encode(families: &mut Families<'_>) -> fmt::Result {
    let Ok(usage) = Usage::read() else { return Ok(()) };
    families.counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        [(vec![], usage.cpu_seconds)],
    )?;
    families.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        usage.start_time_seconds.map(|seconds| (vec![], seconds)),
    )?;
    families.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        [(vec![], usage.resident_bytes)],
    )?;
    families.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        [(vec![], usage.virtual_bytes)],
    )?;
    families.gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        [(vec![], usage.open_fds)],
    )?;
    families.gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        usage.max_fds.map(|limit| (vec![], limit)),
    )?;
    families.gauge(
        "process_threads",
        "Number of OS threads in the process.",
        [(vec![], usage.threads)],
    )
}
