//! The recording client against backends, and the ledger over what they log.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::time::Duration;

use testbed::backend::Backend;
use testbed::body::{BodyDigest, pattern};
use testbed::client::{Client, ClientError, Request};
use testbed::event::{EXCERPT, Event, EventKind};
use testbed::fairness;
use testbed::fault::Fault;
use testbed::ledger::{self, Summary};
use testbed::log::EventLog;

async fn start(fault: Fault) -> (Backend, Client, EventLog) {
    let log = EventLog::new();
    let a = Backend::builder("A").fault(fault).start(&log).await.unwrap();
    let client = Client::new("c1", a.addr(), &log);
    (a, client, log)
}

async fn fails(fault: Fault) -> ClientError {
    let (a, mut client, log) = start(fault).await;
    let error = client.get("/?size=1000").await.unwrap_err();
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Failed { .. })), 1);
    assert!(!client.is_connected());
    assert_eq!(a.panics(), [""; 0]);
    error
}

fn accepted(event: &Event) -> bool {
    matches!(event.kind, EventKind::Accepted { .. })
}

#[tokio::test]
async fn a_connection_is_kept_and_the_ledger_adds_up() {
    let (_a, mut client, log) = start(Fault::None).await;
    for i in 0..5 {
        let reply = client.get(&format!("/{i}")).await.unwrap();
        assert_eq!((reply.status, reply.backend(), &*reply.text()), (200, "A", "Hello From A\n"));
    }
    client.fresh(true);
    client.post("/", "x").await.unwrap();
    client.get("/").await.unwrap();
    assert_eq!(log.count(0, accepted), 3);
    let summary = ledger::check(&log.events()).unwrap();
    let expected =
        Summary { requests: 7, answered: 7, reached: 7, arrivals: 7, ..Summary::default() };
    assert_eq!(summary, expected);
    assert_eq!(fairness::sequence(&log.events()), "AAAAAAA");
}

#[tokio::test]
async fn bodies_of_all_sizes_and_framings_arrive_and_return() {
    let (_a, mut client, log) = start(Fault::None).await;
    for len in [0, 1, 1000, 65_536, 1_000_001, 16 << 20] {
        let body = pattern(3, len);
        for chunked in [false, true] {
            let request = Request::new("PUT", "/?echo=1").body(&body[..]).chunked(chunked);
            let reply = client.send(request).await.unwrap();
            assert_eq!(reply.digest(), BodyDigest::of(&body), "{len} {chunked}");
        }
        for query in ["", "&chunked=1"] {
            let reply = client.get(&format!("/?size={len}{query}")).await.unwrap();
            assert_eq!(reply.body.len(), len);
            assert_eq!(reply.body, pattern(reply.nonce, len));
        }
    }
    assert_eq!(log.count(0, accepted), 1);
    ledger::check(&log.events()).unwrap();
}

#[tokio::test]
async fn who_reads_slowly_gets_it_all_and_no_sooner() {
    let (_a, mut client, log) = start(Fault::None).await;
    let every = Duration::from_millis(5);
    let began = tokio::time::Instant::now();
    let request = Request::new("GET", "/?size=20000&chunked=1").read_slowly(1000, every);
    assert_eq!(client.send(request).await.unwrap().body.len(), 20_000);
    assert!(began.elapsed() >= 20 * every);
    // Head, body and framing came together: the connection is as good as new.
    client.get("/").await.unwrap();
    assert_eq!(log.count(0, accepted), 1);
}

#[tokio::test]
async fn methods_versions_and_expectations() {
    let (_a, mut client, log) = start(Fault::None).await;
    let head = client.send(Request::new("HEAD", "/?size=9")).await.unwrap();
    assert_eq!((head.header("content-length"), head.body.len()), (Some("9"), 0));
    assert_eq!(client.get("/?status=204").await.unwrap().body.len(), 0);
    let request = Request::new("POST", "/").header("Expect", "100-continue");
    let reply = client.send(request.body("x")).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(log.count(0, accepted), 1);
    let old = client.send(Request::new("GET", "/?size=9&chunked=1").http10()).await.unwrap();
    assert_eq!((old.body.len(), client.is_connected()), (9, false));
    ledger::check(&log.events()).unwrap();
}

#[tokio::test]
async fn every_kind_of_truncation_is_an_error() {
    for fault in [
        Fault::Truncate { after: 10 },
        Fault::TruncateChunked { after: 10 },
        Fault::Truncate { after: 0 },
    ] {
        let error = fails(fault).await;
        assert!(matches!(error, ClientError::Truncated { status: 200, .. }), "{error}");
        assert!(error.is_eof());
    }
    let error = fails(Fault::ResetMidBody { after: 10 }).await;
    assert!(matches!(error, ClientError::Truncated { .. }) && error.is_reset(), "{error}");
}

#[tokio::test]
async fn no_answer_is_an_error_of_its_kind() {
    assert!(fails(Fault::ResetAfterRequest).await.is_reset());
    assert!(fails(Fault::CloseAfterRequest).await.is_eof());
    assert!(matches!(fails(Fault::Garbage).await, ClientError::Malformed(_)));
    assert!(matches!(fails(Fault::TwoContentLengths).await, ClientError::Malformed(_)));
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_whole_unless_reset() {
    let (_a, mut client, _log) = start(Fault::Http10CloseDelimited).await;
    let reply = client.get("/?size=1000").await.unwrap();
    assert_eq!((reply.body.len(), reply.minor_version), (1000, 0));
    assert!(!client.is_connected());
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_in_silence() {
    let (a, mut client, log) = start(Fault::CloseAfterAnswer).await;
    for i in 1..=20 {
        client.get("/").await.unwrap();
        let closed =
            |e: &Event| matches!(e.kind, EventKind::Closed { connection, .. } if connection == i);
        log.wait("the close", closed).await.unwrap();
    }
    a.clear();
    client.get("/").await.unwrap();
    a.close_idle();
    log.wait_count(0, 21, "the close", |e| matches!(e.kind, EventKind::Closed { .. }))
        .await
        .unwrap();
    client.get("/").await.unwrap();
    assert_eq!(ledger::check(&log.events()).unwrap().arrivals, 22);
}

#[tokio::test]
async fn the_race_of_a_close_and_a_request_is_a_failure_and_never_sent_again() {
    let (_a, mut client, log) = start(Fault::CloseWhenNext).await;
    for _ in 0..50 {
        client.get("/").await.unwrap();
        assert!(client.get("/").await.unwrap_err().is_reset());
    }
    let summary = ledger::check(&log.events()).unwrap();
    assert_eq!((summary.arrivals, summary.failed), (50, 50));
}

#[tokio::test]
async fn an_early_answer_to_a_large_upload_does_not_deadlock() {
    let (_a, mut client, log) = start(Fault::EarlyAnswer).await;
    let reply = client.post("/", pattern(1, 16 << 20)).await.unwrap();
    assert_eq!(reply.status, 413);
    drop(client);
    log.wait("the end", |e| matches!(e.kind, EventKind::Closed { .. })).await.unwrap();
    assert_eq!(log.panics(), [""; 0]);
}

#[tokio::test]
async fn started_requests_are_read_later_or_aborted() {
    let (a, mut client, log) = start(Fault::Park).await;
    let pending = client.start(Request::new("GET", "/")).await.unwrap();
    log.wait("arrival", |e| matches!(e.kind, EventKind::Received { .. })).await.unwrap();
    a.release();
    assert_eq!(pending.read().await.unwrap().status, 200);
    assert!(client.is_connected());

    let nonce = client.send_and_abort(Request::new("GET", "/")).await.unwrap();
    let closed = |e: &Event| matches!(e.kind, EventKind::Closed { .. });
    log.wait("the close", closed).await.unwrap();
    let failed = |e: &Event| matches!(e.kind, EventKind::Failed { .. }) && e.nonce() == Some(nonce);
    assert_eq!((log.count(0, failed), a.parked()), (1, 0));
}

#[tokio::test]
async fn the_watchdog_ends_a_request() {
    let (_a, mut client, _log) = start(Fault::Hang).await;
    client.set_timeout(Duration::from_millis(20));
    assert!(matches!(client.get("/").await, Err(ClientError::TimedOut(_))));
    assert!(!client.is_connected());
}

#[tokio::test]
async fn interim_answers_and_extra_bytes_are_told() {
    let (a, mut client, log) = start(Fault::Informational(103)).await;
    assert_eq!(client.get("/").await.unwrap().interim, [103]);
    a.set_fault(Fault::ExtraBytes(b"poison".to_vec()));
    assert_eq!(client.get("/").await.unwrap().status, 200);
    a.clear();
    // Whether the bytes were read with the answer or lie in wait: never reused.
    assert_eq!(client.get("/").await.unwrap().status, 200);
    assert_eq!(log.count(0, accepted), 2);
}

#[tokio::test]
async fn malformed_requests_get_400_and_a_note() {
    let (_a, mut client, log) = start(Fault::None).await;
    for bad in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let got = client.raw(bad.as_bytes()).await.unwrap();
        assert!(got.starts_with(b"HTTP/1.1 400 "), "{bad:?}");
    }
    assert_eq!(log.count(0, |e| e.to_string().contains("error=")), 3);
    assert_eq!(log.count(0, |e| matches!(e.kind, EventKind::Executed { .. })), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_a, mut client, log) = start(Fault::None).await;
    let two = b"GET /?size=3 HTTP/1.1\r\nX-Nonce: 901\r\n\r\n\
                GET / HTTP/1.1\r\nX-Nonce: 902\r\nConnection: close\r\n\r\n";
    let got = client.raw(two).await.unwrap();
    let text = String::from_utf8_lossy(&got);
    let at = |what: &str| text.find(what).unwrap();
    assert!(at("X-Nonce: 901") < at("X-Nonce: 902"));
    assert_eq!(log.count(0, accepted), 1);
}

/// The heads in the log: of requests as they were sent and received, and of
/// answers; with the kind's first letter.
fn heads(log: &EventLog) -> Vec<(char, String)> {
    let head = |event: Event| match event.kind {
        EventKind::Sent { head, .. } => Some(('s', head)),
        EventKind::Received { head, .. } => Some(('r', head)),
        EventKind::Answered { head, .. } => Some(('a', head)),
        EventKind::Failed { head, .. } => Some(('f', head)),
        EventKind::Wrote { bytes, .. } => Some(('w', bytes)),
        EventKind::Read { bytes, .. } => Some(('R', bytes)),
        _ => None,
    };
    let text = |(kind, head): (char, std::sync::Arc<[u8]>)| {
        (kind, String::from_utf8_lossy(&head).into_owned())
    };
    log.events().into_iter().filter_map(head).map(text).collect()
}

#[tokio::test]
async fn the_log_has_heads_as_they_went_over_the_wire() {
    let (a, mut client, log) = start(Fault::None).await;
    client.send(Request::new("POST", "/x").header("X-A", "b").body("12")).await.unwrap();
    let host = a.addr();
    let sent = format!(
        "POST /x HTTP/1.1\r\nHost: {host}\r\nX-Nonce: 1\r\nX-A: b\r\nContent-Length: 2\r\n\r\n"
    );
    let heads = heads(&log);
    assert_eq!(heads[..2], [('s', sent.clone()), ('r', sent)]);
    let (kind, answer) = &heads[2];
    assert_eq!(*kind, 'a');
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn the_log_has_what_came_instead_of_a_head_and_bounds_all() {
    let (_a, mut client, log) = start(Fault::RawAnswer(b"HTTP/1.1 2".into())).await;
    client.get("/").await.unwrap_err();
    assert_eq!(heads(&log).last().unwrap(), &('f', "HTTP/1.1 2".to_owned()));

    let (_a, mut client, log) = start(Fault::HugeHead(100_000)).await;
    client.get("/").await.unwrap();
    let raw = [b"GET / HTTP/1.0\r\nX: ", &[b'x'; 9000][..], b"\r\n\r\n"].concat();
    client.raw(&raw).await.unwrap();
    let lengths: Vec<_> = heads(&log).into_iter().map(|(k, head)| (k, head.len())).collect();
    assert_eq!(lengths.len(), 6, "{lengths:?}");
    for answer in ['a', 'w', 'R'] {
        assert!(lengths.contains(&(answer, EXCERPT)), "{lengths:?}");
    }
    let written =
        |e: &Event| matches!(e.kind, EventKind::Wrote { total, .. } if total == raw.len() as u64);
    assert_eq!(log.count(0, written), 1);
}
