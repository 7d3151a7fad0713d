//! A group gives nobody an identity that has lived: what has been promised under it may be forgotten (protocol.md §7.5).

use std::collections::BTreeSet;

use hovercraft::MemberId;

use super::{Result, Violation};

/// Who has ever lived.
#[derive(Debug, Default)]
pub struct Identities {
    lived: BTreeSet<MemberId>,
}

impl Identities {
    /// A process starts as this one.
    pub fn started(&mut self, member: MemberId) {
        self.lived.insert(member);
    }

    /// The group lets in a node that has nothing, as this one.
    ///
    /// # Errors
    /// That one has lived before.
    pub fn admitted(&self, member: MemberId) -> Result {
        if self.lived.contains(&member) { Err(Violation::LivesAgain { member }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{M2, M2_AGAIN};
    use super::*;

    #[test]
    fn the_next_incarnation_is_somebody_else() {
        let mut checker = Identities::default();
        checker.started(M2);
        assert_eq!(checker.admitted(M2_AGAIN), Ok(()));
        assert_eq!(checker.admitted(M2), Err(Violation::LivesAgain { member: M2 }));
    }
}
