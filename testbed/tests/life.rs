//! Kill, stop, revive, black hole: what connects and connections see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::io::{ErrorKind, Write};
use std::process::Command;
use std::time::Duration;

use testbed::backend::Backend;
use testbed::client::{Client, ClientError, Request};
use testbed::event::{Event, EventKind};
use testbed::fault::{Fault, Health};
use testbed::keeper::PortKeeper;
use testbed::log::EventLog;
use testbed::process::Process;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn start() -> (Backend, Client, EventLog) {
    let log = EventLog::new();
    let a = Backend::builder("A").start(&log).await.unwrap();
    let client = Client::new("c1", a.addr(), &log);
    (a, client, log)
}

fn received(event: &Event) -> bool {
    matches!(event.kind, EventKind::Received { .. })
}

fn closed(event: &Event) -> bool {
    matches!(event.kind, EventKind::Closed { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backend_refuses_and_a_revived_one_answers_on_its_port() {
    let (a, mut client, log) = start().await;
    for _ in 0..20 {
        client.get("/").await.unwrap();
        let mut idle = TcpStream::connect(a.addr()).await.unwrap();
        let mark = log.len();
        a.kill().await;
        let end = idle.read(&mut [0; 1]).await.unwrap_err().kind();
        assert_eq!(end, ErrorKind::ConnectionReset);
        assert!(client.get("/").await.unwrap_err().is_refused());
        let after = log.events_from(mark);
        let killed = after.iter().position(|e| matches!(e.kind, EventKind::Killed { .. }));
        let later = &after[killed.unwrap() + 1..];
        assert!(later.iter().all(|e| e.backend().is_none()), "{}", log.tail(9));
        a.revive().await.unwrap();
        a.revive().await.unwrap();
    }
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Revived { .. })), 20);
    client.get("/").await.unwrap();
}

#[tokio::test]
async fn a_backend_that_starts_down_refuses_until_revived() {
    let log = EventLog::new();
    let a = Backend::builder("A").down().start(&log).await.unwrap();
    let mut client = Client::new("c1", a.addr(), &log);
    assert!(client.get("/").await.unwrap_err().is_refused());
    a.revive().await.unwrap();
    assert_eq!(client.get("/").await.unwrap().backend(), "A");
}

#[tokio::test]
async fn a_polite_stop_finishes_requests_and_closes_idle_connections() {
    let (a, mut client, log) = start().await;
    let mut idle = TcpStream::connect(a.addr()).await.unwrap();
    a.set_fault(Fault::Park);
    let pending = client.start(Request::new("GET", "/")).await.unwrap();
    log.wait("arrival", received).await.unwrap();
    a.begin_stop().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    let refused = TcpStream::connect(a.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    a.release();
    let reply = pending.read().await.unwrap();
    assert_eq!(reply.header("connection"), Some("close"));
    a.stop().await;
    assert!(log.count(0, |e| matches!(e.kind, EventKind::Stopped { .. })) >= 1);
}

#[tokio::test]
async fn a_kill_ends_a_stop_and_reaches_connections_of_an_earlier_life() {
    let (a, mut client, log) = start().await;
    a.set_fault(Fault::Hang);
    let pending = client.start(Request::new("GET", "/")).await.unwrap();
    log.wait("arrival", received).await.unwrap();
    let stopping = tokio::spawn({
        let a = a.clone();
        async move { a.stop().await }
    });
    a.begin_stop().await;
    a.revive().await.unwrap();
    stopping.await.unwrap();
    a.kill().await;
    assert!(pending.read().await.unwrap_err().is_reset());
}

#[tokio::test]
async fn a_black_hole_lets_connects_hang_and_ends() {
    let (a, mut client, _log) = start().await;
    client.get("/").await.unwrap();
    a.black_hole().await.unwrap();
    for _ in 0..3 {
        let connect = TcpStream::connect(a.addr());
        timeout(Duration::from_millis(50), connect).await.unwrap_err();
    }
    client.get("/").await.expect("open connections go on");
    a.kill().await;
    let refused = TcpStream::connect(a.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    a.revive().await.unwrap();
    client.get("/").await.unwrap();
}

#[tokio::test]
async fn what_waits_when_a_black_hole_begins_is_answered_after_it() {
    let (a, mut client, log) = start().await;
    for _ in 0..3 {
        // Nobody accepts it before the order is obeyed: there is one thread.
        let mut early = std::net::TcpStream::connect(a.addr()).unwrap();
        early.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mark = log.len();
        a.black_hole().await.unwrap();
        a.black_hole().await.unwrap();
        let connect = TcpStream::connect(a.addr());
        timeout(Duration::from_millis(50), connect).await.unwrap_err();
        a.revive().await.unwrap();
        early.set_nonblocking(true).unwrap();
        let mut answer = String::new();
        TcpStream::from_std(early).unwrap().read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let accepted = log.count(mark, |e| matches!(e.kind, EventKind::Accepted { .. }));
        assert_eq!(accepted, 1, "{}", log.tail(9));
    }
    a.black_hole().await.unwrap();
    a.revive().await.unwrap();
    client.get("/").await.unwrap();
    a.kill().await;
    a.black_hole().await.unwrap();
    a.revive().await.unwrap();
    client.get("/").await.unwrap();
    let accepted = log.count(0, |e| matches!(e.kind, EventKind::Accepted { .. }));
    assert_eq!(accepted, 5, "what fills the queue is nobody's: {}", log.tail(9));
}

#[tokio::test]
async fn with_its_last_handle_a_backend_ends() {
    let (a, mut client, log) = start().await;
    client.get("/").await.unwrap();
    let (b, addr) = (a.clone(), a.addr());
    drop(a);
    client.get("/").await.unwrap();
    drop(b);
    log.wait("the close", closed).await.unwrap();
    let refused = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(client.get("/").await.unwrap_err().is_refused());
}

#[tokio::test]
async fn a_panic_in_a_backend_is_told() {
    let (told, mut telling) = tokio::sync::mpsc::unbounded_channel();
    let log = EventLog::forwarding(move |event| match &event.kind {
        EventKind::Received { .. } => panic!("on purpose"),
        EventKind::Note(text) => told.send(text.clone()).unwrap(),
        _ => {}
    });
    let a = Backend::builder("A").start(&log).await.unwrap();
    let mut client = Client::new("c1", a.addr(), &log);
    assert!(client.get("/").await.is_err());
    let note = telling.recv().await.unwrap();
    assert!(note.starts_with("panic: backend=A ") && note.contains("on purpose"), "{note}");
    assert_eq!(a.panics().len(), 1);
}

fn be(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_be"));
    command.args(args);
    command
}

fn line(event: &Event) -> Option<&str> {
    match &event.kind {
        EventKind::Output { line, .. } => Some(line),
        _ => None,
    }
}

fn lines(log: &EventLog) -> Vec<String> {
    let events = log.events();
    events.iter().filter_map(line).map(str::to_owned).collect()
}

async fn listening(log: &EventLog) -> std::net::SocketAddr {
    let up = |e: &Event| line(e).is_some_and(|l| l.starts_with("listening on "));
    let event = log.wait("the ready line", up).await.unwrap();
    line(&event).unwrap()["listening on ".len()..].parse().unwrap()
}

#[tokio::test]
async fn be_prints_what_it_gets_and_says_hello() {
    let log = EventLog::new();
    let mut child = Process::spawn(be(&["0"]), "be", &log).unwrap();
    let addr = listening(&log).await;
    let mut client = Client::new("c1", addr, &log);
    let got = client.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(got.ends_with(b"\r\n\r\nHello From Backend Server\n"));
    child.kill9().unwrap();
    child.wait().await.unwrap();
    let expected = [
        "Received request from 127.0.0.1",
        "GET / HTTP/1.1",
        "Host: x",
        "Connection: close",
        "",
        "Replied with a hello message",
    ];
    assert_eq!(lines(&log)[1..], expected);
}

#[tokio::test]
async fn be_tells_its_events_and_shares_a_kept_port() {
    let keeper = PortKeeper::reserve().unwrap();
    let log = EventLog::new();
    let port = keeper.port().to_string();
    let args = [&*port, "--reuse-port", "--events", "--name", "B"];
    for life in 1..=2 {
        let mark = log.len();
        let mut child = Process::spawn(be(&args), "be", &log).unwrap();
        let up = |e: &Event| line(e).is_some_and(|l| l.starts_with("listening on "));
        log.wait_from(mark, "the ready line", up).await.unwrap();
        let mut client = Client::new("c1", keeper.addr(), &log);
        let reply = client.post("/", "abc").await.unwrap();
        assert_eq!(reply.backend(), "B");
        // A probe has no nonce.
        let probe = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert!(client.raw(probe).await.unwrap().starts_with(b"HTTP/1.1 200 "));
        // Probes are told when their answer is written, requests before.
        let probed = |e: &Event| line(e) == Some("probed");
        log.wait_from(mark, "the probe", probed).await.unwrap();
        child.kill9().unwrap();
        child.wait().await.unwrap();
        let digest = testbed::body::BodyDigest::of(b"abc");
        let told = format!("received nonce={} method=POST body={digest}", reply.nonce);
        assert_eq!(lines(&log)[3 * life - 2..], [told, "probed".to_owned()]);
        let refused = client.get("/").await.unwrap_err();
        assert!(matches!(refused, ClientError::Connect(_)), "{refused}");
    }
}

#[tokio::test]
async fn be_names_a_taken_port_and_a_bad_argument() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, code, text) in [
        (
            &[&*port][..],
            1,
            format!("be: cannot listen on 127.0.0.1:{port}: Address already in use"),
        ),
        (&["x"], 2, "be: port: got \"x\"".to_owned()),
    ] {
        let log = EventLog::new();
        let mut child = Process::spawn(be(args), "be", &log).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(code));
        let lines = lines(&log);
        assert!(lines.len() == 1 && lines[0].starts_with(&text), "{lines:?}");
    }
}

#[tokio::test]
async fn the_log_says_what_a_backend_was_told() {
    let log = EventLog::new();
    let builder = Backend::builder("A").fault(Fault::Hang).arm(Fault::Park, 2).down();
    let a = builder.health(Health::Status(500)).start(&log).await.unwrap();
    a.revive().await.unwrap();
    a.set_health(Health::default());
    a.set_fault(Fault::Status(503));
    a.clear();
    a.black_hole().await.unwrap();
    a.kill().await;
    let told: Vec<_> = log.events().iter().map(|event| event.kind.to_string()).collect();
    let started = format!("event=started backend=A addr={} listens=false", a.addr());
    assert_eq!(
        told,
        [
            &*started,
            "event=armed backend=A times=- fault=Hang",
            "event=armed backend=A times=2 fault=Park",
            "event=health_set backend=A health=Status(500)",
            "event=revived backend=A",
            "event=health_set backend=A health=Status(200)",
            "event=armed backend=A times=- fault=Status(503)",
            "event=cleared backend=A",
            "event=black_holed backend=A",
            "event=killed backend=A",
        ]
    );
    assert!(log.events().iter().all(|event| event.backend() == Some("A")));
}
