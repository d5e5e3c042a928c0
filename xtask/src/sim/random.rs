//! Random streams of a seed, apart from each other: what is drawn from one
//! moves no other.

use fastrand::Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a stream is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// Servers and configuration.
    Topology,
    /// Latency and the size of packets.
    Links,
    /// Who asks, and how often.
    Workload,
    /// What breaks, and when.
    Faults,
    /// What breaks together.
    Scenes,
    /// Jitter and losses while a plan runs.
    Network,
    /// A client's requests.
    Client,
    /// What `lb` itself draws.
    Balancer,
}

/// The stream of `seed` for this purpose, and of those with one purpose the
/// one with this number.
pub(crate) fn stream(seed: u64, purpose: Stream, number: u64) -> Rng {
    let label = format!("{purpose:?}/{number}");
    Rng::with_seed(xxh3_64_with_seed(label.as_bytes(), seed))
}
