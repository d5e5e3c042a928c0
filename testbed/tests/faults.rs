//! What a raw client sees of each fault: bytes and errno.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::io::ErrorKind;
use std::time::Duration;

use testbed::backend::Backend;
use testbed::event::EventKind;
use testbed::fault::{Fault, Health};
use testbed::log::EventLog;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nX-Nonce: 7\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Backend: A\r\nX-Nonce: 7\r\n\
                    X-Received: 0:2d06800538d394c2\r\nX-Body: 13:BODY\r\n";

async fn backend(fault: Fault) -> (Backend, EventLog) {
    let log = EventLog::new();
    let backend = Backend::builder("A").fault(fault).start(&log).await.unwrap();
    (backend, log)
}

async fn connect(backend: &Backend) -> TcpStream {
    TcpStream::connect(backend.addr()).await.unwrap()
}

/// Reads to the end: what came, and how it ended (`Ok` for a FIN).
async fn drain(stream: &mut TcpStream) -> (String, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes));
    let end = read.await.expect("the connection does not end");
    (String::from_utf8_lossy(&bytes).into_owned(), end.map(drop).map_err(|e| e.kind()))
}

/// Sends a GET and reads to the end of the connection.
async fn get(fault: Fault) -> (String, Result<(), ErrorKind>) {
    let (backend, _log) = backend(fault).await;
    let mut stream = connect(&backend).await;
    stream.write_all(GET).await.unwrap();
    drain(&mut stream).await
}

/// Sends a GET and reads until `end` has come; the connection is then open.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let read = timeout(Duration::from_secs(10), stream.read_buf(&mut bytes));
        let n = read.await.expect("nothing comes").unwrap();
        assert_ne!(n, 0, "eof after {:?}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn get_kept(fault: Fault, end: &str) -> String {
    let (backend, _log) = backend(fault).await;
    let mut stream = connect(&backend).await;
    stream.write_all(GET).await.unwrap();
    let first = read_until(&mut stream, end).await;
    // Still alive: it answers again.
    backend.clear();
    stream.write_all(GET).await.unwrap();
    assert_eq!(read_until(&mut stream, "From A\n").await, hello(""));
    first
}

fn body_digest() -> String {
    testbed::body::BodyDigest::of(b"Hello From A\n").to_string()
}

/// A normal answer to [`GET`] with these fields more.
fn hello(more: &str) -> String {
    let head = HEAD.replace("13:BODY", &body_digest());
    format!("{head}{more}Content-Length: 13\r\n\r\nHello From A\n")
}

#[tokio::test]
async fn none() {
    assert_eq!(get_kept(Fault::None, "From A\n").await, hello(""));
}

#[tokio::test]
async fn status() {
    let got = get_kept(Fault::Status(503), "From A\n").await;
    assert_eq!(got, hello("").replace("200 OK", "503 Service Unavailable"));
    let got = get_kept(Fault::Status(204), "\r\n\r\n").await;
    assert!(!got.contains("Content-Length") && got.contains("204 No Content"), "{got}");
}

#[tokio::test]
async fn park_answers_when_released_and_not_before() {
    let (a, log) = backend(Fault::Park).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    log.wait("the request", |e| matches!(e.kind, EventKind::Received { .. })).await.unwrap();
    assert_eq!(a.parked(), 1);
    a.release();
    assert_eq!(read_until(&mut stream, "From A\n").await, hello(""));
    assert_eq!(a.parked(), 0);
}

#[tokio::test]
async fn park_and_hang_end_when_the_client_goes() {
    for fault in [Fault::Park, Fault::Hang] {
        let (a, log) = backend(fault).await;
        let mut stream = connect(&a).await;
        stream.write_all(GET).await.unwrap();
        log.wait("the request", |e| matches!(e.kind, EventKind::Executed { .. })).await.unwrap();
        drop(stream);
        log.wait("the close", |e| matches!(e.kind, EventKind::Closed { .. })).await.unwrap();
        assert_eq!(a.parked(), 0);
        assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Replied { .. })), 0);
    }
}

#[tokio::test]
async fn hang_says_nothing_until_killed() {
    let (a, log) = backend(Fault::Hang).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    log.wait("execution", |e| matches!(e.kind, EventKind::Executed { .. })).await.unwrap();
    a.kill().await;
    assert_eq!(drain(&mut stream).await, (String::new(), Err(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn delay_is_a_lower_bound() {
    let time = Duration::from_millis(50);
    let began = tokio::time::Instant::now();
    assert_eq!(get_kept(Fault::Delay(time), "From A\n").await, hello(""));
    assert!(began.elapsed() >= time);
}

#[tokio::test]
async fn resets_and_closes_without_a_byte() {
    let reset = (String::new(), Err(ErrorKind::ConnectionReset));
    assert_eq!(get(Fault::ResetAfterRequest).await, reset);
    assert_eq!(get(Fault::ResetAfterHead).await, reset);
    assert_eq!(get(Fault::CloseAfterRequest).await, (String::new(), Ok(())));
}

#[tokio::test]
async fn reset_on_accept_needs_no_request() {
    let (a, log) = backend(Fault::None).await;
    a.arm(Fault::ResetOnAccept, 1);
    let mut stream = connect(&a).await;
    assert_eq!(drain(&mut stream).await, (String::new(), Err(ErrorKind::ConnectionReset)));
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(read_until(&mut stream, "From A\n").await, hello(""));
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Received { .. })), 1);
}

#[tokio::test]
async fn a_request_reset_at_its_head_is_not_executed() {
    let (a, log) = backend(Fault::ResetAfterHead).await;
    let mut stream = connect(&a).await;
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    assert_eq!(drain(&mut stream).await.1, Err(ErrorKind::ConnectionReset));
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Executed { .. })), 0);
}

#[tokio::test]
async fn reset_mid_body_and_truncate_deliver_what_they_promise() {
    let part = |n: usize| {
        let whole = hello("");
        whole[..whole.len() - 13 + n].to_owned()
    };
    let reset = get(Fault::ResetMidBody { after: 5 }).await;
    assert_eq!(reset, (part(5), Err(ErrorKind::ConnectionReset)));
    assert_eq!(get(Fault::Truncate { after: 5 }).await, (part(5), Ok(())));
    let (long, end) = get(Fault::Truncate { after: 1000 }).await;
    assert!(long.contains("Content-Length: 1001\r\n") && end.is_ok(), "{long}");
}

#[tokio::test]
async fn truncate_chunked_has_no_last_chunk() {
    let (got, end) = get(Fault::TruncateChunked { after: 5 }).await;
    assert!(got.contains("Transfer-Encoding: chunked\r\n\r\n"), "{got}");
    assert!(!got.contains("0\r\n\r\n") && got.ends_with("\r\n"), "{got}");
    assert_eq!(end, Ok(()));
}

#[tokio::test]
async fn close_after_answer_promises_to_stay() {
    assert_eq!(get(Fault::CloseAfterAnswer).await, (hello(""), Ok(())));
}

#[tokio::test]
async fn no_keep_alive_says_so() {
    let got = get(Fault::NoKeepAlive).await.0;
    assert!(got.contains("Content-Length: 13\r\nConnection: close\r\n\r\n"), "{got}");
}

#[tokio::test]
async fn close_when_next_resets_and_executes_nothing() {
    let (a, log) = backend(Fault::CloseWhenNext).await;
    for round in 1..=20 {
        let mut stream = connect(&a).await;
        stream.write_all(GET).await.unwrap();
        assert_eq!(read_until(&mut stream, "From A\n").await, hello(""));
        stream.write_all(GET).await.unwrap();
        assert_eq!(drain(&mut stream).await, (String::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Received { .. })), round);
    }
}

#[tokio::test]
async fn http10_ends_with_the_connection() {
    let (got, end) = get(Fault::Http10CloseDelimited).await;
    assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && !got.contains("Content-Length"), "{got}");
    assert!(got.ends_with("Connection: close\r\n\r\nHello From A\n"), "{got}");
    assert_eq!(end, Ok(()));
}

#[tokio::test]
async fn extra_bytes_garbage_and_raw_are_written_as_they_are() {
    let extra = get_kept(Fault::ExtraBytes(b"xyz".to_vec()), "xyz").await;
    assert_eq!(extra, hello("") + "xyz");
    assert_eq!(get(Fault::Garbage).await, ("\x16\x03 no HTTP\r\n\r\n".into(), Ok(())));
    let raw = Fault::RawAnswer(b"HTTP/9 ?\n".to_vec());
    assert_eq!(get(raw).await, ("HTTP/9 ?\n".into(), Ok(())));
}

#[tokio::test]
async fn two_content_lengths_contradict() {
    let got = get_kept(Fault::TwoContentLengths, "From A\n").await;
    assert_eq!(got, hello("Content-Length: 14\r\n"));
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body() {
    let (a, log) = backend(Fault::EarlyAnswer).await;
    let mut stream = connect(&a).await;
    let head = b"POST / HTTP/1.1\r\nX-Nonce: 7\r\nContent-Length: 5\r\n\r\nhe";
    stream.write_all(head).await.unwrap();
    let got = read_until(&mut stream, "From A\n").await;
    assert!(got.starts_with("HTTP/1.1 413 ") && !got.contains("X-Received"), "{got}");
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Executed { .. })), 0);
    stream.write_all(b"llo").await.unwrap();
    log.wait("the body", |e| matches!(e.kind, EventKind::Executed { body, .. } if body.len == 5))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_early_answer_may_be_the_last() {
    let (a, log) = backend(Fault::EarlyAnswerThenClose).await;
    let mut stream = connect(&a).await;
    let head = b"POST / HTTP/1.1\r\nX-Nonce: 7\r\nContent-Length: 5\r\n\r\nhe";
    stream.write_all(head).await.unwrap();
    let (got, end) = drain(&mut stream).await;
    assert!(got.starts_with("HTTP/1.1 413 ") && got.contains("Connection: close\r\n"), "{got}");
    assert!(got.ends_with("Hello From A\n") && end == Ok(()), "{got} {end:?}");
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Executed { .. })), 0);
}

#[tokio::test]
async fn informational_comes_first() {
    let got = get_kept(Fault::Informational(103), "From A\n").await;
    assert_eq!(got, format!("HTTP/1.1 103 Early Hints\r\n\r\n{}", hello("")));
}

#[tokio::test]
async fn a_huge_head_is_huge() {
    let got = get_kept(Fault::HugeHead(100_000), "From A\n").await;
    assert_eq!(got, hello(&format!("X-Huge: {}\r\n", "h".repeat(100_000))));
}

#[tokio::test]
async fn slow_head_and_drip_lose_nothing_and_take_their_time() {
    let every = Duration::from_millis(1);
    for fault in [Fault::SlowHead { chunk: 10, every }, Fault::Drip { chunk: 1, every }] {
        let began = tokio::time::Instant::now();
        assert_eq!(get_kept(fault, "From A\n").await, hello(""));
        assert!(began.elapsed() >= 13 * every);
    }
}

#[tokio::test]
async fn a_gate_lets_a_piece_through_per_release() {
    let (a, _log) = backend(Fault::Gate { chunk: 5 }).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    for piece in ["Hello", " From", " A\n"] {
        a.release();
        let mut got = vec![0; piece.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&got), piece);
        assert!(stream.try_read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    }
}

#[tokio::test]
async fn half_close_still_reads_and_executes_nothing() {
    let (a, log) = backend(Fault::HalfClose).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(drain(&mut stream).await, (hello(""), Ok(())));
    stream.write_all(GET).await.unwrap();
    drop(stream);
    let ignored = format!("ignored_bytes={}", GET.len());
    log.wait("what it read", |e| e.to_string().contains(&ignored)).await.unwrap();
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Received { .. })), 1);
}

#[tokio::test]
async fn armed_faults_run_out_and_the_standing_one_stays() {
    let (a, _log) = backend(Fault::Status(500)).await;
    a.arm(Fault::Status(501), 2);
    a.arm(Fault::Status(502), 1);
    let mut stream = connect(&a).await;
    for expected in ["501", "501", "502", "500", "500"] {
        stream.write_all(GET).await.unwrap();
        let got = read_until(&mut stream, "From A\n").await;
        assert_eq!(&got[9..12], expected);
    }
}

#[tokio::test]
async fn health_is_separate_from_traffic() {
    const PROBE: &[u8] = b"GET /health?x HTTP/1.1\r\nConnection: close\r\n\r\n";
    let (a, log) = backend(Fault::Status(500)).await;
    let cases = [
        (Health::Status(200), "200", Ok(()), 200),
        (Health::Status(404), "404", Ok(()), 404),
        (Health::Redirect("/x".into()), "302", Ok(()), 302),
        (Health::Slow(Duration::from_millis(1), 503), "503", Ok(()), 503),
        (Health::Close, "", Ok(()), 0),
        (Health::Reset, "", Err(ErrorKind::ConnectionReset), 0),
        (Health::Raw(b"HTTP/9 200\n".to_vec()), "200", Ok(()), 0),
    ];
    for (health, status, expected, logged) in cases {
        a.set_health(health.clone());
        let mark = log.len();
        let mut stream = connect(&a).await;
        stream.write_all(PROBE).await.unwrap();
        let (got, end) = drain(&mut stream).await;
        assert!(end == expected && got.contains(status), "{health:?}: {got} {end:?}");
        let probed = |e: &testbed::event::Event| matches!(e.kind, EventKind::Probed { .. });
        let event = log.wait_from(mark, "the probe", probed).await.unwrap();
        assert!(matches!(event.kind, EventKind::Probed { status, .. } if status == logged));
    }
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Received { .. })), 0);
}

#[tokio::test]
async fn a_hanging_probe_is_seen() {
    let (a, log) = backend(Fault::None).await;
    a.set_health(Health::Hang);
    let mut stream = connect(&a).await;
    stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.unwrap();
    log.wait("the probe", |e| matches!(e.kind, EventKind::Probed { status: 0, .. })).await.unwrap();
}

#[tokio::test]
async fn reset_when_released_and_not_before() {
    let (a, log) = backend(Fault::ResetWhenReleased).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    log.wait("the request", |e| matches!(e.kind, EventKind::Executed { .. })).await.unwrap();
    assert_eq!(a.parked(), 1);
    assert!(stream.try_read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    a.release();
    assert_eq!(drain(&mut stream).await, (String::new(), Err(ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn read_later_reads_the_body_when_released() {
    let (a, log) = backend(Fault::ReadLater).await;
    let mut stream = connect(&a).await;
    let head = b"POST / HTTP/1.1\r\nX-Nonce: 7\r\nContent-Length: 5\r\n\r\nhello";
    stream.write_all(head).await.unwrap();
    log.wait("the head", |e| matches!(e.kind, EventKind::Received { .. })).await.unwrap();
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Executed { .. })), 0);
    a.release();
    let got = read_until(&mut stream, "From A\n").await;
    assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("X-Received: 5:"), "{got}");
}

#[tokio::test]
async fn extra_bytes_come_later() {
    let (a, log) = backend(Fault::ExtraBytesLater(b"xyz".to_vec())).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(read_until(&mut stream, "From A\n").await, hello(""));
    assert!(stream.try_read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    a.release();
    read_until(&mut stream, "xyz").await;
    log.wait("the note", |e| e.to_string().contains("extra_bytes=3")).await.unwrap();
}

#[tokio::test]
async fn a_flood_tells_when_it_is_stuck_and_goes_on() {
    const SIZE: usize = 64 << 20;
    let (a, log) = backend(Fault::Flood(SIZE as u64)).await;
    let mut stream = connect(&a).await;
    stream.write_all(GET).await.unwrap();
    log.wait("the note", |e| e.to_string().contains("stuck written=")).await.unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nX-Backend: A\r\nContent-Length: {SIZE}\r\n\r\n");
    let mut rest = vec![0; head.len() + SIZE];
    timeout(Duration::from_secs(10), stream.read_exact(&mut rest)).await.unwrap().unwrap();
    assert!(rest.starts_with(head.as_bytes()));
}

#[tokio::test]
async fn trailers_of_a_request_are_noted() {
    let (a, log) = backend(Fault::None).await;
    let mut stream = connect(&a).await;
    let request =
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 9\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let noted = |e: &testbed::event::Event| matches!(&e.kind, EventKind::Note(text) if text.contains("trailers=[(\"X-Sum\", \"9\")]"));
    log.wait("the trailers", noted).await.unwrap();
}
