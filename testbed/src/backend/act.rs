//! What a backend does with a request: the answer, or the fault.
//!
//! Owns the order of things: arrival logged, body read, execution logged,
//! answer written, reply logged. What an answer says is
//! [`super::answer`]'s. Called by [`super::connection`].

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::answer::{Answer, Form, Query};
use super::connection::{Connection, End, Flow};
use super::shared::Ticket;
use crate::body::BodyDigest;
use crate::fault::Fault;
use crate::http1::head::RequestHead;
use crate::log::EventKind;
use crate::net::Net;

/// Between two pieces that are to be packets of their own.
const APART: Duration = Duration::from_millis(1);

/// How fast bytes are written.
enum Pace {
    AtOnce,
    Pieces(usize, Duration),
    /// A piece for each release.
    Gate(usize),
}

impl<N: Net> Connection<N> {
    pub(super) async fn traffic(&mut self, head: RequestHead) -> io::Result<Flow> {
        let fault = self.shared.faults(|faults| faults.for_request());
        // Drawn before the arrival is logged: whoever sees the arrival may
        // release at once.
        let parks = matches!(fault, Fault::Park | Fault::ResetWhenReleased | Fault::ReadLater);
        let mut ticket = parks.then(|| self.shared.park());
        let pieces = self.shared.ticket();
        self.received(&head);
        match &fault {
            Fault::ResetAfterHead => return Ok(Flow::Break(End::Reset)),
            Fault::EarlyAnswer => return self.answer_early(&head, true).await,
            Fault::EarlyAnswerThenClose => return self.answer_early(&head, false).await,
            Fault::ReadLater => {
                if !self.parked(ticket.take()).await {
                    return Ok(Flow::Break(End::Fin));
                }
            }
            _ => self.allow_body(&head).await?,
        }
        if fault == Fault::None && wants_echo(&head) {
            return self.echo(&head).await;
        }
        let body = self.read_body(&head).await?;
        self.executed(&head, body);
        if let Some(end) = self.stay_away(&fault, ticket).await {
            return Ok(Flow::Break(end));
        }
        let mut answer = self.normal(&head, body);
        answer.shape(&fault);
        self.say(&head, &answer, &fault, pieces).await?;
        self.afterwards(&answer, &fault).await
    }

    /// Whatever keeps an answer back; some if there will be none.
    async fn stay_away(&mut self, fault: &Fault, ticket: Option<Ticket>) -> Option<End> {
        let answered = match fault {
            Fault::ResetAfterRequest => return Some(End::Reset),
            Fault::ResetWhenReleased => {
                self.parked(ticket).await;
                return Some(End::Reset);
            }
            Fault::CloseAfterRequest => return Some(End::Fin),
            Fault::Hang => self.hold(pending()).await,
            Fault::Delay(time) => self.hold(sleep(*time)).await,
            Fault::Park => self.parked(ticket).await,
            _ => true,
        };
        (!answered).then_some(End::Fin)
    }

    /// Waits to be released; false if the client goes away before.
    async fn parked(&mut self, ticket: Option<Ticket>) -> bool {
        match ticket {
            Some(mut ticket) => self.hold(ticket.released()).await,
            None => true,
        }
    }

    /// Writes the answer, or what the fault makes of it; `pieces` was drawn when
    /// the request arrived.
    async fn say(
        &mut self,
        head: &RequestHead,
        answer: &Answer,
        fault: &Fault,
        pieces: Ticket,
    ) -> io::Result<()> {
        let (mut opening, mut body) = (answer.head(), answer.body_bytes());
        let mut pace = [Pace::AtOnce, Pace::AtOnce];
        match fault {
            Fault::Garbage => return self.stream.write_all(b"\x16\x03 no HTTP\r\n\r\n").await,
            Fault::RawAnswer(bytes) | Fault::RawKeepAlive(bytes) => {
                return self.stream.write_all(bytes).await;
            }
            Fault::RawPieces { pieces, .. } => return self.write_apart(pieces).await,
            Fault::SwitchProtocols(first) => {
                let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
                return self.stream.write_all(&[head, &first[..]].concat()).await;
            }
            Fault::Flood(bytes) => return self.flood(*bytes).await,
            Fault::Informational(status) => {
                let mut first = Answer::new(*status, Vec::new()).head();
                first.append(&mut opening);
                opening = first;
            }
            Fault::ResetMidBody { after } | Fault::Truncate { after } => {
                body.truncate(*after as usize);
                opening.append(&mut body);
                return self.stream.write_all(&opening).await;
            }
            Fault::ExtraBytes(bytes) => body.extend_from_slice(bytes),
            Fault::SlowHead { chunk, every } => pace[0] = Pace::Pieces(*chunk, *every),
            Fault::Drip { chunk, every } => pace[1] = Pace::Pieces(*chunk, *every),
            Fault::Gate { chunk } => pace[1] = Pace::Gate(*chunk),
            _ => {}
        }
        if matches!(pace, [Pace::AtOnce, Pace::AtOnce]) {
            opening.append(&mut body);
        }
        let [first, second] = pace;
        // Drawn before the head is out: whoever has read it may release.
        let last = self.shared.ticket();
        self.write(&opening, first, self.shared.ticket()).await?;
        self.write(&body, second, pieces).await?;
        if answer.form != Form::ChunkedWithoutLast {
            self.replied(head, answer.status);
        }
        if let Fault::ExtraBytesLater(bytes) = fault {
            self.add_later(bytes, last).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], pace: Pace, mut ticket: Ticket) -> io::Result<()> {
        let size = match pace {
            Pace::AtOnce => return self.stream.write_all(bytes).await,
            Pace::Pieces(size, _) | Pace::Gate(size) => size.max(1),
        };
        for piece in bytes.chunks(size) {
            let there = match pace {
                Pace::Pieces(_, every) => self.hold(sleep(every)).await,
                _ => self.hold(ticket.released()).await,
            };
            if !there {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            ticket.next();
            self.stream.write_all(piece).await?;
        }
        Ok(())
    }

    /// Each piece is on its way before the next is written.
    async fn write_apart(&mut self, pieces: &[Vec<u8>]) -> io::Result<()> {
        for piece in pieces {
            self.stream.write_all(piece).await?;
            sleep(APART).await;
        }
        Ok(())
    }

    /// What becomes of the connection after an answer.
    async fn afterwards(&mut self, answer: &Answer, fault: &Fault) -> io::Result<Flow> {
        let end = match fault {
            Fault::Garbage
            | Fault::RawAnswer(_)
            | Fault::RawPieces { closes: true, .. }
            | Fault::Truncate { .. }
            | Fault::TruncateChunked { .. }
            | Fault::CloseAfterAnswer => End::Fin,
            Fault::ResetMidBody { .. } => End::Reset,
            Fault::CloseWhenNext => self.close_when_next().await?,
            Fault::HalfClose => self.half_close().await?,
            Fault::SwitchProtocols(_) => self.send_back().await?,
            _ => return Ok(next(answer)),
        };
        Ok(Flow::Break(end))
    }

    async fn close_when_next(&mut self) -> io::Result<End> {
        let dismissed = self.dismissed();
        let unread = tokio::select! {
            biased;
            unread = self.net.readable(&mut self.stream) => unread?,
            () = dismissed => return Ok(End::Fin),
        };
        self.note(format_args!("closed unread_bytes={unread}"));
        Ok(End::Abandon)
    }

    async fn half_close(&mut self) -> io::Result<End> {
        self.stream.shutdown().await?;
        let ignored = self.read_away().await;
        self.note(format_args!("half-closed ignored_bytes={ignored}"));
        Ok(End::Abandon)
    }

    /// Sends everything back until the other side ends its direction.
    async fn send_back(&mut self) -> io::Result<End> {
        loop {
            let bytes = self.inbox.data().to_vec();
            self.inbox.consume(bytes.len());
            self.stream.write_all(&bytes).await?;
            if self.inbox.fill(&mut self.stream).await? == 0 {
                self.stream.write_all(b"bye").await?;
                return Ok(End::Fin);
            }
        }
    }

    async fn answer_early(&mut self, head: &RequestHead, kept: bool) -> io::Result<Flow> {
        let mut answer = self.normal(head, BodyDigest::default());
        answer.fields.retain(|(name, _)| name != "X-Received");
        answer.status = Query::of(&head.target).status.unwrap_or(413);
        answer.keep_alive &= kept;
        self.write_at_once(&answer).await?;
        self.replied(head, answer.status);
        if !kept {
            return Ok(Flow::Break(End::FinAndLinger));
        }
        let body = self.read_body(head).await?;
        self.executed(head, body);
        Ok(next(&answer))
    }

    /// The answer of a backend without a fault.
    fn normal(&self, head: &RequestHead, received: BodyDigest) -> Answer {
        let query = Query::of(&head.target);
        let nonce = nonce(head);
        let seed = nonce.unwrap_or_default();
        let body = match query.size {
            Some(len) => crate::body::pattern(seed, len),
            None => self.shared.body.clone(),
        };
        let mut answer = Answer::new(query.status.unwrap_or(200), body)
            .field("Content-Type", "text/plain")
            .field("X-Backend", &self.shared.name);
        if let Some(nonce) = nonce {
            answer = answer.field("X-Nonce", nonce);
        }
        answer = answer.field("X-Received", received).promise();
        answer.seed = seed;
        if query.chunked {
            answer.form = Form::Chunked;
        }
        self.suit(&mut answer, head);
        answer
    }

    /// Suits an answer to the request's method and version.
    pub(super) fn suit(&self, answer: &mut Answer, head: &RequestHead) {
        answer.to_head = &*head.method == "HEAD";
        let asked = head.minor_version == 1 && head.fields.keep_alive(1);
        answer.keep_alive = asked && !self.is_stopping();
        if head.minor_version == 0 && answer.form == Form::Chunked {
            answer.form = Form::Close;
        }
    }

    pub(super) async fn write_at_once(&mut self, answer: &Answer) -> io::Result<()> {
        let bytes = [answer.head(), answer.body_bytes()].concat();
        self.stream.write_all(&bytes).await
    }

    pub(super) fn received(&self, head: &RequestHead) {
        self.shared.record(EventKind::Received {
            backend: Arc::clone(&self.shared.name),
            connection: self.id,
            nonce: nonce(head),
            method: Arc::clone(&head.method),
            target: head.target.clone(),
            head: Arc::clone(&head.raw),
        });
    }

    pub(super) fn executed(&self, head: &RequestHead, body: BodyDigest) {
        self.shared.record(EventKind::Executed {
            backend: Arc::clone(&self.shared.name),
            connection: self.id,
            nonce: nonce(head),
            method: Arc::clone(&head.method),
            body,
        });
    }

    pub(super) fn replied(&self, head: &RequestHead, status: u16) {
        self.shared.record(EventKind::Replied {
            backend: Arc::clone(&self.shared.name),
            connection: self.id,
            nonce: nonce(head),
            status,
        });
    }
}

pub(super) fn next(answer: &Answer) -> Flow {
    match answer.keep_alive {
        true => Flow::Continue(()),
        false => Flow::Break(End::Fin),
    }
}

fn wants_echo(head: &RequestHead) -> bool {
    &*head.method != "HEAD" && Query::of(&head.target).echo
}

pub(super) fn nonce(head: &RequestHead) -> Option<u64> {
    head.fields.get("x-nonce")?.parse().ok()
}
