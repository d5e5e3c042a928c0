//! Many clients of the admin API, slow ones, and ones that go away.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    io::AsyncReadExt,
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{ADD, ask, ask_with, backend, connect, servers, start, talk};
use crate::programs::WATCHDOG;

#[test]
fn parallel_changes_are_all_made_and_none_twice() {
    const CLIENTS: u16 = 8;
    const EACH: u16 = 20;
    let api = start(&[]);
    let port = api.port;
    let change =
        |what: &str, server: u16| ask(port, what, &format!("{{\"url\":\"127.0.0.1:{server}\"}}")).0;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in 0..EACH {
                    let own = 1 + client * EACH + number;
                    assert_eq!(change("POST /add", own), 200);
                    // Half of them go at once.
                    if number % 2 == 0 {
                        assert_eq!(change("POST /delete", own), 200);
                    }
                }
            });
        }
    });
    let list = servers(port);
    let mut left: Vec<u64> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap())
        .collect();
    left.sort_unstable();
    let odd = |number: &u64| (number - 1) % u64::from(EACH) % 2 == 1;
    assert_eq!(left, (1..=u64::from(CLIENTS * EACH)).filter(odd).collect::<Vec<_>>());
    // Of many who add the same one is the first.
    let same: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| change("POST /add", 9_999))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(same.iter().filter(|status| **status == 200).count(), 1, "{same:?}");
    assert_eq!(same.iter().filter(|status| **status == 409).count(), usize::from(CLIENTS) - 1);
}

#[test]
fn a_client_that_goes_away_in_its_request_has_asked_for_nothing() {
    let api = start(&[]);
    let head = "POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 23\r\n\r\n";
    let half = talk_and_leave(api.port, &format!("{head}{}", &ADD[..20]));
    assert!(half.contains("400 Bad Request") || half.is_empty(), "{half}");
    assert_eq!(servers(api.port).as_array().unwrap().len(), 0);
    // One that is whole is done, whoever waits for the answer.
    let whole = format!(
        "POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{ADD}",
        ADD.len()
    );
    connect(api.port).write_all(whole.as_bytes()).unwrap();
    api.lb.line("server=127.0.0.1:1 from=- to=enabled cause=\"admin API\"");
    assert_eq!(servers(api.port).as_array().unwrap().len(), 1);
}

/// Sends, and says that nothing more will come.
fn talk_and_leave(port: u16, request: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    talk(stream, "")
}

#[test]
fn silent_clients_hold_up_neither_the_api_nor_the_traffic() {
    let (_backend, url) = backend("A");
    let api = start(&["--backend", &url, "--workers", "1"]);
    // More than there may be at one time, with half a request or nothing.
    let began = Instant::now();
    let slow: Vec<_> = (0..40).map(|_| talk_slowly(api.port)).collect();
    let silent: Vec<_> = (0..80).map(|_| connect(api.port)).collect();
    let answer = talk(connect(api.proxy), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(servers(api.port).as_array().unwrap().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(5), "waited for {:?}", began.elapsed());
    drop((slow, silent));
}

/// So many silent connections; whoever is closed comes again at once. They end
/// with the runtime; the semaphore has a permit for each that has come.
fn flood(port: u16, count: u32) -> (Runtime, Arc<Semaphore>) {
    let came = Arc::new(Semaphore::new(0));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for _ in 0..count {
        let came = came.clone();
        runtime.spawn(async move {
            loop {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                came.add_permits(1);
                // Silent until it is closed, or reset.
                let _ = stream.unwrap().read(&mut [0]).await;
            }
        });
    }
    (runtime, came)
}

#[test]
fn silent_clients_that_come_again_and_again_keep_nobody_out() {
    const COUNT: u32 = 400;
    let api = start(&[]);
    let (runtime, came) = flood(api.port, COUNT);
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        // All of them are there, and as many have come again.
        let all = runtime.block_on(async { timeout(WATCHDOG, came.acquire_many(2 * COUNT)).await });
        all.expect("the silent ones are not renewed").unwrap().forget();
        let began = Instant::now();
        assert_eq!(ask(api.port, "GET /health", "").0, 503);
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "an answer took {longest:?}");
}

/// Begins a body that never ends.
fn talk_slowly(port: u16) -> TcpStream {
    let mut stream = connect(port);
    let head = "POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 23\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_body_that_does_not_come_is_a_408() {
    let api = start(&[]);
    let answer = talk(talk_slowly(api.port), "");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("{\"error\":\"the request's body did not come within 10s\"}"),
        "{answer}"
    );
}

#[test]
fn readiness_follows_the_servers_and_ends_with_the_signal() {
    let (backend, url) = backend("A");
    let api = start(&["--drain-timeout", "20s"]);
    assert_eq!(ask(api.port, "GET /health", "").0, 503);
    assert_eq!(ask(api.port, "POST /add", &format!("{{\"url\":\"{url}\"}}")).0, 200);
    api.lb.line("to=up");
    assert_eq!(ask(api.port, "GET /health", "").0, 200);
    assert!(ask_with(api.port, "Host: localhost\r\n", "HEAD /health", "").2.is_empty());
    assert_eq!(ask(api.port, "POST /disable", &url).0, 200);
    assert_eq!(ask(api.port, "GET /health", "").0, 503);
    assert_eq!(ask(api.port, "POST /enable", &url).0, 200);
    // A request in flight keeps the process up after the signal.
    let mut stream = connect(api.proxy);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabc").unwrap();
    backend.line("POST / HTTP/1.1");
    api.lb.signal(Signal::TERM);
    api.lb.line("stopping");
    let (status, body) = ask(api.port, "GET /health", "");
    assert_eq!(status, 503);
    assert!(body.contains("\"status\":\"stopping\"") && body.contains("\"eligible\":1"), "{body}");
    assert!(talk(stream, "d").starts_with("HTTP/1.1 200 OK"));
    assert!(api.lb.ended().0.success());
}
