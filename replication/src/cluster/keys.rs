//! Keys that do not exist.

use std::net::{Ipv4Addr, SocketAddrV4};

use toml::{Table, Value};

use super::validate::ConfigError;
use super::{AggregatorSection, ClusterConfig, GatewaySection, LimitsSection, RouterSection};

/// Finds the first key of `table` that no configuration has.
pub(super) fn check(table: &Table) -> Result<(), ConfigError> {
    check_table(table, &complete(), "")
}

const SOMEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

/// A configuration in which every key there is occurs.
fn complete() -> Table {
    let mut config = ClusterConfig {
        runtime_dir: Some("somewhere".into()),
        data_dir: Some("somewhere".into()),
        seed: Some(1),
        limits: LimitsSection { packet_max: Some(1), ..LimitsSection::default() },
        aggregator: AggregatorSection { metrics: Some(SOMEWHERE), ..AggregatorSection::default() },
        gateway: Some(GatewaySection {
            metrics: Some(SOMEWHERE),
            delay_target_us: Some(1),
            ..GatewaySection::default()
        }),
        router: Some(RouterSection { metrics: Some(SOMEWHERE), ..RouterSection::default() }),
        ..ClusterConfig::default()
    };
    for entry in &mut config.nodes {
        (entry.join, entry.learner, entry.metrics) = (true, true, Some(SOMEWHERE));
    }
    Table::try_from(config).expect("all parts of a configuration can be written as TOML")
}

fn check_table(found: &Table, known: &Table, path: &str) -> Result<(), ConfigError> {
    for (key, value) in found {
        let full = format!("{path}{key}");
        let Some(example) = known.get(key) else {
            let nearest = known.keys().min_by_key(|candidate| distance(key, candidate));
            return Err(ConfigError::UnknownKey {
                key: full,
                nearest: nearest.filter(|candidate| is_near(key, candidate)).cloned(),
                known: known.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            });
        };
        match (value, example) {
            (Value::Table(found), Value::Table(known)) => check_table(found, known, &format!("{full}."))?,
            (Value::Array(found), Value::Array(known)) => {
                let Some(Value::Table(known)) = known.first() else { continue };
                for (index, element) in found.iter().enumerate() {
                    if let Value::Table(found) = element {
                        check_table(found, known, &format!("{full}[{index}]."))?;
                    }
                }
            }
            _ => {} // A wrong type is noticed, with its line, when the values are read.
        }
    }
    Ok(())
}

/// Whether the one is probably meant by who wrote the other.
fn is_near(key: &str, candidate: &str) -> bool {
    distance(key, candidate) <= key.len().max(candidate.len()) / 2
}

/// How many letters must be added, removed or replaced to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, from) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (from, to, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("fanout", "fan_out", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn every_key_is_known_to_itself() {
        check(&complete()).unwrap();
    }
}
