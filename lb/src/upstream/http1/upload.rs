//! A request on its way to a server: its head, then its body as the client
//! sends it.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
    http::request,
};
use tokio::io::AsyncWrite;

use super::{KEPT_BYTES, WireError};
use crate::{
    headers::may_trail,
    upstream::{AttemptBody, make_room},
};

/// Pieces of a body up to this size are copied behind what is to be written
/// anyway: one write is cheaper than two.
const COPIED_BYTES: usize = 16 * 1024;

/// What there is around a chunk, at most: its size and two line ends.
const CHUNK_BYTES: usize = 20;

/// What is being sent. Its buffer is kept from one request to the next.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// To be written first, from `at` on.
    out: Vec<u8>,
    at: usize,
    /// To be written then.
    piece: Bytes,
    body: Option<AttemptBody>,
    chunked: bool,
    /// Whether the body has been asked for its beginning.
    primed: bool,
    /// Whether any byte has been written.
    begun: bool,
    /// Whether the server takes no more.
    broken: bool,
}

impl Upload {
    pub(super) fn begin(
        &mut self,
        head: &request::Parts,
        host: Option<&HeaderValue>,
        body: AttemptBody,
    ) {
        self.out.clear();
        let length = body.size_hint().exact();
        self.chunked = length.is_none();
        encode_head(&mut self.out, head, host, length);
        self.at = 0;
        self.piece = Bytes::new();
        self.body = (!body.is_end_stream()).then_some(body);
        self.primed = false;
        self.begun = false;
        self.broken = false;
    }

    /// Gives a large buffer back; all of it has been written.
    pub(super) fn shrink(&mut self) {
        if self.out.capacity() > KEPT_BYTES {
            (self.out, self.at) = (Vec::new(), 0);
        }
    }

    /// Sends no more of it.
    pub(super) fn stop(&mut self) {
        self.body = None;
        self.piece = Bytes::new();
        self.broken = true;
    }

    /// Whether it will never be written to its end.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether all of it has been written.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_none() && !self.broken && self.at == self.out.len() && self.piece.is_empty()
    }

    /// Writes as much as the server takes and the client has sent.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), WireError>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        // The beginning of a body that is kept goes out with the head.
        if !std::mem::replace(&mut self.primed, true)
            && self.body.as_ref().is_some_and(AttemptBody::is_kept)
        {
            let _ = self.poll_piece(cx)?;
        }
        loop {
            ready!(self.poll_write(cx, stream))?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_piece(cx))?;
        }
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), WireError>> {
        loop {
            let bytes = match &self.out[self.at..] {
                [] => &self.piece[..],
                out => out,
            };
            if bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = match ready!(Pin::new(&mut *stream).poll_write(cx, bytes)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            };
            match written {
                Ok(count) => self.written(count),
                Err(error) if self.begun => {
                    self.broken = true;
                    return Poll::Ready(Err(WireError::Broken(error)));
                }
                Err(error) => return Poll::Ready(Err(WireError::Unsent(error))),
            }
        }
    }

    fn written(&mut self, count: usize) {
        self.begun = true;
        if self.at < self.out.len() {
            self.at += count;
        } else {
            self.piece.advance(count);
            if self.piece.is_empty() {
                // Even an empty piece holds on to the buffer that it is of.
                self.piece = Bytes::new();
            }
        }
    }

    /// Takes the next piece of the body, of which there is one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
        }
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => self.push(data),
            Some(Ok(Err(trailers))) => self.end(trailers.into_trailers().ok().as_ref()),
            Some(Err(_)) => return Poll::Ready(Err(WireError::Client)),
            None => self.end(None),
        }
        Poll::Ready(Ok(()))
    }

    fn push(&mut self, data: Bytes) {
        if self.chunked {
            if data.is_empty() {
                return;
            }
            make_room(&mut self.out, data.len() + CHUNK_BYTES);
            // Writing to memory cannot fail.
            let _ = write!(self.out, "{:x}\r\n", data.len());
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(b"\r\n");
        } else if data.len() <= COPIED_BYTES {
            make_room(&mut self.out, data.len());
            self.out.extend_from_slice(&data);
        } else {
            self.piece = data;
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.body = None;
        if !self.chunked {
            return;
        }
        self.out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| may_trail(name)) {
            encode_field(&mut self.out, name, value);
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// `length` is the body's: none is one that nobody knows beforehand.
fn encode_head(
    out: &mut Vec<u8>,
    head: &request::Parts,
    host: Option<&HeaderValue>,
    length: Option<u64>,
) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = host {
        encode_field(out, &header::HOST, host);
    }
    for (name, value) in &head.headers {
        // Said below, from what is known: it may be repeated, or beside a coding.
        if length == Some(0) || *name != header::CONTENT_LENGTH {
            encode_field(out, name, value);
        }
    }
    match length {
        Some(0) => {}
        Some(length) => drop(write!(out, "content-length: {length}\r\n")),
        None => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
