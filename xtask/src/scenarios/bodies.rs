//! What is in a request and in an answer arrives as it was.

use anyhow::{Result, ensure};
use testbed::{body::pattern, client::Request, fault::Fault};
use tokio::task::JoinSet;

use super::scenario;
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        57,
        "bodies",
        sizes,
        Events,
        "0 bytes to 16 MiB, with a length and chunked, both ways, unchanged"
    )
    .simulated()
    .basic(&[], "pages, pictures and uploads of every size arrive as they were sent"),
    scenario!(
        57,
        "bodies",
        through_reqwest,
        Events,
        "the same through a client that nobody here wrote"
    )
    .anybodys(&["full_duplex"]),
    scenario!(
        57,
        "bodies",
        get_with_a_body,
        Events,
        "a GET's body arrives too, with a length and chunked"
    )
    .simulated()
    .anybodys(&["full_duplex"]),
    scenario!(
        65,
        "bodies",
        length_beside_coding,
        Events,
        "an answer with a coding and a length is what its coding says"
    )
    .simulated()
    .anybodys(&[]),
];

const SIZES: [usize; 12] =
    [0, 1, 2, 1023, 8192, 65_535, 65_536, 65_537, 200_000, 1 << 20, (4 << 20) + 1, 16 << 20];

async fn sizes(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut running = JoinSet::new();
    for chunked in [false, true] {
        let mut client = w.client(if chunked { "chunked" } else { "length" })?;
        // The largest once is enough of those that take their time with it.
        let largest = if chunked && !w.is_ours() { 4 << 21 } else { usize::MAX };
        running.spawn(async move {
            for size in SIZES.into_iter().filter(|size| *size < largest) {
                let sent = pattern(size as u64, size);
                let flag = u8::from(chunked);
                let up = Request::new("POST", "/").body(sent).chunked(chunked);
                let reply = client.send(up).await?;
                let how = if chunked { "in chunks" } else { "with a length" };
                let status = reply.status;
                ensure!(status == 200, "an upload of {size} bytes {how} got {status}");
                let down = client.get(&format!("/?size={size}&chunked={flag}")).await?;
                let got = down.body.len();
                ensure!(got == size, "a download of {size} bytes {how} brought {got}");
            }
            Ok(())
        });
        if !w.is_ours() {
            // Whether parallel answers get mixed up is for another scenario.
            while let Some(done) = running.join_next().await {
                done??;
            }
        }
    }
    // The digests at both ends are compared by the ledger.
    running.join_all().await.into_iter().collect()
}

async fn through_reqwest(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let url = format!("http://{}/?echo=1", w.lb()?.addr);
    let client = reqwest::Client::builder().no_proxy().build()?;
    for size in [0, 1, 70_000, 3_000_000] {
        let sent = pattern(size as u64, size);
        let reply = client.post(&url).body(sent.clone()).send().await?;
        ensure!(reply.status() == 200, "{size} bytes: {}", reply.status());
        let got = reply.bytes().await?;
        ensure!(got == sent, "{size} bytes came back as {}, or different", got.len());
    }
    Ok(())
}

async fn get_with_a_body(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for method in ["GET", "DELETE", "OPTIONS", "PATCH"] {
        for chunked in [false, true] {
            let request = Request::new(method, "/?echo=1").body("a body").chunked(chunked);
            let reply = client.send(request).await?;
            ensure!(reply.body == b"a body", "{method} chunked={chunked}: {:?}", reply.text());
        }
    }
    Ok(())
}

async fn length_beside_coding(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for length in ["3", "30"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        a.arm(Fault::RawAnswer(answer.into_bytes()), 1);
        let reply = client.get("/").await?;
        ensure!(reply.body == b"hello", "length {length}: got {:?}", reply.text());
    }
    Ok(())
}
