//! Standard output and standard error, written by threads of their own.
//!
//! A slow disk, a stopped pager or a reader that went away holds up no request
//! and no change of state: text is appended to memory and written elsewhere.
//! What comes beyond a bound is dropped and counted, never waited for.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::watch;

/// Text that may wait to be written; what comes beyond it is dropped.
const BUFFER_LIMIT: usize = 4 * 1024 * 1024;

/// How long text gathers before the next is written.
const GATHER: Duration = Duration::from_millis(5);

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn write_all(self, text: &[u8]) -> io::Result<()> {
        match self {
            Stream::Stdout => io::stdout().lock().write_all(text),
            Stream::Stderr => io::stderr().lock().write_all(text),
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
    wake: Condvar,
    /// True once everything is written and the writer has ended.
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Text {
    waiting: Vec<u8>,
    /// Since the last batch.
    dropped: u64,
    /// Lines that were lost in all.
    lost: u64,
    /// Whether the writer sleeps and wants to be woken.
    idle: bool,
    closed: bool,
}

impl Output {
    /// Starts the writer of `stream`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(stream: Stream) -> io::Result<Output> {
        let inner = Arc::new(Inner {
            stream,
            text: Mutex::default(),
            wake: Condvar::new(),
            ended: watch::Sender::new(false),
        });
        let writer = inner.clone();
        let name = format!("lb-{stream:?}").to_lowercase();
        thread::Builder::new().name(name).spawn(move || {
            writer.write_all();
            writer.ended.send_replace(true);
        })?;
        Ok(Output(inner))
    }

    /// Appends what `write` writes. Never waits for the stream.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut text = self.0.text();
        if text.closed || text.waiting.len() > BUFFER_LIMIT {
            text.dropped += 1;
            text.lost += 1;
            return;
        }
        write(&mut text.waiting);
        if std::mem::replace(&mut text.idle, false) {
            drop(text);
            self.0.wake.notify_one();
        }
    }

    /// Lines that were lost so far: they came faster than they could be
    /// written, or could not be written at all.
    pub fn lost(&self) -> u64 {
        self.0.text().lost
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
    fn write_all(&self) {
        let mut batch = Vec::new();
        let mut failing = false;
        loop {
            let closed = self.next_batch(&mut batch);
            match self.stream.write_all(&batch) {
                Ok(()) => failing = false,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.complain(&error);
                    self.lose(&batch);
                    // Nobody will read: keep nothing.
                    self.text().closed = true;
                    return;
                }
                // A full disk may have room again later: say so once.
                Err(error) => {
                    if !mem::replace(&mut failing, true) {
                        self.complain(&error);
                    }
                    self.lose(&batch);
                }
            }
            batch.clear();
            if closed {
                return;
            }
            self.gather();
        }
    }

    /// Counts the lines of a batch that could not be written, or not whole.
    fn lose(&self, batch: &[u8]) {
        self.text().lost += memchr::memchr_iter(b'\n', batch).count() as u64;
    }

    fn complain(&self, error: &io::Error) {
        if self.stream == Stream::Stdout {
            tracing::warn!("cannot write to standard output: {error}");
        }
    }

    /// Waits for text and takes it; true if it is the last.
    fn next_batch(&self, batch: &mut Vec<u8>) -> bool {
        let mut text = self.text();
        while text.waiting.is_empty() && !text.closed {
            text.idle = true;
            text = self.wake.wait(text).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut text.waiting, batch);
        let dropped = mem::take(&mut text.dropped);
        if dropped > 0 {
            // Writing to memory cannot fail.
            let _ = writeln!(
                batch,
                "{dropped} lines dropped: they came faster than they could be written"
            );
        }
        text.closed
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
}
