use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// hyper asks for the next head while the answer before is stuck, and asks
/// nobody afterwards: it must be woken when the answer is written.
#[tokio::test(start_paused = true)]
async fn a_stuck_answer_wakes_who_waits_for_the_next_head() {
    let (ours, mut theirs) = duplex(4);
    let now = Instant::now();
    let client = Rc::new(Client::new((Ipv4Addr::LOCALHOST, 1).into(), true, now));
    let mut guard = Guard::new(ours, b"GET /".to_vec(), client, Timeouts::default());
    let mut writer = Context::from_waker(Waker::noop());
    let write = |guard: &mut Guard<_>, cx: &mut Context<'_>| {
        Pin::new(guard).poll_write(cx, b"answer").map(|written| written.ok())
    };
    assert_eq!(write(&mut guard, &mut writer), Poll::Ready(Some(4)));
    assert_eq!(write(&mut guard, &mut writer), Poll::Pending);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut room = [0; 64];
    let mut buf = ReadBuf::new(&mut room);
    let mut reader = Context::from_waker(&waker);
    assert!(Pin::new(&mut guard).poll_read(&mut reader, &mut buf).is_pending());
    theirs.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    assert_eq!(write(&mut guard, &mut writer), Poll::Ready(Some(4)));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

/// Behind a request that is being answered so much is read and no more, and
/// none of it is handed over but the end.
#[tokio::test(start_paused = true)]
async fn what_is_sent_ahead_is_read_up_to_a_limit() {
    let (ours, mut theirs) = duplex(4 * AHEAD_LIMIT);
    let client = Rc::new(Client::new((Ipv4Addr::LOCALHOST, 1).into(), true, Instant::now()));
    client.active.set(true);
    let mut guard = Guard::new(ours, b"G".to_vec(), client, Timeouts::default());
    let mut room = [0; 8 * 1024];
    let mut poll = |guard: &mut Guard<_>| {
        let mut buf = ReadBuf::new(&mut room);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(guard).poll_read(&mut cx, &mut buf).map(|read| (read.is_ok(), buf.filled().len()))
    };
    theirs.write_all(&b"\r\n".repeat(AHEAD_LIMIT)).await.unwrap();
    assert_eq!(poll(&mut guard), Poll::Pending);
    let read = guard.ahead.len();
    assert!((AHEAD_LIMIT..AHEAD_LIMIT + 8 * 1024).contains(&read), "{read}");
    guard.ahead.truncate(1);
    theirs.write_all(b"ET /").await.unwrap();
    drop(theirs);
    assert_eq!(poll(&mut guard), Poll::Pending);
    guard.ahead.truncate(1);
    assert_eq!(poll(&mut guard), Poll::Ready((true, 0)));
}

/// What was needed once, for a head that came with the beginning of its body, is not
/// kept for the life of the connection.
#[tokio::test(start_paused = true)]
async fn a_large_buffer_is_given_back() {
    let (ours, mut theirs) = duplex(1 << 20);
    let client = Rc::new(Client::new((Ipv4Addr::LOCALHOST, 1).into(), true, Instant::now()));
    let mut guard = Guard::new(ours, Vec::new(), client, Timeouts::default());
    let mut room = [0; 50_000];
    let mut read = |guard: &mut Guard<_>| {
        let mut buf = ReadBuf::new(&mut room);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(guard).poll_read(&mut cx, &mut buf).is_ready());
        buf.filled().len()
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n";
    theirs.write_all(&[head.as_bytes(), &[7; 40_000]].concat()).await.unwrap();
    assert_eq!(read(&mut guard), head.len());
    assert!(guard.ahead.capacity() >= 40_000);
    guard.head_parsed(Rest::Length(40_000));
    assert_eq!(read(&mut guard), 40_000);
    assert_eq!(guard.ahead.capacity(), 0);
}
