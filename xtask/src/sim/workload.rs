//! What clients ask for.

use std::{cell::Cell, rc::Rc, time::Duration};

use fastrand::Rng;
use testbed::{
    client::{Client as Connection, Request},
    net::Net,
};
use tokio::{sync::Notify, time::sleep};

use super::plan::Client;

/// How long a client waits for an answer: longer than `lb` may take for one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A client at work.
pub(crate) struct Asker<N: Net> {
    client: Client,
    connection: Connection<N>,
    random: Rng,
    /// Notified when it is to give up its request.
    abort: Rc<Notify>,
    asked: u64,
}

/// The number of a client's stream: that of its name, so that it stays when
/// others leave the plan.
pub(crate) fn number(client: &Client, index: usize) -> u64 {
    client
        .name
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap_or(1000 + index as u64)
}

impl<N: Net> Asker<N> {
    pub(crate) fn new(
        client: Client,
        mut connection: Connection<N>,
        random: Rng,
        abort: Rc<Notify>,
    ) -> Self {
        connection.fresh(client.fresh);
        connection.set_timeout(PATIENCE);
        Self { client, connection, random, abort, asked: 0 }
    }

    /// Asks until `stop`.
    pub(crate) async fn work(mut self, stop: Rc<Cell<bool>>) -> Self {
        while !stop.get() {
            let request = self.draw();
            let abort = self.abort.clone();
            tokio::select! {
                biased;
                _ = self.connection.send(request) => {}
                () = abort.notified() => {}
            }
            let pause = self.random.u64(..=self.client.pause_ms);
            sleep(Duration::from_millis(pause)).await;
        }
        self
    }

    /// Asks so many times more, and closes its connection.
    pub(crate) async fn last(mut self, count: usize) {
        for _ in 0..count {
            let request = self.draw();
            let _ = self.connection.send(request).await;
        }
    }

    /// The next request. Its target is its own, so that `lb`'s line about it is
    /// found.
    fn draw(&mut self) -> Request {
        self.asked += 1;
        let random = &mut self.random;
        let size = random.usize(..=self.client.body);
        let chunked = random.bool();
        let is_post = random.u8(..100) < self.client.posts;
        let others = ["GET", "GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS"];
        let method = if is_post { "POST" } else { others[random.usize(..others.len())] };
        let answer = random.usize(..=self.client.body);
        let mut target = format!("/{}/{}?size={answer}", self.client.name, self.asked);
        if random.bool() {
            target.push_str("&chunked=1");
        }
        let request = Request::new(method, &target);
        match method {
            "POST" | "PUT" => request.body(vec![b'x'; size]).chunked(chunked),
            _ => request,
        }
    }
}
