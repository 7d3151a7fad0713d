//! Which rid the next message gets, and which operation a rid in flight belongs to.

use std::collections::BTreeMap;

use super::outcome::Ticket;

/// The rids in flight, and a counter that goes round all 65 536.
///
/// A rid in flight is never given out again, and a free one only after the counter has been all the way round, so that
/// answers to an earlier use have the longest possible time to die out.
#[derive(Debug)]
pub(super) struct Rids {
    next: u16,
    issued: u64,
    in_flight: BTreeMap<u16, Ticket>,
}

impl Rids {
    pub(super) const fn new(first: u16) -> Self {
        Self { next: first, issued: 0, in_flight: BTreeMap::new() }
    }

    /// The next free rid, now in flight for `ticket`; `None` if all are in flight.
    ///
    /// The counter passes each long-lived rid once per round, so with at most half of them in flight
    /// (`outstanding_max`) an allocation looks at fewer than two on average.
    pub(super) fn allocate(&mut self, ticket: Ticket) -> Option<u16> {
        if self.in_flight.len() > usize::from(u16::MAX) {
            return None;
        }
        while self.in_flight.contains_key(&self.next) {
            self.step();
        }
        let rid = self.next;
        self.in_flight.insert(rid, ticket);
        self.step();
        Some(rid)
    }

    pub(super) fn release(&mut self, rid: u16) {
        self.in_flight.remove(&rid);
    }

    /// The operation that `rid` is in flight for.
    pub(super) fn find(&self, rid: u16) -> Option<Ticket> {
        self.in_flight.get(&rid).copied()
    }

    /// Whether `rid` has been given out at all, in flight or not.
    pub(super) fn was_issued(&self, rid: u16) -> bool {
        let age = u64::from(self.next.wrapping_sub(1).wrapping_sub(rid));
        age < self.issued
    }

    fn step(&mut self) {
        self.next = self.next.wrapping_add(1);
        self.issued += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket(7);

    #[test]
    fn a_rid_comes_back_only_after_all_others() {
        let mut rids = Rids::new(65_530);
        for i in 0..65_536u32 {
            let rid = rids.allocate(TICKET).unwrap();
            assert_eq!(rid, 65_530u16.wrapping_add(i as u16));
            rids.release(rid);
        }
        assert_eq!(rids.allocate(TICKET), Some(65_530));
    }

    #[test]
    fn rids_in_flight_are_skipped() {
        let mut rids = Rids::new(0);
        let kept: Vec<u16> = (0..1000).map(|i| rids.allocate(Ticket(i)).unwrap()).collect();
        for _ in 0..200_000 {
            let rid = rids.allocate(TICKET).unwrap();
            assert!(!kept.contains(&rid));
            rids.release(rid);
        }
        assert_eq!(rids.find(999), Some(Ticket(999)));
        rids.release(999);
        assert_eq!(rids.find(999), None);
    }

    #[test]
    fn when_all_are_in_flight_there_is_none() {
        let mut rids = Rids::new(3);
        for _ in 0..65_536u32 {
            assert!(rids.allocate(TICKET).is_some());
        }
        assert_eq!(rids.allocate(TICKET), None);
        rids.release(9);
        assert_eq!(rids.allocate(TICKET), Some(9));
    }

    #[test]
    fn knows_what_it_issued() {
        let mut rids = Rids::new(u16::MAX);
        assert!(!rids.was_issued(u16::MAX));
        rids.allocate(TICKET);
        rids.allocate(TICKET);
        assert!(rids.was_issued(u16::MAX));
        assert!(rids.was_issued(0));
        assert!(!rids.was_issued(1));
    }
}
