//! FEEDBACK whose loss or repetition does no harm (protocol.md §9): a server tells a forwarder which requests it has
//! answered, so that the forwarder may let others through.
//!
//! The C implementation's FEEDBACK names one request and nothing else. If one is lost, the forwarder counts its request as
//! unanswered until a deadline; if a late copy of one comes when the client uses the same rid again, the forwarder takes the
//! new request for answered. Ours numbers what is answered: [`Outbox`] puts all requests answered since its last packet into
//! one, and repeats the last [`REPEATED`] of before, so that it takes the loss of several packets in a row to lose one;
//! [`Inbox`] gives out every number at most once. The body is one FEEDBACK body after the other
//! ([`Feedback`](crate::wire::Feedback)), oldest first; the last has the number that the extension *answered* states.
//!
//! Both are sans-IO and bounded.

mod inbox;
mod outbox;

#[cfg(test)]
mod tests;

pub use inbox::{Inbox, InboxCounters, STREAMS_PER_SENDER};
pub use outbox::{FRESH_MAX, ITEMS_MAX, Outbox, REPEATED};
