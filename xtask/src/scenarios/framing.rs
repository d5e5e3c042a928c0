//! Messages without a body, with trailers, and of HTTP/1.0.

use anyhow::{Context, Result, ensure};
use testbed::{fault::Fault, log::EventKind};

use super::{
    raw::{Raw, ask},
    scenario,
};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(61, "framing", trailers, Events, "trailers pass both ways").simulated(),
    scenario!(
        61,
        "framing",
        unannounced_trailers,
        Events,
        "trailers pass also where no Trailer field announces them"
    )
    .simulated(),
    scenario!(
        61,
        "framing",
        bodiless,
        Events,
        "HEAD, 204 and 304 have no body, whatever length the server names"
    )
    .simulated(),
    scenario!(
        61,
        "framing",
        http10_clients,
        Events,
        "HTTP/1.0 clients, with and without keep-alive, get no chunks"
    )
    .simulated(),
    scenario!(
        61,
        "framing",
        http10_servers,
        Events,
        "answers that end with the connection arrive whole"
    )
    .simulated(),
    scenario!(61, "framing", odd_statuses, Events, "any final status is passed on").simulated(),
];

/// That trailers arrive, in a request whose head has this line more.
async fn send_trailers(w: &World, raw: &mut Raw, method: &str, line: &str) -> Result<()> {
    let mark = w.log.len();
    let head =
        format!("{method} / HTTP/1.1\r\nHost: test\r\n{line}Transfer-Encoding: chunked\r\n\r\n");
    let body = "5\r\nhello\r\n0\r\nX-Sum: 9\r\nX-More: yes\r\n\r\n";
    raw.write(format!("{head}{body}")).await?;
    ensure!(raw.answer(method).await?.head.status == 200, "{method}");
    let noted = w.log.events_from(mark).into_iter().find_map(|event| match event.kind {
        // Noted before the answer is written.
        EventKind::Note(text) if text.contains("trailers=") => Some(text.to_ascii_lowercase()),
        _ => None,
    });
    let text = noted.with_context(|| format!("{method} with {line:?}: no trailers arrived"))?;
    ensure!(text.contains(r#"("x-sum", "9")"#), "{method}: {text}");
    ensure!(text.contains(r#"("x-more", "yes")"#), "{method}: {text}");
    Ok(())
}

async fn unannounced_trailers(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    send_trailers(w, &mut raw, "POST", "").await
}

async fn trailers(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    for method in ["POST", "PUT", "PATCH"] {
        send_trailers(w, &mut raw, method, "Trailer: X-Sum, X-More\r\n").await?;
    }
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n";
    a.set_fault(Fault::RawKeepAlive(answer.into()));
    for _ in 0..3 {
        raw.write("GET / HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await?;
        let answer = raw.answer("GET").await?;
        ensure!(answer.body == b"hello", "got {:?}", answer.body);
        ensure!(answer.trailers.get("x-sum") == Some("9"), "got {:?}", answer.trailers);
    }
    Ok(())
}

async fn bodiless(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    let head_of = |size| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nX-Size: {size}\r\n\r\n").into_bytes()
    };
    for (method, answer, status, length) in [
        ("HEAD", head_of(0), 200, "0"),
        ("HEAD", head_of(1000), 200, "1000"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 200, ""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), 204, ""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_vec(), 304, ""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n".to_vec(), 304, "77"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), 200, "0"),
    ] {
        a.arm(Fault::RawKeepAlive(answer.clone()), 1);
        let shown = String::from_utf8_lossy(&answer).into_owned();
        raw.write(format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n")).await?;
        let text = raw.until("\r\n\r\n").await?;
        ensure!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?} became {text:?}");
        let named = text.to_ascii_lowercase();
        let named = named.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
        // A length that says nothing about this message may be left out.
        ensure!(named.is_none_or(|got| got == length), "{shown:?} became {text:?}");
        ensure!(method != "HEAD" || named == Some(length) || length.is_empty(), "{text:?}");
        // What comes next is the next answer's head, not a body.
        raw.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        let next = raw.answer("GET").await?;
        ensure!(next.body == b"Hello From A\n", "behind {shown:?}: {:?}", next.text);
    }
    Ok(())
}

async fn http10_clients(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for host in ["", "Host: test\r\n"] {
        let answer = ask(w, format!("GET / HTTP/1.0\r\n{host}\r\n")).await?;
        ensure!(answer.ends_with("\r\n\r\nHello From A\n"), "got {answer:?}");
        let mut raw = Raw::connect(w).await?;
        raw.write(format!("GET /?size=5000&chunked=1 HTTP/1.0\r\n{host}\r\n")).await?;
        let answer = raw.answer("GET").await?;
        ensure!(answer.head.fields.get("transfer-encoding").is_none(), "{:?}", answer.text);
        ensure!(answer.body == testbed::body::pattern(0, 5000), "{} bytes", answer.body.len());
    }
    let upload = "POST /?echo=1 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello";
    ensure!(ask(w, upload).await?.ends_with("\r\n\r\nhello"), "the upload came back different");
    let mut raw = Raw::connect(w).await?;
    for number in 0..3 {
        raw.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await?;
        let answer = raw.answer("GET").await?;
        ensure!(answer.body == b"Hello From A\n", "request {number}: {:?}", answer.text);
        ensure!(answer.head.fields.lists("connection", "keep-alive"), "{:?}", answer.text);
    }
    // What has no length ends with the connection all the same.
    raw.write("GET /?size=5000&chunked=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await?;
    let answer = raw.answer("GET").await?;
    ensure!(answer.body.len() == 5000, "{} bytes", answer.body.len());
    Ok(())
}

async fn http10_servers(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&[]).await?;
    a.set_fault(Fault::Http10CloseDelimited);
    b.set_fault(Fault::Http10CloseDelimited);
    let mut client = w.client("c")?;
    for size in [0, 1, 1000, 100_000, 2 << 20] {
        for _ in 0..2 {
            let reply = client.get(&format!("/?size={size}")).await?;
            ensure!(reply.body.len() == size, "{size}: got {}", reply.body.len());
            ensure!(reply.minor_version == 1, "relayed as HTTP/1.{}", reply.minor_version);
            ensure!(client.is_connected(), "the client's connection ended with the server's");
            let reply = client.post("/", b"once".to_vec()).await?;
            ensure!(reply.status == 200, "a POST got {}", reply.status);
        }
    }
    Ok(())
}

async fn odd_statuses(w: &mut World) -> Result<()> {
    w.expect_errors();
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut client = w.client("c")?;
    for status in [201, 202, 203, 206, 226, 299, 300, 306, 399, 402, 418, 451, 499, 511, 599] {
        for method in ["GET", "POST"] {
            let target = format!("/?status={status}");
            let reply = client.send(testbed::client::Request::new(method, &target)).await?;
            let got = (reply.status, reply.backend());
            ensure!(got == (status, "A"), "{method}: {status} became {got:?}");
            ensure!(reply.text() == "Hello From A\n", "{status}: {reply:?}");
        }
    }
    Ok(())
}
