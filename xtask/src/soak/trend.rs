//! Whether a figure grows.
//!
//! The estimator is Theil and Sen's: the median of the slopes between all pairs of
//! samples. A spike, a step back or a third of samples from elsewhere do not move
//! it; a leak does, as it is in every pair. A step that stays and a leak that begins
//! late are in the minority of pairs: for them the ends are compared.

use std::time::Duration;

/// No more samples than this are paired; of more, the means of neighbours are.
const PAIRED: usize = 400;

/// By how much a figure grew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// Its median.
    pub(super) level: f64,
    /// From the first sample to the last, on the robust line.
    pub(super) growth: f64,
    /// From the median of the first tenth to that of the last.
    pub(super) step: f64,
}

impl Trend {
    /// Of samples: when, and what. None of fewer than ten.
    pub(super) fn of(samples: &[(Duration, f64)]) -> Option<Trend> {
        if samples.len() < 10 {
            return None;
        }
        let points = thinned(samples);
        let mut slopes = Vec::new();
        for (place, (x0, y0)) in points.iter().enumerate() {
            let later = points[place + 1..].iter().filter(|(x, _)| x > x0);
            slopes.extend(later.map(|(x, y)| (y - y0) / (x - x0)));
        }
        let seconds = points.last()?.0 - points.first()?.0;
        let level = median(samples.iter().map(|(_, value)| *value).collect())?;
        let tenth = samples.len() / 10;
        let of = |some: &[(Duration, f64)]| median(some.iter().map(|(_, value)| *value).collect());
        let (first, last) = (of(&samples[..tenth])?, of(&samples[samples.len() - tenth..])?);
        Some(Trend { level, growth: median(slopes)? * seconds, step: last - first })
    }
}

fn thinned(samples: &[(Duration, f64)]) -> Vec<(f64, f64)> {
    let mean = |some: &[(Duration, f64)]| {
        let count = some.len() as f64;
        let sum = |(x, y), (at, value): &(Duration, f64)| (x + at.as_secs_f64(), y + value);
        let (x, y) = some.iter().fold((0.0, 0.0), sum);
        (x / count, y / count)
    };
    samples.chunks(samples.len().div_ceil(PAIRED)).map(mean).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = values.get(half)?;
    match values.len() % 2 {
        0 => Some((values.get(half - 1)? + upper) / 2.0),
        _ => Some(*upper),
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// A fake that uses 20 MB and noise of a tenth, has a spike of double its size
    /// each minute, gives back nothing of what it leaks, and lives 30 minutes.
    fn fake(leak_per_second: f64) -> Vec<(Duration, f64)> {
        let mut random = Rng::with_seed(7);
        let sample = |second: u64| {
            let noise = 2e6 * (random.f64() - 0.5);
            let spike = if second % 60 < 3 { 20e6 } else { 0.0 };
            (Duration::from_secs(second), 20e6 + noise + spike + leak_per_second * second as f64)
        };
        (0..1800).map(sample).collect()
    }

    #[test]
    fn noise_and_spikes_are_no_growth() {
        let trend = Trend::of(&fake(0.0)).unwrap();
        assert!((trend.growth / trend.level).abs() < 0.01, "{trend:?}");
    }

    #[test]
    fn a_leak_of_one_kilobyte_a_second_is_growth() {
        let trend = Trend::of(&fake(1000.0)).unwrap();
        assert!((0.07..0.11).contains(&(trend.growth / trend.level)), "{trend:?}");
    }

    #[test]
    fn few_samples_say_nothing() {
        assert_eq!(Trend::of(&fake(0.0)[..9]), None);
    }

    #[test]
    fn a_line_is_found_exactly() {
        let line: Vec<_> = (0..10).map(|n| (Duration::from_secs(n), 5.0 + n as f64)).collect();
        let trend = Trend::of(&line).unwrap();
        assert_eq!((trend.level, trend.growth), (9.5, 9.0));
    }
}
