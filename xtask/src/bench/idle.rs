//! Connections that ask once and then stay: what does each cost?

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use futures_util::{StreamExt, stream};
use testbed::process::raise_descriptor_limit;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{backend::HELLO, targets::Running, wrk::Seen};

/// Connections that are being opened at a time.
const AT_A_TIME: usize = 64;

/// No answer takes this long.
const WATCHDOG: Duration = Duration::from_secs(10);

/// Which of the connections are asked again in the end: one in so many.
const SAMPLE: usize = 100;

/// What came of a round of idle connections.
pub(crate) struct Held {
    /// What clients saw while the connections were opened.
    pub(crate) seen: Seen,
    /// The target's CPU time meanwhile.
    pub(crate) cpu: Duration,
    /// The target's memory in the end, in KiB.
    pub(crate) resident_kib: u64,
}

/// How many of `wanted` connections every target has descriptors for: one for
/// the client and one for a server each.
pub(crate) fn possible(wanted: usize) -> usize {
    usize::try_from(raise_descriptor_limit() / 2).unwrap_or(usize::MAX).min(wanted)
}

/// Opens `count` connections to `target`, asks once on each, lets them idle for
/// `settle`, and sees whether they still answer.
///
/// # Errors
/// The target has ended.
pub(crate) async fn hold(target: &Running, count: usize, settle: Duration) -> Result<Held> {
    let before = target.processes.cpu_time()?;
    let began = Instant::now();
    let opened: Vec<_> = stream::iter(0..count)
        .map(|_| open(target.addr))
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    let took = began.elapsed();
    let cpu = target.processes.cpu_time()?.saturating_sub(before);
    let (mut held, mut times): (Vec<_>, Vec<_>) = opened.into_iter().flatten().unzip();
    let mut errors = count - held.len();
    sleep(settle).await;
    let resident_kib = target.processes.resident_kib()?;
    for stream in held.iter_mut().step_by(SAMPLE) {
        errors += usize::from(ask(stream).await.is_err());
    }
    times.sort_unstable();
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| quantile(&times, share));
    let seen = Seen { requests: times.len() as u64, took, p50, p99, p999, errors: errors as u64 };
    Ok(Held { seen, cpu, resident_kib })
}

/// A connection, and how long its answer took with the connect.
async fn open(addr: SocketAddr) -> Result<(TcpStream, Duration)> {
    let began = Instant::now();
    let mut stream = connect(addr).await?;
    ask(&mut stream).await?;
    Ok((stream, began.elapsed()))
}

/// A connection.
///
/// # Errors
/// There is none within ten seconds.
pub(crate) async fn connect(addr: SocketAddr) -> Result<TcpStream> {
    Ok(timeout(WATCHDOG, TcpStream::connect(addr)).await??)
}

/// One request and its answer.
///
/// # Errors
/// It is no good one, or not whole within ten seconds.
pub(crate) async fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(1024);
    while !answer.ends_with(HELLO.as_bytes()) {
        let read = timeout(WATCHDOG, stream.read_buf(&mut answer)).await??;
        ensure!(read > 0, "the connection was closed");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "the answer is not a 200");
    Ok(())
}

/// The value that the `share` of `sorted` does not exceed.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let sorted: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_micros(500));
        assert_eq!(quantile(&sorted, 0.999), Duration::from_micros(999));
        assert_eq!(quantile(&sorted[..1], 0.999), Duration::from_micros(1));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn no_more_connections_than_descriptors() {
        assert_eq!(possible(1), 1);
    }
}
