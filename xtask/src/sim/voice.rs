//! What `lb` logs, as events among the others.

use std::io::{self, Write};

use testbed::log::{EventKind, EventLog};
use tracing::{level_filters::LevelFilter, subscriber::DefaultGuard};

/// Records each line that is logged on this thread, until dropped.
pub(super) fn listen(log: &EventLog) -> DefaultGuard {
    let voice = Voice(log.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(move || voice.clone())
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_default(subscriber)
}

#[derive(Clone)]
struct Voice(EventLog);

/// One event is one write.
impl Write for Voice {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim().to_owned();
        self.0.record(EventKind::Output { source: "lb".into(), line });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
