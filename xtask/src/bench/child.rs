//! A program of the benchmark as a child process, which ends with this one.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::programs;

use super::{
    cores::{self, Cores},
    usage::Processes,
};

/// How long a program may take to end when it is asked to.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running program and the children it has: dropped, all are killed.
pub(crate) struct Group {
    child: Child,
    leader: Pid,
}

impl Group {
    /// Starts `command`, on the proxies' core.
    ///
    /// # Errors
    /// It cannot be started, or not be pinned.
    pub(crate) fn start(mut command: Command, cores: Option<Cores>) -> Result<Group> {
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        if let Some(cores) = cores {
            cores::pin(cores.proxy)?;
        }
        let child = command.spawn();
        if let Some(cores) = cores {
            cores::pin(cores.load)?;
        }
        let child = child?;
        let id = child.id().context("it ended at once")?;
        let leader = Pid::from_raw(id.cast_signed()).context("a process without a number")?;
        Ok(Group { child, leader })
    }

    /// All its processes.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn processes(&self) -> Result<Processes> {
        Processes::of_group(self.leader.as_raw_nonzero().get().cast_unsigned())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end, kills what has not ended then, and waits for it.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub(crate) async fn stop(mut self) -> Result<()> {
        let _ = kill_process(self.leader, Signal::TERM);
        if let Ok(status) = timeout(LAST_WORDS, self.child.wait()).await {
            status?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A leader that was waited for has given its number away.
        if self.child.id().is_some() {
            let _ = kill_process_group(self.leader, Signal::KILL);
            let _ = waitpid(Some(self.leader), WaitOptions::empty());
        }
    }
}

/// A command for `program`, which ends with this process.
pub(crate) fn command(program: &Path) -> Command {
    programs::command(program).into()
}

/// A folder for a program's files, which goes when it is dropped.
///
/// # Errors
/// It cannot be made.
pub(crate) fn folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix("lb-bench-").tempdir().context("cannot make a folder")
}
