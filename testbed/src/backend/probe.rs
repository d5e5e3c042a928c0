//! What a backend says about its health.
//!
//! Owns the answers to probes; no traffic fault touches them, and they are
//! logged as [`EventKind::Probed`] only. Called by [`super::connection`].

use std::future::pending;
use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::act::next;
use super::answer::Answer;
use super::connection::{Connection, End, Flow};
use crate::fault::Health;
use crate::http1::head::RequestHead;
use crate::log::EventKind;
use crate::net::Net;

impl<N: Net> Connection<N> {
    pub(super) async fn probe(&mut self, head: RequestHead) -> io::Result<Flow> {
        self.read_body(&head).await?;
        let answer = match self.shared.health() {
            Health::Status(status) => Answer::new(status, self.shared.body.clone()),
            Health::Redirect(to) => Answer::new(302, Vec::new()).field("Location", to),
            Health::Slow(after, status) => {
                if !self.hold(sleep(after)).await {
                    return Ok(Flow::Break(End::Fin));
                }
                Answer::new(status, self.shared.body.clone())
            }
            Health::Hang => {
                self.probed(0);
                self.hold(pending()).await;
                return Ok(Flow::Break(End::Fin));
            }
            Health::Close => return self.unanswered_probe(End::Fin),
            Health::Reset => return self.unanswered_probe(End::Reset),
            Health::Raw(bytes) => {
                self.probed(0);
                self.stream.write_all(&bytes).await?;
                return Ok(Flow::Break(End::Fin));
            }
        };
        let mut answer = answer.field("X-Backend", &self.shared.name);
        self.suit(&mut answer, &head);
        // Before the answer is out, so that whatever follows from it is logged later.
        self.probed(answer.status);
        self.write_at_once(&answer).await?;
        Ok(next(&answer))
    }

    fn unanswered_probe(&self, end: End) -> io::Result<Flow> {
        self.probed(0);
        Ok(Flow::Break(end))
    }

    fn probed(&self, status: u16) {
        self.shared.record(EventKind::Probed { backend: Arc::clone(&self.shared.name), status });
    }
}
