//! Many connections that do little.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::{
    log::{Event, EventKind},
    net::{Loopback, Net},
    process::raise_descriptor_limit,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, watch},
    task::JoinSet,
    time::{interval, timeout},
};

use super::{
    overload::Normal,
    raw::{Answer, Raw},
    scenario,
};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(67, "load", slow_clients, Wall, "two hundred slow clients delay nobody"),
    scenario!(
        68,
        "load",
        idle_connections,
        Wall,
        "ten thousand idle connections, or as many as this machine has, are served and kept"
    ),
];

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

const POST: &[u8] =
    b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 60\r\n\r\n012345678901234567890123456789012345678901234567890123456789";

/// Writes `request` bit by bit until `hurry`, then its rest.
async fn dribble(mut raw: Raw, request: &[u8], hurry: watch::Receiver<bool>) -> Result<Answer> {
    let mut pace = interval(Duration::from_millis(5));
    let mut rest = request;
    while let [first, behind @ ..] = rest
        && !behind.is_empty()
        && !*hurry.borrow()
    {
        raw.write([*first]).await?;
        rest = behind;
        pace.tick().await;
    }
    let mut hurry = hurry;
    hurry.wait_for(|hurry| *hurry).await?;
    raw.write(rest).await?;
    raw.answer("GET").await
}

async fn slow_clients(w: &mut World) -> Result<()> {
    w.backends(["A", "B", "C"]).await?;
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    let mark = w.log.len();
    let (hurry, told) = watch::channel(false);
    let mut slow = JoinSet::new();
    for number in 0..200 {
        let raw = Raw::connect(w).await?;
        let told = told.clone();
        slow.spawn(async move {
            let request = if number % 2 == 0 { GET } else { POST };
            dribble(raw, request, told).await
        });
    }
    // All the bodies are on their way: each has a server's connection.
    let begun = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    w.log.wait_count(mark, 100, "100 slow uploads at the servers", begun).await?;
    normal.undisturbed(w).await?;
    hurry.send_replace(true);
    for answer in slow.join_all().await {
        ensure!(answer?.head.status == 200, "a slow client was refused");
    }
    Ok(())
}

/// Only one scenario at a time takes half of this process's descriptors.
static DESCRIPTORS: Mutex<()> = Mutex::const_new(());

/// How many connections are opened at one time.
const AT_ONCE: usize = 16;

async fn idle_connections(w: &mut World) -> Result<()> {
    let _alone = DESCRIPTORS.lock().await;
    let limit = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
    // Other scenarios run at the same time, and the balancer has its own limit.
    let count = (limit / 2).saturating_sub(200).min(10_000);
    w.log.note(format!("idle_connections={count} descriptors={limit}"));
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut normal = Normal::calm(w).await?;
    let addr = w.lb()?.addr;
    let mut opening = JoinSet::new();
    for share in 0..AT_ONCE {
        opening.spawn(async move {
            let mut idle = Vec::new();
            for _ in (share..count).step_by(AT_ONCE) {
                let mut stream = TcpStream::connect(addr).await?;
                ask_once(&mut stream).await?;
                idle.push(stream);
            }
            anyhow::Ok(idle)
        });
    }
    let opened = opening.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let mut idle: Vec<TcpStream> = opened.into_iter().flatten().collect();
    ensure!(idle.len() == count, "{} of {count} connections", idle.len());
    normal.undisturbed(w).await?;
    for stream in idle.iter_mut().step_by(count / 200 + 1) {
        ask_once(stream).await.context("an idle connection, asked again")?;
    }
    // A reset leaves no port behind that waits for a minute.
    idle.into_iter().for_each(|stream| Loopback.reset(stream));
    Ok(())
}

/// How long an answer may take before it counts as lost.
const WATCHDOG: Duration = Duration::from_secs(20);

/// One small GET and its answer.
async fn ask_once(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(GET).await?;
    let mut answer = [0; 1024];
    let mut read = 0;
    let whole =
        |got: &[u8]| got.ends_with(b"\n") && got.windows(11).any(|text| text == b"Hello From ");
    while !whole(&answer[..read]) {
        let more = timeout(WATCHDOG, stream.read(&mut answer[read..]));
        let more = more.await.context("no answer")??;
        ensure!(more > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..read]));
        read += more;
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer[..read]));
    Ok(())
}
