//! Whether multicast works here, found out by doing it.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use r2p2::udp::Clock;

use crate::group::{Group, JoinError, SenderError, TTL_DEFAULT, join_multicast};

/// For how long a probe waits unless told. On a host where multicast works it takes microseconds.
pub const PROBE_PATIENCE: Duration = Duration::from_millis(600);

/// How often a datagram is sent before the probe gives up: one may be lost.
const ATTEMPTS: u32 = 3;

impl Group {
    /// Finds out whether what is sent to the group arrives on this host: joins the group at a port of its own, sends
    /// there and waits for it to come back, at most for `patience` altogether. Members are not disturbed. Takes a unicast
    /// group at its word.
    ///
    /// This says nothing about whether it arrives on *other* hosts: a switch between them may still swallow it.
    ///
    /// # Errors
    /// Why it does not work. The caller may print that, or go on with a unicast group.
    pub fn probe(&self, patience: Duration) -> Result<(), ProbeError> {
        self.validate().map_err(JoinError::from)?;
        let Self::Multicast { address, interface } = self else { return Ok(()) };
        let resolved = interface.resolve().map_err(JoinError::from)?;
        let receiving = join_multicast(SocketAddrV4::new(*address.ip(), 0), &resolved)?;
        let sending = self.sender_socket(TTL_DEFAULT)?;
        let failed = |source| ProbeError::Failed { address: *address, interface: resolved.name.clone(), source };
        if echoes(&sending, &receiving, patience).map_err(failed)? {
            tracing::debug!(group = %self, "multicast works");
            Ok(())
        } else {
            Err(ProbeError::Lost { address: *address, interface: resolved.name.clone(), patience })
        }
    }
}

/// Whether something from the one arrives at the other.
fn echoes(sending: &UdpSocket, receiving: &UdpSocket, patience: Duration) -> io::Result<bool> {
    // Anybody may send to a group: ours is what came from our port with our content.
    let (from, to) = (sending.local_addr()?, receiving.local_addr()?);
    let content = format!("multicast probe {} {from}", std::process::id());
    let mut buffer = [0; 128];
    let clock = Clock::new();
    let start = clock.now();
    for attempt in 1..=ATTEMPTS {
        sending.send_to(content.as_bytes(), to)?;
        let deadline = start + patience * attempt / ATTEMPTS;
        loop {
            let left = deadline.since(clock.now());
            if left.is_zero() {
                break;
            }
            receiving.set_read_timeout(Some(left))?;
            match receiving.recv_from(&mut buffer) {
                Ok((len, source)) if is_ours(&buffer[..len], source, content.as_bytes(), from) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

fn is_ours(bytes: &[u8], source: SocketAddr, content: &[u8], from: SocketAddr) -> bool {
    source == from && bytes == content
}

/// Why multicast does not work here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The group cannot be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It cannot be sent to.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The system refused to send or to receive.
    #[error(
        "sending to {address} on interface {interface} fails: {source}; so IP multicast does not work there; check \
         routes and firewall, choose another interface, or do without: fan_out = \"unicast\""
    )]
    Failed {
        /// The group's address.
        address: SocketAddrV4,
        /// The interface's name.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing came back.
    #[error(
        "what is sent to {address} on interface {interface} does not come back within {patience:?}; so IP multicast \
         does not work there (a firewall, or a sandbox without it?); choose another interface, or do without: \
         fan_out = \"unicast\""
    )]
    Lost {
        /// The group's address.
        address: SocketAddrV4,
        /// The interface's name.
        interface: String,
        /// For how long we waited.
        patience: Duration,
    },
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::interface::Interface;

    #[test]
    fn works_or_says_what_to_do() {
        let address = SocketAddrV4::new(Ipv4Addr::new(239, 77, 9, 1), 7000);
        match (Group::Multicast { address, interface: Interface::Loopback }).probe(PROBE_PATIENCE) {
            Ok(()) => println!("multicast works on the loopback interface"),
            Err(error) => {
                println!("no multicast on the loopback interface: {error}");
                assert!(error.to_string().contains("fan_out = \"unicast\""), "{error}");
            }
        }
    }

    #[test]
    fn a_unicast_group_is_taken_at_its_word_and_nonsense_is_not() {
        let members = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000)];
        Group::Unicast { members }.probe(Duration::ZERO).expect("nothing to find out");
        let error = Group::Unicast { members: Vec::new() }.probe(Duration::ZERO).expect_err("nobody");
        assert!(matches!(error, ProbeError::Join(JoinError::Group(_))));
    }

    #[test]
    fn an_echo_is_recognised_and_silence_too() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let (sending, receiving, stranger) = (bind(), bind(), bind());
        let to = receiving.local_addr().expect("bound");
        for noise in [&b""[..], b"hello", &[b'x'; 1000]] {
            stranger.send_to(noise, to).expect("send");
        }
        assert!(echoes(&sending, &receiving, Duration::from_secs(60)).expect("loopback"));

        // Connected to somebody else, it does not hear us.
        let deaf = bind();
        deaf.connect(stranger.local_addr().expect("bound")).expect("connect");
        assert!(!echoes(&sending, &deaf, Duration::from_millis(3)).expect("loopback"));
    }
}
