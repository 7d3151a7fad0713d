//! Which datagrams are lost on their way from whom to whom, and how nftables is told so.
//!
//! Every rule is about what *arrives* at a host, by who sent it: so each direction of a link is a matter of its own, and so
//! are datagrams to all and datagrams to one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::setup::{Host, address};

/// Which datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// Those to a multicast group.
    Multicast,
    /// Those to one host.
    Unicast,
    /// All.
    Any,
}

/// One direction of a link that loses datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Who sends.
    pub from: Host,
    /// Who does not receive.
    pub to: Host,
    /// What.
    pub cast: Cast,
    /// How many of a hundred.
    pub percent: u8,
}

/// Names rules that were made together.
pub type Id = u64;

/// All rules in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Links {
    rules: BTreeMap<Id, Vec<Rule>>,
    next: Id,
}

impl Links {
    /// Adds some. Returns how to take them away, and whose script changes.
    pub fn add(&mut self, rules: Vec<Rule>) -> (Id, Vec<Host>) {
        let id = self.next;
        self.next += 1;
        let hosts = receivers(&rules);
        self.rules.insert(id, rules);
        (id, hosts)
    }

    /// Takes some away. Returns whose script changes.
    pub fn remove(&mut self, id: Id) -> Vec<Host> {
        receivers(&self.rules.remove(&id).unwrap_or_default())
    }

    /// Takes all away. Returns whose script changes.
    pub fn clear(&mut self) -> Vec<Host> {
        receivers(&std::mem::take(&mut self.rules).into_values().flatten().collect::<Vec<_>>())
    }

    /// All that nftables is to know in the namespace of a host, in place of what it knew. What it has dropped so far stays
    /// counted.
    pub fn script(&self, host: Host) -> String {
        let mut script = "add table ip chaos\n\
            add counter ip chaos multicast\n\
            add counter ip chaos unicast\n\
            add chain ip chaos arriving { type filter hook input priority 0; }\n\
            flush chain ip chaos arriving\n"
            .to_owned();
        for rule in self.rules.values().flatten().filter(|rule| rule.to == host) {
            let casts: &[Cast] = match &rule.cast {
                Cast::Any => &[Cast::Multicast, Cast::Unicast],
                one => std::slice::from_ref(one),
            };
            for cast in casts {
                let (is, counter) = if *cast == Cast::Multicast { ("", "multicast") } else { (" !=", "unicast") };
                _ = write!(
                    script,
                    "add rule ip chaos arriving ip saddr {} ip daddr{is} 224.0.0.0/4",
                    address(rule.from)
                );
                if rule.percent < 100 {
                    _ = write!(script, " numgen random mod 100 < {}", rule.percent);
                }
                _ = writeln!(script, " counter name {counter} drop");
            }
        }
        script
    }
}

/// How many datagrams nftables has dropped on a host, to a group and to it alone, by what `nft list counters` prints.
pub fn dropped(listing: &str) -> (u64, u64) {
    let (mut multicast, mut unicast) = (0, 0);
    let mut words = listing.split_whitespace();
    let mut name = "";
    while let Some(word) = words.next() {
        match word {
            "counter" => name = words.next().unwrap_or(""),
            "packets" => {
                let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                match name {
                    "multicast" => multicast += count,
                    _ => unicast += count,
                }
            }
            _ => {}
        }
    }
    (multicast, unicast)
}

fn receivers(rules: &[Rule]) -> Vec<Host> {
    let mut hosts: Vec<_> = rules.iter().map(|rule| rule.to).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(from: Host, to: Host, cast: Cast, percent: u8) -> Rule {
        Rule { from, to, cast, percent }
    }

    #[test]
    fn one_script_per_receiver() {
        let mut links = Links::default();
        let (one, changed) = links.add(vec![
            rule(Host::Node(1), Host::Node(2), Cast::Multicast, 100),
            rule(Host::Clients, Host::Node(3), Cast::Unicast, 7),
        ]);
        assert_eq!(changed, [Host::Node(2), Host::Node(3)]);
        let (_, changed) = links.add(vec![rule(Host::Node(2), Host::Clients, Cast::Any, 100)]);
        assert_eq!(changed, [Host::Clients]);
        let rules = |host| -> Vec<String> {
            let script = links.script(host);
            script
                .lines()
                .filter_map(|line| line.strip_prefix("add rule ip chaos arriving "))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(rules(Host::Node(2)), ["ip saddr 10.77.0.1 ip daddr 224.0.0.0/4 counter name multicast drop"]);
        let seven = "ip saddr 10.77.0.100 ip daddr != 224.0.0.0/4 numgen random mod 100 < 7 counter name unicast drop";
        assert_eq!(rules(Host::Node(3)), [seven]);
        let all = ["", " !="].map(|is| format!("ip saddr 10.77.0.2 ip daddr{is} 224.0.0.0/4"));
        assert!(rules(Host::Clients).iter().zip(all).all(|(rule, begin)| rule.starts_with(&begin)));
        assert_eq!(rules(Host::Clients).len(), 2);
        assert_eq!(rules(Host::Node(1)), [""; 0]);

        assert_eq!(links.remove(one), [Host::Node(2), Host::Node(3)]);
        assert_eq!(links.remove(one), []);
        assert!(!links.script(Host::Node(2)).contains("drop"));
        assert_eq!(links.clear(), [Host::Clients]);
        assert_eq!(links, Links { next: 2, ..Links::default() });
    }

    #[test]
    fn what_was_dropped_is_read() {
        let listing = "table ip chaos {\n\tcounter multicast {\n\t\tpackets 12 bytes 3400\n\t}\n\tcounter unicast {\n\t\t\
            packets 5 bytes 340\n\t}\n}\n";
        assert_eq!(dropped(listing), (12, 5));
        assert_eq!(dropped(""), (0, 0));
    }
}
