//! What a role says about itself.

/// A role's report on itself, the answer to the admin question *status*. Sent as protobuf: rare, structured, and read by
/// programs of other versions. What a node's report has too (role, counters, group) is under the same tag, so who asks
/// does not have to know beforehand whom.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoleStatus {
    /// [`Role::NAME`](super::Role::NAME).
    #[prost(string, tag = "4")]
    pub role: String,
    /// Counters by name; a dot separates the part of the system from what it counts.
    #[prost(message, repeated, tag = "15")]
    pub counters: Vec<CounterValue>,
    /// The group it serves, 0 if it serves none in particular.
    #[prost(uint32, tag = "18")]
    pub group: u32,
    /// What is so now, by name.
    #[prost(message, repeated, tag = "40")]
    pub gauges: Vec<CounterValue>,
    /// Its address.
    #[prost(string, tag = "41")]
    pub address: String,
}

/// A name and a number.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CounterValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value; a counter's since the process started.
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

impl RoleStatus {
    /// A counter's or gauge's value; 0 if there is none of that name.
    pub fn value(&self, name: &str) -> u64 {
        self.counters.iter().chain(&self.gauges).find(|counter| counter.name == name).map_or(0, |counter| counter.value)
    }
}
