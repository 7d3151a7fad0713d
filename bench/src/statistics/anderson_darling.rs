//! Are these gaps exponentially distributed? The test of Anderson and Darling, with the mean estimated from the gaps.

/// Modified statistics above this occur once in a hundred times if the gaps are exponential (Stephens, "EDF statistics for
/// goodness of fit and some comparisons", 1974, table 1.3).
pub const CRITICAL: f64 = 1.957;

/// Fewest gaps that say anything.
pub const GAPS_MIN: usize = 20;

/// The modified statistic A² (1 + 0.6 / n); `None` for fewer than [`GAPS_MIN`] gaps, or if they are all zero.
pub fn exponential(gaps: &[f64]) -> Option<f64> {
    let count = gaps.len();
    let mean = gaps.iter().sum::<f64>() / count as f64;
    if count < GAPS_MIN || mean.is_nan() || mean <= 0.0 {
        return None;
    }
    let mut sorted = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Of an exponential distribution, ln(1 - F(x)) is -x / mean; F of a gap of zero would make the other logarithm
    // infinite, so it counts as the smallest possible.
    let ln_below = |gap: f64| (-(-gap / mean).exp_m1()).max(f64::MIN_POSITIVE).ln();
    let sum: f64 = (0..count)
        .map(|place| (2 * place + 1) as f64 * (ln_below(sorted[place]) - sorted[count - 1 - place] / mean))
        .sum();
    let statistic = -(count as f64) - sum / count as f64;
    Some(statistic * (1.0 + 0.6 / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::known;

    #[test]
    fn a_small_example_by_hand() {
        // The n quantiles of an exponential distribution at (i - 1/2) / n fit as well as n values can.
        let gaps: Vec<f64> = (0..50).map(|i| -(1.0 - (f64::from(i) + 0.5) / 50.0).ln()).collect();
        assert!(exponential(&gaps).expect("enough") < 0.1);
    }

    #[test]
    fn exponential_gaps_pass_ninety_nine_times_in_a_hundred() {
        let failures =
            (0..1000).filter(|&seed| exponential(&known::exponential(300, seed)).expect("enough") > CRITICAL).count();
        // 10 expected; four standard deviations are 13.
        assert!((1..=23).contains(&failures), "{failures}");
    }

    #[test]
    fn other_gaps_fail() {
        let equal = vec![1.0; 200];
        let mut bursts = known::exponential(200, 1);
        bursts.iter_mut().step_by(2).for_each(|gap| *gap = 0.0);
        let uniform: Vec<f64> = (0..200).map(f64::from).collect();
        for (name, gaps) in [("equal", equal), ("bursts", bursts), ("uniform", uniform)] {
            assert!(exponential(&gaps).expect("enough") > CRITICAL, "{name}");
        }
    }

    #[test]
    fn the_unit_does_not_matter_and_too_few_say_nothing() {
        let gaps = known::exponential(100, 9);
        let scaled: Vec<f64> = gaps.iter().map(|gap| gap * 1e6).collect();
        let (one, two) = (exponential(&gaps).expect("enough"), exponential(&scaled).expect("enough"));
        assert!((one - two).abs() < 1e-9);
        assert_eq!(exponential(&gaps[..GAPS_MIN - 1]), None);
        assert_eq!(exponential(&[0.0; GAPS_MIN]), None);
    }
}
