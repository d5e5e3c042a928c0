//! What a pick costs: `cargo bench -p lb --bench pick`.
//!
//! The samples are long, so that two threads do meet.

use std::sync::Arc;

use divan::{Bencher, black_box};
use lb::balance::{Algorithm, Ask, Cluster, Pick, Share, Snapshot, Thresholds, WhenAllDown, hash};

fn main() {
    divan::main();
}

/// So many servers that are up, with the weights 1 to `weights` in turn.
fn snapshot(algorithm: Algorithm, servers: u32, weights: u32) -> Arc<Snapshot<()>> {
    let mut cluster = Cluster::dealing(algorithm, WhenAllDown::Refuse);
    for number in 0..servers {
        let share = Share { weight: number % weights + 1, seed: hash(&number.to_le_bytes()) };
        let id = cluster.join_with(Arc::new(()), Thresholds::default(), share);
        cluster.handle_probe(id, 0, true);
    }
    cluster.snapshot().clone()
}

/// Deals a request and gives it back at once.
#[allow(
    clippy::disallowed_methods,
    reason = "threads draw side by side, and none decides anything"
)]
fn deal(bencher: Bencher<'_, '_>, algorithm: Algorithm, servers: u32, weights: u32) {
    let snapshot = snapshot(algorithm, servers, weights);
    bencher.with_inputs(|| fastrand::u64(..)).bench_values(|draw| {
        let dealt = snapshot.deal(Ask { draw, key: Some(draw) }, |member| {
            member.in_flight.begin();
            member.place
        });
        if let Pick::Server(place) = black_box(dealt) {
            snapshot.members()[place].in_flight.end();
        }
    });
}

/// The rotation alone, without what is in flight.
#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn cursor(bencher: Bencher<'_, '_>, servers: u32) {
    let snapshot = snapshot(Algorithm::RoundRobin, servers, 1);
    bencher.bench(|| matches!(black_box(snapshot.pick()), Pick::Server(_)));
}

#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn round_robin(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::RoundRobin, servers, 1);
}

/// Laid out for 3 servers; 1 000 of weights to 100 have too long a period.
#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn weighted_round_robin(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::RoundRobin, servers, 100);
}

#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn least_connections(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::LeastConnections, servers, 1);
}

#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn two_choices(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::TwoChoices, servers, 1);
}

#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn random(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::Random, servers, 1);
}

#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn hash_of_even_weights(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::Hash, servers, 1);
}

#[divan::bench(args = [3, 1_000], threads = [1, 2], sample_size = 5_000, sample_count = 40)]
fn hash_of_mixed_weights(bencher: Bencher<'_, '_>, servers: u32) {
    deal(bencher, Algorithm::Hash, servers, 5);
}
