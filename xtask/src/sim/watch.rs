//! A thread for a run that may never end.
//!
//! Owns how that is noticed: by the time that the thread itself has used up, so
//! that no run seems to hang because the machine is busy; and that a panic in any
//! of its tasks is heard.

use std::{
    cell::RefCell,
    fs, io, panic,
    sync::{
        Once,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use rustix::thread::{Pid, gettid};
use testbed::log::EventLog;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How the error of a run begins whose thread cannot be ended.
const SPINS: &str = "it never ends, and never waits";

/// What `work` returns, done on a thread of this name within so much of a
/// processor's time.
///
/// # Errors
/// What it says; it panics; or it does not end. If it does not even wait, its
/// thread is left behind: see [`spins`].
pub(crate) fn watched<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, outcome) = mpsc::channel();
    let (told, id) = mpsc::channel();
    thread::Builder::new().name(name.into()).spawn(move || {
        let _ = told.send(gettid());
        let _ = done.send(work());
    })?;
    let id = id.recv()?;
    let mut looks = 0;
    loop {
        match outcome.recv_timeout(LOOK) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Disconnected) => bail!("it panicked"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        looks += 1;
        // Where the system does not tell, all of the time was the thread's.
        if time_of(id).unwrap_or(LOOK * looks) >= limit {
            bail!("{SPINS}: {limit:?} of a processor's time are used up");
        }
    }
}

/// How much time of a processor a thread has had.
fn time_of(thread: Pid) -> io::Result<Duration> {
    let file = format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero());
    let text = fs::read_to_string(file)?;
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanos.ok_or(io::ErrorKind::InvalidData)?))
}

/// Whether an error is that the run's thread cannot be ended.
pub(super) fn spins(wrong: &[String]) -> bool {
    wrong.iter().any(|what| what.starts_with(SPINS))
}

thread_local! {
    /// Who is told of this thread's panics.
    static HEARER: RefCell<Option<EventLog>> = const { RefCell::new(None) };
}

/// From now on `log` is told of each panic on this thread: a runtime keeps those
/// of its tasks to itself.
pub(crate) fn hear_panics(log: &EventLog) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // One may come while another is told, or while the thread ends.
            let _ = HEARER.try_with(|hearer| {
                if let Ok(Some(log)) = hearer.try_borrow().as_deref() {
                    log.note_panic(info);
                }
            });
            before(info);
        }));
    });
    HEARER.set(Some(log.clone()));
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn what_never_waits_is_given_up_and_what_only_waits_is_not() {
        let limit = Duration::from_millis(500);
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let spun = watched("spins", limit, move || {
            while !until.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        assert!(spins(&[spun.unwrap_err().to_string()]));
        let (never, waits) = mpsc::channel::<()>();
        let waited = watched("waits", limit, move || {
            let _ = waits.recv_timeout(limit * 3);
            drop(never);
            Ok(7)
        });
        assert_eq!(waited.unwrap(), 7);
    }

    #[test]
    fn a_panic_of_a_task_is_heard() {
        let heard = watched("panics", Duration::from_secs(5), || {
            let log = EventLog::new();
            hear_panics(&log);
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let ended =
                runtime.block_on(async { tokio::spawn(async { panic!("on purpose") }).await });
            assert!(ended.is_err());
            Ok(log.panics())
        });
        let heard = heard.unwrap();
        assert!(heard.len() == 1 && heard[0].contains("on purpose"), "{heard:?}");
    }
}
