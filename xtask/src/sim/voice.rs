//! What `lb` logs, as events among the others.

use std::{
    io::{self, Write},
    sync::Arc,
};

use testbed::log::{EventKind, EventLog};
use tracing::{Subscriber, level_filters::LevelFilter, subscriber::DefaultGuard};

/// Records each line that is logged on this thread, until dropped.
pub(super) fn listen(log: &EventLog) -> DefaultGuard {
    tracing::subscriber::set_default(subscriber(log, "lb", LevelFilter::DEBUG))
}

/// Records what is logged, from this level on, as lines of `name`.
pub(crate) fn subscriber(
    log: &EventLog,
    name: &str,
    level: LevelFilter,
) -> impl Subscriber + Send + Sync + 'static + use<> {
    let voice = Voice { log: log.clone(), name: name.into() };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || voice.clone())
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish()
}

#[derive(Clone)]
struct Voice {
    log: EventLog,
    name: Arc<str>,
}

/// One event is one write.
impl Write for Voice {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim().to_owned();
        self.log.record(EventKind::Output { source: self.name.clone(), line });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
