//! Fields on their way: what is removed, what is said, and what is let alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use testbed::{
    backend::Backend,
    fault::Fault,
    http1::head::{Fields, RequestHead},
    log::{Event, EventKind},
};

use super::{
    raw::{Answer, Raw},
    scenario,
};
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        64,
        "fields",
        hop_by_hop_up,
        Events,
        "a server sees no field of the client's connection, nor any that Connection names"
    ).simulated()
    .anybodys(&[]),
    scenario!(
        64,
        "fields",
        hop_by_hop_down,
        Events,
        "a client sees no field of the server's connection, nor any that Connection names"
    ).simulated()
    .anybodys(&[]),
    scenario!(
        64,
        "fields",
        end_to_end,
        Events,
        "all other fields pass unchanged, repeated ones in order"
    ).simulated(),
    scenario!(64, "fields", target_passes, Events, "path and query arrive as they were asked for").simulated()
        .basic(&[], "a page that is searched for, or the second one of a list, is in the query: without it the server answers another question"),
    scenario!(64, "fields", request_passes, Events, "a server sees the fields that the client sent").simulated()
        .basic(&[], "without its cookie nobody is logged in, and without its other fields a request means something else"),
    scenario!(64, "fields", answer_passes, Events, "a client sees the server's fields, two of a name too").simulated()
        .basic(&[], "a login sets several cookies, each in a field of its own; a dict keeps but one of them"),
    scenario!(
        64,
        "fields",
        forwarded,
        Events,
        "what a client says of its origin is replaced; a trusted proxy's word is appended to"
    ),
    scenario!(64, "fields", request_ids, Events, "a request id is kept, or made: 32 hex digits").simulated(),
    scenario!(
        64,
        "fields",
        reason_is_ours,
        Events,
        "X-LB-Reason is lb's alone: a server's is not passed on"
    ).simulated(),
    scenario!(
        64,
        "fields",
        hosts,
        Events,
        "Host is kept; the authority of an absolute target replaces it"
    ).simulated(),
];

/// Sends a request with these `lines`, and returns what a server got.
async fn forwarded_of(w: &mut World, line: &str, lines: &str) -> Result<RequestHead> {
    let mark = w.log.len();
    let mut raw = Raw::connect(w).await?;
    raw.write(format!("{line} HTTP/1.1\r\n{lines}\r\n")).await?;
    let answer = raw.answer("GET").await?;
    ensure!(answer.head.status == 200, "{lines:?}: {:?}", answer.text);
    let received = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    let event = w.log.wait_from(mark, "the request", received).await?;
    let EventKind::Received { head, .. } = event.kind else { return Err(anyhow::anyhow!("none")) };
    RequestHead::parse(&head)?.context("half a head was forwarded")
}

fn expect(fields: &Fields, name: &str, expected: &[&str]) -> Result<()> {
    let got: Vec<&str> = fields.all(name).collect();
    ensure!(got == expected, "{name}: got {got:?}, expected {expected:?}");
    Ok(())
}

async fn hop_by_hop_up(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let lines = "Host: test\r\nX-One: 1\r\nConnection: close, X-One ,x-TWO\r\nX-Two: 2\r\n\
                 X-Two: again\r\nConnection: X-Three, keep-alive\r\nX-Three: 3\r\nX-Four: 4\r\n\
                 Keep-Alive: timeout=9\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
                 TE: gzip;q=0.5, trailers\r\n";
    let got = forwarded_of(w, "GET /", lines).await?.fields;
    for gone in ["X-One", "X-Two", "X-Three", "Keep-Alive", "Proxy-Connection", "Upgrade"] {
        expect(&got, gone, &[])?;
    }
    ensure!(!got.lists("connection", "x-one"), "got {got:?}");
    ensure!(!got.lists("connection", "close"), "the server's connection is to end: {got:?}");
    expect(&got, "X-Four", &["4"])?;
    expect(&got, "TE", &["trailers"])?;
    let lines = "Host: test\r\nTE: gzip\r\nConnection: TE\r\n";
    expect(&forwarded_of(w, "GET /", lines).await?.fields, "TE", &[])?;
    // Naming these would take the message apart.
    let lines = "Host: test\r\nConnection: Host, Content-Length\r\nContent-Length: 0\r\n";
    expect(&forwarded_of(w, "GET /", lines).await?.fields, "Host", &["test"])
}

/// What a client gets when A says `answer`.
async fn relayed(a: &Backend, raw: &mut Raw, answer: &str) -> Result<Answer> {
    a.arm(Fault::RawKeepAlive(answer.into()), 1);
    raw.write("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await?;
    let got = raw.answer("GET").await?;
    ensure!(got.body == b"ok", "got {:?}", got.text);
    Ok(got)
}

async fn hop_by_hop_down(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut raw = Raw::connect(w).await?;
    let answer = "HTTP/1.1 200 OK\r\nX-One: 1\r\nConnection: X-One, X-TWO\r\nX-Two: 2\r\nX-Four: 4\r\n\
                  Keep-Alive: timeout=9\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
                  Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let got = relayed(&a, &mut raw, answer).await?.head.fields;
    for gone in ["X-One", "X-Two", "Keep-Alive", "Proxy-Connection", "Upgrade", "Connection"] {
        expect(&got, gone, &[])?;
    }
    expect(&got, "X-Four", &["4"])?;
    // The server's connection ends, the client's does not.
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let got = relayed(&a, &mut raw, answer).await?.head.fields;
    expect(&got, "Connection", &[])?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    relayed(&a, &mut raw, answer).await?;
    Ok(())
}

async fn end_to_end(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let fields = [
        ("Accept", "text/html;q=0.9, */*;q=0.1"),
        ("Accept-Encoding", "gzip, br"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("Cookie", "a=b; c=\"d, e\""),
        ("Cookie", "f=g"),
        ("Forwarded", "for=192.0.2.1"),
        ("If-None-Match", "\"x\", W/\"y\""),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Range", "bytes=0-1"),
        ("User-Agent", "t\u{e4}st/1.0 (x; y)"),
        ("Via", "1.1 other"),
        ("X-Empty", ""),
        ("X_under_score", "1"),
        ("X-!#$%&'*+.^`|~", "tchar"),
        ("X-List", "one"),
        ("X-List", "two, three"),
    ];
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let got =
        forwarded_of(w, "GET /a%2Fb/../c?d=e&f=%00;g", &format!("Host: test\r\n{lines}")).await?;
    ensure!(got.target == "/a%2Fb/../c?d=e&f=%00;g", "the target became {}", got.target);
    for (name, _) in fields {
        let sent: Vec<&str> =
            fields.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value).collect();
        expect(&got.fields, name, &sent)?;
    }
    let answer = "HTTP/1.1 200 Fine By Me\r\nSet-Cookie: b=2; Path=/\r\nServer: its own\r\n\
                  Set-Cookie: a=1\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nVia: 1.0 x\r\n\
                  Set-Cookie: c=3\r\nX-Empty:\r\nContent-Length: 2\r\n\r\nok";
    let mut raw = Raw::connect(w).await?;
    let got = relayed(&a, &mut raw, answer).await?.head.fields;
    expect(&got, "Set-Cookie", &["b=2; Path=/", "a=1", "c=3"])?;
    expect(&got, "Server", &["its own"])?;
    expect(&got, "Date", &["Thu, 01 Jan 1970 00:00:00 GMT"])?;
    expect(&got, "Via", &["1.0 x"])?;
    expect(&got, "X-Empty", &[""])
}

async fn target_passes(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for target in ["/", "/a/b%20c", "/search?q=a+b&page=2", "/a%2Fb?q=%26&empty=&flag"] {
        let got = forwarded_of(w, &format!("GET {target}"), "Host: test\r\n").await?.target;
        ensure!(got == target, "asked for {target}, and the server got {got}");
    }
    Ok(())
}

async fn request_passes(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let fields = [
        ("Accept-Language", "en;q=0.9, de"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("Cookie", "a=b; c=d"),
        ("If-None-Match", "\"x\""),
        ("User-Agent", "test/1.0"),
        ("X-Custom", "1"),
    ];
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let got = forwarded_of(w, "GET /", &format!("Host: test\r\n{lines}")).await?.fields;
    fields.iter().try_for_each(|(name, value)| expect(&got, name, &[value]))
}

async fn answer_passes(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/x-test\r\nSet-Cookie: a=1; Path=/\r\n\
                  ETag: \"x\"\r\nSet-Cookie: b=2\r\nX-Custom: 1\r\nContent-Length: 2\r\n\r\nok";
    let mut raw = Raw::connect(w).await?;
    let got = relayed(&a, &mut raw, answer).await?.head.fields;
    expect(&got, "Content-Type", &["text/x-test"])?;
    expect(&got, "ETag", &["\"x\""])?;
    expect(&got, "X-Custom", &["1"])?;
    expect(&got, "Set-Cookie", &["a=1; Path=/", "b=2"])
}

async fn forwarded(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    let said = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.8\r\n\
                X-Forwarded-Proto: https\r\nX-Forwarded-Host: outside\r\nHost: test:1\r\n";
    for (flags, lines, path, scheme, host) in [
        (&[][..], said, "127.0.0.1", "http", "test:1"),
        (&[], "Host: test:1\r\n", "127.0.0.1", "http", "test:1"),
        (&["--trusted-proxy", "192.0.2.0/24"], said, "127.0.0.1", "http", "test:1"),
        (
            &["--trusted-proxy", "127.0.0.1"],
            said,
            "203.0.113.9, 203.0.113.8, 127.0.0.1",
            "https",
            "outside",
        ),
        (&["--trusted-proxy", "127.0.0.1"], "Host: test:1\r\n", "127.0.0.1", "http", "test:1"),
    ] {
        w.balance(flags).await?;
        let got = forwarded_of(w, "GET /", lines).await?.fields;
        // One field or several: a list is a list.
        let all: Vec<&str> = got.all("X-Forwarded-For").collect();
        ensure!(all.join(", ") == path, "{flags:?}: got {all:?}, expected {path:?}");
        expect(&got, "X-Forwarded-Proto", &[scheme])?;
        expect(&got, "X-Forwarded-Host", &[host])?;
        expect(&got, "Host", &["test:1"])?;
    }
    Ok(())
}

async fn request_ids(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let mut made = BTreeSet::new();
    for _ in 0..20 {
        let got = forwarded_of(w, "GET /", "Host: test\r\n").await?.fields;
        let id = got.get("X-Request-Id").context("no id was made")?;
        let digits = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(digits, "got {id:?}, expected 32 hex digits");
        ensure!(made.insert(id.to_owned()), "{id} was given twice");
    }
    let got = forwarded_of(w, "GET /", "Host: test\r\nX-Request-ID: mine, 1\r\n").await?;
    expect(&got.fields, "X-Request-Id", &["mine, 1"])
}

async fn hosts(w: &mut World) -> Result<()> {
    w.backends(["A"]).await?;
    w.balance(&[]).await?;
    for (line, host, target, expected) in [
        ("GET /p?q", "Example.COM:8080", "/p?q", "Example.COM:8080"),
        ("GET /", "[::1]:80", "/", "[::1]:80"),
        ("GET http://other:81/p?q", "test", "/p?q", "other:81"),
        ("GET http://other", "test", "/", "other"),
        ("GET http://other?q", "test", "/?q", "other"),
        ("OPTIONS *", "test", "*", "test"),
    ] {
        let got = forwarded_of(w, line, &format!("Host: {host}\r\n")).await?;
        ensure!(got.target == target, "{line}: target {:?}, expected {target:?}", got.target);
        expect(&got.fields, "Host", &[expected])?;
    }
    Ok(())
}

async fn reason_is_ours(w: &mut World) -> Result<()> {
    w.expect_errors();
    let [a] = w.backends(["A"]).await?;
    w.balance(&[]).await?;
    let answer = "HTTP/1.1 503 Busy\r\nX-LB-Reason: no_server\r\nContent-Length: 2\r\n\r\nok";
    let mut raw = Raw::connect(w).await?;
    let got = relayed(&a, &mut raw, answer).await?;
    ensure!(got.head.status == 503, "got {:?}", got.text);
    expect(&got.head.fields, "X-LB-Reason", &[])
}
