//! How to judge a proxy of one's own, with nothing but this crate: here one of
//! thirty lines that deals connections in turn and passes over who refuses.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testbed::backend::Backend;
use testbed::client::Client;
use testbed::log::{Event, EventKind, EventLog};
use testbed::{fairness, history, ledger, rotation};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// The proxy under test. Each connection carries one request.
struct Proxy {
    servers: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Proxy {
    async fn start(servers: &[&Backend]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let servers = servers.iter().map(|server| server.addr()).collect();
        let proxy = Arc::new(Proxy { servers, next: AtomicUsize::new(0) });
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Proxy::serve(proxy.clone(), client));
            }
        });
        addr
    }

    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        for _ in &self.servers {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let server = self.servers[turn % self.servers.len()];
            if let Ok(mut server) = TcpStream::connect(server).await {
                // Whoever breaks off, breaks off the other.
                let _ = copy_bidirectional(&mut client, &mut server).await;
                return;
            }
        }
    }
}

/// Two servers, a proxy in front of them, and who asks it.
async fn start() -> (Backend, Backend, SocketAddr, EventLog) {
    let log = EventLog::new();
    let a = Backend::builder("A").start(&log).await.unwrap();
    let b = Backend::builder("B").start(&log).await.unwrap();
    let proxy = Proxy::start(&[&a, &b]).await;
    (a, b, proxy, log)
}

fn client(name: &str, proxy: SocketAddr, log: &EventLog) -> Client {
    let mut client = Client::new(name, proxy, log);
    client.fresh(true);
    client
}

#[tokio::test]
async fn parallel_clients_get_one_rotation() {
    let (_a, _b, proxy, log) = start().await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4 {
        let mut client = client(&format!("c{number}"), proxy, &log);
        clients.spawn(async move {
            for _ in 0..10 {
                client.post("/?size=2000", b"once".to_vec()).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let events = log.events();
    // It deals to A first.
    let seen = history::observations(&events, &["A", "B"]);
    rotation::check_strict_from(&seen, 2, 0).unwrap();
    fairness::check_even(&fairness::counts(&events), &["A", "B"]).unwrap();
    // Every answer is whole and the asker's own, every POST was executed once.
    let summary = ledger::check(&events).unwrap();
    assert_eq!((summary.requests, summary.answered, summary.retries), (40, 40, 0));
}

#[tokio::test]
async fn a_killed_server_costs_nobody_an_answer() {
    let (a, _b, proxy, log) = start().await;
    let mut client = client("c", proxy, &log);
    for expected in ["A", "B"] {
        assert_eq!(client.get("/").await.unwrap().backend(), expected);
    }
    let mark = log.len();
    a.kill().await;
    for _ in 0..3 {
        assert_eq!(client.post("/", b"once".to_vec()).await.unwrap().backend(), "B");
    }
    a.revive().await.unwrap();
    for _ in 0..2 {
        client.get("/").await.unwrap();
    }
    // The log says what happened when, and is the only way to wait for it.
    let received = |event: &Event| matches!(event.kind, EventKind::Received { .. });
    let at_a = |event: &Event| received(event) && event.backend() == Some("A");
    log.wait_from(mark, "a request at A again", at_a).await.unwrap();
    assert_eq!(ledger::check(&log.events()).unwrap().client_errors, 0);
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let (a, b, proxy, log) = start().await;
    let mut client = client("c", proxy, &log);
    client.get("/").await.unwrap();
    b.kill().await;
    client.get("/").await.unwrap();
    // A got two requests of a rotation over two.
    let seen = history::observations(&log.events(), &["A", "B"]);
    rotation::check_strict(&seen, 2).unwrap_err();
    a.kill().await;
    client.get("/").await.unwrap_err();
    let summary = ledger::check(&log.events()).unwrap();
    assert_eq!((summary.requests, summary.failed, summary.client_errors), (3, 1, 1));
}
