//! Timeouts and limits: each with its own status and reason, and not too early.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{client::Request, fault::Fault};

use super::{
    raw::{Raw, ask, expect_refusal},
    scenario,
};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(56, "limits", head_timeout, Wall, "a head that does not come to its end: 408")
        .simulated(),
    scenario!(56, "limits", idle_timeout, Wall, "an idle connection is closed, without an answer")
        .simulated(),
    scenario!(
        56,
        "limits",
        response_timeout,
        Wall,
        "no answer from the server: 504, and a POST goes nowhere else"
    )
    .simulated(),
    scenario!(56, "limits", silent_upload, Wall, "a body that stops halfway: 408"),
    scenario!(
        56,
        "limits",
        silent_download,
        Wall,
        "an answer that stops halfway is cut, not ended"
    ),
    scenario!(44, "limits", deadline, Wall, "the deadline holds over all tries: 504").simulated(),
    scenario!(
        44,
        "limits",
        deadline_keeps_an_answer,
        Events,
        "a server's own error is better than a 504 when the deadline comes"
    )
    .simulated(),
    scenario!(56, "limits", sizes_of_heads, Events, "414, 431, and neither one byte too early")
        .simulated(),
    scenario!(56, "limits", sizes_of_bodies, Events, "413 by the length or by the count")
        .simulated(),
    scenario!(66, "limits", connections, Events, "one connection too many: exactly one 503")
        .simulated(),
];

const SHORT: Duration = Duration::from_millis(300);

async fn head_timeout(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&["--head-timeout", "300ms"]).await?;
    for begun in ["G", "GET / HTTP/1.1\r\nHost: test\r\n", "GET / HTTP/1.1\r\nHost: test\r\n\r"] {
        let began = w.stopwatch()?;
        expect_refusal(&ask(w, begun).await?, 408, "head_timeout")?;
        began.expect(SHORT, &format!("the answer to {begun:?}"))?;
    }
    // The second on a connection, and one that was sent ahead.
    let whole = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let answers = ask(w, format!("{whole}GET / HT")).await?;
    ensure!(answers.starts_with("HTTP/1.1 200 OK"), "got {answers:?}");
    ensure!(answers.contains("HTTP/1.1 408 "), "got {answers:?}");
    Ok(())
}

async fn idle_timeout(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&["--idle-timeout", "300ms"]).await?;
    let began = w.stopwatch()?;
    let silent = ask(w, "").await?;
    ensure!(silent.is_empty(), "got {silent:?}");
    began.expect(SHORT, "the end")?;
    let mut raw = Raw::connect(w).await?;
    raw.write("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await?;
    raw.until("\r\n\r\n").await?;
    let began = w.stopwatch()?;
    let rest = raw.rest().await?;
    ensure!(rest.is_empty(), "got {rest:?}");
    // Counted from the answer's end, a moment before we read it.
    began.expect_at_least(SHORT / 2, "the end")?;
    Ok(())
}

async fn response_timeout(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B"]).await?;
    w.balance(&["--response-timeout", "300ms"]).await?;
    all.iter().for_each(|backend| backend.set_fault(Fault::Hang));
    let mut client = w.client("c")?;
    for (method, tries) in [("POST", 1), ("GET", 2)] {
        let before = w.arrivals(method);
        let began = w.stopwatch()?;
        let reply = client.send(Request::new(method, "/")).await?;
        ensure!(reply.status == 504, "{method}: {}", reply.status);
        ensure!(reply.header("x-lb-reason") == Some("response_timeout"), "{reply:?}");
        began.expect(SHORT * tries, &format!("the answer to {method}"))?;
        let reached = w.arrivals(method) - before;
        ensure!(reached == tries as usize, "{method} reached {reached} servers");
    }
    Ok(())
}

async fn silent_upload(w: &mut World) -> Result<()> {
    w.expect_no_change();
    w.backends(["A", "B"]).await?;
    w.balance(&["--body-timeout", "300ms"]).await?;
    for framing in
        ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
    {
        for method in ["POST", "PUT"] {
            let began = w.stopwatch()?;
            let head = format!("{method} / HTTP/1.1\r\nHost: test\r\n{framing}");
            expect_refusal(&ask(w, head).await?, 408, "body_timeout")?;
            began.expect(SHORT, &format!("the answer to {method}"))?;
        }
    }
    Ok(())
}

async fn silent_download(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.expect_no_change();
    let [a] = w.backends(["A"]).await?;
    w.balance(&["--body-timeout", "300ms"]).await?;
    for target in ["/?size=1000", "/?size=1000&chunked=1"] {
        a.arm(Fault::Gate { chunk: 400 }, 1);
        let began = w.stopwatch()?;
        let reply = w.client("c")?.get(target).await;
        ensure!(reply.is_err(), "{target}: a clean end: {reply:?}");
        began.expect(SHORT, &format!("the end of {target}"))?;
    }
    Ok(())
}

async fn deadline_keeps_an_answer(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&["--deadline", "500ms", "--retry-status", "503"]).await?;
    a.set_fault(Fault::Status(503));
    b.set_fault(Fault::Hang);
    let reply = w.client("c")?.get("/").await?;
    ensure!((reply.status, reply.backend()) == (503, "A"), "got {reply:?}, expected A's 503");
    Ok(())
}

async fn deadline(w: &mut World) -> Result<()> {
    w.expect_errors();
    let all = w.backends(["A", "B", "C"]).await?;
    w.balance(&["--deadline", "500ms", "--response-timeout", "300ms"]).await?;
    all.iter().for_each(|backend| backend.set_fault(Fault::Hang));
    let mut client = w.client("c")?;
    let began = w.stopwatch()?;
    let reply = client.get("/").await?;
    ensure!(reply.status == 504, "status {}", reply.status);
    ensure!(reply.header("x-lb-reason") == Some("deadline_exceeded"), "{reply:?}");
    began.expect(Duration::from_millis(500), "the answer")?;
    // One, if the machine sleeps until the deadline; a third would begin behind it.
    ensure!(matches!(w.arrivals("GET"), 1 | 2), "{} tries", w.arrivals("GET"));
    // It is about the answer's beginning: a long answer is not cut.
    all.iter().for_each(|backend| {
        backend.set_fault(Fault::Drip { chunk: 100, every: Duration::from_millis(100) });
    });
    let reply = client.get("/?size=800").await?;
    ensure!(reply.body.len() == 800, "got {} bytes", reply.body.len());
    Ok(())
}

async fn sizes_of_heads(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let line = |length: usize| {
        let path = "a".repeat(length - "GET / HTTP/1.1\r\n".len());
        format!("GET /{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    };
    let fields = |count: usize, size: usize| {
        let field = |index| format!("X-{index}: {}\r\n", "v".repeat(size));
        let fields: String = (0..count).map(field).collect();
        format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}\r\n")
    };
    for fits in [line(8192), fields(98, 10), fields(31, 1000)] {
        let answer = ask(w, &fits).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{} bytes: {answer:?}", fits.len());
    }
    for (request, status, reason) in [
        (line(8193), 414, "uri_too_long"),
        (format!("GET /{}", "a".repeat(10_000)), 414, "uri_too_long"),
        (fields(99, 10), 431, "head_too_large"),
        (fields(33, 1000), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nX: {}", "v".repeat(40_000)), 431, "head_too_large"),
    ] {
        expect_refusal(&ask(w, request).await?, status, reason)?;
    }
    Ok(())
}

async fn sizes_of_bodies(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.backends(["A"]).await?;
    w.balance(&["--max-body", "100k"]).await?;
    let mut client = w.client("c")?;
    for (size, status) in [(102_400, 200), (102_401, 413), (5_000_000, 413)] {
        for chunked in [false, true] {
            let upload = Request::new("POST", "/").body(vec![7; size]).chunked(chunked);
            let reply = client.send(upload).await?;
            ensure!(reply.status == status, "{size} chunked={chunked}: {}", reply.status);
            let reason = reply.header("x-lb-reason");
            ensure!(reason == (status == 413).then_some("body_too_large"), "reason {reason:?}");
        }
    }
    Ok(())
}

async fn connections(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.backends(["A", "B"]).await?;
    w.balance(&["--max-connections", "5"]).await?;
    let mut clients = Vec::new();
    for number in 0..5 {
        clients.push(w.client(&format!("c{number}"))?);
    }
    for client in &mut clients {
        ensure!(client.get("/").await?.status == 200, "one that fits was refused");
    }
    let mut sixth = w.client("sixth")?;
    let reply = sixth.get("/").await?;
    ensure!(reply.status == 503, "the sixth got {}", reply.status);
    ensure!(reply.header("x-lb-reason") == Some("too_many_connections"), "{reply:?}");
    ensure!(reply.header("retry-after").is_some(), "{reply:?}");
    for client in &mut clients {
        ensure!(client.get("/").await?.status == 200, "one that was there was refused");
    }
    // One that waits gets the place of one that ends.
    let waiting = sixth.get("/");
    clients[0].close();
    ensure!(waiting.await?.status == 200, "the place was not given back");
    Ok(())
}
