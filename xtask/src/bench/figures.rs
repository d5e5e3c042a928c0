//! What is computed from rounds: figures, medians, ratios of pairs.

use std::time::Duration;

use serde::Serialize;

use super::wrk::Seen;

/// The figures of one target in one round, or their medians.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// The proxy's CPU time for a request.
    pub(crate) cpu_us_per_request: f64,
    /// Requests that were answered in a second.
    pub(crate) requests_per_second: f64,
    /// Half of the answers took no longer.
    pub(crate) p50_ms: f64,
    /// 99 % of the answers took no longer.
    pub(crate) p99_ms: f64,
    /// 99.9 % of the answers took no longer.
    pub(crate) p999_ms: f64,
    /// How much the proxy grew since its start, for each connection.
    pub(crate) kib_per_connection: f64,
    /// Body moved in a second of the proxy's CPU time, where bodies are large.
    pub(crate) mib_per_cpu_second: Option<f64>,
    /// Requests that failed; of all rounds, not their median.
    pub(crate) errors: u64,
}

/// What `lb` needs or does for one of the peer's; medians over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ratios {
    /// Of CPU time for a request: less is better.
    pub(crate) cpu: f64,
    /// Of requests per second: more is better.
    pub(crate) throughput: f64,
    /// Of the 99 % latency: less is better.
    pub(crate) p99: f64,
}

/// What was measured in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// What clients saw.
    pub(crate) seen: Seen,
    /// The proxy's CPU time.
    pub(crate) cpu: Duration,
    /// How much the proxy grew since its start, in KiB.
    pub(crate) grown_kib: u64,
    /// Connections at a time.
    pub(crate) connections: usize,
    /// The bytes of body that a request moves, where they count.
    pub(crate) body_bytes: Option<usize>,
}

impl From<Measured> for Figures {
    fn from(measured: Measured) -> Figures {
        let Measured { seen, cpu, .. } = measured;
        let requests = seen.requests as f64;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mib = |bytes: usize| bytes as f64 * requests / f64::from(1 << 20);
        Figures {
            cpu_us_per_request: ratio(cpu.as_secs_f64() * 1e6, requests),
            requests_per_second: ratio(requests, seen.took.as_secs_f64()),
            p50_ms: ms(seen.p50),
            p99_ms: ms(seen.p99),
            p999_ms: ms(seen.p999),
            kib_per_connection: ratio(measured.grown_kib as f64, measured.connections as f64),
            mib_per_cpu_second: measured.body_bytes.map(|b| ratio(mib(b), cpu.as_secs_f64())),
            errors: seen.errors,
        }
    }
}

impl Figures {
    /// Each figure's median over `rounds`; the errors' sum.
    pub(crate) fn median(rounds: &[Figures]) -> Figures {
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
        let bodies = rounds.iter().any(|round| round.mib_per_cpu_second.is_some());
        Figures {
            cpu_us_per_request: of(|f| f.cpu_us_per_request),
            requests_per_second: of(|f| f.requests_per_second),
            p50_ms: of(|f| f.p50_ms),
            p99_ms: of(|f| f.p99_ms),
            p999_ms: of(|f| f.p999_ms),
            kib_per_connection: of(|f| f.kib_per_connection),
            mib_per_cpu_second: bodies.then(|| of(|f| f.mib_per_cpu_second.unwrap_or_default())),
            errors: rounds.iter().map(|round| round.errors).sum(),
        }
    }
}

impl Ratios {
    /// Of the pairs that `lb` and `peer` are in each round.
    pub(crate) fn of(lb: &[Figures], peer: &[Figures]) -> Ratios {
        let pairs = |figure: fn(&Figures) -> f64| {
            median(lb.iter().zip(peer).map(|(lb, peer)| ratio(figure(lb), figure(peer))))
        };
        Ratios {
            cpu: pairs(|f| f.cpu_us_per_request),
            throughput: pairs(|f| f.requests_per_second),
            p99: pairs(|f| f.p99_ms),
        }
    }
}

/// `part / whole`, and 0 where nothing was measured.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The middle of `values`, or the mean of both middles; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (below, above) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(below), sorted.get(above)) {
        (Some(below), Some(above)) => f64::midpoint(*below, *above),
        _ => 0.0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Figures of a round with this CPU time for a request.
    pub(crate) fn figures(cpu_us_per_request: f64) -> Figures {
        Figures {
            cpu_us_per_request,
            requests_per_second: 1e6 / cpu_us_per_request,
            p50_ms: 1.0,
            p99_ms: 2.0,
            p999_ms: 3.0,
            kib_per_connection: 4.0,
            mib_per_cpu_second: None,
            errors: 1,
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
        let rounds = [figures(10.0), figures(30.0), figures(20.0)];
        let median = Figures::median(&rounds);
        assert_eq!((median.cpu_us_per_request, median.errors), (20.0, 3));
    }

    #[test]
    fn a_ratio_is_the_median_of_pairs_not_the_pair_of_medians() {
        // The machine was slow in the second round, for both.
        let lb = [figures(10.0), figures(100.0), figures(11.0)];
        let peer = [figures(20.0), figures(50.0), figures(20.0)];
        let ratios = Ratios::of(&lb, &peer);
        assert_eq!(ratios.cpu, 0.55);
        assert_eq!(Ratios::of(&lb, &[]).cpu, 0.0);
    }

    #[test]
    fn figures_of_a_round() {
        let us = Duration::from_micros;
        let seen = Seen {
            requests: 100,
            took: us(500_000),
            p50: us(1500),
            p99: us(2500),
            p999: us(3500),
            errors: 0,
        };
        let measured = Measured {
            seen,
            cpu: us(250_000),
            grown_kib: 64,
            connections: 32,
            body_bytes: Some(1 << 20),
        };
        let figures = Figures::from(measured);
        assert_eq!((figures.cpu_us_per_request, figures.requests_per_second), (2500.0, 200.0));
        assert_eq!((figures.p50_ms, figures.kib_per_connection), (1.5, 2.0));
        assert_eq!(figures.mib_per_cpu_second, Some(400.0));
    }
}
