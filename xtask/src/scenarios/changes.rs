//! Changes while the balancer runs: nobody notices but whom they concern.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use tempfile::TempDir;
use testbed::{
    backend::Backend,
    client::Request,
    fairness,
    fault::{Fault, Health},
    history::observations,
    log::{Event, EventKind},
    rotation::{Epoch, check_epochs},
};
use tokio::{sync::watch, task::JoinSet};

use super::{failover::received, rotation::expect_strict, scenario};
use crate::e2e::{Client, Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        51,
        "changes",
        drained_finish,
        Events,
        "a drained server finishes what it has, gets nothing new, and returns to its place"
    ),
    scenario!(
        51,
        "changes",
        deleted_finish,
        Events,
        "so does one that was deleted; added again it is a new one, at the end"
    ),
    scenario!(
        51,
        "changes",
        cut_off_at_last,
        Wall,
        "what a deleted server has not finished in the drain time goes elsewhere, or ends"
    ),
    scenario!(
        52,
        "changes",
        fifty_reloads,
        Events,
        "50 reloads under 16 clients: no client error, health and connections kept"
    ),
    scenario!(
        53,
        "changes",
        bad_file,
        Events,
        "a bad file changes nothing and says why; the next good one counts"
    ),
    scenario!(
        53,
        "changes",
        file_is_watched,
        Events,
        "a file that is written anew or replaced by another is read again"
    ),
    scenario!(
        53,
        "changes",
        file_behind_links,
        Events,
        "so is one behind a link whose target changes, or in a folder that is replaced"
    ),
    scenario!(
        54,
        "changes",
        strict_in_each_epoch,
        Events,
        "add, delete, drain and weights: one strict rotation of 8 clients after each"
    ),
    scenario!(
        54,
        "changes",
        goes_on_behind_the_last,
        Events,
        "a drain, a return and a delete: the rotation goes on behind the server dealt last"
    ),
    scenario!(
        54,
        "changes",
        strict_over_changes,
        Events,
        "8 clients go on through drains and returns: one rotation from first to last"
    ),
    scenario!(
        54,
        "changes",
        five_hundred_at_random,
        Events,
        "500 adds, updates, drains and deletes at random under 16 clients: no client error"
    ),
];

const API: [&str; 2] = ["--api-port", "0"];

/// Asks the admin API for a change, which it must make.
async fn change(w: &mut World, path: &str, body: &str) -> Result<()> {
    let (status, text) = w.lb()?.api("POST", path, body).await?;
    ensure!(status == 200, "{path} {body}: {status} {text}");
    Ok(())
}

/// A configuration file that a balancer reads, in a folder of its own.
pub(super) struct File(TempDir);

impl File {
    /// Starts a balancer with `text`.
    pub(super) async fn balance(w: &mut World, text: &str) -> Result<File> {
        let file = File(tempfile::tempdir()?);
        file.write(text)?;
        let path = file.0.path().join("lb.yaml").display().to_string();
        w.balance_over(&[], &["--config", &path]).await?;
        Ok(file)
    }

    /// Puts another in its place, as an editor does.
    fn write(&self, text: &str) -> Result<()> {
        let (other, path) = (self.0.path().join("lb.yaml.new"), self.0.path().join("lb.yaml"));
        fs::write(&other, text)?;
        Ok(fs::rename(other, path)?)
    }

    /// The same, and waits until the balancer has found it good.
    async fn apply(&self, w: &mut World, text: &str) -> Result<()> {
        let mark = w.log.len();
        self.write(text)?;
        w.lb()?.prints(mark, " applied").await?;
        Ok(())
    }
}

fn servers(backends: &[(&Backend, u32)]) -> String {
    let line = |(backend, weight): &(&Backend, u32)| {
        format!("  - {{url: \"{}\", weight: {weight}}}\n", backend.url())
    };
    format!("servers:\n{}", backends.iter().map(line).collect::<String>())
}

/// Takes A out by a change to `path` while it holds a POST: B and C get what
/// comes then, and A's answer still reaches the client. Returns A, the client of
/// the others, and the moment before the change.
async fn finishes_after(w: &mut World, path: &str) -> Result<(Backend, Client, u64)> {
    let [a, _, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&API).await?;
    a.arm(Fault::Park, 1);
    let mut parked = w.client("parked")?;
    let pending = parked.start(Request::new("POST", "/").body(b"once".to_vec())).await?;
    w.log.wait("the request at A", received(&a)).await?;
    let mark = w.log.len();
    change(w, path, &a.url()).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "BCBC").await?;
    ensure!(w.lb()?.said(mark, " drained")? == 0, "drained with a request in flight");
    a.release();
    ensure!(pending.read().await?.backend() == "A", "the parked request was answered elsewhere");
    Ok((a, client, mark))
}

async fn drained_finish(w: &mut World) -> Result<()> {
    let (a, mut client, _) = finishes_after(w, "/drain").await?;
    w.expect_sequence(&mut client, "BC").await?;
    change(w, "/enable", &a.url()).await?;
    w.expect_sequence(&mut client, "ABCABC").await
}

async fn deleted_finish(w: &mut World) -> Result<()> {
    let (a, mut client, mark) = finishes_after(w, "/delete").await?;
    w.lb()?.prints(mark, " drained").await?;
    let mark = w.log.len();
    change(w, "/add", &format!("{{\"url\": \"{}\"}}", a.url())).await?;
    w.lb()?.says(mark, &a, "up").await?;
    // It joined behind C, which was dealt last.
    w.expect_sequence(&mut client, "ABCABC").await
}

async fn cut_off_at_last(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a, _] = w.backends(["A", "B"]).await?;
    w.balance(&["--api-port", "0", "--drain-timeout", "300ms"]).await?;
    a.set_fault(Fault::Park);
    let (mut get, mut post) = (w.client("get")?, w.client("post")?);
    let got = get.start(Request::new("GET", "/")).await?;
    w.log.wait("the GET at A", received(&a)).await?;
    let mut between = w.client("between")?;
    w.expect_sequence(&mut between, "B").await?;
    let mark = w.log.len();
    let posted = post.start(Request::new("POST", "/").body(b"once".to_vec())).await?;
    w.log.wait_from(mark, "the POST at A", received(&a)).await?;
    let mark = w.log.len();
    change(w, "/delete", &a.url()).await?;
    w.lb()?.prints(mark, " cut off in_flight=2").await?;
    ensure!(got.read().await?.backend() == "B", "the GET did not go elsewhere");
    ensure!(posted.read().await?.status == 504, "the POST did not end");
    a.clear();
    w.expect_sequence(&mut between, "BB").await
}

/// GETs and POSTs in turn until `stop`, none of which may fail.
async fn flawless(mut client: Client, stop: watch::Receiver<bool>) -> Result<()> {
    while !*stop.borrow() {
        for reply in [client.get("/?size=2000").await, client.post("/", b"once".to_vec()).await] {
            let reply = reply.context("a request failed")?;
            ensure!(reply.status == 200, "a request got {}: {}", reply.status, reply.text());
        }
    }
    Ok(())
}

/// Keeps 16 clients busy until dropped or told to stop.
struct Load(watch::Sender<bool>, JoinSet<Result<()>>);

impl Load {
    fn start(w: &mut World) -> Result<Load> {
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        for number in 0..16 {
            running.spawn(flawless(w.client(&format!("c{number}"))?, stopped.clone()));
        }
        Ok(Load(stop, running))
    }

    async fn stop(self) -> Result<()> {
        self.0.send_replace(true);
        self.1.join_all().await.into_iter().collect()
    }
}

async fn fifty_reloads(w: &mut World) -> Result<()> {
    let [a, b, c, d] = w.backends(["A", "B", "C", "D"]).await?;
    let file = File::balance(w, &servers(&[(&a, 1), (&b, 1), (&c, 1)])).await?;
    c.set_health(Health::Status(500));
    let load = Load::start(w)?;
    for round in 1..=25 {
        file.apply(w, &servers(&[(&a, 1), (&b, 1 + round % 3), (&d, 1), (&c, 1)])).await?;
        file.apply(w, &servers(&[(&c, 1), (&a, 1), (&b, 1)])).await?;
    }
    load.stop().await?;
    // A server whose weight alone changed is not probed anew: C was not asked
    // again, and still passes for healthy.
    let probes = |backend: &Backend| {
        w.log.count(0, |event| matches!(&event.kind, EventKind::Probed { backend: name, .. } if **name == *backend.name()))
    };
    ensure!((probes(&a), probes(&c)) == (1, 1), "probed again: {} {}", probes(&a), probes(&c));
    let mark = w.log.len();
    super::rotation::in_parallel(w, 4, 30).await?;
    fairness::check_even(&fairness::counts(&w.log.events_from(mark)), &["A", "B", "C"])?;
    Ok(())
}

async fn bad_file(w: &mut World) -> Result<()> {
    let [a, b, c] = w.backends(["A", "B", "C"]).await?;
    let good = servers(&[(&a, 1), (&b, 1)]);
    let file = File::balance(w, &good).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABA").await?;
    let two_mistakes = good.replace("weight: 1", "weight: -1");
    for bad in ["servers: [", "", "nonsense: 1\n", &two_mistakes] {
        let mark = w.log.len();
        file.write(bad)?;
        w.lb()?.prints(mark, " refused, everything stays as it was").await?;
        w.expect_sequence(&mut client, "BA").await?;
    }
    let mark = w.log.len();
    file.apply(w, &servers(&[(&a, 1), (&b, 2), (&c, 0)])).await?;
    w.expect_sequence(&mut client, "BA").await?;
    w.lb()?.says(mark, &c, "up").await?;
    // C, which gets nothing, has not disturbed the others' period.
    w.expect_sequence(&mut client, "BBABBAB").await
}

async fn file_is_watched(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    let file = File::balance(w, &servers(&[(&a, 1), (&b, 1)])).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "AB").await?;
    let path = file.0.path().join("lb.yaml");
    // In place, replaced, gone and back.
    let mark = w.log.len();
    fs::write(&path, servers(&[(&a, 1)]))?;
    w.lb()?.prints(mark, " applied").await?;
    w.expect_sequence(&mut client, "AA").await?;
    let mark = w.log.len();
    file.apply(w, &servers(&[(&b, 1)])).await?;
    w.lb()?.says(mark, &b, "up").await?;
    w.expect_sequence(&mut client, "BB").await?;
    let mark = w.log.len();
    fs::remove_file(&path)?;
    w.lb()?.prints(mark, " refused").await?;
    w.expect_sequence(&mut client, "BB").await?;
    file.apply(w, &servers(&[(&a, 1)])).await?;
    w.lb()?.says(mark, &a, "up").await?;
    // SIGHUP reads it whether it has changed or not.
    let mark = w.log.len();
    w.lb()?.hang_up()?;
    w.lb()?.prints(mark, " applied").await?;
    w.expect_sequence(&mut client, "AA").await
}

/// What is watched is the folder that the path leads to at first.
async fn file_behind_links(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    let root = tempfile::tempdir()?;
    let at = |path: &str| root.path().join(path);
    for (release, server) in [("1", &a), ("2", &b)] {
        fs::create_dir(at(release))?;
        fs::write(at(release).join("lb.yaml"), servers(&[(server, 1)]))?;
    }
    symlink("1", at("current"))?;
    fs::create_dir(at("etc"))?;
    symlink("../current/lb.yaml", at("etc/lb.yaml"))?;
    w.balance_over(&[], &["--config", &at("etc/lb.yaml").display().to_string()]).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "A").await?;
    // Another release, and then an edit of it.
    let mark = w.log.len();
    symlink("2", at("next"))?;
    fs::rename(at("next"), at("current"))?;
    w.lb()?.says(mark, &b, "up").await?;
    w.expect_sequence(&mut client, "B").await?;
    let mark = w.log.len();
    fs::write(at("2/lb.yaml"), servers(&[(&a, 1)]))?;
    w.lb()?.says(mark, &a, "up").await?;
    w.expect_sequence(&mut client, "A").await?;
    // Another folder of the same name, with a file of its own in it.
    let mark = w.log.len();
    fs::create_dir(at("other"))?;
    fs::write(at("other/lb.yaml"), servers(&[(&b, 1)]))?;
    fs::rename(at("etc"), at("old"))?;
    fs::rename(at("other"), at("etc"))?;
    w.lb()?.says(mark, &b, "up").await?;
    w.expect_sequence(&mut client, "B").await?;
    let mark = w.log.len();
    fs::write(at("etc/lb.yaml"), servers(&[(&a, 1)]))?;
    w.lb()?.says(mark, &a, "up").await?;
    w.expect_sequence(&mut client, "A").await
}

async fn strict_in_each_epoch(w: &mut World) -> Result<()> {
    let [a, b, _] = w.backends(["A", "B", "C"]).await?;
    w.balance(&API).await?;
    let d = w.backend(Backend::builder("D")).await?;
    expect_strict(w, &["A", "B", "C"]).await?;
    let mark = w.log.len();
    change(w, "/add", &format!("{{\"url\": \"{}\"}}", d.url())).await?;
    w.lb()?.says(mark, &d, "up").await?;
    expect_strict(w, &["A", "B", "C", "D"]).await?;
    change(w, "/delete", &b.url()).await?;
    expect_strict(w, &["A", "C", "D"]).await?;
    change(w, "/drain", &a.url()).await?;
    expect_strict(w, &["C", "D"]).await?;
    change(w, "/enable", &a.url()).await?;
    expect_strict(w, &["A", "C", "D"]).await?;
    change(w, "/update", &format!("{{\"url\": \"{}\", \"weight\": 0}}", d.url())).await?;
    expect_strict(w, &["A", "C"]).await
}

async fn goes_on_behind_the_last(w: &mut World) -> Result<()> {
    let [a, _, c] = w.backends(["A", "B", "C"]).await?;
    w.balance(&API).await?;
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "A").await?;
    change(w, "/drain", &c.url()).await?;
    w.expect_sequence(&mut client, "BAB").await?;
    change(w, "/enable", &c.url()).await?;
    w.expect_sequence(&mut client, "CAB").await?;
    change(w, "/delete", &a.url()).await?;
    w.expect_sequence(&mut client, "CBC").await
}

/// As many connections to each server as there are clients: none is needed later.
/// A request that waits for one would leave a server that is drained.
async fn warm_up(w: &mut World, all: &[Backend], clients: usize) -> Result<()> {
    all.iter().for_each(|backend| backend.set_fault(Fault::Park));
    let mark = w.log.len();
    let mut warming = Vec::new();
    for number in 0..clients * all.len() {
        warming.push(w.client(&format!("warm{number}"))?);
    }
    let mut parked = Vec::new();
    for client in &mut warming {
        parked.push(client.start(Request::new("GET", "/")).await?);
    }
    let arrived = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    w.log.wait_count(mark, parked.len(), "all of them", arrived).await?;
    all.iter().for_each(Backend::clear);
    all.iter().for_each(Backend::release);
    for pending in parked {
        pending.read().await?;
    }
    Ok(())
}

async fn strict_over_changes(w: &mut World) -> Result<()> {
    const CLIENTS: usize = 8;
    const NAMES: [&str; 4] = ["A", "B", "C", "D"];
    let all = w.backends(NAMES).await?;
    w.balance(&["--api-port", "0", "--workers", "1"]).await?;
    warm_up(w, &all, CLIENTS).await?;
    let mark = w.log.len();
    let answered = |event: &Event| matches!(event.kind, EventKind::Answered { .. });
    let mut there: BTreeSet<usize> = (0..all.len()).collect();
    let epoch = |servers: &BTreeSet<usize>, since| Epoch {
        servers: servers.iter().copied().collect(),
        since,
    };
    let mut epochs = vec![epoch(&there, 0..0)];
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    for number in 0..CLIENTS {
        let (mut client, stopped) = (w.client(&format!("c{number}"))?, stopped.clone());
        running.spawn(async move {
            while !*stopped.borrow() {
                client.get("/").await?;
            }
            anyhow::Ok(())
        });
    }
    for (path, index) in
        [("/drain", 1), ("/drain", 3), ("/enable", 1), ("/drain", 0), ("/enable", 3)]
    {
        w.log.wait_count(w.log.len(), 40, "some requests", answered).await?;
        let before = w.log.len();
        change(w, path, &all[index].url()).await?;
        if !there.remove(&index) {
            there.insert(index);
        }
        epochs.push(epoch(&there, before.saturating_sub(1)..w.log.len()));
    }
    w.log.wait_count(w.log.len(), 40, "some requests", answered).await?;
    stop.send_replace(true);
    running.join_all().await.into_iter().collect::<Result<()>>()?;
    let history = observations(&w.log.events_from(mark), &NAMES);
    check_epochs(&history, &epochs).with_context(|| format!("{} requests", history.len()))
}

async fn five_hundred_at_random(w: &mut World) -> Result<()> {
    let all = w.backends(["A", "B", "C", "D", "E", "F"]).await?;
    w.balance(&API).await?;
    let mut random = Rng::with_seed(54);
    // In configuration order: where it is in `all`, and when it joined.
    let mut there: Vec<(usize, u64)> = (0..all.len()).map(|index| (index, 0)).collect();
    let load = Load::start(w)?;
    for _ in 0..500 {
        // The first is always there, so that there is somebody to ask.
        let index = random.usize(1..all.len());
        let url = all[index].url();
        let place = there.iter().position(|(there, _)| *there == index);
        match (place, random.u32(0..5)) {
            (None, _) => {
                there.push((index, w.log.len()));
                change(w, "/add", &format!("{{\"url\": \"{url}\"}}")).await?;
            }
            (Some(place), 0) => {
                there.remove(place);
                change(w, "/delete", &url).await?;
            }
            (_, 1) => change(w, "/drain", &url).await?,
            (_, 2) => change(w, "/enable", &url).await?,
            (_, weight) => {
                let body = format!("{{\"url\": \"{url}\", \"weight\": {}}}", weight - 3);
                change(w, "/update", &body).await?;
            }
        }
    }
    load.stop().await?;
    let mut left = Vec::new();
    for (index, joined) in there {
        let backend = &all[index];
        let body = format!("{{\"url\": \"{}\", \"weight\": 1}}", backend.url());
        change(w, "/update", &body).await?;
        change(w, "/enable", &backend.url()).await?;
        w.lb()?.says(joined, backend, "up").await?;
        left.push(backend.name());
    }
    expect_strict(w, &left).await
}
