//! A recording as the page's script reads it.
//!
//! Times are nanoseconds of virtual time; a run would have to last 104 days for JavaScript's numbers to round them.
//! Datagrams are columns of one array each, and texts are kept once, because there are many of both.

use std::collections::BTreeMap;

use hovercraft::consensus::Role;
use r2p2::client::Kind;
use r2p2::server::Via;
use r2p2::wire::{Header, MessageType, Packet};
use serde_json::{Value, json};

use super::About;
use crate::flight::Party;
use crate::recording::{Datagram, Moment, Operation, Recording, outcome_name};
use crate::world::What;

/// The fates, in the order in which the page lists them.
const FATES: [&str; 6] = ["delivered", "lost", "cut off", "unheard", "overflowed", "under way"];

pub(super) fn of(recording: &Recording, about: &About) -> Value {
    let raw = recording.datagrams().any(|datagram| datagram.from == Party::Raw || datagram.to == Party::Raw);
    let gateway = recording.datagrams().any(|datagram| datagram.to == Party::Gateway);
    let mut aggregators: Vec<Party> = recording.datagrams().map(|datagram| datagram.to).collect();
    aggregators.retain(|party| matches!(party, Party::Aggregator(_)));
    aggregators.sort_unstable();
    aggregators.dedup();
    let nodes = (1..=recording.nodes).map(Party::Node);
    let parties: Vec<Party> = nodes
        .chain((0..recording.clients).map(Party::Client))
        .chain(aggregators)
        .chain(gateway.then_some(Party::Gateway))
        .chain(raw.then_some(Party::Raw))
        .collect();
    let places: BTreeMap<Party, usize> = parties.iter().enumerate().map(|(place, party)| (*party, place)).collect();
    let mut moments: Vec<Value> = recording.moments().map(|moment| moment_value(moment, &places)).collect();
    let recorded = recording.moments().position(|moment| moment.what == What::Violated);
    let is_clean = about.verdict == "clean";
    if recorded.is_none() && !is_clean {
        let (at, text) = (recording.end.as_nanos(), &about.verdict_text);
        moments.push(json!({ "at": at, "kind": "violation", "process": null, "text": text, "detail": text }));
    }
    let violation = recorded.or((!is_clean).then(|| moments.len() - 1));
    for (number, moment) in moments.iter_mut().enumerate() {
        moment["number"] = json!(number);
        moment["headline"] = match moment["kind"].as_str() {
            Some("violation") => json!(about.verdict_text),
            _ => moment["what"].take(),
        };
    }
    let left_out = recording.left_out();
    let last = recording.datagrams().map(|datagram| datagram.fate.at().unwrap_or(datagram.sent));
    let last = last.chain(recording.moments().map(|moment| moment.at)).max().unwrap_or(recording.end);
    json!({
        "title": about.title,
        "what": if is_clean { about.draw.join(" · ") } else { about.verdict_text.clone() },
        "seed": about.seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string()),
        "command": about.command,
        "draw": about.draw,
        "verdict": { "name": about.verdict, "text": about.verdict_text },
        "violation": violation.map(|moment| json!({ "at": moments[moment]["at"], "moment": moment })),
        "end": recording.end.as_nanos(),
        "lastAt": last.as_nanos(),
        "leftOut": {
            "datagrams": left_out.datagrams, "moments": left_out.moments, "operations": left_out.operations,
        },
        "nodes": recording.nodes,
        "processes": parties.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "fates": FATES,
        "operations": operations(recording, &places),
        "moments": moments,
        // Last, because they are many: who opens the file in an editor sees the rest first.
        "kinds": kinds(recording).keys().collect::<Vec<_>>(),
        "datagrams": datagrams(recording, &places),
        "texts": texts(recording).1,
    })
}

/// The kinds there are, numbered in the order of their names.
fn kinds(recording: &Recording) -> BTreeMap<&'static str, usize> {
    let mut kinds: BTreeMap<&'static str, usize> = recording.datagrams().map(|datagram| (datagram.kind, 0)).collect();
    kinds.values_mut().enumerate().for_each(|(number, kind)| *kind = number);
    kinds
}

/// What is said about each datagram, and the texts by number.
fn texts(recording: &Recording) -> (Vec<usize>, Vec<String>) {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut texts = Vec::new();
    let numbers = recording
        .datagrams()
        .map(|datagram| {
            let text = recording.summary(datagram);
            *known.entry(text).or_insert_with_key(|text| {
                texts.push(text.clone());
                texts.len() - 1
            })
        })
        .collect();
    (numbers, texts)
}

fn datagrams(recording: &Recording, places: &BTreeMap<Party, usize>) -> Value {
    let kinds = kinds(recording);
    let column = |of: &dyn Fn(&Datagram) -> Value| recording.datagrams().map(of).collect::<Vec<_>>();
    let fate = |datagram: &Datagram| FATES.iter().position(|name| *name == datagram.fate.name());
    json!({
        "id": column(&|datagram| json!(datagram.id)),
        "sent": column(&|datagram| json!(datagram.sent.as_nanos())),
        // -1 for what is under way.
        "at": column(&|datagram| datagram.fate.at().map_or(json!(-1), |at| json!(at.as_nanos()))),
        "from": column(&|datagram| json!(places[&datagram.from])),
        "to": column(&|datagram| json!(places[&datagram.to])),
        "kind": column(&|datagram| json!(kinds[datagram.kind])),
        "fate": column(&|datagram| json!(fate(datagram))),
        "len": column(&|datagram| json!(datagram.packet.len())),
        "group": column(&|datagram| json!(u8::from(datagram.via == Via::Group))),
        "corrupted": column(&|datagram| json!(u8::from(datagram.corrupted))),
        "copyOf": column(&|datagram| json!(datagram.copy_of.unwrap_or(0))),
        "text": texts(recording).0,
    })
}

fn moment_value(moment: &Moment, places: &BTreeMap<Party, usize>) -> Value {
    let mut value = json!({ "at": moment.at.as_nanos(), "what": moment.what.to_string(), "text": moment.to_string(), "detail": moment.detail });
    let (kind, node) = match moment.what {
        What::Started(id) => ("started", Some(id)),
        What::Killed(id) => ("killed", Some(id)),
        What::Stopped(id) => ("stopped", Some(id)),
        What::Paused(id) => ("paused", Some(id)),
        What::Resumed(id) => ("resumed", Some(id)),
        What::Role { id, role, term, .. } => {
            value["role"] = json!(match role {
                Role::Leader => "leader",
                Role::Candidate => "candidate",
                Role::Follower => "follower",
            });
            value["term"] = json!(term);
            ("role", Some(id))
        }
        What::Gateway(what) => (what, None),
        What::Disk(id, fault) => (if fault.is_some() { "disk" } else { "disk works" }, Some(id)),
        What::Violated => ("violation", None),
        What::Blocked { .. } | What::Healed | What::NetworkChanged => ("network", None),
        _ => ("other", None),
    };
    value["kind"] = json!(kind);
    value["process"] = json!(node.and_then(|id| places.get(&Party::Node(id))));
    value
}

fn operations(recording: &Recording, places: &BTreeMap<Party, usize>) -> Vec<Value> {
    let keys = keys(recording);
    recording
        .operations()
        .enumerate()
        .map(|(number, operation)| {
            let Operation { client, ticket, kind, call, end, .. } = operation;
            let completion = end.as_ref().map(|(_, completion)| completion);
            json!({
                "number": number,
                "process": places[&Party::Client(*client)],
                "ticket": ticket.0,
                "kind": if *kind == Kind::Read { "read" } else { "write" },
                "call": call.as_nanos(),
                "end": end.as_ref().map(|(at, _)| at.as_nanos()),
                "asks": recording.request(operation),
                "outcome": completion.map_or("open", |completion| outcome_name(&completion.outcome)),
                "says": completion.map(|completion| recording.outcome(completion)).unwrap_or_default(),
                "index": completion.and_then(|completion| completion.entry_index),
                "attempts": completion.map(|completion| completion.attempts),
                "key": keys[number],
            })
        })
        .collect()
}

/// Under which session and number the operations travel: those of the first request, not yet taken, with that body.
/// Empty where none is found, and for clients without sessions.
fn keys(recording: &Recording) -> Vec<String> {
    let mut requests: BTreeMap<usize, Vec<(&Datagram, u64, u64)>> = BTreeMap::new();
    for datagram in recording.datagrams() {
        let (Party::Client(client), "request") = (datagram.from, datagram.kind) else { continue };
        let header = Packet::new_checked(&datagram.packet[..]).and_then(|packet| Header::parse(&packet));
        let Ok(Header { kind: MessageType::Request, first: true, extensions, .. }) = header else { continue };
        let Some(session) = extensions.session.filter(|session| session.client != 0) else { continue };
        let known = requests.entry(client).or_default();
        if known.iter().all(|(_, client, seq)| (*client, *seq) != (session.client, session.seq)) {
            known.push((datagram, session.client, session.seq));
        }
    }
    recording
        .operations()
        .map(|operation| {
            let Some(known) = requests.get_mut(&operation.client) else { return String::new() };
            let fits = |datagram: &Datagram| {
                let body = Packet::new_checked(&datagram.packet[..]).map(|packet| packet.payload());
                datagram.sent >= operation.call && body.is_ok_and(|body| operation.body.starts_with(body))
            };
            let Some(at) = known.iter().position(|(datagram, ..)| fits(datagram)) else { return String::new() };
            let (_, client, seq) = known.remove(at);
            format!("session {client} seq {seq}")
        })
        .collect()
}
