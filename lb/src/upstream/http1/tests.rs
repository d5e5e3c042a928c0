//! Buffers, and when a connection may carry another request.

use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;

/// Reads a body to its end: its length, and the largest buffer on the way.
async fn read(wire: &mut Wire<DuplexStream>, incoming: Incoming) -> (usize, usize) {
    wire.incoming = incoming;
    let (mut length, mut largest) = (0, 0);
    while let Some(frame) = poll_fn(|cx| wire.poll_body(cx)).await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= PIECE_BYTES, "{} bytes at once", data.len());
        length += data.len();
        largest = largest.max(wire.size);
    }
    (length, largest)
}

/// A connection whose server sends this and ends; `early` bytes have come
/// with the head.
async fn wire(early: usize, sent: &[u8]) -> Wire<DuplexStream> {
    let (stream, mut server) = tokio::io::duplex(1 << 20);
    server.write_all(sent).await.unwrap();
    let mut wire = Wire::new(stream);
    wire.make_room(early);
    wire.ahead.extend_from_slice(&vec![0; early]);
    wire
}

#[tokio::test]
async fn buffers_are_powers_of_two_and_large_ones_are_given_back() {
    let chunk = [b"40000\r\n", &[0; 0x40000][..], b"\r\n0\r\n\r\n"].concat();
    for early in [0, 100, 5_000, 16 << 10] {
        let mut length = wire(early, &[0; 400_000]).await;
        let all = 400_000 + early as u64;
        assert_eq!(read(&mut length, Incoming::Length(all)).await, (all as usize, BODY_BYTES));
        let mut until = wire(early, &[0; 400_000]).await;
        assert_eq!(read(&mut until, Incoming::UntilClose).await.1, BODY_BYTES);
        let mut chunked = wire(0, &chunk).await;
        let decoder = Incoming::Chunked(Default::default());
        assert_eq!(read(&mut chunked, decoder).await, (0x40000, BODY_BYTES));
        for mut wire in [length, until, chunked] {
            wire.shrink();
            assert_eq!((wire.size, wire.ahead.capacity()), (0, 0));
        }
    }
}

#[tokio::test]
async fn a_short_body_needs_a_small_buffer_which_is_kept() {
    let mut wire = wire(0, b"5\r\nhello\r\n0\r\n\r\n").await;
    let decoder = Incoming::Chunked(Default::default());
    assert_eq!(read(&mut wire, decoder).await, (5, KEPT_BYTES));
    wire.shrink();
    assert_eq!(wire.size, KEPT_BYTES);
}

#[tokio::test]
async fn a_request_that_was_stopped_leaves_no_connection_for_another() {
    let mut wire = wire(0, b"").await;
    assert!(wire.is_reusable());
    wire.stop_upload();
    wire.detach_upload();
    assert!(!wire.is_uploading() && !wire.is_reusable());
}

#[tokio::test]
async fn heads_do_not_add_up() {
    let mut wire = wire(10_000, b"").await;
    for _ in 0..3 {
        wire.ahead.clear();
        wire.make_room(10_001);
        assert_eq!(wire.size, 16 << 10);
    }
}

#[tokio::test]
async fn the_rest_is_taken_when_all_of_it_is_here() {
    let mut wire = wire(0, b"").await;
    wire.ahead.extend_from_slice(b"hello, next");
    for (incoming, expected) in [
        (Incoming::Length(12), None),
        (Incoming::UntilClose, None),
        (Incoming::Chunked(Default::default()), None),
        (Incoming::Length(5), Some("hello")),
        (Incoming::Over, Some("")),
        (Incoming::Chunked(chunked::Decoder::Over), Some("")),
    ] {
        wire.incoming = incoming;
        assert_eq!(wire.take_rest().as_deref(), expected.map(str::as_bytes));
    }
    assert_eq!(&wire.ahead[..], b", next");
}
