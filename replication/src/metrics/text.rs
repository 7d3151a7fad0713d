//! Status reports in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use multicast::role::RoleStatus;

use crate::node::StatusReport;

/// Samples by name: those of one name must stand together.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

struct Family {
    kind: &'static str,
    samples: Vec<(String, u64)>,
}

/// A node's report.
pub(super) fn of_node(report: &StatusReport) -> String {
    let labels = [("group", report.group.to_string()), ("node", report.node.to_string())];
    let mut families = Families::default();
    for (name, value) in [
        ("term", report.term),
        ("leads", u64::from(matches!(report.role.as_str(), "leader" | "unreplicated"))),
        ("log_first", report.first),
        ("log_last", report.last),
        ("log_commit", report.commit),
        ("log_applied", report.applied),
        ("unordered", report.unordered),
        ("pending", report.pending),
        ("missing", report.missing),
        ("epoch", report.epoch),
    ] {
        families.add(name, "gauge", &labels, value);
    }
    for peer in &report.peers {
        let labels = [labels[0].clone(), labels[1].clone(), ("peer", peer.node.to_string())];
        families.add("peer_matched", "gauge", &labels, peer.matched);
        families.add("peer_applied", "gauge", &labels, peer.applied);
        families.add("peer_owed", "gauge", &labels, peer.owed);
        families.add("peer_in_step", "gauge", &labels, peer.in_step.into());
    }
    for counter in &report.counters {
        families.add_dotted(&counter.name, "counter", &labels, counter.value);
    }
    families.render()
}

/// A role's report.
pub(super) fn of_role(status: &RoleStatus) -> String {
    let labels = [("group", status.group.to_string()), ("role", status.role.clone())];
    let mut families = Families::default();
    for counter in &status.counters {
        families.add_dotted(&counter.name, "counter", &labels, counter.value);
    }
    for gauge in &status.gauges {
        families.add_dotted(&gauge.name, "gauge", &labels, gauge.value);
    }
    families.render()
}

impl Families {
    /// `part.what`, or with a label: `net.<socket>.<what>`, `faults.<socket>.<what>`, `part.what.<whom>`.
    fn add_dotted(&mut self, name: &str, kind: &'static str, labels: &[(&'static str, String)], value: u64) {
        let mut parts = name.splitn(3, '.');
        let (part, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        match (part, second, third) {
            ("net" | "faults", Some(socket), Some(what)) => {
                let labels = [labels, &[("socket", socket.to_owned())]].concat();
                self.add(&format!("{part}_{what}"), kind, &labels, value);
            }
            (part, Some(what), Some(whom)) => {
                let labels = [labels, &[("of", whom.to_owned())]].concat();
                self.add(&format!("{part}_{what}"), kind, &labels, value);
            }
            (part, Some(what), None) => self.add(&format!("{part}_{what}"), kind, labels, value),
            (part, None, _) => self.add(part, kind, labels, value),
        }
    }

    fn add(&mut self, name: &str, kind: &'static str, labels: &[(&'static str, String)], value: u64) {
        let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let total = if kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let family = self.0.entry(format!("hovercraft_{clean}{total}")).or_insert(Family { kind, samples: Vec::new() });
        family.samples.push((labels.join(","), value));
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            // Writing to a string does not fail.
            _ = writeln!(text, "# TYPE {name} {}", family.kind);
            for (labels, value) in &family.samples {
                _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
        text
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{CounterValue, PeerStatus};

    #[test]
    fn a_node() {
        let counter = |name: &str, value| CounterValue { name: name.to_owned(), value };
        let report = StatusReport {
            node: 2,
            group: 7,
            term: 5,
            role: "leader".to_owned(),
            peers: vec![PeerStatus { node: 3, matched: 9, ..PeerStatus::default() }],
            counters: vec![
                counter("net.requests.received", 4),
                counter("node.requests_received", 3),
                counter("net.peers.received", 6),
            ],
            ..StatusReport::default()
        };
        let text = of_node(&report);
        assert!(text.contains("# TYPE hovercraft_term gauge\nhovercraft_term{group=\"7\",node=\"2\"} 5\n"), "{text}");
        assert!(text.contains("hovercraft_peer_matched{group=\"7\",node=\"2\",peer=\"3\"} 9\n"), "{text}");
        let net = "# TYPE hovercraft_net_received_total counter\n\
             hovercraft_net_received_total{group=\"7\",node=\"2\",socket=\"requests\"} 4\n\
             hovercraft_net_received_total{group=\"7\",node=\"2\",socket=\"peers\"} 6\n\
             # TYPE hovercraft_node_requests_received_total counter\n";
        assert!(text.contains(net), "{text}");
        assert!(text.contains("hovercraft_leads{group=\"7\",node=\"2\"} 1\n"), "{text}");
    }

    #[test]
    fn a_worker_is_a_label_and_labels_cannot_break_out() {
        let value = |name: &str| multicast::role::CounterValue { name: name.to_owned(), value: 1 };
        let status = RoleStatus {
            role: "a\"b\\c\nd".to_owned(),
            gauges: vec![value("router.unanswered.127.0.0.1:7400")],
            ..RoleStatus::default()
        };
        assert_eq!(
            of_role(&status),
            "# TYPE hovercraft_router_unanswered gauge\n\
             hovercraft_router_unanswered{group=\"0\",role=\"a\\\"b\\\\c\\nd\",of=\"127.0.0.1:7400\"} 1\n"
        );
    }
}
