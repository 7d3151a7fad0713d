//! What sits in the network between clients and the nodes of a group: who receives what is sent to all and how one send
//! reaches them ([`Group`]), and the processes that help them ([`role`]). But for [`Group::probe`] and the shell in
//! [`role`], nothing here sends or receives.
//!
//! A [`Group`] is either an IP multicast address, where the network makes the copies, or a list of addresses, where the
//! sender makes them. Everything above treats the two alike:
//!
//! ```
//! use std::net::{Ipv4Addr, SocketAddrV4};
//! use multicast::{Group, Interface, TTL_DEFAULT};
//!
//! let address = SocketAddrV4::new(Ipv4Addr::new(239, 77, 0, 1), 7000);
//! let group = Group::Multicast { address, interface: Interface::Loopback };
//!
//! // A node receives what is sent to the group on a socket of its own ...
//! # fn joined(group: &Group) -> Result<(), Box<dyn std::error::Error>> {
//! let own = "127.0.0.1:7001".parse()?;
//! let _receiving = group.join(own)?;
//! // ... and whoever sends to the group sends every datagram to each of its receivers.
//! let sending = group.sender_socket(TTL_DEFAULT)?;
//! for receiver in group.receivers() {
//!     sending.send_to(b"to all", receiver)?;
//! }
//! # Ok(()) }
//! assert_eq!(group.receivers(), [address]);
//! ```
//!
//! What reads the nodes' messages on their way needs to know who they are ([`id`]) and a few fixed layouts ([`message`]),
//! and nothing of Raft.

/// Whether a deliberate mistake is to be made here: see `mutation`, which only test builds have. Everywhere else the
/// answer is no, and the mistake is not compiled.
#[cfg(feature = "mutations")]
macro_rules! mutated {
    ($mutation:ident) => {
        crate::mutation::active() == Some(crate::mutation::Mutation::$mutation)
    };
}
#[cfg(not(feature = "mutations"))]
macro_rules! mutated {
    ($mutation:ident) => {
        false
    };
}

pub mod aggregator;
pub mod gateway;
mod group;
pub mod id;
mod interface;
pub mod message;
#[cfg(feature = "mutations")]
pub mod mutation;
mod probe;
pub mod role;
mod router;

pub use group::{Group, GroupError, JoinError, SenderError, TTL_DEFAULT};
pub use interface::{Interface, InterfaceError, LocalInterface, interfaces};
pub use probe::{PROBE_PATIENCE, ProbeError};
