//! A balancer that may open few files: who waits for whom, and who gets room.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    thread,
};

use rustix::process::Signal;
use testbed::{backend::Backend, client::Client, log::EventLog};

use crate::{
    cli::{backend, get},
    programs::{Running, WATCHDOG},
};

/// The balancer on two workers: by itself it has 31 descriptors open.
fn with_64_descriptors() -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -n 64; exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_lb"));
    command.args(["--port", "0", "--workers", "2"]);
    command
}

#[test]
fn few_descriptors_do_not_delay_the_end() {
    let (_backend, port) = backend();
    let mut command = with_64_descriptors();
    command.args(["--backend", &port, "--idle-timeout", "10m"]);
    let running = Running::start(command);
    let lb_port = running.port_after("ready proxy=");
    // As many as there is room for are idle, the others wait in the queue.
    let ask = |mut stream: &TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    };
    let clients: Vec<_> = (0..30)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", lb_port)).unwrap();
            ask(&stream);
            stream
        })
        .collect();
    let answered = |mut stream: &TcpStream| stream.read(&mut [0; 9]).unwrap() == 9;
    assert!(clients[..8].iter().all(answered));
    running.signal(Signal::TERM);
    assert!(clients[8..].iter().all(answered));
    let (status, printed) = running.ended();
    assert!(status.success() && printed.matches("total_ms=").count() == 30, "{printed}");
}

#[test]
fn too_few_descriptors_to_start_with_are_named() {
    let limited = "ulimit -n 40; exec \"$0\" --port 0 --no-api --workers 16";
    let output = Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_lb")]).output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot start a worker's event loop: Too many open files"), "{said}");
}

#[test]
fn few_descriptors_for_many_servers_fail_no_fresh_post() {
    let backends: Vec<_> = (0..12).map(|_| backend()).collect();
    let mut command = with_64_descriptors();
    command.args(["--no-api", "--fresh-posts"]);
    command.args(["--health-period", "1h"]);
    for (_, port) in &backends {
        command.args(["--backend", port]);
    }
    let running = Running::start(command);
    let lb_port = running.port_after("ready proxy=");
    let ask = move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, lb_port)).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let head =
            "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let clients: Vec<_> = (0..60)
        .map(|_| thread::spawn(move || (0..10).map(|_| ask()).collect::<Vec<_>>()))
        .collect();
    for answer in clients.into_iter().flat_map(|client| client.join().unwrap()) {
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[test]
fn few_descriptors_put_no_server_out_and_fail_no_client() {
    let (_backend, port) = backend();
    let mut command = with_64_descriptors();
    command.args(["--no-api", "--backend", &port]);
    command.args(["--health-period", "100ms"]);
    let running = Running::start(command);
    let lb_port = running.port_after("ready proxy=");
    let clients: Vec<_> = (0..100)
        .map(|_| thread::spawn(move || (0..5).map(|_| get(lb_port)).collect::<Vec<_>>()))
        .collect();
    for answer in clients.into_iter().flat_map(|client| client.join().unwrap()) {
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    running.signal(Signal::TERM);
    let (_, printed) = running.ended();
    assert!(!printed.contains("from=up"), "{printed}");
}

/// Each worker would keep a connection to each server.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_idle_make_room_for_others() {
    let log = EventLog::with_watchdog(WATCHDOG);
    let mut command = with_64_descriptors();
    command.args(["--api-port", "0", "--health-period", "1h", "--health-timeout", "30s"]);
    let mut backends = Vec::new();
    for number in 0..40 {
        let backend = Backend::builder(&number.to_string()).start(&log).await.unwrap();
        command.arg(format!("--backend={}", backend.addr()));
        backends.push(backend);
    }
    let running = Running::start(command);
    let proxy = (Ipv4Addr::LOCALHOST, running.port_after("ready proxy=")).into();
    let admin = (Ipv4Addr::LOCALHOST, running.port_after(" admin=")).into();
    let mut clients = ["a", "b"].map(|name| Client::new(name, proxy, &log));
    for _ in 0..80 {
        for client in &mut clients {
            assert_eq!(client.get("/").await.unwrap().status, 200);
        }
    }
    assert_eq!(Client::new("admin", admin, &log).get("/health").await.unwrap().status, 200);
    let printed = running.printed();
    assert!(
        !printed.contains("to=down") && !printed.contains("cannot be connected to"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_room_for_those_who_ask() {
    let log = EventLog::with_watchdog(WATCHDOG);
    let mut command = with_64_descriptors();
    let backend = Backend::builder("A").start(&log).await.unwrap();
    command.args(["--api-port", "0", "--backend", &backend.addr().to_string()]);
    let running = Running::start(command);
    let proxy = (Ipv4Addr::LOCALHOST, running.port_after("ready proxy=")).into();
    let admin = (Ipv4Addr::LOCALHOST, running.port_after(" admin=")).into();
    let mut client = Client::new("c", proxy, &log);
    assert_eq!(client.get("/").await.unwrap().status, 200);
    let silent: Vec<_> =
        [admin, proxy].into_iter().cycle().take(80).map(TcpStream::connect).collect();
    assert!(silent.iter().all(Result::is_ok));
    assert_eq!(Client::new("admin", admin, &log).get("/health").await.unwrap().status, 200);
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().status, 200);
        assert_eq!(client.post("/", b"body".to_vec()).await.unwrap().status, 200);
    }
    let printed = running.printed();
    assert!(!printed.contains("Too many open files"), "{printed}");
}
