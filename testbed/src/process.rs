//! A child process whose every line is an event.
//!
//! Owns the child from spawn to reaping: dropped, it is killed. Never decides
//! what its lines mean. Called by scenarios, for balancers and for backends
//! that are to die for real.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::log::{EventKind, EventLog};

pub use rustix::process::Signal;

/// How long the last lines of a dead process may take. Only a grandchild that
/// holds the pipe open makes it pass.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A running or dead child process.
pub struct Process {
    name: Arc<str>,
    child: Child,
    /// None once reaped: the number may be another process's by then.
    pid: Option<Pid>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with stdin empty and each line of stdout and stderr as
    /// an [`EventKind::Output`] of `name`.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(command: impl Into<Command>, name: &str, log: &EventLog) -> io::Result<Self> {
        let mut command = command.into();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let name: Arc<str> = name.into();
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(tokio::spawn(read(pipe, Arc::clone(&name), log.clone())));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(tokio::spawn(read(pipe, Arc::clone(&name), log.clone())));
        }
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { name, child, pid, readers })
    }

    /// Its name in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number; none once it has been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.pid.map(|pid| pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// Sends SIGKILL. It is dead after [`Process::wait`].
    ///
    /// # Errors
    /// If it has been waited for.
    pub fn kill9(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// If it has been waited for.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends any signal.
    ///
    /// # Errors
    /// If it has been waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let gone = || io::Error::other(format!("{} has exited", self.name));
        let pid = self.pid.ok_or_else(gone)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end; all its lines are in the log then. Has no watchdog:
    /// the caller knows how long the process may take.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.pid = None;
        for mut reader in self.readers.drain(..) {
            if timeout(LAST_LINES, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        Ok(status)
    }
}

/// Lets this process have as many descriptors as the system allows without
/// asking; returns how many.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // It fails where the maximum is above what the kernel really allows.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

async fn read(pipe: impl AsyncRead + Unpin, source: Arc<str>, log: EventLog) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = pipe.read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line);
        log.record(EventKind::Output {
            source: Arc::clone(&source),
            line: text.trim_end_matches(['\r', '\n']).to_owned(),
        });
        line.clear();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({} pid={:?})", self.name, self.pid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn all_lines_are_logged_before_wait_returns() {
        let log = EventLog::new();
        let mut child = Process::spawn(shell("echo a; echo b >&2; exit 3"), "sh", &log).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
        let lines = log.count(0, |e| matches!(&e.kind, EventKind::Output { .. }));
        assert_eq!((lines, child.pid()), (2, None));
        assert!(child.terminate().is_err());
    }

    #[test]
    fn the_descriptor_limit_is_as_high_as_it_goes() {
        let limit = raise_descriptor_limit();
        assert!(limit > 0);
        assert_eq!(raise_descriptor_limit(), limit);
    }

    #[tokio::test]
    async fn signals_arrive() {
        let log = EventLog::new();
        let mut child = Process::spawn(shell("echo up; exec sleep 60"), "sh", &log).unwrap();
        let up = |e: &crate::log::Event| matches!(&e.kind, EventKind::Output { line, .. } if line == "up");
        log.wait("the first line", up).await.unwrap();
        child.kill9().unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(9));
    }
}
