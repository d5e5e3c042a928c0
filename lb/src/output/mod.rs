//! Standard output, standard error and log files, written by threads of their
//! own.
//!
//! A slow disk, a stopped pager or a reader that went away holds up no request
//! and no change of state: text is appended to memory and written elsewhere.
//! What comes beyond a bound is dropped and counted, never waited for.

mod escaped;
mod lines;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    mem,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_setfl};
use tokio::sync::watch;
use tracing::{info, warn};

use self::lines::Lines;

pub(crate) use self::escaped::{Escaped, ends_or_controls};

/// Text that may wait to be written; what comes beyond it is dropped.
const BUFFER_LIMIT: usize = 4 * 1024 * 1024;

/// How much of a buffer is kept for the next lines, at most.
const KEPT_BYTES: usize = 64 * 1024;

/// How much is kept where no more than that was needed: one busy moment shall not be
/// seen for ever.
const CALM_BYTES: usize = 8 * 1024;

/// Who may read a log that is made: queries have secrets in them.
const LOG_MODE: u32 = 0o640;

/// How long text gathers before the next is written.
const GATHER: Duration = Duration::from_millis(5);

/// Where text goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of a file, which is made if it is missing.
    File(PathBuf),
}

impl Stream {
    fn open(&self) -> io::Result<File> {
        match self {
            Stream::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Stream::Stderr => Ok(io::stderr().as_fd().try_clone_to_owned()?.into()),
            Stream::File(path) => {
                let flags = OFlags::NONBLOCK.bits() as i32;
                let mut options = OpenOptions::new();
                options.append(true).create(true).mode(LOG_MODE).custom_flags(flags);
                // A pipe that nobody reads is an error, not something to wait for.
                let file = options.open(path)?;
                fcntl_setfl(&file, OFlags::APPEND)?;
                Ok(file)
            }
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stream::Stdout => f.write_str("standard output"),
            Stream::Stderr => f.write_str("standard error"),
            Stream::File(path) => path.display().fmt(f),
        }
    }
}

/// One stream and its writer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Output(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: Stream,
    text: Mutex<Text>,
    /// Lines that were lost so far, but those that the writer has not heard of.
    lost: AtomicU64,
    wake: Condvar,
    /// True once everything is written and the writer has ended.
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Text {
    waiting: Vec<u8>,
    /// The file is to be opened anew behind so many bytes of what waits.
    reopen: Option<usize>,
    dropped: u64,
    /// Whether the writer sleeps and wants to be woken.
    idle: bool,
    closed: bool,
}

impl Text {
    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.reopen.is_none() && !self.closed
    }
}

impl Output {
    /// Starts the writer of `stream`.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(stream: Stream) -> io::Result<Output> {
        let lines = Lines::new(stream.open()?);
        let name = match stream {
            Stream::Stdout => "lb-stdout",
            Stream::Stderr => "lb-stderr",
            Stream::File(_) => "lb-log",
        };
        let inner = Arc::new(Inner {
            stream,
            text: Mutex::default(),
            lost: AtomicU64::new(0),
            wake: Condvar::new(),
            ended: watch::Sender::new(false),
        });
        let writer = inner.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            writer.write_all(lines);
            writer.ended.send_replace(true);
        })?;
        Ok(Output(inner))
    }

    /// An output without a writer: what is appended waits to be
    /// [taken](Self::take), for those who run the balancer inside themselves.
    pub fn in_memory() -> Output {
        Output(Arc::new(Inner {
            stream: Stream::Stdout,
            text: Mutex::default(),
            lost: AtomicU64::new(0),
            wake: Condvar::new(),
            ended: watch::Sender::new(true),
        }))
    }

    /// What waits to be written, which then no longer does.
    pub fn take(&self) -> Vec<u8> {
        mem::take(&mut self.0.text().waiting)
    }

    /// Appends what `write` writes: whole lines. Never waits for the stream.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut text = self.0.text();
        if text.closed || text.waiting.len() > BUFFER_LIMIT {
            text.dropped += 1;
            return;
        }
        write(&mut text.waiting);
        self.0.wake(text);
    }

    /// Opens the file anew, for whoever has renamed it: what has been appended
    /// so far goes to the old file, what comes next to the new one. If that
    /// cannot be opened the old one is kept. Standard output and error stay.
    pub fn reopen(&self) {
        if let Stream::File(_) = self.0.stream {
            let mut text = self.0.text();
            text.reopen = Some(text.waiting.len());
            self.0.wake(text);
        }
    }

    /// Lines that were lost so far: they came faster than they could be
    /// written, or could not be written at all.
    pub fn lost(&self) -> u64 {
        let unheard = self.0.text().dropped;
        self.0.lost.load(Ordering::Relaxed) + unheard
    }

    /// Takes no more, and waits until what there is has been written: as long
    /// as the stream takes, so the caller bounds it.
    pub async fn close(&self) {
        self.0.text().closed = true;
        self.0.wake.notify_one();
        // The sender lives in `self`.
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// For `tracing`: one event is one write, and none fails.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(|text| text.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    /// The writer's thread.
    fn write_all(&self, mut lines: Lines<File>) {
        let mut text = Text::default();
        let mut failing = false;
        while !text.closed {
            self.next_batch(&mut text);
            lines.lose(mem::take(&mut text.dropped));
            let (old, new) = text.waiting.split_at(text.reopen.unwrap_or(0));
            let mut written = lines.write(old);
            if text.reopen.take().is_some() {
                self.go_on_in_new_file(&mut lines);
            }
            written = written.and(lines.write(new));
            self.lost.store(lines.lost_in_all(), Ordering::Relaxed);
            if let Err(error) = &written
                && error.kind() == io::ErrorKind::BrokenPipe
                && !matches!(self.stream, Stream::File(_))
            {
                self.complain(&mut lines, &format!("cannot write to {}: {error}", self.stream));
                // Nobody will read: keep nothing.
                self.text().closed = true;
                return;
            }
            self.report(&mut lines, written, &mut failing);
            let calm = text.waiting.len() <= CALM_BYTES;
            text.waiting.clear();
            text.waiting.shrink_to(if calm { CALM_BYTES } else { KEPT_BYTES });
            self.gather();
        }
        let lost = lines.take_lost();
        if lost > 0 {
            self.complain(&mut lines, &format!("{lost} lines dropped at the end"));
        }
    }

    /// A full disk may have room again later: says once that it is full, and
    /// what it has cost when it no longer is.
    fn report(&self, lines: &mut Lines<File>, written: io::Result<()>, failing: &mut bool) {
        let stream = &self.stream;
        match written {
            Err(error) if !mem::replace(failing, true) => self.complain(
                lines,
                &format!("cannot write to {stream}: {error}; lines are dropped until it works"),
            ),
            Err(_) => {}
            Ok(()) => match (mem::take(failing), lines.take_lost()) {
                (_, 0) => {}
                (true, lost) => {
                    self.complain(lines, &format!("writing to {stream} again: {lost} lines dropped"));
                }
                (false, lost) => self.complain(
                    lines,
                    &format!(
                        "{lost} lines dropped: they came faster than they could be written to {stream}"
                    ),
                ),
            },
        }
    }

    fn go_on_in_new_file(&self, lines: &mut Lines<File>) {
        match self.stream.open() {
            Ok(file) => {
                lines.go_on_in(file);
                info!("{} opened anew", self.stream);
            }
            Err(error) => warn!("cannot open {} anew: {error}; the old file is kept", self.stream),
        }
    }

    /// Says it where the log of troubles goes; that one's own stand in itself.
    fn complain(&self, lines: &mut Lines<File>, what: &str) {
        match self.stream {
            Stream::Stderr => drop(lines.write(format!("{what}\n").as_bytes())),
            _ => warn!("{what}"),
        }
    }

    /// Waits for something to do, and takes it.
    fn next_batch(&self, batch: &mut Text) {
        let mut text = self.text();
        while text.is_quiet() {
            text.idle = true;
            text = self.wake.wait(text).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut text.waiting, &mut batch.waiting);
        batch.reopen = text.reopen.take();
        batch.dropped = mem::take(&mut text.dropped);
        batch.closed = text.closed;
    }

    /// Lets text gather for a moment. Nobody wakes the writer meanwhile but the
    /// end: under load that saves a system call and a switch of threads for
    /// each request; a line alone is written as soon as it is there.
    fn gather(&self) {
        let open = |text: &mut Text| !text.closed;
        drop(self.wake.wait_timeout_while(self.text(), GATHER, open));
    }

    fn text(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut text: MutexGuard<'_, Text>) {
        if mem::replace(&mut text.idle, false) {
            drop(text);
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_no_large_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let output = Output::start(Stream::File(path.clone())).unwrap();
        let mut length = 0;
        // The second takes the buffer of which the first was written, the third that of
        // the second.
        for (line, most) in
            [(1 << 20, usize::MAX), (1, KEPT_BYTES), (1, CALM_BYTES), (1, CALM_BYTES)]
        {
            output.append(|text| text.resize(line, b'\n'));
            length += line as u64;
            while path.metadata().unwrap().len() < length {
                thread::yield_now();
            }
            let kept = output.0.text().waiting.capacity();
            assert!(kept <= most, "{kept} after {line}");
        }
    }
}
