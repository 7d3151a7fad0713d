//! The network interfaces of this host, and how a configuration names one.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A network interface, as a configuration names it: `loopback`, an IPv4 address of it, or its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Interface {
    /// The host itself: all members are processes on this machine.
    Loopback,
    /// The interface that has this address.
    Address(Ipv4Addr),
    /// The interface with this name, such as `eth0`.
    Named(String),
}

impl Interface {
    /// Finds it among the interfaces of this host.
    ///
    /// # Errors
    /// If there is none, or it cannot be used for IPv4 now.
    pub fn resolve(&self) -> Result<LocalInterface, InterfaceError> {
        self.find(interfaces().map_err(InterfaceError::List)?)
    }

    fn find(&self, mut interfaces: Vec<LocalInterface>) -> Result<LocalInterface, InterfaceError> {
        let position = interfaces.iter().position(|interface| match self {
            Self::Loopback => interface.loopback,
            // The loopback interface has all of 127.0.0.0/8, whatever it is listed with.
            Self::Address(address) => {
                interface.addresses.contains(address) || (interface.loopback && address.is_loopback())
            }
            Self::Named(name) => interface.name == *name,
        });
        let Some(position) = position else {
            return Err(InterfaceError::Unknown { wanted: self.clone(), existing: describe(&interfaces) });
        };
        let mut found = interfaces.swap_remove(position);
        if !found.up {
            return Err(InterfaceError::Down { name: found.name });
        }
        if let Self::Address(address) = self {
            found.addresses.retain(|other| other != address);
            found.addresses.insert(0, *address);
        }
        if found.addresses.is_empty() {
            return Err(InterfaceError::NoAddress { name: found.name });
        }
        Ok(found)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::Address(address) => address.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl FromStr for Interface {
    type Err = Infallible;

    fn from_str(s: &str) -> Result<Self, Infallible> {
        Ok(match s.parse() {
            Ok(address) => Self::Address(address),
            Err(_) if s == "loopback" => Self::Loopback,
            Err(_) => Self::Named(s.to_owned()),
        })
    }
}

/// A network interface of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalInterface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its IPv4 addresses; what [`Interface::resolve`] returns has at least one, the one to use first.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether it is the host's connection to itself.
    pub loopback: bool,
    /// Whether it is switched on.
    pub up: bool,
}

impl LocalInterface {
    /// Its first address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No interface fits.
    #[error("this host has no network interface \"{wanted}\"; it has {existing}; choose one of these")]
    Unknown {
        /// What was looked for.
        wanted: Interface,
        /// What there is: names and addresses.
        existing: String,
    },
    /// It is switched off.
    #[error(
        "the network interface {name} is down, nothing can be sent on it; bring it up (`ip link set {name} up`) or \
         choose another"
    )]
    Down {
        /// Its name.
        name: String,
    },
    /// It has no IPv4 address.
    #[error(
        "the network interface {name} has no IPv4 address, so nobody could answer what is sent on it; give it one \
         (`ip addr add ... dev {name}`) or choose another"
    )]
    NoAddress {
        /// Its name.
        name: String,
    },
    /// The system did not say what there is.
    #[error("the system does not list its network interfaces: {0}")]
    List(#[source] io::Error),
}

/// All network interfaces of this host, in the system's order.
///
/// # Errors
/// If the system does not tell.
pub fn interfaces() -> io::Result<Vec<LocalInterface>> {
    let mut interfaces: Vec<LocalInterface> = Vec::new();
    for Entry { name, flags, address } in entries()? {
        // One entry per interface and address (of any kind).
        let known = interfaces.iter().position(|interface| interface.name == name);
        let position = known.unwrap_or_else(|| {
            interfaces.push(LocalInterface {
                index: index(&name),
                name,
                addresses: Vec::new(),
                loopback: flags & libc::IFF_LOOPBACK != 0,
                up: flags & libc::IFF_UP != 0,
            });
            interfaces.len() - 1
        });
        interfaces[position].addresses.extend(address);
    }
    Ok(interfaces)
}

fn describe(interfaces: &[LocalInterface]) -> String {
    if interfaces.is_empty() {
        return "none at all".to_owned();
    }
    let describe = |LocalInterface { name, addresses, up, .. }: &LocalInterface| {
        let mut details: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if !up {
            details.push("down".to_owned());
        } else if details.is_empty() {
            details.push("no IPv4 address".to_owned());
        }
        format!("{name} ({})", details.join(", "))
    };
    interfaces.iter().map(describe).collect::<Vec<_>>().join(", ")
}

struct Entry {
    name: String,
    flags: libc::c_int,
    address: Option<Ipv4Addr>,
}

fn entries() -> io::Result<Vec<Entry>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the argument points to where the system shall write the list's beginning.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut entries = Vec::new();
    let mut next = list.cast_const();
    // SAFETY: the system made a linked list whose last `ifa_next` is null; it stays valid until freed below, and nothing
    // borrowed from it is kept.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: the system sets the name to a string that ends with zero.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
        // SAFETY: an address is null or points to a socket address, whose family says what it really is; an IPv4 one is
        // a `sockaddr_in`.
        let address = unsafe {
            match entry.ifa_addr.as_ref() {
                Some(address) if libc::c_int::from(address.sa_family) == libc::AF_INET => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
                }
                _ => None,
            }
        };
        entries.push(Entry { name, flags: entry.ifa_flags.cast_signed(), address });
    }
    // SAFETY: made by `getifaddrs`, freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(entries)
}

/// The kernel's number for a name; zero, which is nobody's, if the interface has just gone.
fn index(name: &str) -> u32 {
    let Ok(name) = CString::new(name) else { return 0 };
    // SAFETY: a string that ends with zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_interfaces_in_three_ways() {
        for (text, interface) in [
            ("loopback", Interface::Loopback),
            ("192.0.2.7", Interface::Address(Ipv4Addr::new(192, 0, 2, 7))),
            ("eth0", Interface::Named("eth0".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(interface.clone()));
            assert_eq!(interface.to_string(), text);
        }
    }

    #[test]
    fn this_host_has_a_loopback_interface_under_all_its_names() {
        let loopback = Interface::Loopback.resolve().expect("every host has one");
        assert!(loopback.loopback);
        assert!(loopback.index > 0);
        assert!(loopback.address().is_loopback());
        assert_eq!(Interface::Named(loopback.name.clone()).resolve().expect("by name"), loopback);
        let by_address = Interface::Address(Ipv4Addr::new(127, 0, 0, 9)).resolve().expect("by any of its addresses");
        assert_eq!(by_address.index, loopback.index);
        assert_eq!(by_address.address(), Ipv4Addr::new(127, 0, 0, 9));
    }

    #[test]
    fn finding_by_name_and_address() {
        let found = Interface::Named("eth1".to_owned()).find(host()).expect("by name");
        assert_eq!((found.index, found.address()), (3, Ipv4Addr::new(192, 0, 2, 1)));
        let second = Ipv4Addr::new(192, 0, 2, 2);
        let found = Interface::Address(second).find(host()).expect("by address");
        assert_eq!((found.index, found.address()), (3, second), "the address that was asked for is used");
        assert_eq!(found.addresses.len(), 2);
    }

    #[test]
    fn errors_say_what_there_is() {
        let error = Interface::Named("eth9".to_owned()).find(host()).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "this host has no network interface \"eth9\"; it has lo (127.0.0.1), eth0 (down), eth1 (192.0.2.1, \
             192.0.2.2), tun0 (no IPv4 address); choose one of these"
        );
        let unknown = Interface::Address(Ipv4Addr::new(198, 51, 100, 1)).find(host());
        assert!(matches!(unknown, Err(InterfaceError::Unknown { .. })));
        let down = Interface::Named("eth0".to_owned()).find(host());
        assert!(matches!(down, Err(InterfaceError::Down { .. })));
        let without = Interface::Named("tun0".to_owned()).find(host());
        assert!(matches!(without, Err(InterfaceError::NoAddress { .. })));
        let error = Interface::Loopback.find(Vec::new()).expect_err("a host without any");
        assert!(error.to_string().contains("it has none at all"), "{error}");
    }

    fn host() -> Vec<LocalInterface> {
        let interface = |index, name: &str, addresses: &[Ipv4Addr], up| LocalInterface {
            name: name.to_owned(),
            index,
            addresses: addresses.to_vec(),
            loopback: index == 1,
            up,
        };
        vec![
            interface(1, "lo", &[Ipv4Addr::LOCALHOST], true),
            interface(2, "eth0", &[], false),
            interface(3, "eth1", &[Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)], true),
            interface(4, "tun0", &[], true),
        ]
    }
}
