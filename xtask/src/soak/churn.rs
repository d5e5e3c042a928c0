//! Everything that changes around the load: kills, faults, reloads, restarts.
//!
//! Owns when what happens, all drawn from the seed, each kind of change in a
//! stream of its own. An error is a change that `lb` did not follow.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use serde::Serialize;
use testbed::backend::Backend;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    disruptions::{Disruptions, Effect},
    servers::{Mortal, Trouble, heal},
    service::Service,
};

/// How long a server that is alive again may take to get requests.
const RETURN: Duration = Duration::from_secs(30);

/// From one look whether it does to the next.
const LOOK: Duration = Duration::from_millis(50);

/// The share of the time in which restarts happen: the last balancer lives long
/// enough for its memory to be judged.
const RESTARTING: f64 = 0.3;

/// From one rotation of the access log to the next.
const ROTATION: Duration = Duration::from_secs(20);

/// What is to happen, evenly spread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) time: Duration,
    pub(super) kills: usize,
    pub(super) reloads: usize,
    pub(super) restarts: usize,
}

/// How often it has.
#[derive(Debug, Default)]
pub(super) struct Done {
    kills: AtomicUsize,
    reloads: AtomicUsize,
    refused: AtomicUsize,
    restarts: AtomicUsize,
    troubles: AtomicUsize,
    changes: AtomicUsize,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counts {
    /// Servers that were killed with SIGKILL.
    pub(super) kills: usize,
    /// Configurations that were applied after SIGHUP.
    pub(super) reloads: usize,
    /// Files with a mistake, which were refused.
    pub(super) refused: usize,
    /// Balancers that took over from another.
    pub(super) restarts: usize,
    /// Times that a server misbehaved.
    pub(super) troubles: usize,
    /// Changes through the admin API.
    pub(super) changes: usize,
}

impl Done {
    pub(super) fn counts(&self) -> Counts {
        let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Counts {
            kills: get(&self.kills),
            reloads: get(&self.reloads),
            refused: get(&self.refused),
            restarts: get(&self.restarts),
            troubles: get(&self.troubles),
            changes: get(&self.changes),
        }
    }
}

/// Everybody whom it concerns.
pub(super) struct Stage {
    pub(super) service: Service,
    pub(super) mortals: [Mortal; 3],
    pub(super) backends: [Backend; 3],
    pub(super) disruptions: Disruptions,
    pub(super) done: Done,
    /// The program of the mortals.
    pub(super) be: PathBuf,
}

/// Names of the servers in this process, which disruptions go by.
pub(super) const NAMES: [&str; 3] = ["A", "B", "C"];

impl Stage {
    /// The configuration with all servers.
    pub(super) fn whole(mortals: &[Mortal; 3], backends: &[Backend; 3]) -> String {
        text("round_robin", &entries(mortals, backends))
    }

    /// Begins all of it.
    pub(super) fn churn(self: &Arc<Self>, plan: Plan) -> JoinSet<Result<()>> {
        let mut all = JoinSet::new();
        let (stage, seed) =
            (|| self.clone(), |stream: u64| Rng::with_seed(plan.seed ^ (stream << 32)));
        all.spawn(kill(stage(), plan, seed(1)));
        all.spawn(reload(stage(), plan, seed(2)));
        all.spawn(restart(stage(), plan, seed(3)));
        all.spawn(trouble(stage(), plan.time, seed(4)));
        all.spawn(change(stage(), plan.time, seed(5)));
        all.spawn(rotate(stage(), plan.time));
        all
    }

    /// All servers are well, configured, and get requests.
    pub(super) async fn heal(&self) -> Result<()> {
        for backend in &self.backends {
            heal(backend).await?;
        }
        self.service.reload(None, &Self::whole(&self.mortals, &self.backends)).await?;
        for mortal in &self.mortals {
            self.returned(mortal.addr()).await?;
        }
        for backend in &self.backends {
            // A reload leaves alone what was wanted of a server that stays.
            self.service.change("/enable", &backend.url()).await?;
            self.returned(backend.addr()).await?;
        }
        Ok(())
    }

    async fn returned(&self, addr: std::net::SocketAddr) -> Result<()> {
        let began = Instant::now();
        while !self.service.deals_to(addr).await? {
            if began.elapsed() > RETURN {
                bail!("{addr} is alive, and gets no request for {RETURN:?}");
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Moments within `time`, one in each of `count` equal parts of it.
fn moments(count: usize, time: Duration, random: &mut Rng) -> Vec<Instant> {
    let (now, part) = (Instant::now(), time.div_f64(count.max(1) as f64));
    (0..count).map(|n| now + part.mul_f64(n as f64 + random.f64())).collect()
}

async fn kill(stage: Arc<Stage>, plan: Plan, mut random: Rng) -> Result<()> {
    for moment in moments(plan.kills, plan.time, &mut random) {
        sleep_until(moment).await;
        let mortal = &stage.mortals[random.usize(0..stage.mortals.len())];
        let dead = stage.disruptions.begin(mortal.name, Effect::Truncates);
        mortal.kill().await?;
        sleep(Duration::from_millis(random.u64(0..300))).await;
        mortal.start(&stage.be).await?;
        drop(dead);
        stage.returned(mortal.addr()).await.context("after a SIGKILL")?;
        stage.done.kills.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The lines of all servers, the mortals first.
fn entries(mortals: &[Mortal; 3], backends: &[Backend; 3]) -> Vec<String> {
    let mortals = mortals.iter().map(|mortal| format!("http://{}", mortal.addr()));
    mortals.chain(backends.iter().map(Backend::url)).collect()
}

fn text(algorithm: &str, servers: &[String]) -> String {
    let servers: String = servers.iter().map(|url| format!("  - {url}\n")).collect();
    format!("algorithm: {algorithm}\nservers:\n{servers}")
}

async fn reload(stage: Arc<Stage>, plan: Plan, mut random: Rng) -> Result<()> {
    for (number, moment) in moments(plan.reloads, plan.time, &mut random).into_iter().enumerate() {
        sleep_until(moment).await;
        let mistake = (number % 10 == 9).then_some("servers: [");
        let all = entries(&stage.mortals, &stage.backends);
        let (mortals, others) = all.split_at(stage.mortals.len());
        let mut servers = mortals.to_vec();
        servers.extend(others.iter().filter(|_| random.u32(0..3) > 0).cloned());
        random.shuffle(&mut servers);
        let algorithms = ["round_robin", "least_connections", "two_choices", "random", "hash"];
        let algorithm = algorithms[random.usize(0..algorithms.len())];
        stage.service.reload(mistake, &text(algorithm, &servers)).await?;
        stage.done.refused.fetch_add(mistake.map_or(0, |_| 1), Ordering::Relaxed);
        stage.done.reloads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn restart(stage: Arc<Stage>, plan: Plan, mut random: Rng) -> Result<()> {
    for moment in moments(plan.restarts, plan.time.mul_f64(RESTARTING), &mut random) {
        sleep_until(moment).await;
        stage.service.restart().await.context("a restart")?;
        stage.done.restarts.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn trouble(stage: Arc<Stage>, time: Duration, mut random: Rng) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let place = random.usize(0..NAMES.len());
        let (name, server) = (NAMES[place], &stage.backends[place]);
        let trouble = Trouble::draw(&mut random);
        let lasting = stage.disruptions.begin(name, trouble.effect());
        trouble.begin(server).await?;
        sleep(Duration::from_millis(random.u64(50..1500))).await;
        heal(server).await?;
        drop(lasting);
        stage.done.troubles.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(random.u64(0..1000))).await;
    }
    Ok(())
}

async fn change(stage: Arc<Stage>, time: Duration, mut random: Rng) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let url = stage.backends[random.usize(0..NAMES.len())].url();
        let weight = random.u32(0..4);
        let with_weight = format!("{{\"url\": \"{url}\", \"weight\": {weight}}}");
        let (path, body) = match random.u32(0..6) {
            0 => ("/delete", url),
            1 => ("/drain", url),
            2 => ("/disable", url),
            3 => ("/enable", url),
            4 => ("/update", with_weight),
            _ => ("/add", with_weight),
        };
        stage.service.change(path, &body).await?;
        stage.done.changes.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(random.u64(50..1000))).await;
    }
    Ok(())
}

async fn rotate(stage: Arc<Stage>, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() + ROTATION < end {
        sleep(ROTATION).await;
        stage.service.rotate_log().await.context("the access log")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_are_spread_evenly_and_follow_from_the_seed() {
        let (now, time) = (Instant::now(), Duration::from_secs(100));
        let draw = |seed| moments(10, time, &mut Rng::with_seed(seed));
        for (part, moment) in (0..).zip(draw(1)) {
            let at = moment - now;
            assert!((part * 10..=(part + 1) * 10).contains(&at.as_secs()), "{part}: {at:?}");
        }
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(moments(0, time, &mut Rng::with_seed(1)).is_empty());
    }
}
