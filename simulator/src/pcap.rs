//! The datagrams of a recorded run as a capture file, for Wireshark and tcpdump.
//!
//! The capture is one at the senders: every datagram is in it as it was sent and when it was sent, those that never
//! arrive too. A multicast is one packet to its group; copies that the network made are not there, nobody sent them. If
//! the network flipped a bit on the way to one receiver, that receiver's copy stands as a packet of its own, with the
//! bit flipped.
//!
//! The format is the classic one, with nanoseconds and bare IPv4 packets (link type 101); all checksums are right. Times
//! are virtual: a run begins at the epoch.

use std::net::{Ipv4Addr, SocketAddrV4};

use bytes::Bytes;
use r2p2::Instant;
use r2p2::server::Via;

use crate::recording::{Datagram, Recording};

/// Where datagrams to all nodes go in a capture, whatever their port. The simulated network has no group addresses.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 0, 0, 1);

/// Says that times have nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Packets begin with their IP header.
const LINKTYPE_RAW: u32 = 101;
const SNAPLEN: u32 = 65_535;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const UDP: u8 = 17;

/// The capture file's bytes.
pub fn pcap(recording: &Recording) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(MAGIC.to_le_bytes());
    VERSION.iter().for_each(|part| file.extend(part.to_le_bytes()));
    // Time zone and accuracy: always 0.
    [0, 0, SNAPLEN, LINKTYPE_RAW].iter().for_each(|word: &u32| file.extend(word.to_le_bytes()));
    // The multicast that was written last: its other receivers follow at once.
    let mut last: Option<(Instant, SocketAddrV4, &Bytes)> = None;
    for (number, datagram) in recording.datagrams().filter(|datagram| datagram.copy_of.is_none()).enumerate() {
        let is_group = datagram.via == Via::Group && !datagram.corrupted;
        if is_group {
            let this = (datagram.sent, datagram.source, &datagram.packet);
            if last == Some(this) {
                continue;
            }
            last = Some(this);
        }
        let destination = match is_group {
            true => SocketAddrV4::new(GROUP, datagram.destination.port()),
            false => datagram.destination,
        };
        write(&mut file, datagram, destination, number as u16);
    }
    file
}

fn write(file: &mut Vec<u8>, datagram: &Datagram, destination: SocketAddrV4, identification: u16) {
    let packet = ip_packet(datagram.source, destination, identification, &datagram.packet);
    let (seconds, nanos) = (datagram.sent.as_nanos() / 1_000_000_000, datagram.sent.as_nanos() % 1_000_000_000);
    let len = packet.len() as u32;
    [seconds as u32, nanos as u32, len, len].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(packet);
}

fn ip_packet(source: SocketAddrV4, destination: SocketAddrV4, identification: u16, payload: &[u8]) -> Vec<u8> {
    // A UDP payload is at most 65507 bytes long: both lengths fit.
    let udp_len = (UDP_LEN + payload.len()) as u16;
    let mut packet = Vec::with_capacity(IP_LEN + usize::from(udp_len));
    packet.extend([0x45, 0]);
    packet.extend((IP_LEN as u16 + udp_len).to_be_bytes());
    packet.extend(identification.to_be_bytes());
    // Not fragmented, 64 hops.
    packet.extend([0x40, 0, 64, UDP, 0, 0]);
    packet.extend(source.ip().octets());
    packet.extend(destination.ip().octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    for word in [source.port(), destination.port(), udp_len, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(payload);
    // UDP's checksum covers both addresses, the protocol and the length besides.
    let mut covered = packet[12..IP_LEN].to_vec();
    covered.extend([0, UDP]);
    covered.extend(udp_len.to_be_bytes());
    covered.extend(&packet[IP_LEN..]);
    // 0 would say that there is none.
    let sum = match checksum(&covered) {
        0 => u16::MAX,
        sum => sum,
    };
    packet[IP_LEN + 6..IP_LEN + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The Internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, §3.
    #[test]
    fn checksums() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x01]), !0x0100, "an odd byte is the upper half of a word");
    }

    /// Whoever sums up a packet with its checksum gets nothing.
    #[test]
    fn headers_add_up() {
        let [a, b] = [1, 2].map(|last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 9000));
        for payload in [&b""[..], b"x", b"whatever", &[0xff; 1464]] {
            let packet = ip_packet(a, b, 7, payload);
            assert_eq!(checksum(&packet[..IP_LEN]), 0);
            let mut pseudo = packet[12..IP_LEN].to_vec();
            pseudo.extend([0, UDP]);
            pseudo.extend((packet.len() as u16 - IP_LEN as u16).to_be_bytes());
            pseudo.extend(&packet[IP_LEN..]);
            assert_eq!(checksum(&pseudo), 0);
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            assert_eq!(&packet[IP_LEN + UDP_LEN..], payload);
        }
    }
}
