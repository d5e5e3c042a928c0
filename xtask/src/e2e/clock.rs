//! The wall clock, for the scenarios that are declared to judge by it.
//!
//! Lower bounds are strict: nothing that is late can make them fail. An upper
//! bound is only a watchdog, twenty times what it bounds and five seconds at the
//! least, so that no machine is too slow for it.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, ensure};
use testbed::log::{DEFAULT_WATCHDOG, Event};
use tokio::time::{Instant, sleep, timeout};

use super::{World, simulated::SLACK};

/// How a scenario judges time. It has no other clock than what this allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Not at all: counted in probes, requests or events that were seen.
    Events,
    /// At quiescence.
    Quiescence,
    /// By the wall: lower bounds strict, upper bounds only a watchdog.
    Wall,
    /// Not at all; what is judged is chance, with a stated rate of false alarms.
    Statistics,
}

/// The least upper bound.
const LEAST: Duration = Duration::from_secs(5);

/// Time by the wall, or virtual time, from when it was asked for.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    is_virtual: bool,
}

impl Stopwatch {
    /// How long it has been.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// That it has been so long by now; in virtual time, exactly so long.
    pub(crate) fn expect(&self, time: Duration, what: &str) -> Result<()> {
        expect(self.elapsed(), time, what)?;
        if self.is_virtual { expect_at_most(self.elapsed(), time, what) } else { Ok(()) }
    }

    /// That it has been so long by now, or longer.
    pub(crate) fn expect_at_least(&self, least: Duration, what: &str) -> Result<()> {
        expect(self.elapsed(), least, what)
    }
}

fn expect_at_most(took: Duration, most: Duration, what: &str) -> Result<()> {
    ensure!(
        took <= most + SLACK,
        "{what} came after {took:?}, expected {most:?} at the most, and {SLACK:?} for round trips"
    );
    Ok(())
}

fn expect(took: Duration, least: Duration, what: &str) -> Result<()> {
    ensure!(took >= least, "{what} came after {took:?}, expected {least:?} at the least");
    Ok(())
}

/// From one look to the next, where nobody tells of a change.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for what nobody tells of, such as a state of the operating system's: looks
/// again and again.
///
/// # Errors
/// It does not come about, or cannot be looked at.
pub(crate) async fn seen(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let looks = async {
        while !holds()? {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    timeout(DEFAULT_WATCHDOG, looks).await.with_context(|| format!("waited for {what}"))?
}

/// # Errors
/// In all of them: the scenario is not declared to judge by the wall.
impl World {
    /// A stopwatch that runs.
    pub(crate) fn stopwatch(&self) -> Result<Stopwatch> {
        self.judges_by_the_wall()?;
        Ok(Stopwatch { began: Instant::now(), is_virtual: self.is_virtual() })
    }

    /// That so much time lies between two events.
    pub(crate) fn expect_between(
        &self,
        [first, second]: [&Event; 2],
        least: Duration,
        what: &str,
    ) -> Result<()> {
        self.judges_by_the_wall()?;
        expect(second.at.saturating_sub(first.at), least, what)
    }

    /// How long to wait for what takes `nominal`, before it is a failure: in
    /// virtual time, no longer than that.
    pub(crate) fn patience(&self, nominal: Duration) -> Result<Duration> {
        self.judges_by_the_wall()?;
        Ok(if self.is_virtual() { nominal + SLACK } else { LEAST.max(20 * nominal) })
    }

    /// That between two events there was at least the first of these, and at most
    /// the second. Nothing is asserted by the wall, where whatever is seen may be
    /// late.
    pub(crate) fn expect_within(
        &self,
        [first, second]: [&Event; 2],
        (least, most): (Duration, Duration),
        what: &str,
    ) -> Result<()> {
        let took = second.at.saturating_sub(first.at);
        if self.is_virtual() {
            expect(took, least, what)?;
            expect_at_most(took, most, what)?;
        }
        Ok(())
    }

    /// Lets time pass, as what is asserted is about that.
    pub(crate) async fn pause(&self, time: Duration) -> Result<()> {
        self.judges_by_the_wall()?;
        sleep(time).await;
        Ok(())
    }

    /// What comes of `work`; none if it is stuck for so long. On a machine that
    /// is slow it may seem so: that must not be a failure.
    pub(crate) async fn unless_stuck<T>(
        &self,
        time: Duration,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        self.judges_by_the_wall()?;
        Ok(timeout(time, work).await.ok())
    }

    fn judges_by_the_wall(&self) -> Result<()> {
        let declared = self.clock;
        ensure!(declared == Clock::Wall, "declared to judge by {declared:?}, not by the wall");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{e2e::world::Place, programs};

    fn world(clock: Clock) -> World {
        World::new("test".into(), clock, programs::places(false), Place::Local)
    }

    #[test]
    fn only_who_says_so_judges_by_the_wall() {
        for clock in [Clock::Events, Clock::Quiescence, Clock::Statistics] {
            let refused = world(clock).stopwatch().unwrap_err().to_string();
            assert!(refused.contains(&format!("{clock:?}")), "{refused}");
            world(clock).patience(LEAST).unwrap_err();
        }
        world(Clock::Wall).stopwatch().unwrap();
    }

    #[test]
    fn bounds_are_strict_below_and_wide_above() {
        let world = world(Clock::Wall);
        assert_eq!(world.patience(Duration::ZERO).unwrap(), LEAST);
        assert_eq!(world.patience(Duration::from_secs(1)).unwrap(), Duration::from_secs(20));
        expect(LEAST, LEAST, "it").unwrap();
        expect(LEAST, LEAST + Duration::from_nanos(1), "it").unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn virtual_time_is_exact() {
        let watch = Stopwatch { began: Instant::now(), is_virtual: true };
        watch.expect(LEAST, "it").unwrap_err();
        sleep(LEAST).await;
        watch.expect(LEAST, "it").unwrap();
        sleep(SLACK + Duration::from_millis(1)).await;
        watch.expect(LEAST, "it").unwrap_err();
        watch.expect_at_least(LEAST, "it").unwrap();
    }

    /// Watchdogs of reads are not judgements, and wide.
    #[test]
    fn scenarios_have_no_other_clock() {
        let clocks = ["Instant", "SystemTime", "sleep(", ".at)", ".at.", ".at "];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scenarios");
        for entry in walk(&folder) {
            let text = std::fs::read_to_string(&entry).unwrap();
            let found: Vec<_> = clocks.iter().filter(|clock| text.contains(**clock)).collect();
            assert!(found.is_empty(), "{}: {found:?}", entry.display());
            let bare = text.matches(" timeout(").count();
            let watchdogs = text.matches(" timeout(WATCHDOG, ").count();
            assert_eq!(bare, watchdogs, "{}: a timeout of its own", entry.display());
        }
    }

    fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let inside = |path: std::path::PathBuf| match path.is_dir() {
            true => walk(&path),
            false => vec![path],
        };
        entries.flat_map(inside).collect()
    }
}
