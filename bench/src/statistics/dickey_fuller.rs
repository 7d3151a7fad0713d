//! Does a series return to its mean, or does it wander off? The augmented test of Dickey and Fuller, with a constant and
//! without a trend: a queue that only grows does not pass.

/// Statistics below this occur once in twenty times if the series wanders (MacKinnon 2010, with a constant, for 100 values
/// or more).
pub const CRITICAL: f64 = -2.89;

/// Fewest values that say anything.
pub const VALUES_MIN: usize = 40;

/// The t statistic of the coefficient of the previous value, with [Schwert's](https://doi.org/10.2307/1391432) number of
/// lagged differences. `None` for fewer than [`VALUES_MIN`] values. A series that does not move at all returns to its mean
/// like no other: minus infinity.
pub fn statistic(series: &[f64]) -> Option<f64> {
    let count = series.len();
    if count < VALUES_MIN {
        return None;
    }
    let lags = (4.0 * (count as f64 / 100.0).powf(0.25)) as usize;
    let differences: Vec<f64> = series.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if differences.iter().all(|&difference| difference == 0.0) {
        return Some(f64::NEG_INFINITY);
    }
    // Regress each difference on the value before it, a constant and the differences before it.
    let rows = lags..differences.len();
    let row = |at: usize| {
        let mut row = vec![series[at], 1.0];
        row.extend((1..=lags).map(|lag| differences[at - lag]));
        row
    };
    let width = lags + 2;
    let mut normal = vec![vec![0.0; width]; width];
    let mut right = vec![0.0; width];
    for at in rows.clone() {
        let row = row(at);
        for i in 0..width {
            right[i] += row[i] * differences[at];
            for j in 0..width {
                normal[i][j] += row[i] * row[j];
            }
        }
    }
    let coefficients = solve(normal.clone(), right)?;
    let residuals: f64 = rows
        .clone()
        .map(|at| {
            let fitted: f64 = row(at).iter().zip(&coefficients).map(|(value, by)| value * by).sum();
            (differences[at] - fitted).powi(2)
        })
        .sum();
    let freedom = rows.len().checked_sub(width).filter(|&freedom| freedom > 0)?;
    let mut unit = vec![0.0; width];
    unit[0] = 1.0;
    // The first element of the inverse.
    let variance = residuals / freedom as f64 * solve(normal, unit)?[0];
    Some(coefficients[0] / variance.sqrt())
}

/// Gauss with pivoting; `None` if the matrix is singular.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let width = right.len();
    for column in 0..width {
        let pivot = (column..width).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        if matrix[column][column].abs() < 1e-300 {
            return None;
        }
        let (above, below) = matrix.split_at_mut(column + 1);
        let pivot = &above[column];
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).skip(column).for_each(|(value, by)| *value -= factor * by);
            right[column + 1 + offset] -= factor * right[column];
        }
    }
    for column in (0..width).rev() {
        let known: f64 = (column + 1..width).map(|other| matrix[column][other] * right[other]).sum();
        right[column] = (right[column] - known) / matrix[column][column];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::known;

    #[test]
    fn equations_are_solved() {
        let solution = solve(vec![vec![0.0, 2.0], vec![1.0, 1.0]], vec![4.0, 5.0]).expect("regular");
        assert!((solution[0] - 3.0).abs() < 1e-12 && (solution[1] - 2.0).abs() < 1e-12);
        assert_eq!(solve(vec![vec![1.0, 1.0], vec![1.0, 1.0]], vec![1.0, 2.0]), None);
    }

    #[test]
    fn what_returns_passes() {
        for (memory, passes_min) in [(0.0, 50), (0.5, 48), (0.8, 35)] {
            let passes = |seed: &u64| statistic(&known::autoregressive(200, memory, *seed)).expect("enough") < CRITICAL;
            let passed = (0..50).filter(passes).count();
            assert!(passed >= passes_min, "{passed} of 50 with a memory of {memory}");
        }
        assert_eq!(statistic(&[7.0; 100]), Some(f64::NEG_INFINITY));
    }

    #[test]
    fn a_random_walk_passes_about_one_time_in_twenty() {
        let passed = (0..1000)
            .filter(|&seed| statistic(&known::autoregressive(100, 1.0, seed)).expect("enough") < CRITICAL)
            .count();
        // 50 expected; four standard deviations are 28.
        assert!((15..=90).contains(&passed), "{passed}");
    }

    #[test]
    fn a_growing_queue_fails() {
        let noise = known::autoregressive(100, 0.0, 1);
        let growing: Vec<f64> = noise.iter().enumerate().map(|(at, noise)| at as f64 + noise).collect();
        assert!(statistic(&growing).expect("enough") > CRITICAL);
    }

    #[test]
    fn too_few_say_nothing() {
        assert_eq!(statistic(&known::exponential(VALUES_MIN - 1, 1)), None);
    }
}
