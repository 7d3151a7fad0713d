//! Do values depend on those before them? The rank correlation of Spearman of a series with itself, moved by a few places.
//! Ranks, because latencies have a long tail that would hide everything else.

/// How many lags are looked at.
pub const LAGS: usize = 10;

/// Correlations of independent values lie beyond this many standard deviations, for any of [`LAGS`] lags, once in a
/// hundred times.
const DEVIATIONS: f64 = 3.29;

/// The largest correlation, by size, of a series with itself moved by 1 to [`LAGS`] places; 0 if it is too short to be
/// moved or never changes.
pub fn autocorrelation(series: &[f64]) -> f64 {
    let ranks = ranks(series);
    let mean = (series.len() as f64 + 1.0) / 2.0;
    let variance: f64 = ranks.iter().map(|rank| (rank - mean).powi(2)).sum();
    if variance == 0.0 {
        return 0.0;
    }
    let at = |lag: usize| {
        let covariance: f64 = ranks.iter().zip(&ranks[lag..]).map(|(one, two)| (one - mean) * (two - mean)).sum();
        covariance / variance
    };
    (1..=LAGS.min(series.len().saturating_sub(1))).map(at).fold(
        0.0,
        |most: f64, next| {
            if next.abs() > most.abs() { next } else { most }
        },
    )
}

/// What [`autocorrelation`] does not exceed, by size, if `count` values are independent.
pub fn critical(count: usize) -> f64 {
    DEVIATIONS / (count.max(1) as f64).sqrt()
}

/// From 1 on; equal values share the mean of theirs.
fn ranks(series: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..series.len()).collect();
    order.sort_by(|&a, &b| series[a].total_cmp(&series[b]));
    let mut ranks = vec![0.0; series.len()];
    for equal in order.chunk_by(|&a, &b| series[a] == series[b]).scan(0, |start, chunk| {
        let begin = *start;
        *start += chunk.len();
        Some((begin, chunk))
    }) {
        let (begin, places) = equal;
        let rank = begin as f64 + (places.len() as f64 + 1.0) / 2.0;
        places.iter().for_each(|&place| ranks[place] = rank);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::known;

    #[test]
    fn equal_values_share_ranks() {
        assert_eq!(ranks(&[10.0, 30.0, 10.0, 20.0]), [1.5, 4.0, 1.5, 3.0]);
    }

    #[test]
    fn independent_values_fail_once_in_a_hundred_times() {
        let dependent = |seed: &u64| autocorrelation(&known::exponential(500, *seed)).abs() > critical(500);
        let failures = (0..1000).filter(dependent).count();
        // 10 expected; four standard deviations are 13.
        assert!(failures <= 23, "{failures}");
    }

    #[test]
    fn dependence_is_seen_whatever_the_tail() {
        let series: Vec<f64> = known::autoregressive(1000, 0.5, 3).iter().map(|value| value.exp()).collect();
        let found = autocorrelation(&series);
        // The rank correlation of normal values that correlate by 0.5.
        assert!((found - 0.48).abs() < 0.1, "{found}");
        assert!(found > critical(1000));
    }

    #[test]
    fn alternation_is_dependence_too() {
        let series: Vec<f64> = (0..100).map(|at| f64::from(at % 2)).collect();
        assert!(autocorrelation(&series).abs() > 0.9);
    }

    #[test]
    fn nothing_to_say() {
        assert_eq!(autocorrelation(&[]), 0.0);
        assert_eq!(autocorrelation(&[1.0]), 0.0);
        assert_eq!(autocorrelation(&[2.0; 50]), 0.0);
    }
}
