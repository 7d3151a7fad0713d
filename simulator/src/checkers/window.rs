//! Announced and unapplied entries of the group never exceed P (protocol.md §6.5). What a leader inherited does not
//! count, it did not announce it; nor does what is no request, of which there is little, and which waits for nobody.

use hovercraft::{LogIndex, NodeId, Term};

use super::{Result, Violation};

/// A leader announced its first entry at `first` (0: none yet), has applied up to `applied`, and its log ends at `last`;
/// `is_request` says of an index whether its entry is a request.
///
/// # Errors
/// More than `limit` (P) are announced and not applied.
pub fn check(
    leader: NodeId,
    term: Term,
    first: LogIndex,
    applied: LogIndex,
    last: LogIndex,
    is_request: impl Fn(LogIndex) -> bool,
    limit: usize,
) -> Result {
    if first == 0 || last.saturating_sub(applied.max(first - 1)) <= limit as u64 {
        return Ok(());
    }
    let announced = (applied.max(first - 1) + 1..=last).filter(|index| is_request(*index)).count() as u64;
    if announced <= limit as u64 { Ok(()) } else { Err(Violation::WindowTooLong { leader, term, announced, limit }) }
}

#[cfg(test)]
mod tests {
    use super::super::samples::N1;
    use super::*;

    #[test]
    fn at_the_limit_is_fine() {
        assert_eq!(check(N1, 2, 0, 0, 100, |_| true, 4), Ok(()), "all inherited");
        assert_eq!(check(N1, 2, 101, 0, 104, |_| true, 4), Ok(()), "the rest inherited");
        assert_eq!(check(N1, 2, 101, 110, 114, |_| true, 4), Ok(()));
        assert_eq!(check(N1, 2, 101, 110, 110, |_| true, 0), Ok(()));
        assert_eq!(check(N1, 2, 101, 110, 115, |index| index != 113, 4), Ok(()), "a membership");
    }

    #[test]
    fn one_past_the_limit_is_found() {
        let long = Violation::WindowTooLong { leader: N1, term: 2, announced: 5, limit: 4 };
        assert_eq!(check(N1, 2, 101, 110, 115, |_| true, 4), Err(long));
    }
}
