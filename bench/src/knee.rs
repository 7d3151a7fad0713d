//! Where to measure next, on the way to the highest rate that keeps a promise: first up in steps, then halving what is left.

/// What was found at a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The promise was kept.
    Kept,
    /// It was broken, or the system could not keep up.
    Broken,
    /// Nothing that could be believed, for reasons that need not be the rate.
    Unusable,
}

/// Most rates that are tried: with the steps below it is never reached.
const TRIES_MAX: usize = 40;

/// A search. Ask [`Search::next`], measure, tell [`Search::found`].
#[derive(Debug)]
pub struct Search {
    next: Option<f64>,
    factor: f64,
    precision: f64,
    kept: Option<f64>,
    broken: Option<f64>,
    unusable: usize,
    tries: usize,
}

impl Search {
    /// Begins at `first`, multiplies by `factor` until the promise is broken, then halves until what is left is `precision` of
    /// the rate.
    ///
    /// # Panics
    /// If the rate is not positive, the factor not above 1, or the precision not above 0.
    pub fn new(first: f64, factor: f64, precision: f64) -> Self {
        assert!(first > 0.0 && factor > 1.0 && precision > 0.0, "a search goes up from a rate");
        Self { next: Some(first), factor, precision, kept: None, broken: None, unusable: 0, tries: 0 }
    }

    /// The rate to measure at, or that there is nothing left to find.
    pub fn next(&self) -> Option<f64> {
        self.next
    }

    /// What was found at the rate that [`Search::next`] said.
    pub fn found(&mut self, finding: Finding) {
        let Some(rate) = self.next else { return };
        self.tries += 1;
        match finding {
            Finding::Kept => {
                self.kept = Some(rate);
                self.unusable = 0;
            }
            Finding::Broken => self.broken = Some(rate),
            // Once may be chance, twice is the rate.
            Finding::Unusable => {
                self.unusable += 1;
                if self.unusable >= 2 || self.broken.is_some() {
                    self.broken = Some(rate);
                }
            }
        }
        self.next = match (self.kept, self.broken) {
            _ if self.tries >= TRIES_MAX => None,
            (_, None) => Some(rate * self.factor),
            (Some(kept), Some(broken)) if broken / kept <= 1.0 + self.precision => None,
            (Some(kept), Some(broken)) => Some(f64::midpoint(kept, broken)),
            // Not even the first: down, but not for ever.
            (None, Some(broken)) if self.tries < TRIES_MAX / 4 => Some(broken / self.factor),
            (None, Some(_)) => None,
        };
    }

    /// The highest rate found to keep the promise.
    pub fn knee(&self) -> Option<f64> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(search: &mut Search, mut finding: impl FnMut(f64) -> Finding) -> usize {
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.found(finding(rate));
            tries += 1;
        }
        tries
    }

    proptest! {
        #[test]
        fn the_knee_is_found(knee in 1000.0..1e7, first in 100.0..1e5) {
            let mut search = Search::new(first, 1.5, 0.05);
            let tries = run(&mut search, |rate| if rate <= knee { Finding::Kept } else { Finding::Broken });
            prop_assert!(tries <= TRIES_MAX);
            if let Some(found) = search.knee() {
                prop_assert!(found <= knee && found * 1.06 >= knee, "{} for {}", found, knee);
            } else {
                prop_assert!(first > knee * 30.0);
            }
        }
    }

    #[test]
    fn one_unusable_run_on_the_way_up_does_not_end_it() {
        let mut search = Search::new(1000.0, 2.0, 0.05);
        let mut first = true;
        run(&mut search, |rate| {
            if rate == 4000.0 && std::mem::take(&mut first) {
                Finding::Unusable
            } else if rate <= 10_000.0 {
                Finding::Kept
            } else {
                Finding::Broken
            }
        });
        assert!(search.knee().is_some_and(|knee| knee > 9500.0));
    }

    #[test]
    fn it_ends_where_nothing_can_be_believed() {
        let mut search = Search::new(1000.0, 2.0, 0.05);
        assert!(run(&mut search, |_| Finding::Unusable) <= TRIES_MAX);
        assert_eq!(search.knee(), None);
        let mut search = Search::new(1000.0, 2.0, 0.05);
        assert_eq!(run(&mut search, |_| Finding::Kept), TRIES_MAX);
    }
}
