//! Clients that write bytes, not requests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::e2e::World;

/// How long anything may take before a scenario gives up.
const WATCHDOG: Duration = Duration::from_secs(20);

/// A bare connection to the balancer.
pub(super) struct Raw(TcpStream);

impl Raw {
    pub(super) async fn connect(w: &mut World) -> Result<Self> {
        let stream = TcpStream::connect(w.lb()?.addr).await?;
        stream.set_nodelay(true)?;
        Ok(Raw(stream))
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.0.write_all(bytes.as_ref()).await?)
    }

    /// Ends this direction.
    pub(super) async fn finish(&mut self) -> Result<()> {
        Ok(self.0.shutdown().await?)
    }

    /// Everything until the other side closes, as text.
    pub(super) async fn rest(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let read = timeout(WATCHDOG, self.0.read_to_end(&mut bytes)).await;
        read.with_context(|| format!("still open after {}", String::from_utf8_lossy(&bytes)))??;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Exactly so many bytes.
    pub(super) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        timeout(WATCHDOG, self.0.read_exact(&mut bytes)).await.context("too few bytes came")??;
        Ok(bytes)
    }

    /// Everything until `end`, as text.
    pub(super) async fn until(&mut self, end: &str) -> Result<String> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = timeout(WATCHDOG, self.0.read_u8()).await;
            let got = || format!("waited for {end:?} after {:?}", String::from_utf8_lossy(&bytes));
            bytes.push(byte.with_context(got)?.with_context(got)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
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
