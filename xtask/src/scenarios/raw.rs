//! Clients that write bytes, not requests.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use testbed::{
    http1::{
        body::BodyDecoder,
        head::{AnswerHead, Fields, Framing},
    },
    log::{EventKind, EventLog},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::e2e::{Network, Stream, World};

/// How long anything may take before a scenario gives up.
const WATCHDOG: Duration = Duration::from_secs(20);

/// A bare connection to the balancer. In the log it has the name by which the
/// balancer knows it: its port.
pub(super) struct Raw {
    stream: Stream,
    network: Network,
    name: Arc<str>,
    log: EventLog,
}

/// One whole answer, as it was read.
pub(super) struct Answer {
    pub(super) head: AnswerHead,
    /// The head's text.
    pub(super) text: String,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> &str {
        self.head.fields.get(name).unwrap_or_default()
    }
}

impl Raw {
    pub(super) async fn connect(w: &mut World) -> Result<Self> {
        let (stream, network) = (w.connect().await?, w.network());
        let name = format!("port {}", stream.local_addr()?.port()).into();
        Ok(Raw { stream, network, name, log: w.log.clone() })
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.log.record(EventKind::wrote(&self.name, bytes.as_ref()));
        Ok(self.stream.write_all(bytes.as_ref()).await?)
    }

    /// Writes as much of `bytes` as there is room for, at least one.
    pub(super) async fn write_some(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.stream.write(bytes).await?;
        self.log.record(EventKind::wrote(&self.name, &bytes[..written]));
        Ok(written)
    }

    /// Writes `bytes`, at most `size` at a time.
    pub(super) async fn write_in_pieces(&mut self, bytes: &[u8], size: usize) -> Result<()> {
        self.log.record(EventKind::wrote(&self.name, bytes));
        for piece in bytes.chunks(size) {
            self.stream.write_all(piece).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Reads one answer to a request of this method, and nothing behind it.
    pub(super) async fn answer(&mut self, method: &str) -> Result<Answer> {
        let text = self.until("\r\n\r\n").await?;
        let head = AnswerHead::parse(text.as_bytes())?.context("half a head")?;
        let framing = head.framing(method)?;
        let mut decoder = BodyDecoder::new(framing);
        let mut body = Vec::new();
        if framing == Framing::UntilClose {
            timeout(WATCHDOG, self.stream.read_to_end(&mut body))
                .await
                .context("no end came")??;
            self.has_read(&body);
        } else if let Framing::Length(length) = framing {
            body = self.exactly(usize::try_from(length)?).await?;
        } else {
            // What a chunk's line promises and no more: what follows the last
            // one is the next answer's.
            while !decoder.is_done() {
                let line = self.until("\r\n").await?;
                decoder.decode(line.as_bytes(), &mut body)?;
                let size = line.split([';', '\r']).next().unwrap_or_default();
                match usize::from_str_radix(size, 16) {
                    Ok(size @ 1..) if decoder.trailers().0.is_empty() => {
                        let data = self.exactly(size + 2).await?;
                        decoder.decode(&data, &mut body)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(Answer { head, text, body, trailers: decoder.trailers().clone() })
    }

    /// Whether nothing has come that nobody expected.
    pub(super) async fn is_silent(&self) -> bool {
        self.network.is_silent(&self.stream).await
    }

    /// Ends this direction.
    pub(super) async fn finish(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Everything until the other side closes, as text.
    pub(super) async fn rest(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let read = timeout(WATCHDOG, self.stream.read_to_end(&mut bytes)).await;
        self.has_read(&bytes);
        read.with_context(|| format!("still open after {}", String::from_utf8_lossy(&bytes)))??;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Everything until the other side closes or `patience` is over, as text.
    pub(super) async fn read_while(&mut self, patience: impl Future<Output = ()>) -> String {
        let mut bytes = Vec::new();
        // Neither a reset nor the end of patience takes back what was read.
        tokio::select! {
            biased;
            _ = self.stream.read_to_end(&mut bytes) => {}
            () = patience => {}
        }
        self.has_read(&bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Exactly so many bytes.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        timeout(WATCHDOG, self.stream.read_exact(&mut bytes))
            .await
            .context("too few bytes came")??;
        self.has_read(&bytes);
        Ok(bytes)
    }

    /// Everything until `end`, as text.
    pub(super) async fn until(&mut self, end: &str) -> Result<String> {
        let mut bytes = Vec::new();
        let read = self.read_until(end.as_bytes(), &mut bytes).await;
        self.has_read(&bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        read.with_context(|| format!("waited for {end:?} after {text:?}"))?;
        Ok(text)
    }

    async fn read_until(&mut self, end: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
        while !bytes.ends_with(end) {
            bytes.push(timeout(WATCHDOG, self.stream.read_u8()).await??);
        }
        Ok(())
    }

    fn has_read(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.log.record(EventKind::read(&self.name, bytes));
        }
    }
}

/// Sends `request` on a connection of its own, and reads until it is closed.
pub(super) async fn ask(w: &mut World, request: impl AsRef<[u8]>) -> Result<String> {
    let mut raw = Raw::connect(w).await?;
    // Whoever answers before the end may close as well.
    let _ = raw.write(request).await;
    raw.rest().await
}

/// That `answer` is one of the balancer's own, with this status and reason.
pub(super) fn expect_refusal(answer: &str, status: u16, reason: &str) -> Result<()> {
    let reason = format!("x-lb-reason: {reason}\r\n");
    ensure!(
        answer.starts_with(&format!("HTTP/1.1 {status} "))
            && answer.to_ascii_lowercase().contains(&reason),
        "expected {status} with {reason:?}, got {answer:?}"
    );
    ensure!(answer.matches("HTTP/1.").count() == 1, "more than one answer: {answer:?}");
    Ok(())
}
