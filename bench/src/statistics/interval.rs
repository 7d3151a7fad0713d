//! Between which two of the sorted values a percentile lies: a confidence interval that knows nothing of the distribution
//! (Le Boudec, "Performance Evaluation of Computer and Communication Systems", §2.2).
//!
//! Of `n` independent values the number below the true percentile is binomial. So the percentile lies between the values of
//! those ranks between which the binomial distribution has 95 % of its weight.

/// How sure the interval is.
pub const CONFIDENCE: f64 = 0.95;

/// Ranks from 1 on of the two values between which the `share` quantile of `count` independent values lies; `None` if they are
/// too few to say.
///
/// # Panics
/// If the share is not between 0 and 1.
pub fn ranks(count: usize, share: f64) -> Option<(usize, usize)> {
    assert!(share > 0.0 && share < 1.0, "a quantile lies between 0 and 1");
    let tail = (1.0 - CONFIDENCE) / 2.0;
    // P(at most k below) for k from 0: the lower rank is the highest with at most the tail's weight below it, the upper
    // rank the lowest with at most the tail's weight from there on.
    let (ln_in, ln_out) = (share.ln(), (1.0 - share).ln());
    let mut ln_choose = 0.0;
    let mut below = 0.0;
    let (mut lower, mut upper) = (None, None);
    for k in 0..=count {
        if k > 0 {
            ln_choose += ((count - k + 1) as f64).ln() - (k as f64).ln();
        }
        let weight = (ln_choose + k as f64 * ln_in + (count - k) as f64 * ln_out).exp();
        below += weight;
        if below <= tail {
            // P(fewer than k + 1 below) is small: the percentile is hardly below value k + 1.
            lower = Some(k + 1);
        }
        if upper.is_none() && below >= 1.0 - tail && k < count {
            upper = Some(k + 1);
            break;
        }
    }
    lower.zip(upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::known;

    #[test]
    fn the_textbooks_table() {
        // Le Boudec, table A.1 (confidence intervals for the median at 95 %): for n = 10 the ranks 2 and 9, 20: 6 and 15, 70: 27 and 44.
        assert_eq!(ranks(10, 0.5), Some((2, 9)));
        assert_eq!(ranks(20, 0.5), Some((6, 15)));
        assert_eq!(ranks(70, 0.5), Some((27, 44)));
    }

    #[test]
    fn a_high_percentile_needs_many_values() {
        // 0.99^n must be at most the tail.
        let needed = (0.025_f64.ln() / 0.99_f64.ln()).ceil() as usize;
        assert_eq!(ranks(needed - 1, 0.99), None);
        assert!(ranks(needed, 0.99).is_some_and(|(_, upper)| upper == needed));
        assert_eq!(ranks(0, 0.5), None);
    }

    #[test]
    fn it_holds_nineteen_times_in_twenty() {
        let share = 0.9_f64;
        let truth = -(1.0 - share).ln();
        let (lower, upper) = ranks(500, share).expect("enough");
        let held = (0..1000)
            .filter(|&seed| {
                let mut values = known::exponential(500, seed);
                values.sort_by(f64::total_cmp);
                values[lower - 1] <= truth && truth <= values[upper - 1]
            })
            .count();
        assert!((925..=980).contains(&held), "{held}");
    }

    #[test]
    fn large_counts_stay_exact() {
        let (lower, upper) = ranks(1_000_000, 0.99).expect("enough");
        // Two standard deviations of the binomial distribution, 99.5 each.
        assert!((lower as i64 - (990_000 - 195)).abs() <= 2, "{lower}");
        assert!((upper as i64 - (990_000 + 196)).abs() <= 2, "{upper}");
    }
}
