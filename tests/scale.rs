//! One rotation at scale: many requests, many clients, several workers. And what a
//! burst leaves behind.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use testbed::{
    backend::Backend,
    client::Client,
    fairness,
    history::observations,
    ledger,
    log::{Event, EventLog},
    process::Process,
    rotation::check_strict_from,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::programs::{Running, WATCHDOG, lb};

const NAMES: [&str; 3] = ["A", "B", "C"];

/// From one look at a figure that nobody tells of to the next.
const LOOK: Duration = Duration::from_millis(10);

/// Sends `total` GETs from `clients` keep-alive clients through `lb` with
/// `workers` workers; returns what everybody saw.
async fn play(total: usize, clients: usize, workers: usize) -> Vec<Event> {
    let log = EventLog::with_watchdog(Duration::from_secs(60));
    let mut command = lb();
    command.args(["--bind", "127.0.0.1", "--port", "0", "--health-period", "60s"]);
    command.args(["--health-path", "/health", "--workers", &workers.to_string()]);
    let mut backends = Vec::new();
    for name in NAMES {
        let backend = Backend::builder(name).start(&log).await.unwrap();
        command.arg(format!("--backend={}", backend.addr()));
        backends.push(backend);
    }
    let _lb = Process::spawn(command, "lb", &log).unwrap();
    let ready = |event: &Event| event.kind.to_string().contains("ready proxy=");
    let line = log.wait("the balancer", ready).await.unwrap().kind.to_string();
    let addr = line.split("proxy=").nth(1).unwrap().trim_matches('"').parse().unwrap();
    let mut running = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::new(&format!("c{number}"), addr, &log);
        running.spawn(async move {
            for _ in 0..total / clients {
                assert_eq!(client.get("/").await.unwrap().status, 200);
            }
        });
    }
    running.join_all().await;
    log.events()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_are_one_rotation() {
    let events = play(100_000, 32, 2).await;
    let counts = fairness::counts(&events);
    fairness::check_even(&counts, &NAMES).unwrap();
    assert_eq!(counts.values().sum::<usize>(), 100_000);
    check_strict_from(&observations(&events, &NAMES), 3, 0).unwrap();
    ledger::check(&events).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_clients_make_the_check_sharp() {
    let events = play(6_000, 4, 3).await;
    check_strict_from(&observations(&events, &NAMES), 3, 0).unwrap();
}

/// A server that answers probes, and reads nothing of other requests but a few bytes.
fn deaf() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut method = [0; 4];
            if stream.read_exact(&mut method).is_ok() && method == *b"GET " {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            kept.push(stream);
        }
    });
    address
}

/// Uploads that their server does not take, which end all at once. Nothing happens
/// afterwards that would make the allocator look at what is free.
#[tokio::test]
async fn what_a_burst_took_is_given_back() {
    let mut command = lb();
    command.args(["--bind", "127.0.0.1", "--port", "0", "--health-period", "1h"]);
    // Each takes a little for itself when it has served for the first time.
    command.args(["--workers", "2"]);
    command.arg(format!("--backend={}", deaf()));
    let lb = Running::start(command);
    let port = lb.port_after("proxy=");
    let before = lb.memory_kib();
    let upload = |_| {
        let mut upload = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n";
        upload.write_all(head).unwrap();
        upload.set_nonblocking(true).unwrap();
        upload
    };
    let mut uploads: Vec<_> = (0..64).map(upload).collect();
    let goes_on = async {
        while lb.memory_kib() < before + 8192 {
            for upload in &mut uploads {
                // As much as is taken.
                let _ = upload.write(&[7; 64 * 1024]);
            }
            sleep(LOOK).await;
        }
    };
    timeout(WATCHDOG, goes_on).await.expect("a burst takes memory");
    drop(uploads);
    let given_back = async {
        while lb.memory_kib() > before + 4096 {
            sleep(LOOK).await;
        }
    };
    timeout(WATCHDOG, given_back).await.expect("it is given back");
}
