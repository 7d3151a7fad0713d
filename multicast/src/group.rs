//! A group: a name under which one send reaches several receivers.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};

use crate::interface::{Interface, InterfaceError, LocalInterface};

/// The TTL of datagrams to a group unless told: they do not leave the local network.
pub const TTL_DEFAULT: u32 = 1;

/// Who receives what is sent to a group, and who makes the copies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Group {
    /// The network makes the copies.
    Multicast {
        /// The group's address, best from 239.0.0.0/8, and the UDP port on which all members receive.
        address: SocketAddrV4,
        /// Where members are to be found: the group is joined and sent to on this interface only.
        interface: Interface,
    },
    /// The sender makes the copies (`fan_out = "unicast"`): works everywhere, costs one datagram per member.
    Unicast {
        /// Where each member receives what is sent to the group: a port of its own beside the one for what is sent to it
        /// alone, so that it can tell the two apart.
        members: Vec<SocketAddrV4>,
    },
}

impl Group {
    /// Whether the group makes sense, as far as that can be said without asking the system.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&self) -> Result<(), GroupError> {
        match self {
            Self::Multicast { address, .. } => {
                if !address.ip().is_multicast() {
                    Err(GroupError::NotMulticast { address: *address })
                } else if address.ip().octets()[..3] == [224, 0, 0] {
                    Err(GroupError::Reserved { address: *address })
                } else if address.port() == 0 {
                    Err(GroupError::NoPort { address: *address })
                } else {
                    Ok(())
                }
            }
            Self::Unicast { members } => {
                if members.is_empty() {
                    return Err(GroupError::NoMembers);
                }
                for (i, &member) in members.iter().enumerate() {
                    if member.port() == 0 {
                        return Err(GroupError::NoPort { address: member });
                    }
                    if member.ip().is_multicast() || member.ip().is_broadcast() || member.ip().is_unspecified() {
                        return Err(GroupError::NotAHost { member });
                    }
                    if members[..i].contains(&member) {
                        return Err(GroupError::Twice { member });
                    }
                }
                Ok(())
            }
        }
    }

    /// Where a sender has to send a datagram so that all members get it: one address with IP multicast, all members
    /// without.
    pub fn receivers(&self) -> &[SocketAddrV4] {
        match self {
            Self::Multicast { address, .. } => std::slice::from_ref(address),
            Self::Unicast { members } => members,
        }
    }

    /// A socket that receives what is sent to the group, and nothing else.
    ///
    /// `own` is this process's address among the `members`; a multicast group does not look at it. Several processes
    /// on one host can join a multicast group, each gets every datagram. The group is left when the socket is closed.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn join(&self, own: SocketAddrV4) -> Result<UdpSocket, JoinError> {
        self.validate()?;
        match self {
            Self::Multicast { address, interface } => join_multicast(*address, &interface.resolve()?),
            Self::Unicast { members } => {
                if !members.contains(&own) {
                    return Err(JoinError::NotAMember { own, members: list(members) });
                }
                // Without SO_REUSEADDR: a second process here would take the first one's datagrams, silently.
                UdpSocket::bind(own).map_err(|error| JoinError::bind(own, error))
            }
        }
    }

    /// A socket for sending to the group, bound to an address at which members can answer, with a port of the
    /// system's choice.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn sender_socket(&self, ttl: u32) -> Result<UdpSocket, SenderError> {
        self.validate()?;
        let ip = match self {
            Self::Multicast { interface, .. } => interface.resolve()?.address(),
            Self::Unicast { members } if members.iter().all(|member| member.ip().is_loopback()) => Ipv4Addr::LOCALHOST,
            Self::Unicast { .. } => Ipv4Addr::UNSPECIFIED,
        };
        let socket = UdpSocket::bind((ip, 0)).map_err(|source| SenderError::Bind { ip, source })?;
        self.configure_sender(&socket, ttl)?;
        Ok(socket)
    }

    /// Makes an existing socket one that can send to the group: for multicast, on the group's interface, heard by other
    /// processes on this host too, through at most `ttl` - 1 routers. For unicast there is nothing to do.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn configure_sender(&self, socket: &UdpSocket, ttl: u32) -> Result<(), SenderError> {
        self.validate()?;
        let Self::Multicast { address, interface } = self else { return Ok(()) };
        if ttl > 255 {
            return Err(SenderError::Ttl(ttl));
        }
        let interface = interface.resolve()?;
        let configure = || {
            let bound = socket.local_addr()?;
            let socket = SockRef::from(socket);
            socket.set_multicast_if_v4(&interface.address())?;
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(ttl)?;
            Ok(bound)
        };
        let bound = configure().map_err(|source| SenderError::Refused {
            address: *address,
            interface: interface.name.clone(),
            source,
        })?;
        if bound.ip().is_loopback() && !interface.loopback {
            return Err(SenderError::LoopbackOnly {
                bound,
                interface: interface.name.clone(),
                ip: interface.address(),
            });
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multicast { address, interface } => write!(f, "multicast {address} on {interface}"),
            Self::Unicast { members } => write!(f, "unicast to {}", list(members)),
        }
    }
}

pub(crate) fn join_multicast(address: SocketAddrV4, interface: &LocalInterface) -> Result<UdpSocket, JoinError> {
    let refused = |source| JoinError::Refused { address, interface: interface.name.clone(), source };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(refused)?;
    socket.set_reuse_address(true).map_err(refused)?;
    // To the group's address, not to any: otherwise it would get whatever else arrives on this port.
    socket.bind(&address.into()).map_err(|error| JoinError::bind(address, error))?;
    // What other processes joined on other interfaces is not ours.
    socket.set_multicast_all_v4(false).map_err(refused)?;
    socket.join_multicast_v4_n(address.ip(), &InterfaceIndexOrAddress::Index(interface.index)).map_err(refused)?;
    tracing::debug!(%address, interface = interface.name, "joined");
    Ok(socket.into())
}

fn list(addresses: &[SocketAddrV4]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is wrong with a group.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    /// An ordinary address where a group's was expected.
    #[error(
        "{address} is not a multicast address, so it cannot name a group; multicast addresses go from 224.0.0.0 to \
         239.255.255.255, choose one from 239.0.0.0/8, which is for private use (for example 239.77.0.1:7000)"
    )]
    NotMulticast {
        /// The group's address.
        address: SocketAddrV4,
    },
    /// One that network equipment uses for itself.
    #[error(
        "{address} is in 224.0.0.0/24, which network equipment uses for itself; choose an address from 239.0.0.0/8, \
         which is for private use (for example 239.77.0.1:7000)"
    )]
    Reserved {
        /// The group's address.
        address: SocketAddrV4,
    },
    /// Port zero is no port.
    #[error("{address} names no port, and senders and members have to agree on one; choose one (for example 7000)")]
    NoPort {
        /// The group's or a member's address.
        address: SocketAddrV4,
    },
    /// A unicast group with nobody in it.
    #[error(
        "the group has no members, so nobody would get what is sent to it; list each member's address in `members`"
    )]
    NoMembers,
    /// A member's address that is not one host's.
    #[error("{member} is not the address of one host, so it cannot be a member; give the address at which it receives")]
    NotAHost {
        /// The member.
        member: SocketAddrV4,
    },
    /// A member that would get everything twice.
    #[error("{member} is a member of the group twice and would get everything twice; list each member once")]
    Twice {
        /// The member.
        member: SocketAddrV4,
    },
}

/// Why a group could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The group itself makes no sense.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Its interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Another program has the port for itself.
    #[error(
        "UDP port {} is taken by another program that does not share it, so we would get nothing on {address}; stop \
         it (`ss -ulnp 'sport = :{}'` shows which it is) or choose another port",
        address.port(),
        address.port()
    )]
    PortInUse {
        /// The group's or the member's address.
        address: SocketAddrV4,
    },
    /// Binding failed for another reason.
    #[error(
        "cannot receive at {address}: {source}; check that this host has that address (`ip addr`) and that ports below \
         1024 are left to privileged programs"
    )]
    Bind {
        /// The group's or the member's address.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not do multicast here.
    #[error(
        "the system refuses to join {address} on interface {interface}: {source}; so nothing sent to the group would \
         reach this process; choose another interface, or do without IP multicast: fan_out = \"unicast\""
    )]
    Refused {
        /// The group's address.
        address: SocketAddrV4,
        /// The interface's name.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// We are not in the list.
    #[error(
        "{own} is not a member of the group, so nobody would send to it; the members are {members}; add it or use one \
         of these"
    )]
    NotAMember {
        /// Our address.
        own: SocketAddrV4,
        /// All members.
        members: String,
    },
}

impl JoinError {
    fn bind(address: SocketAddrV4, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { address },
            _ => Self::Bind { address, source },
        }
    }
}

/// Why a socket cannot send to a group.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The group itself makes no sense.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Its interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// It does not fit into its byte.
    #[error("a TTL of {0} is impossible; choose 0 (this host) to 255, usually 1 (this network)")]
    Ttl(u32),
    /// No socket.
    #[error("cannot open a UDP socket at {ip}: {source}; check the limit on open files (`ulimit -n`)")]
    Bind {
        /// The address it should have had.
        ip: Ipv4Addr,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not do multicast here.
    #[error(
        "the system refuses to prepare a socket for sending to {address} on interface {interface}: {source}; choose \
         another interface, or do without IP multicast: fan_out = \"unicast\""
    )]
    Refused {
        /// The group's address.
        address: SocketAddrV4,
        /// The interface's name.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// Members on other hosts would see a sender they cannot answer.
    #[error(
        "the sending socket is bound to {bound}, and nobody on interface {interface} can answer to that address; bind it \
         to {ip}, or put the group on the loopback interface"
    )]
    LoopbackOnly {
        /// The socket's address.
        bound: SocketAddr,
        /// The interface's name.
        interface: String,
        /// The interface's address.
        ip: Ipv4Addr,
    },
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::PROBE_PATIENCE;

    #[test]
    fn every_member_on_this_host_gets_every_datagram() {
        let Some(group) = loopback_group(Ipv4Addr::new(239, 77, 0, 1)) else { return };
        let members: Vec<UdpSocket> = (0..3).map(|_| join(&group)).collect();
        let sending = group.sender_socket(TTL_DEFAULT).expect("sender");
        for i in 0..10 {
            for receiver in group.receivers() {
                sending.send_to(&[i], receiver).expect("send");
            }
        }
        for member in &members {
            for i in 0..10 {
                assert_eq!(receive(member), (vec![i], sending.local_addr().expect("bound")));
            }
        }
    }

    #[test]
    fn a_node_sends_from_its_own_port_and_hears_itself() {
        let Some(group) = loopback_group(Ipv4Addr::new(239, 77, 0, 2)) else { return };
        let node = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        group.configure_sender(&node, TTL_DEFAULT).expect("configure");
        let (own, other) = (join(&group), join(&group));
        node.send_to(b"append", group.receivers()[0]).expect("send");
        for member in [own, other] {
            assert_eq!(receive(&member), (b"append".to_vec(), node.local_addr().expect("bound")));
        }
    }

    #[test]
    fn groups_that_share_a_port_do_not_hear_each_other() {
        let Some(one) = loopback_group(Ipv4Addr::new(239, 77, 0, 3)) else { return };
        let Group::Multicast { address, interface } = one.clone() else { unreachable!("made as multicast") };
        let address = SocketAddrV4::new(Ipv4Addr::new(239, 77, 0, 4), address.port());
        let two = Group::Multicast { address, interface };
        let (in_one, in_two) = (join(&one), join(&two));
        let sending = one.sender_socket(TTL_DEFAULT).expect("sender");
        sending.send_to(b"one", one.receivers()[0]).expect("send");
        sending.send_to(b"two", two.receivers()[0]).expect("send");
        assert_eq!(receive(&in_one).0, b"one");
        assert_eq!(receive(&in_two).0, b"two");
    }

    #[test]
    fn a_port_that_is_not_shared_is_named() {
        let Some(group) = loopback_group(Ipv4Addr::new(239, 77, 0, 5)) else { return };
        let port = group.receivers()[0].port();
        let _selfish = UdpSocket::bind(group.receivers()[0]).expect("bind");
        let error = group.join(anywhere()).expect_err("taken");
        assert!(matches!(error, JoinError::PortInUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("ss -ulnp 'sport = :{port}'")), "{error}");
    }

    #[test]
    fn without_multicast_the_sender_reaches_each_member() {
        let members: Vec<SocketAddrV4> = free_addresses(3);
        let group = Group::Unicast { members: members.clone() };
        assert_eq!(group.receivers(), members);
        let sockets: Vec<UdpSocket> = members.iter().map(|&own| group.join(own).expect("join")).collect();
        let sending = group.sender_socket(TTL_DEFAULT).expect("sender");
        assert!(sending.local_addr().expect("bound").ip().is_loopback(), "nothing else is needed");
        for receiver in group.receivers() {
            sending.send_to(b"to all", receiver).expect("send");
        }
        for socket in &sockets {
            assert_eq!(receive(socket).0, b"to all");
        }

        let error = group.join(members[1]).expect_err("a second process under one address");
        assert!(matches!(error, JoinError::PortInUse { address } if address == members[1]), "{error}");
    }

    #[test]
    fn a_unicast_member_must_be_one_and_be_here() {
        let members = vec![SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 7000)];
        let group = Group::Unicast { members: members.clone() };
        let error = group.join(anywhere()).expect_err("not a member");
        assert!(error.to_string().contains("the members are 198.51.100.1:7000"), "{error}");
        let error = group.join(members[0]).expect_err("somebody else's address");
        assert!(matches!(error, JoinError::Bind { .. }), "{error}");
    }

    #[test]
    fn nonsense_is_refused_with_a_proposal() {
        let multicast = |address: &str| Group::Multicast {
            address: address.parse().expect("an address"),
            interface: Interface::Loopback,
        };
        let unicast = |members: &[&str]| Group::Unicast {
            members: members.iter().map(|member| member.parse().expect("an address")).collect(),
        };
        for (group, says) in [
            (multicast("10.0.0.1:7000"), "239.0.0.0/8"),
            (multicast("240.0.0.1:7000"), "not a multicast address"),
            (multicast("224.0.0.251:7000"), "network equipment"),
            (multicast("239.77.0.1:0"), "no port"),
            (unicast(&[]), "no members"),
            (unicast(&["127.0.0.1:0"]), "no port"),
            (unicast(&["127.0.0.1:1", "239.77.0.1:1"]), "not the address of one host"),
            (unicast(&["0.0.0.0:1"]), "not the address of one host"),
            (unicast(&["127.0.0.1:1", "127.0.0.2:1", "127.0.0.1:1"]), "twice"),
        ] {
            let error = group.validate().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
            assert!(matches!(group.join(anywhere()), Err(JoinError::Group(_))), "{group}");
            assert!(matches!(group.sender_socket(1), Err(SenderError::Group(_))), "{group}");
        }
        for group in [multicast("224.0.1.0:1"), multicast("239.255.255.255:65535"), unicast(&["127.0.0.1:1"])] {
            group.validate().expect("sensible");
        }
    }

    #[test]
    fn unknown_interfaces_and_impossible_ttls_are_refused() {
        let address = SocketAddrV4::new(Ipv4Addr::new(239, 77, 0, 6), 7000);
        let group = Group::Multicast { address, interface: Interface::Named("no-such-interface".to_owned()) };
        let error = group.join(anywhere()).expect_err("unknown");
        assert!(error.to_string().contains("no-such-interface"), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "the ones that exist: {error}");

        let group = Group::Multicast { address, interface: Interface::Loopback };
        assert!(matches!(group.sender_socket(256), Err(SenderError::Ttl(256))));
        group.sender_socket(255).expect("the largest");
        group.sender_socket(0).expect("the smallest");
    }

    #[test]
    fn prints_for_a_log_line() {
        let address = SocketAddrV4::new(Ipv4Addr::new(239, 77, 0, 1), 7000);
        let group = Group::Multicast { address, interface: Interface::Loopback };
        assert_eq!(group.to_string(), "multicast 239.77.0.1:7000 on loopback");
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let group = Group::Unicast { members: vec![address, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2)] };
        assert_eq!(group.to_string(), "unicast to 127.0.0.1:1, 127.0.0.1:2");
    }

    /// A group at a free port, if multicast works on this host.
    fn loopback_group(ip: Ipv4Addr) -> Option<Group> {
        let address = SocketAddrV4::new(ip, free_addresses(1)[0].port());
        let group = Group::Multicast { address, interface: Interface::Loopback };
        match group.probe(PROBE_PATIENCE) {
            Ok(()) => Some(group),
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        }
    }

    fn join(group: &Group) -> UdpSocket {
        group.join(anywhere()).expect("join")
    }

    /// A multicast group does not look at it.
    fn anywhere() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)
    }

    fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        // Only a guard against a hanging test.
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut buffer = [0; 100];
        let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
        (buffer[..len].to_vec(), from)
    }

    /// Different addresses that nobody uses now, on a loopback address that nobody else is going to use.
    fn free_addresses(count: usize) -> Vec<SocketAddrV4> {
        let bind = || UdpSocket::bind((Ipv4Addr::new(127, 77, 0, 1), 0)).expect("bind");
        let sockets: Vec<UdpSocket> = (0..count).map(|_| bind()).collect();
        let address = |socket: &UdpSocket| match socket.local_addr().expect("bound") {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => unreachable!("bound to an IPv4 address"),
        };
        sockets.iter().map(address).collect()
    }
}
