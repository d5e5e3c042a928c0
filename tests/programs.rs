//! The programs that tests start, and what they print.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

/// The balancer, for its commands.
pub(crate) fn lb_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.env_remove("RUST_LOG").env_remove("LB_API_TOKEN");
    command
}

/// The balancer, without an admin API: many run at the same time.
pub(crate) fn lb() -> Command {
    let mut command = lb_command();
    command.arg("--no-api");
    command
}

/// The sample backend, built from the same sources as this test.
pub(crate) fn be() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--bin=be"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // Of the whole workspace, for the features that the tests were built with.
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        // What the tests' own cargo has set would make it build all anew.
        build.env_remove("CARGO_MANIFEST_DIR");
        assert!(build.status().unwrap().success(), "be does not compile");
        Path::new(env!("CARGO_BIN_EXE_lb")).with_file_name("be")
    });
    Command::new(program)
}

/// A running program whose output is collected; killed when dropped.
pub(crate) struct Running {
    child: Child,
    output: Arc<(Mutex<Vec<String>>, Condvar)>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// Starts it, and collects the lines of both of its outputs.
    pub(crate) fn start(mut command: Command) -> Running {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let readers = vec![
            collect(child.stdout.take().unwrap(), output.clone()),
            collect(child.stderr.take().unwrap(), output.clone()),
        ];
        Running { child, output, readers }
    }

    /// Waits for a line that contains `text`, and returns it.
    #[track_caller]
    pub(crate) fn line(&self, text: &str) -> String {
        self.line_with(&[text])
    }

    /// Waits for a line that contains one of `texts`, and returns it.
    #[track_caller]
    pub(crate) fn line_with(&self, texts: &[&str]) -> String {
        let matches = |line: &&String| texts.iter().any(|text| line.contains(text));
        let (lines, more) = &*self.output;
        let waiting = |lines: &mut Vec<String>| !lines.iter().any(|line| matches(&line));
        let lines = more.wait_timeout_while(lines.lock().unwrap(), WATCHDOG, waiting).unwrap().0;
        let found = lines.iter().find(matches).cloned();
        found.unwrap_or_else(|| panic!("no line with {texts:?} in:\n{}", lines.join("\n")))
    }

    /// Waits for `count` lines that contain `text`.
    #[track_caller]
    pub(crate) fn lines(&self, text: &str, count: usize) {
        let (lines, more) = &*self.output;
        let found = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count();
        let waiting = |lines: &mut Vec<String>| found(lines) < count;
        let lines = more.wait_timeout_while(lines.lock().unwrap(), WATCHDOG, waiting).unwrap().0;
        assert!(found(&lines) >= count, "not {count} lines with {text:?}:\n{}", lines.join("\n"));
    }

    /// Everything that it has printed.
    pub(crate) fn printed(&self) -> String {
        self.output.0.lock().unwrap().join("\n")
    }

    /// Forgets what it has printed.
    pub(crate) fn forget(&self) {
        self.output.0.lock().unwrap().clear();
    }

    /// The port of the address behind `text`, in the first line that has it.
    #[track_caller]
    pub(crate) fn port_after(&self, text: &str) -> u16 {
        let line = self.line(text);
        let address = line.split_once(text).unwrap().1.split(' ').next().unwrap();
        address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its memory that is of no file, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and for the last of its output.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        (status, self.printed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(
    from: impl Read + Send + 'static,
    to: Arc<(Mutex<Vec<String>>, Condvar)>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.0.lock().unwrap().push(line);
            to.1.notify_all();
        }
    })
}
