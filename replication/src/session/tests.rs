use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

// The schedules of protocol.md §3.3, one test each.

#[test]
fn an_expired_client_retransmits_an_increment() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    log.record(client, 1, b"1");
    // The answer is lost, and nobody uses the session until it expires.
    log.pass(EXPIRY);
    assert_eq!(log.write(client, 1, 1), Admission::Expired);
    // Nor does anything revive it: not time, not sessions to come, not another sequence number.
    for _ in 0..10 {
        assert_ne!(log.open(), client);
        assert_eq!(log.write(client, 1, 1), Admission::Expired);
        assert_eq!(log.write(client, 2, 1), Admission::Expired);
    }
    assert_eq!(log.table.lookup(client, 1), Lookup::NoSession);
}

#[test]
fn a_timed_out_set_1_is_ordered_after_set_2() {
    let mut log = Log::new(limits());
    let client = log.open();
    // SET 1 has seq 1; its client gives up on it, and SET 2 says so. Then a late copy of SET 1 is ordered.
    assert_eq!(log.write(client, 2, 2), Admission::Execute);
    assert_eq!(log.write(client, 1, 1), Admission::BelowWindow);
    assert_eq!(log.table.lookup(client, 1), Lookup::BelowWindow);
    // The fence holds for good, and for reads.
    assert_eq!(log.read(client, 1, 1), Admission::BelowWindow);
    log.pass(EXPIRY - 2 * TICK);
    assert_eq!(log.write(client, 1, 1), Admission::BelowWindow);
}

#[test]
fn a_read_fences_as_a_write_does() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.read(client, 2, 2), Admission::Execute);
    assert_eq!(log.write(client, 1, 1), Admission::BelowWindow);
}

#[test]
fn a_request_can_fence_itself() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 4, 5), Admission::BelowWindow);
    assert_eq!(log.write(client, 4, 1), Admission::BelowWindow);
    assert_eq!(log.write(client, 5, 1), Admission::Execute);
}

#[test]
fn seven_overtakes_six() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 7, 6), Admission::Execute);
    log.record(client, 7, b"seven");
    assert_eq!(log.write(client, 6, 6), Admission::Execute);
    log.record(client, 6, b"six");
    // Each once, each with its own reply.
    assert_eq!(body(log.write(client, 6, 6)), b"six"[..]);
    assert_eq!(body(log.write(client, 7, 6)), b"seven"[..]);
}

#[test]
fn a_leader_whose_clock_is_behind_turns_no_time_back() {
    let mut log = Log::new(limits());
    let client = log.open();
    log.pass(EXPIRY - 2 * TICK);
    let other = log.open();
    log.time = Instant::ZERO;
    assert_eq!(log.write(other, 1, 1), Admission::Execute);
    assert_eq!(log.table.time(), Instant::ZERO + EXPIRY);
    // `client` is over at the time it would have been, and `other` was used at log time, not when that leader says.
    log.time = Instant::ZERO + EXPIRY;
    assert_eq!(log.write(client, 1, 1), Admission::Expired);
    assert_eq!(log.write(other, 2, 1), Admission::Execute);
}

// Duplicates.

#[test]
fn a_duplicate_gets_the_first_reply_with_its_index() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    let first = log.index;
    log.table.record(client, 1, first, Some(ReplyStatus::ServiceError), b"no");
    let expected =
        Remembered::Reply(CachedReply { index: first, status: Some(ReplyStatus::ServiceError), body: "no".into() });
    for _ in 0..3 {
        assert_eq!(log.write(client, 1, 1), Admission::Duplicate(expected.clone()));
        assert_eq!(log.table.lookup(client, 1), Lookup::Executed(expected.clone()));
    }
    assert_eq!(log.write(client, 2, 2), Admission::Execute);
    assert_eq!(log.write(client, 1, 1), Admission::BelowWindow, "the client has said that it has the reply");
    assert_eq!(log.table.cached_replies(), 0);
}

#[test]
fn a_write_without_a_reply_is_still_executed() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    assert_eq!(log.write(client, 1, 1), Admission::Duplicate(Remembered::Gone));
}

#[test]
fn a_read_may_run_again_until_acknowledged() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.read(client, 1, 1), Admission::Execute);
    assert_eq!(log.read(client, 1, 1), Admission::Execute);
    assert_eq!(log.table.lookup(client, 1), Lookup::NotExecuted);
    assert_eq!(log.read(client, 2, 2), Admission::Execute);
    assert_eq!(log.read(client, 1, 1), Admission::BelowWindow);
}

#[test]
fn sessions_do_not_touch_each_other() {
    let mut log = Log::new(limits());
    let (a, b) = (log.open(), log.open());
    assert_eq!(log.write(a, 1, 1), Admission::Execute);
    assert_eq!(log.write(b, 1, 1), Admission::Execute);
    assert_eq!(log.write(a, 9, 9), Admission::Execute);
    assert_eq!(log.write(b, 1, 1), Admission::Duplicate(Remembered::Gone));
}

#[test]
fn lookup_changes_nothing() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    log.record(client, 1, b"x");
    let before = log.table.snapshot();
    for seq in [0, 1, 2, 4, 5, u64::MAX] {
        let _ = log.table.lookup(client, seq);
        let _ = log.table.lookup(client + 1, seq);
    }
    assert_eq!(log.table.snapshot(), before);
}

// Limits, at the limit and one past it.

#[test]
fn the_window() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 10 + WINDOW - 1, 10), Admission::Execute);
    assert_eq!(log.write(client, 10 + WINDOW, 10), Admission::AboveWindow);
    assert_eq!(log.read(client, 10 + WINDOW, 10), Admission::AboveWindow);
    assert_eq!(log.table.lookup(client, 10 + WINDOW), Lookup::NotExecuted);
    assert_eq!(log.write(client, 10, 10), Admission::Execute);
    // A refused request has not been executed, and its turn may still come; once.
    assert_eq!(log.write(client, 10 + WINDOW, 11), Admission::Execute);
    assert_eq!(log.write(client, 10 + WINDOW, 11), Admission::Duplicate(Remembered::Gone));
    // Numbers as large as there are.
    assert_eq!(log.write(client, u64::MAX, 11), Admission::AboveWindow);
    assert_eq!(log.write(client, u64::MAX, u64::MAX), Admission::Execute);
    assert_eq!(log.write(client, u64::MAX, u64::MAX), Admission::Duplicate(Remembered::Gone));
    assert_eq!(log.write(client, 0, 0), Admission::BelowWindow);
}

#[test]
fn expiry() {
    let mut log = Log::new(limits());
    let client = log.open();
    for _ in 0..3 {
        log.pass(EXPIRY - TICK - TICK);
        assert_eq!(log.read(client, 1, 1), Admission::Execute, "just in time, and in use again");
    }
    log.pass(EXPIRY - TICK);
    assert_eq!(log.read(client, 1, 1), Admission::Expired);
    assert_eq!(log.table.counters().expired, 1);
}

#[test]
fn every_use_counts_for_expiry() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 5, 5), Admission::Execute);
    for (seq, what) in [(5, "a duplicate"), (1, "below"), (u64::MAX, "above")] {
        log.pass(EXPIRY / 2);
        assert_ne!(log.write(client, seq, 5), Admission::Expired, "{what}");
    }
}

#[test]
fn time_of_entries_without_a_session_counts() {
    let mut log = Log::new(limits());
    log.open();
    log.pass(EXPIRY);
    log.table.advance(log.time);
    assert!(log.table.is_empty());
}

#[test]
fn sessions_max_ends_the_least_recently_used() {
    let mut log = Log::new(SessionLimits { sessions_max: 3, ..limits() });
    let clients = [log.open(), log.open(), log.open()];
    assert_eq!((log.table.len(), log.table.counters().evicted), (3, 0));
    // Used by a read, by a duplicate: any use counts.
    assert_eq!(log.write(clients[1], 1, 1), Admission::Execute);
    assert_eq!(log.read(clients[0], 1, 1), Admission::Execute);
    assert_eq!(log.write(clients[1], 1, 1), Admission::Duplicate(Remembered::Gone));
    let newest = log.open();
    assert_eq!((log.table.len(), log.table.counters().evicted), (3, 1));
    assert_eq!(log.write(clients[2], 1, 1), Admission::Expired);
    for client in [clients[0], clients[1], newest] {
        assert_ne!(log.write(client, 2, 1), Admission::Expired);
    }
}

#[test]
fn one_session_is_possible() {
    let mut log = Log::new(SessionLimits { sessions_max: 1, ..limits() });
    let first = log.open();
    let second = log.open();
    assert_eq!(log.write(first, 1, 1), Admission::Expired);
    assert_eq!(log.write(second, 1, 1), Admission::Execute);
}

#[test]
fn cached_replies_make_way_in_log_order() {
    let room = 3 * (REPLY_COST + 10);
    let mut log = Log::new(SessionLimits { cache_bytes_max: room, ..limits() });
    let (a, b) = (log.open(), log.open());
    // In log order: b1, a2, a1. Seq order and age of the session say otherwise.
    for (client, seq) in [(b, 1), (a, 2), (a, 1)] {
        assert_eq!(log.write(client, seq, 1), Admission::Execute);
        log.record(client, seq, &[0; 10]);
    }
    assert_eq!((log.table.cached_bytes(), log.table.counters().replies_evicted), (room, 0));
    assert_eq!(log.write(a, 3, 1), Admission::Execute);
    log.record(a, 3, &[]);
    assert_eq!((log.table.cached_replies(), log.table.counters().replies_evicted), (3, 1));
    assert_eq!(log.write(b, 1, 1), Admission::Duplicate(Remembered::Gone));
    for (client, seq) in [(a, 2), (a, 1), (a, 3)] {
        assert!(matches!(log.write(client, seq, 1), Admission::Duplicate(Remembered::Reply(_))));
    }
    // A long one takes the place of several.
    assert_eq!(log.write(b, 2, 1), Admission::Execute);
    log.record(b, 2, &vec![0; room - REPLY_COST]);
    assert_eq!((log.table.cached_replies(), log.table.cached_bytes()), (1, room));
}

#[test]
fn a_reply_longer_than_the_cache_displaces_nothing() {
    let room = 2 * REPLY_COST;
    let mut log = Log::new(SessionLimits { cache_bytes_max: room, ..limits() });
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    log.record(client, 1, b"short");
    assert_eq!(log.write(client, 2, 1), Admission::Execute);
    log.record(client, 2, &vec![0; room - REPLY_COST + 1]);
    assert_eq!(body(log.write(client, 1, 1)), b"short"[..]);
    assert_eq!(log.write(client, 2, 1), Admission::Duplicate(Remembered::Gone));
    assert_eq!(log.table.counters().replies_evicted, 1);
}

#[test]
fn no_cache_at_all() {
    let mut log = Log::new(SessionLimits { cache_bytes_max: 0, ..limits() });
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    log.record(client, 1, b"");
    assert_eq!(log.write(client, 1, 1), Admission::Duplicate(Remembered::Gone));
}

#[test]
fn the_end_of_a_session_frees_its_replies() {
    let mut log = Log::new(SessionLimits { sessions_max: 1, ..limits() });
    let client = log.open();
    for seq in 1..=4 {
        assert_eq!(log.write(client, seq, 1), Admission::Execute);
        log.record(client, seq, b"reply");
    }
    assert_eq!(log.table.cached_bytes(), 4 * (REPLY_COST + 5));
    log.open();
    assert_eq!((log.table.cached_bytes(), log.table.cached_replies()), (0, 0));
}

// Wrong use.

#[test]
#[should_panic(expected = "has been recorded before")]
fn a_reply_is_recorded_once() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.write(client, 1, 1), Admission::Execute);
    log.record(client, 1, b"");
    log.record(client, 1, b"");
}

#[test]
#[should_panic(expected = "has not been admitted")]
fn nothing_is_recorded_for_a_read() {
    let mut log = Log::new(limits());
    let client = log.open();
    assert_eq!(log.read(client, 1, 1), Admission::Execute);
    log.record(client, 1, b"");
}

#[test]
#[should_panic(expected = "opened after session")]
fn ids_are_never_given_twice() {
    let mut table = SessionTable::new(limits());
    table.open(5, Instant::ZERO);
    table.open(5, Instant::ZERO);
}

// Snapshots.

#[test]
fn a_snapshot_needs_the_same_limits() {
    let bytes = sample().snapshot();
    for (limits, name) in [
        (SessionLimits { sessions_max: 9, ..limits() }, "sessions_max"),
        (SessionLimits { session_expiry: TICK, ..limits() }, "session_expiry in ns"),
        (SessionLimits { seq_window: 9, ..limits() }, "seq_window"),
        (SessionLimits { cache_bytes_max: 9, ..limits() }, "cache_bytes_max"),
    ] {
        match SessionTable::restore(limits, &bytes) {
            Err(SnapshotError::Limit { limit, .. }) => assert_eq!(limit, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_snapshot_of_another_version_is_named() {
    for found in [0, 2, 9] {
        let mut bytes = sample().snapshot();
        bytes[..2].copy_from_slice(&u16::to_be_bytes(found));
        let error = SessionTable::restore(limits(), &bytes).unwrap_err();
        assert_eq!(error, SnapshotError::Version { found, expected: 1 });
        assert!(
            error.to_string().contains(&format!("format version {found}, this program reads version 1")),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let bytes = sample().snapshot();
    assert!(SessionTable::restore(limits(), &bytes).is_ok());
    for len in 0..bytes.len() {
        assert_eq!(SessionTable::restore(limits(), &bytes[..len]).unwrap_err(), SnapshotError::Truncated, "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(SessionTable::restore(limits(), &longer), Err(SnapshotError::Damaged(_))));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(SessionTable::restore(limits(), &bytes).is_err(), "byte {at} bit {bit}");
        }
    }
}

/// A table with something of everything.
fn sample() -> SessionTable {
    let mut log = Log::new(limits());
    let clients = [log.open(), log.open()];
    for (client, seq, first_unacked) in [(0, 3, 2), (1, 1, 1), (0, 2, 2), (1, 4, 1)] {
        assert_eq!(log.write(clients[client], seq, first_unacked), Admission::Execute);
        log.record(clients[client], seq, &[7; 5][..seq as usize]);
    }
    assert_eq!(log.write(clients[0], 5, 2), Admission::Execute);
    log.table
}

// Anything at all, against a model that is as simple as can be.

proptest! {
    #[test]
    fn behaves_like_the_model(
        steps in prop::collection::vec(step(), 1..300),
        sessions_max in 1usize..5,
        seq_window in 1u64..12,
        cache_bytes_max in 0usize..(6 * REPLY_COST),
        restore_at in any::<prop::sample::Index>(),
    ) {
        let limits = SessionLimits { sessions_max, seq_window, cache_bytes_max, ..limits() };
        let mut model = Model { limits, ..Model::default() };
        let mut tables = vec![SessionTable::new(limits), SessionTable::new(limits)];
        let (mut time, mut opened) = (Instant::ZERO, vec![0, 1]);
        let mut executed = BTreeSet::new();
        let mut fences: BTreeMap<u64, u64> = BTreeMap::new();
        let restore_at = restore_at.index(steps.len());
        for (at, step) in steps.into_iter().enumerate() {
            let index = at as u64 + 1;
            time += step.pass;
            match step.what {
                What::Plain => {
                    model.advance(time);
                    tables.iter_mut().for_each(|table| { table.advance(time); });
                }
                What::Open => {
                    model.open(index, time);
                    opened.push(index);
                    for table in &mut tables {
                        prop_assert_eq!(table.open(index, time), index);
                    }
                }
                What::Request { client, seq, first_unacked, read_only, reply } => {
                    // Mostly a recent session, and numbers around its window.
                    let client = opened[opened.len() - 1 - client.min(opened.len() - 1)];
                    let base = fences.get(&client).copied().unwrap_or(0);
                    let first_unacked = (base + first_unacked).saturating_sub(2);
                    let seq = (base + seq).saturating_sub(4);
                    let request = Session { client, seq, first_unacked };
                    let expected = model.admit(request, index, time, read_only);
                    for table in &mut tables {
                        prop_assert_eq!(table.admit(request, index, time, read_only), expected.clone());
                    }
                    if expected != Admission::Expired {
                        let fence = fences.entry(client).or_default();
                        *fence = first_unacked.max(*fence);
                        // Below the fence nothing is executed, and within the window everything once.
                        let inside = (*fence..*fence + seq_window).contains(&seq);
                        let new = read_only || !executed.contains(&(client, seq));
                        if !executed.contains(&(client, seq)) {
                            prop_assert_eq!(expected == Admission::Execute, inside && new);
                        }
                    }
                    if expected == Admission::Execute && !read_only {
                        prop_assert!(executed.insert((client, seq)), "executed twice");
                        if let Some(len) = reply {
                            let body = vec![index as u8; len];
                            model.record(client, seq, index, &body);
                            tables.iter_mut().for_each(|table| table.record(client, seq, index, None, &body));
                        }
                    }
                }
            }
            if at == restore_at {
                let restored = SessionTable::restore(limits, &tables[0].snapshot());
                tables.push(restored.map_err(|error| TestCaseError::fail(error.to_string()))?);
            }
            for table in &tables {
                prop_assert_eq!(table.hash(), tables[0].hash());
                prop_assert_eq!(table.sum, table.sum_from_scratch());
                prop_assert!(table.len() <= sessions_max);
                prop_assert!(table.cached_bytes() <= cache_bytes_max);
                let cached: usize = table.replies.iter().map(|cached| cost(&cached.reply.body)).sum();
                prop_assert_eq!(table.cached_bytes(), cached);
                prop_assert!(table.sessions.iter().all(|session| session.window.len() <= seq_window));
                prop_assert_eq!(table.len(), model.sessions.len());
                prop_assert_eq!(table.cached_replies(), model.replies.len());
            }
        }
        for table in &tables {
            prop_assert_eq!(table.snapshot(), tables[0].snapshot());
        }
    }

    #[test]
    fn different_histories_have_different_hashes(len in 1usize..20, change in any::<prop::sample::Index>()) {
        let run = |changed: Option<usize>| {
            let mut log = Log::new(limits());
            let client = log.open();
            for at in 0..len {
                let seq = at as u64 % WINDOW + 1;
                match (changed == Some(at), log.write(client, seq, 1)) {
                    (true, Admission::Execute) => log.record(client, seq, b"another"),
                    (true, _) => log.pass(TICK),
                    (false, Admission::Execute) => log.record(client, seq, b"reply"),
                    (false, _) => {}
                }
            }
            log.read(client, 1, 1);
            log.table.hash()
        };
        prop_assert_ne!(run(None), run(Some(change.index(len))));
        prop_assert_eq!(run(None), run(None));
    }

    #[test]
    fn restore_never_panics(
        at in any::<prop::sample::Index>(),
        word in prop_oneof![any::<u64>(), 0..10u64],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = SessionTable::restore(limits(), &bytes);
        let mut snapshot = sample().snapshot();
        let at = at.index(snapshot.len() - 8);
        snapshot[at..at + 8].copy_from_slice(&word.to_be_bytes());
        let _ = SessionTable::restore(limits(), &snapshot);
    }
}

#[derive(Clone, Debug)]
struct Step {
    pass: Duration,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Plain,
    Open,
    Request { client: usize, seq: u64, first_unacked: u64, read_only: bool, reply: Option<usize> },
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        1 => Just(What::Plain),
        2 => Just(What::Open),
        20 => (0usize..6, 0u64..14, 0u64..4, any::<bool>(), prop::option::of(0usize..REPLY_COST)).prop_map(
            |(client, seq, first_unacked, read_only, reply)| What::Request {
                client,
                seq,
                first_unacked,
                read_only,
                reply
            }
        ),
    ];
    let pass = prop_oneof![10 => Just(Duration::ZERO), 10 => Just(TICK), 1 => Just(EXPIRY - TICK)];
    (pass, what).prop_map(|(pass, what)| Step { pass, what })
}

/// What a table must do, without a thought for cost.
#[derive(Default)]
struct Model {
    limits: SessionLimits,
    time: Instant,
    /// The least recently used first.
    sessions: Vec<ModelSession>,
    /// In log order.
    replies: Vec<(u64, u64, CachedReply)>,
}

struct ModelSession {
    client: u64,
    used: Instant,
    first_unacked: u64,
    executed: BTreeSet<u64>,
}

impl Model {
    fn advance(&mut self, time: Instant) {
        self.time = self.time.max(time);
        let (now, expiry) = (self.time, self.limits.session_expiry);
        self.sessions.retain(|session| now.since(session.used) < expiry);
        self.forget();
    }

    fn open(&mut self, index: u64, time: Instant) {
        self.advance(time);
        if self.sessions.len() == self.limits.sessions_max {
            self.sessions.remove(0);
        }
        let executed = BTreeSet::new();
        self.sessions.push(ModelSession { client: index, used: self.time, first_unacked: 0, executed });
        self.forget();
    }

    fn admit(&mut self, request: Session, _index: u64, time: Instant, read_only: bool) -> Admission {
        self.advance(time);
        let Some(at) = self.sessions.iter().position(|session| session.client == request.client) else {
            return Admission::Expired;
        };
        let mut session = self.sessions.remove(at);
        session.used = self.time;
        session.first_unacked = session.first_unacked.max(request.first_unacked);
        let admission = if request.seq < session.first_unacked {
            Admission::BelowWindow
        } else if request.seq >= session.first_unacked + self.limits.seq_window {
            Admission::AboveWindow
        } else if session.executed.contains(&request.seq) {
            let cached = self.replies.iter().find(|cached| (cached.0, cached.1) == (request.client, request.seq));
            Admission::Duplicate(cached.map_or(Remembered::Gone, |cached| Remembered::Reply(cached.2.clone())))
        } else {
            if !read_only {
                session.executed.insert(request.seq);
            }
            Admission::Execute
        };
        self.sessions.push(session);
        self.forget();
        admission
    }

    fn record(&mut self, client: u64, seq: u64, index: u64, body: &[u8]) {
        if cost(body) <= self.limits.cache_bytes_max {
            let reply = CachedReply { index, status: None, body: Bytes::copy_from_slice(body) };
            self.replies.push((client, seq, reply));
            while self.replies.iter().map(|cached| cost(&cached.2.body)).sum::<usize>() > self.limits.cache_bytes_max {
                self.replies.remove(0);
            }
        }
    }

    /// Replies that nobody can ask for.
    fn forget(&mut self) {
        let sessions = &self.sessions;
        self.replies.retain(|&(client, seq, _)| {
            sessions.iter().any(|session| session.client == client && seq >= session.first_unacked)
        });
    }
}

/// A table, and the log that it is fed.
struct Log {
    table: SessionTable,
    index: LogIndex,
    time: Instant,
}

const TICK: Duration = Duration::from_millis(1);
const EXPIRY: Duration = Duration::from_secs(60);
const WINDOW: u64 = 8;

fn limits() -> SessionLimits {
    SessionLimits { sessions_max: 100, session_expiry: EXPIRY, seq_window: WINDOW, cache_bytes_max: 1 << 20 }
}

impl Log {
    fn new(limits: SessionLimits) -> Self {
        Self { table: SessionTable::new(limits), index: 0, time: Instant::ZERO }
    }

    fn pass(&mut self, duration: Duration) {
        self.time += duration;
    }

    /// Every entry is a tick later than the one before.
    fn next(&mut self) -> (LogIndex, Instant) {
        self.index += 1;
        self.time += TICK;
        (self.index, self.time)
    }

    fn open(&mut self) -> u64 {
        let (index, time) = self.next();
        self.table.open(index, time)
    }

    fn write(&mut self, client: u64, seq: u64, first_unacked: u64) -> Admission {
        let (index, time) = self.next();
        self.table.admit(Session { client, seq, first_unacked }, index, time, false)
    }

    fn read(&mut self, client: u64, seq: u64, first_unacked: u64) -> Admission {
        let (index, time) = self.next();
        self.table.admit(Session { client, seq, first_unacked }, index, time, true)
    }

    fn record(&mut self, client: u64, seq: u64, body: &[u8]) {
        self.table.record(client, seq, self.index, None, body);
    }
}

fn body(admission: Admission) -> Bytes {
    match admission {
        Admission::Duplicate(Remembered::Reply(reply)) => reply.body,
        other => panic!("{other:?}"),
    }
}
