//! Carries out a plan against the `lb` program on real sockets, in real time.
//!
//! Owns how such an `lb` is told of changes (its file, its admin API) and how
//! its lines become those that the judge reads. What real sockets cannot do is
//! left out of the plan.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lb::balance::Wanted;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{
    backend::Backend,
    log::{Event, EventKind, EventLog},
    net::Loopback,
};
use tokio::{runtime::Builder, task::LocalSet, time::Instant};

use super::{
    config::{Check, listed},
    crowd::Crowd,
    judge::judge,
    network::Link,
    operations::Stage,
    phases::{Played, play},
    plan::{Operation, Plan, What},
    run::Run,
};
use crate::e2e::Balancer;

/// By how much something may be seen later than it happens: a busy machine's
/// stalls.
const LATE: Duration = Duration::from_millis(400);

/// What lb is called in the log.
const NAME: &str = "lb";

/// The plan as real sockets can play it, and what of it they cannot.
pub(super) fn playable(plan: &Plan) -> (Plan, Vec<Operation>) {
    let mut plan = plan.clone();
    let is_of_links = |operation: &Operation| {
        matches!(
            operation.what,
            What::Partition { .. } | What::Slow { .. } | What::Lossy { .. } | What::Crash { .. }
        )
    };
    let operations = std::mem::take(&mut plan.operations);
    let (left_out, kept) = operations.into_iter().partition(is_of_links);
    plan.operations = kept;
    // What the judge allows for round trips it allows for stalls here.
    plan.network.latency_ms = LATE.as_millis() as u64 / 4;
    plan.network.jitter_ms = 0;
    (plan, left_out)
}

/// Carries out a plan and judges it.
///
/// # Errors
/// The harness fails.
pub(super) fn verdict(plan: &Plan, lb: &Path) -> Result<(Run, Vec<String>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let run = LocalSet::new().block_on(&runtime, run(plan, lb))?;
    let wrong = judge(plan, &run);
    Ok((run, wrong))
}

async fn run(plan: &Plan, lb: &Path) -> Result<Run> {
    let began = Instant::now();
    let log = EventLog::new();
    let mut backends = Vec::new();
    for server in &plan.servers {
        backends.push(Backend::builder(&server.name).start(&log).await?);
    }
    let local = Local::start(plan, lb, &backends, &log).await?;
    let clients = vec![Loopback; plan.clients.len()];
    let addr = local.balancer.addr;
    let played = play(plan, (&log, began), (addr, clients), &backends, &local).await?;
    let left = local.left().await?;
    let mut balancer = local.balancer;
    balancer.terminate()?;
    balancer.exited().await?;
    let Played { done, strict } = played;
    let (events, access) = told(log.events());
    let (took, crowd) = (began.elapsed(), Crowd::default());
    Ok(Run { events, done, access, strict, left, crowd, took, late: LATE })
}

/// `lb`'s lines as the judge knows them: those of changes without the time of
/// day, those of requests by themselves.
fn told(mut events: Vec<Event>) -> (Vec<Event>, String) {
    let mut access = String::new();
    for event in &mut events {
        let EventKind::Output { source, line } = &mut event.kind else { continue };
        if **source != *NAME {
            continue;
        }
        if line.contains(" total_ms=") {
            access.push_str(&std::mem::take(line));
            access.push('\n');
        } else if let Some((time, rest)) = line.split_once(' ')
            && time.ends_with('Z')
        {
            *line = rest.trim_start().to_owned();
        }
    }
    (events, access)
}

/// An `lb` program and what it was told.
struct Local {
    balancer: Balancer,
    folder: TempDir,
    backends: Vec<Backend>,
    log: EventLog,
}

impl Local {
    async fn start(plan: &Plan, lb: &Path, backends: &[Backend], log: &EventLog) -> Result<Local> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("lb.yaml");
        let weights: Vec<u32> = listed(plan).map(|index| plan.servers[index].weight).collect();
        let file = file(plan, backends, &weights, &Check::first(plan));
        fs::write(&path, file.to_string())?;
        let path = path.display().to_string();
        let flags = ["--config", &path, "--api-port", "0", "--log-level", "debug"];
        let balancer = Balancer::start(lb, NAME, None, &[], &flags, log).await?;
        Ok(Local { balancer, folder, backends: backends.to_vec(), log: log.clone() })
    }

    /// Asks for a change. One that is refused as it was made already is none.
    async fn ask(&self, path: &str, body: Value) -> Result<()> {
        let (status, text) = self.balancer.api("POST", path, &body.to_string()).await?;
        ensure!([200, 404, 409].contains(&status), "{path} {body}: {status} {text}");
        Ok(())
    }

    /// What is still there that should not be.
    async fn left(&self) -> Result<Vec<String>> {
        let (_, text) = self.balancer.api("GET", "/servers", "").await?;
        let servers: Value = serde_json::from_str(&text).context("GET /servers")?;
        let servers = servers.as_array().or_else(|| servers["servers"].as_array()).cloned();
        let busy = |server: &Value| {
            let count = server["in_flight"].as_u64().filter(|count| *count > 0)?;
            Some(format!("{} has {count} in flight", server["name"].as_str().unwrap_or("?")))
        };
        Ok(servers.context("no list of servers")?.iter().filter_map(busy).collect())
    }
}

impl Stage for Local {
    async fn reload(&self, plan: &Plan, weights: &[u32], check: &Check) -> Result<()> {
        let (new, path) = (self.folder.path().join("new"), self.folder.path().join("lb.yaml"));
        let mark = self.log.len();
        fs::write(&new, file(plan, &self.backends, weights, check).to_string())?;
        fs::rename(new, path)?;
        self.balancer.prints(mark, " applied").await?;
        Ok(())
    }

    async fn want(&self, server: usize, wanted: Wanted) -> Result<()> {
        let path = match wanted {
            Wanted::Enabled => "/enable",
            Wanted::Draining => "/drain",
            Wanted::Disabled => "/disable",
        };
        self.ask(path, json!({"url": self.backends[server].url()})).await
    }

    async fn add(&self, plan: &Plan, server: usize, check: &Check) -> Result<()> {
        let Plan { servers, .. } = plan;
        let body = json!({
            "url": self.backends[server].url(),
            "name": servers[server].name,
            "weight": servers[server].weight,
            "health_check_period": format!("{}ms", check.period.as_millis()),
        });
        self.ask("/add", body).await
    }

    async fn delete(&self, server: usize) -> Result<()> {
        self.ask("/delete", json!({"url": self.backends[server].url()})).await
    }

    fn link(&self, _: &str, _: &mut dyn FnMut(&mut Link, bool)) {}

    fn heal(&self) {}
}

/// What `lb` is told.
fn file(plan: &Plan, backends: &[Backend], weights: &[u32], check: &Check) -> Value {
    let millis = |number: u64| format!("{number}ms");
    let time = |time: Duration| millis(time.as_millis() as u64);
    let server = |(index, weight): (usize, &u32)| json!({"url": backends[index].url(), "name": plan.servers[index].name, "weight": weight});
    let balancer = &plan.balancer;
    json!({
        "algorithm": balancer.algorithm,
        "fresh_posts": balancer.fresh_posts,
        "health": {
            "path": "/health",
            "period": time(check.period),
            "timeout": time(check.timeout),
            "rise": check.rise,
            "fall": check.fall,
        },
        "timeouts": {
            "connect": millis(balancer.connect_timeout_ms),
            "response": millis(balancer.response_timeout_ms),
            "drain": millis(balancer.drain_ms),
        },
        "servers": listed(plan).zip(weights).map(server).collect::<Vec<_>>(),
    })
}
