//! Nothing is unbounded (protocol.md §6.11).

use hovercraft::NodeId;

use super::{Result, Violation};

/// A node keeps `found` of `what`.
///
/// # Errors
/// That is more than `limit`.
pub fn within(node: NodeId, what: &'static str, found: usize, limit: usize) -> Result {
    if found <= limit { Ok(()) } else { Err(Violation::Unbounded { node, what, found, limit }) }
}

#[cfg(test)]
mod tests {
    use super::super::samples::N1;
    use super::*;

    #[test]
    fn at_the_limit_is_fine_and_one_past_it_is_found() {
        assert_eq!(within(N1, "bodies", 7, 7), Ok(()));
        let too_many = Violation::Unbounded { node: N1, what: "bodies", found: 8, limit: 7 };
        assert_eq!(within(N1, "bodies", 8, 7), Err(too_many));
    }
}
