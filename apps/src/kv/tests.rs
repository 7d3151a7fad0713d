use std::collections::BTreeMap;

use proptest::prelude::*;
use r2p2::Instant;
use simulator::linearizability::Model;
use simulator::linearizability::kv::{self as model, MapModel, Op, Ret};

use super::*;

#[test]
fn set_get_del() {
    let mut kv = Kv::default();
    assert_eq!(ask(&mut kv, get("a")), Response::Value(None));
    assert_eq!(ask(&mut kv, set("a", "1")), Response::Stored);
    assert_eq!(ask(&mut kv, get("a")), Response::Value(Some("1".into())));
    assert_eq!(ask(&mut kv, Request::Del { key: "a".into() }), Response::Deleted(true));
    assert_eq!(ask(&mut kv, Request::Del { key: "a".into() }), Response::Deleted(false));
    assert!(kv.is_empty());
}

#[test]
fn cas_compares_before_it_sets() {
    let mut kv = Kv::default();
    let cas = |expect: Option<&'static str>, new: &'static str| Request::Cas {
        key: "a".into(),
        expect: expect.map(Bytes::from),
        new: new.into(),
    };
    assert_eq!(ask(&mut kv, cas(Some("1"), "2")), Response::Mismatch(None));
    assert_eq!(ask(&mut kv, cas(None, "1")), Response::Swapped);
    assert_eq!(ask(&mut kv, cas(None, "9")), Response::Mismatch(Some("1".into())));
    assert_eq!(ask(&mut kv, cas(Some("1"), "2")), Response::Swapped);
    assert_eq!(ask(&mut kv, get("a")), Response::Value(Some("2".into())));
}

#[test]
fn incr_counts_and_refuses_what_it_cannot() {
    let mut kv = Kv::default();
    let incr = |key: &'static str, delta| Request::Incr { key: key.into(), delta };
    assert_eq!(ask(&mut kv, incr("n", 5)), Response::Number(5));
    assert_eq!(ask(&mut kv, incr("n", -7)), Response::Number(-2));
    assert_eq!(ask(&mut kv, get("n")), Response::Value(Some("-2".into())));
    ask(&mut kv, set("text", "hello"));
    assert!(matches!(ask(&mut kv, incr("text", 1)), Response::Error(_)));
    ask(&mut kv, incr("max", i64::MAX));
    assert!(matches!(ask(&mut kv, incr("max", 1)), Response::Error(_)));
    assert_eq!(ask(&mut kv, get("max")), Response::Value(Some(i64::MAX.to_string().into())));
}

#[test]
fn scan_goes_on_where_a_page_ended() {
    let mut kv = Kv::default();
    for i in 0..100 {
        ask(&mut kv, set(&format!("k{i:03}"), "v"));
    }
    let mut start = Bytes::from("k010");
    let mut seen = Vec::new();
    loop {
        let scan = Request::Scan { start, end: Some("k050".into()), limit: 7 };
        let Response::Page(page) = ask(&mut kv, scan) else { panic!("no page") };
        assert!(page.pairs.len() <= 7);
        seen.extend(page.pairs.into_iter().map(|(key, _)| key));
        match page.next {
            Some(next) => start = next,
            None => break,
        }
    }
    let expected: Vec<Bytes> = (10..50).map(|i| format!("k{i:03}").into()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn incr_takes_only_its_own_numbers() {
    let mut kv = Kv::default();
    for (text, is_number) in [("-7", true), ("0", true), ("+7", false), ("007", false), ("-0", false), ("", false)] {
        ask(&mut kv, set("a", text));
        let response = ask(&mut kv, Request::Incr { key: "a".into(), delta: 1 });
        assert_eq!(matches!(response, Response::Number(_)), is_number, "{text}: {response:?}");
    }
}

#[test]
fn a_scan_never_overflows_its_reply() {
    let mut kv = Kv::default();
    for i in 0..20 {
        ask(&mut kv, set(&format!("k{i:02}"), &"x".repeat(5000)));
    }
    let scan = |start: &Bytes, limit| {
        let mut reply = Reply::new(limit);
        kv.query(&context(), &Request::Scan { start: start.clone(), end: None, limit: 1000 }.encode(), &mut reply);
        assert!(!reply.overflowed(), "{limit}");
        Response::decode(&Bytes::copy_from_slice(reply.as_bytes())).expect("the store speaks its own language")
    };
    // Room for one pair and the next key, and one byte less.
    let room = Page::EMPTY_LEN + Page::pair_len(b"k00", &[0; 5000]) + Page::next_len(b"k01");
    for limit in [room, 2 * room, 64 << 10, 1 << 20] {
        let (mut start, mut seen) = (Bytes::new(), 0);
        loop {
            let Response::Page(page) = scan(&start, limit) else { panic!("no page") };
            assert!(!page.pairs.is_empty());
            seen += page.pairs.len();
            match page.next {
                Some(next) => start = next,
                None => break,
            }
        }
        assert_eq!(seen, 20);
    }
    let Response::Error(why) = scan(&Bytes::new(), room - 1) else { panic!("more than fits") };
    assert!(why.contains("reply_max"), "{why}");
}

#[test]
fn a_scan_for_nothing_is_refused() {
    let scan = Request::Scan { start: Bytes::new(), end: None, limit: 0 };
    assert!(matches!(ask(&mut Kv::default(), scan), Response::Error(_)));
}

#[test]
fn garbage_is_a_read_with_an_explanation_and_changes_nothing() {
    let mut kv = Kv::default();
    ask(&mut kv, set("a", "1"));
    let hash = kv.state_hash();
    for garbage in [&b""[..], b"\xff\xff", b"\x01", b"\x02\0\0\0\xff"] {
        let request = Bytes::copy_from_slice(garbage);
        let mut reply = Reply::new(1000);
        match Kv::classify(&request) {
            Class::Read => kv.query(&context(), &request, &mut reply),
            Class::Write => kv.apply(&context(), &request, &mut reply),
        }
        let response = Response::decode(&Bytes::copy_from_slice(reply.as_bytes()));
        assert!(matches!(response, Ok(Response::Error(_))), "{garbage:?}: {response:?}");
    }
    assert_eq!(kv.state_hash(), hash);
}

#[test]
fn too_long_a_value_is_refused_with_the_limit() {
    let mut kv = Kv::default();
    let request = Request::Set { key: "a".into(), value: vec![0; VALUE_MAX + 1].into() };
    let Response::Error(why) = ask(&mut kv, request) else { panic!("stored") };
    assert!(why.contains(&VALUE_MAX.to_string()), "{why}");
    assert!(kv.is_empty());
}

#[test]
fn a_snapshot_of_another_version_is_named() {
    let mut kv = Kv::default();
    ask(&mut kv, set("a", "1"));
    let mut newer = kv.snapshot();
    let at = SNAPSHOT_MAGIC.len();
    newer[at..at + 4].copy_from_slice(&2_u32.to_be_bytes());
    let error = kv.restore(&newer).unwrap_err();
    assert!(error.contains("version 2, this program reads 1"), "{error}");
    assert_eq!(kv.len(), 1, "a refused snapshot changes nothing");
}

#[test]
fn snapshots_of_something_else_are_refused() {
    let mut kv = Kv::default();
    ask(&mut kv, set("a", "1"));
    let good = kv.snapshot();
    for bad in [&good[..good.len() - 1], &good[..4], b"something else entirely", &[&good[..], b"x"].concat()] {
        assert!(kv.restore(bad).is_err());
        assert_eq!(kv.len(), 1, "a refused snapshot changes nothing");
    }
}

#[test]
fn a_view_stays_as_it_was_and_does_not_depend_on_the_way_there() {
    let mut kv = Kv::default();
    for n in 0..100 {
        ask(&mut kv, set(&format!("{n:03}"), "1"));
    }
    let before = kv.snapshot();
    let view = kv.view();
    for n in 50..150 {
        ask(&mut kv, set(&format!("{n:03}"), "2"));
        ask(&mut kv, Request::Del { key: format!("{:03}", n - 50).into() });
    }
    let mut other = Kv::default();
    other.restore(&kv.snapshot()).unwrap();
    let mut written = Vec::new();
    view.write(&mut written).unwrap();
    assert_eq!(written, before);
    assert_eq!((other.snapshot(), other.state_hash(), other.len()), (kv.snapshot(), kv.state_hash(), 50));
}

proptest! {
    #[test]
    fn behaves_like_a_map(operations in prop::collection::vec((0..4u8, 0..5u8, 0..4u8), 0..100)) {
        let mut kv = Kv::default();
        let mut map: BTreeMap<u8, u8> = BTreeMap::new();
        for (what, key, value) in operations {
            let (k, v) = (Bytes::from(vec![key]), Bytes::from(vec![value]));
            let old = map.get(&key).map(|old| Bytes::from(vec![*old]));
            let (request, expected) = match what {
                0 => (Request::Get { key: k }, Response::Value(old)),
                1 => {
                    map.insert(key, value);
                    (Request::Set { key: k, value: v }, Response::Stored)
                }
                2 => (Request::Del { key: k }, Response::Deleted(map.remove(&key).is_some())),
                _ => {
                    let expect = Some(Bytes::from(vec![value ^ 1]));
                    let swaps = old == expect;
                    if swaps {
                        map.insert(key, value);
                    }
                    let expected = if swaps { Response::Swapped } else { Response::Mismatch(old) };
                    (Request::Cas { key: k, expect, new: v }, expected)
                }
            };
            prop_assert_eq!(ask(&mut kv, request), expected);
        }
        // Equal maps, equal hashes, whatever the way to them.
        let mut copy = Kv::default();
        copy.restore(&kv.snapshot()).unwrap();
        prop_assert_eq!(copy.state_hash(), kv.state_hash());
        let mut rebuilt = Kv::default();
        for (key, value) in map.iter().rev() {
            ask(&mut rebuilt, Request::Set { key: vec![*key].into(), value: vec![*value].into() });
        }
        prop_assert_eq!(rebuilt.state_hash(), kv.state_hash());
    }
}

proptest! {
    /// The checker's model was written independently; what the store answers must be possible there.
    #[test]
    fn does_what_the_checker_expects(operations in prop::collection::vec(any_op(), 0..100), reply_max in 200..500_usize) {
        let mut kv = Kv::default();
        let mut state = MapModel::init();
        for (op, request) in operations {
            let ret = match ask_within(&mut kv, request, reply_max) {
                Response::Value(value) => Ret::Value(value),
                Response::Stored => Ret::Stored,
                Response::Deleted(existed) => Ret::Deleted(existed),
                Response::Swapped => Ret::Swapped,
                Response::Mismatch(found) => Ret::Mismatch(found),
                Response::Number(sum) => Ret::Number(sum),
                Response::Page(Page { pairs, next }) => Ret::Page(model::Page { pairs, next }),
                Response::Error(why) if why.contains("not a decimal") => Ret::NotANumber,
                Response::Error(why) if why.contains("does not fit 64") => Ret::Overflow,
                Response::Error(why) => {
                    prop_assert!(matches!(op, Op::Scan { .. }), "{}", why);
                    Ret::Refused
                }
            };
            let next = MapModel::step(&state, &op, Some(&ret));
            prop_assert!(next.is_some(), "{:?} must not answer {:?} in {:?}", op, ret, state);
            state = next.unwrap_or_default();
        }
        prop_assert!(state.iter().eq(kv.pairs.range(&Bytes::new())));
    }
}

/// An operation, as the checker and as the store know it.
fn any_op() -> impl Strategy<Value = (Op, Request)> {
    let key = || "[a-c]{0,2}".prop_map(Bytes::from);
    let value = || prop_oneof!["[0-2]", "-?0?[0-9]", "x{0,150}", Just(i64::MAX.to_string())].prop_map(Bytes::from);
    let delta = prop_oneof![-2..3_i64, Just(i64::MIN), Just(i64::MAX)];
    prop_oneof![
        key().prop_map(|key| (Op::get(key.clone()), Request::Get { key })),
        (key(), value()).prop_map(|(key, value)| (Op::set(key.clone(), value.clone()), Request::Set { key, value })),
        key().prop_map(|key| (Op::del(key.clone()), Request::Del { key })),
        (key(), prop::option::of(value()), value()).prop_map(|(key, expect, new)| {
            (Op::cas(key.clone(), expect.clone(), new.clone()), Request::Cas { key, expect, new })
        }),
        (key(), delta).prop_map(|(key, delta)| (Op::incr(key.clone(), delta), Request::Incr { key, delta })),
        (key(), prop::option::of(key()), 0..6_u64).prop_map(|(start, end, limit)| {
            (Op::scan(start.clone(), end.clone(), limit), Request::Scan { start, end, limit })
        }),
    ]
}

fn context() -> Context {
    Context { index: 1, time: Instant::ZERO, version: 1, seed: 0 }
}

fn ask(kv: &mut Kv, request: Request) -> Response {
    ask_within(kv, request, 64 << 10)
}

fn ask_within(kv: &mut Kv, request: Request, reply_max: usize) -> Response {
    let bytes = request.encode();
    let mut reply = Reply::new(reply_max);
    match Kv::classify(&bytes) {
        Class::Read => kv.query(&context(), &bytes, &mut reply),
        Class::Write => kv.apply(&context(), &bytes, &mut reply),
    }
    Response::decode(&Bytes::copy_from_slice(reply.as_bytes())).expect("the store speaks its own language")
}

fn get(key: &str) -> Request {
    Request::Get { key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn set(key: &str, value: &str) -> Request {
    Request::Set { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()) }
}
