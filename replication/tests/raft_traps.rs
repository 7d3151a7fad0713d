//! What the `raft` crate 0.7 does that its documentation does not say (`protocol.md §11`).
//!
//! Every test drives the crate itself, not our wrappers: when an upgrade changes one of these, the test that fails names the rule of
//! ours that rested on it. A doc comment says what the behaviour means for us. Not tested here because no unit test can show it: that
//! `prost-codec` needs `protoc` to build, and the cost per entry.
//!
//! Where trying it out disagreed with what one would first assume:
//!
//! - `raft_log.maybe_commit(k, raft_log.term(k))` *does* panic for `k` beyond the log: an unknown index has term 0, and 0 equals 0
//!   ([`commit_by_notice_needs_a_guard_against_the_end_of_the_log`]).
//! - A conflict at or below the commit index is reachable only by entries that are not contiguous
//!   ([`conflict_at_or_below_committed_panics`]), and not every gap panics: some corrupt the log silently
//!   ([`non_contiguous_entries_panic_or_corrupt_the_log`]).
//! - An inflight cap of 0 does not silence the crate altogether: a rejection still makes it probe
//!   ([`a_rejection_at_cap_zero_still_probes`]). A cap outlives terms ([`peers_start_a_term_in_probe_and_caps_survive_it`]).
//! - Messages of a leader may go out before its Ready is persisted, *except* those of a sole voter that was elected within one call
//!   ([`a_sole_voter_sends_before_its_term_is_persisted`]).
//! - `ReadOnlyOption::LeaseBased` checks the role and that the term has committed something, still no quorum
//!   ([`lease_based_reads_check_only_the_role`]).

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use protobuf::Message as _;
use raft::prelude::*;
use raft::storage::MemStorage;
use raft::{Error, INVALID_ID, NO_LIMIT, ProgressState, ReadOnlyOption, SnapshotStatus, StateRole};

// ---------------------------------------------------------------------------------------------------------------- codec

/// Entry data is never copied between proposal, log, Ready and messages: a clone of an entry costs a reference count, so an entry may
/// be cloned per peer without touching its bytes.
#[test]
fn entry_data_is_shared_not_copied() {
    let mut leader = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut leader);
    let data = Bytes::from(vec![7u8; 1 << 16]);
    let mut propose = message(MessageType::MsgPropose, 1, 0);
    propose.set_entries(vec![Entry { data: data.clone(), ..Entry::default() }].into());
    leader.step(propose).unwrap();

    let mut ready = leader.ready();
    let messages = ready.take_messages();
    assert_eq!(messages.len(), 2);
    for message in &messages {
        assert_eq!(message.entries[0].data.as_ptr(), data.as_ptr());
    }
    assert_eq!(ready.entries()[0].data.as_ptr(), data.as_ptr());
    assert_eq!(ready.entries()[0].clone().data.as_ptr(), data.as_ptr());

    let mut follower = follower_in(2, 1);
    follower.step(append(1, 1, (0, 0), &[1], 0)).unwrap();
    follower.step(messages[0].clone()).unwrap();
    assert_eq!(follower.ready().entries()[1].data.as_ptr(), data.as_ptr());
}

/// With this codec a message type it does not know fails to decode (under `prost-codec` it decodes, and the getter panics). No
/// protobuf crosses our wire all the same: a whole `Message` holds far more than a peer should be able to say.
#[test]
fn an_unknown_message_type_does_not_decode() {
    let known = [0x08, MessageType::MsgAppend as u8];
    let mut decoded = Message::default();
    decoded.merge_from_bytes(&known).unwrap();
    assert_eq!(decoded.get_msg_type(), MessageType::MsgAppend);
    assert!(Message::default().merge_from_bytes(&[0x08, 99]).is_err());
}

/// The default message is `MsgHup`, an order to campaign, which `Raft::step` obeys: messages enter through `RawNode::step`, which
/// refuses the types that are meant to be local.
#[test]
fn local_message_types_are_refused_by_raw_node_only() {
    let mut node = node_of(1, &[1, 2, 3]);
    assert_eq!(node.step(Message::default()), Err(Error::StepLocalMsg));
    assert_eq!(node.raft.state, StateRole::Follower);
    node.raft.step(Message::default()).unwrap();
    assert_eq!(node.raft.state, StateRole::PreCandidate);
}

/// Our vote layouts must carry `context`, `commit` and `commit_term`: the first makes a leader transfer pass the lease, the others
/// let a lagging node catch up on commits during an election.
#[test]
fn vote_messages_carry_context_and_commit() {
    let mut candidate = node_with_log(1, &[1, 2, 3], &[1, 1, 1]);
    candidate.raft.raft_log.commit_to(2);
    candidate.campaign().unwrap();
    for request in emitted(&mut candidate) {
        assert_eq!(request.get_msg_type(), MessageType::MsgRequestPreVote);
        assert_eq!((request.index, request.log_term), (3, 1));
        assert_eq!((request.commit, request.commit_term), (2, 1));
        assert!(request.context.is_empty());
    }

    let mut transferee = node_with_log(1, &[1, 2, 3], &[1]);
    transferee.step(message(MessageType::MsgTimeoutNow, 2, 1)).unwrap();
    for request in emitted(&mut transferee) {
        assert_eq!(request.get_msg_type(), MessageType::MsgRequestVote);
        assert_eq!(&request.context[..], b"CampaignTransfer");
    }

    // A refusal carries the voter's commit in the same two fields.
    let mut voter = node_with_log(1, &[1, 2, 3], &[1, 1, 1]);
    voter.raft.raft_log.commit_to(3);
    voter.step(vote_request(2, 2, (1, 1))).unwrap();
    let refusal = emitted(&mut voter).pop().unwrap();
    assert!(refusal.reject);
    assert_eq!((refusal.commit, refusal.commit_term), (3, 1));
}

/// The commit index in a vote message is believed if the term at that index matches: a vote from a non-member, or with fields
/// that were not checked, can commit. Only members' votes reach the crate.
#[test]
fn a_vote_message_moves_the_receivers_commit_index() {
    let mut voter = node_with_log(1, &[1, 2, 3], &[1, 1, 1]);
    let mut request = vote_request(2, 2, (1, 1));
    (request.commit, request.commit_term) = (2, 1);
    voter.step(request).unwrap();
    assert_eq!(voter.raft.raft_log.committed, 2);
}

// ------------------------------------------------------------------------------------------------- what may enter step()

/// Term 0 means "local message" and skips every term check: no message from the wire may have it.
#[test]
fn term_zero_skips_every_term_check() {
    let mut follower = follower_in(2, 5);
    follower.step(append(3, 0, (0, 0), &[1], 0)).unwrap();
    assert_eq!((follower.raft.term, follower.raft.leader_id), (5, 3));
    assert_eq!(follower.raft.raft_log.last_index(), 1);

    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    leader.step(ack(2, 0, 1)).unwrap();
    assert_eq!(leader.raft.raft_log.committed, 1);

    // A vote request of term 0 cannot even be granted.
    let mut voter = node_of(1, &[1, 2, 3]);
    assert!(panic_of(|| voter.step(vote_request(2, 0, (0, 0))).unwrap()).contains("term should be set"));
}

/// Only responses are checked against the member list, and only by `RawNode`: a stranger's Append makes it our leader and a stranger's
/// candidacy gets our vote. The sender's membership is ours to check.
#[test]
fn the_sender_need_not_be_a_member() {
    let mut follower = follower_in(2, 1);
    follower.step(append(99, 1, (0, 0), &[1], 0)).unwrap();
    assert_eq!((follower.raft.leader_id, follower.raft.raft_log.last_index()), (99, 1));

    let mut voter = node_of(1, &[1, 2, 3]);
    voter.step(vote_request(99, 1, (0, 0))).unwrap();
    assert_eq!(voter.raft.vote, 99);

    let mut leader = leader_of(&[1, 2, 3]);
    assert_eq!(leader.step(ack(99, 1, 1)), Err(Error::StepPeerNotFound));
}

/// Terms and indices are incremented without checks. Whatever arrives must lie below 2^62.
#[test]
fn huge_terms_and_indices_overflow() {
    if !cfg!(debug_assertions) {
        return; // Without overflow checks they wrap around to 0 instead, which is worse and no easier to assert.
    }
    let mut leader = leader_of(&[1, 2, 3]);
    assert!(panic_of(|| leader.step(ack(2, 1, u64::MAX)).unwrap()).contains("overflow"));

    let mut follower = follower_in(2, 1);
    follower.step(message(MessageType::MsgHeartbeat, 1, u64::MAX)).unwrap();
    assert!(panic_of(|| follower.campaign().unwrap()).contains("overflow"));
}

/// A rejection's hint beyond the leader's log is bounded by the rejected index, except that it is incremented first: it is checked
/// against the leader's own last index.
#[test]
fn an_inflated_reject_hint_is_only_bounded_by_the_rejected_index() {
    let mut leader = leader_with_log(&[1, 2, 3], &[1, 1, 1]);
    leader.step(reject(2, 2, 3, 1 << 40, 0)).unwrap();
    assert_eq!(progress(&leader, 2).next_idx, 3);

    if cfg!(debug_assertions) {
        assert!(panic_of(|| leader.step(reject(2, 2, 2, u64::MAX, 0)).unwrap()).contains("overflow"));
    }
}

/// A heartbeat whose commit index is beyond the follower's log panics. Heartbeats of ours carry commit 0.
#[test]
fn heartbeat_commit_beyond_the_log_panics() {
    let mut follower = follower_in(2, 1);
    let mut heartbeat = message(MessageType::MsgHeartbeat, 1, 1);
    heartbeat.commit = 1;
    assert!(panic_of(|| follower.step(heartbeat).unwrap()).contains("to_commit 1 is out of range"));

    let mut follower = follower_in(2, 1);
    follower.step(message(MessageType::MsgHeartbeat, 1, 1)).unwrap();
    assert_eq!(emitted(&mut follower)[0].get_msg_type(), MessageType::MsgHeartbeatResponse);
}

/// An Append that contradicts a committed entry panics. Contiguous entries never get there (an anchor below the commit index is
/// answered with the commit index, unread), so checking contiguity is enough.
#[test]
fn conflict_at_or_below_committed_panics() {
    let mut follower = follower_in(2, 1);
    follower.step(append(1, 1, (0, 0), &[1, 1, 1], 2)).unwrap();
    emitted(&mut follower);

    follower.step(append(3, 2, (0, 0), &[2, 2, 2], 0)).unwrap();
    let answer = emitted(&mut follower).pop().unwrap();
    assert_eq!((answer.reject, answer.index), (false, 2));
    assert_eq!(follower.raft.raft_log.term(3), Ok(1));

    let mut contradicting = append(3, 2, (2, 1), &[2], 0);
    contradicting.mut_entries()[0].index = 2;
    assert!(panic_of(|| follower.step(contradicting).unwrap()).contains("entry 2 conflict with committed entry 2"));
}

/// Entries must be contiguous and start right after the anchor: any gap either panics or is accepted, leaving a log whose entries do
/// not lie at their index. The parser checks `entries[j].index == index + 1 + j`.
#[test]
fn non_contiguous_entries_panic_or_corrupt_the_log() {
    let mut gap_at_start = append(1, 1, (0, 0), &[1], 0);
    gap_at_start.mut_entries()[0].index = 3;
    let mut follower = follower_in(2, 1);
    assert!(panic_of(|| follower.step(gap_at_start).unwrap()).contains("out of range"));

    let mut skipping = append(1, 1, (0, 0), &[1, 1, 1, 1], 0);
    for entry in skipping.mut_entries() {
        entry.index += 2;
    }
    let mut follower = follower_in(2, 1);
    assert!(panic_of(|| follower.step(skipping).unwrap()).contains("out of bound"));

    let mut gap_inside = append(1, 1, (0, 0), &[1, 1], 0);
    gap_inside.mut_entries()[1].index = 5;
    let mut follower = follower_in(2, 1);
    follower.step(gap_inside).unwrap();
    assert_eq!(follower.raft.raft_log.last_index(), 2);
    assert_eq!(follower.raft.raft_log.unstable_entries()[1].index, 5);
}

/// An index the log does not have "has" term 0, so an Append anchored beyond the log with log term 0 matches: it panics, or
/// acknowledges entries nobody sent. Log term 0 is legal for index 0 only.
#[test]
fn append_with_log_term_zero_beyond_the_log_matches() {
    let mut follower = follower_in(2, 1);
    assert!(panic_of(|| follower.step(append(1, 1, (5, 0), &[1], 0)).unwrap()).contains("out of bound"));

    let mut follower = follower_in(2, 1);
    assert!(panic_of(|| follower.step(append(1, 1, (5, 0), &[], 5)).unwrap()).contains("to_commit 5 is out of range"));

    let mut follower = follower_in(2, 1);
    follower.step(append(1, 1, (5, 0), &[], 0)).unwrap();
    let answer = emitted(&mut follower).pop().unwrap();
    assert_eq!((answer.reject, answer.index, follower.raft.raft_log.last_index()), (false, 5, 0));
}

/// A proposal without entries panics on the leader: an empty batch is never stepped.
#[test]
fn an_empty_proposal_panics() {
    let mut leader = leader_of(&[1, 2, 3]);
    assert!(
        panic_of(|| leader.step(message(MessageType::MsgPropose, 1, 0)).unwrap()).contains("stepped empty MsgProp")
    );
}

/// A read index request without an entry panics, and one with an empty context waits for ever (heartbeat responses with an empty
/// context are not counted): ours always carry a non-empty unique context.
#[test]
fn read_index_needs_an_entry_with_a_context() {
    let mut leader = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut leader);
    leader.read_index(Vec::new());
    for heartbeat in emitted(&mut leader) {
        leader.step(heartbeat_response(heartbeat.to, 1, &heartbeat.context)).unwrap();
    }
    assert!(leader.raft.read_states.is_empty());

    leader.read_index(b"ctx".to_vec());
    for heartbeat in emitted(&mut leader) {
        leader.step(heartbeat_response(heartbeat.to, 1, &heartbeat.context)).unwrap();
    }
    assert!(leader.raft.read_states.iter().any(|state| state.request_ctx == b"ctx"));

    let bare = message(MessageType::MsgReadIndex, 2, 0);
    assert!(panic_of(|| leader.step(bare).unwrap()).contains("index out of bounds"));
}

/// Proposals and transfer requests are obeyed whoever sends them, member or not: both are off our wire whitelist.
#[test]
fn proposals_and_transfers_are_accepted_from_anybody() {
    let mut leader = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut leader);
    let mut foreign = proposal(&[b"x"]);
    foreign.from = 99;
    leader.step(foreign).unwrap();
    assert_eq!(leader.raft.raft_log.last_index(), 2);
    acknowledge_all(&mut leader);
    emitted(&mut leader);

    leader.step(message(MessageType::MsgTransferLeader, 3, 1)).unwrap();
    let sent = emitted(&mut leader);
    assert_eq!((sent[0].get_msg_type(), sent[0].to), (MessageType::MsgTimeoutNow, 3));
}

/// A follower forwards proposals, transfers and read requests to the leader, and panics if they carry its current term, because it
/// must set the term itself: one more reason to keep them off the wire.
#[test]
fn a_forwarded_message_with_a_term_panics() {
    for kind in [MessageType::MsgPropose, MessageType::MsgTransferLeader, MessageType::MsgReadIndex] {
        let mut follower = follower_in(2, 1);
        let text = panic_of(|| follower.step(message(kind, 3, 1)).unwrap());
        assert!(text.contains("term should not be set"), "{kind:?}: {text}");
    }
}

/// `MsgTimeoutNow` from anybody starts a real election at once, without pre-vote, whose requests pass everybody's lease: accept it
/// only from the current leader in the current term.
#[test]
fn timeout_now_skips_pre_vote_and_lease() {
    let mut follower = follower_in(2, 1);
    follower.step(message(MessageType::MsgTimeoutNow, 3, 1)).unwrap();
    assert_eq!((follower.raft.state, follower.raft.term), (StateRole::Candidate, 2));

    let request = emitted(&mut follower).into_iter().find(|m| m.to == 3).unwrap();
    let mut in_lease = follower_in(3, 1);
    in_lease.step(request).unwrap();
    assert_eq!((in_lease.raft.term, in_lease.raft.vote), (2, 2));
}

// ----------------------------------------------------------------------------------------------------- the shared Append

/// Winning the election appends an empty entry and sends it to every other member, learners included, in messages that differ in
/// nothing but `to`. Until a peer answers it is a paused probe: proposals made meanwhile are not sent to it.
#[test]
fn a_new_leader_emits_one_probe_per_peer() {
    let mut leader = node_from(config(1), store(&[1, 2, 3], &[4], &[1, 1]));
    win_election(&mut leader);
    assert_eq!((leader.raft.term, leader.raft.raft_log.last_index()), (2, 3));
    let mut probes = emitted(&mut leader);
    probes.sort_by_key(|m| m.to);
    assert_eq!(probes.iter().map(|m| m.to).collect::<Vec<_>>(), [2, 3, 4]);
    for probe in &mut probes {
        assert_eq!(probe.get_msg_type(), MessageType::MsgAppend);
        assert_eq!((probe.term, probe.index, probe.log_term, probe.commit), (2, 2, 1, 0));
        assert_eq!((probe.entries.len(), probe.entries[0].index, probe.entries[0].data.len()), (1, 3, 0));
        let peer = progress(&leader, mem::take(&mut probe.to));
        assert_eq!((peer.state, peer.paused, peer.matched, peer.next_idx), (ProgressState::Probe, true, 0, 3));
    }
    assert!(probes.windows(2).all(|pair| pair[0] == pair[1]));

    leader.step(proposal(&[b"x"])).unwrap();
    assert!(emitted(&mut leader).is_empty());
}

/// An inflight cap of 0 keeps a replicating peer paused for good: proposals, commits and heartbeat responses produce no message for
/// it and never panic, while acknowledgements still advance `next_idx` and count. That is how one shared Append replaces the fan-out.
#[test]
fn cap_zero_pauses_a_replicating_peer() {
    let mut leader = leader_in_step();
    for index in 2..50 {
        leader.step(proposal(&[b"x"])).unwrap();
        leader.step(heartbeat_response(2, 1, b"")).unwrap();
        leader.step(heartbeat_response(3, 1, b"")).unwrap();
        settle(&mut leader);
        leader.step(ack(2, 1, index)).unwrap();
        assert_eq!(leader.raft.raft_log.committed, index);
        let peer = progress(&leader, 2);
        assert_eq!((peer.state, peer.matched, peer.next_idx), (ProgressState::Replicate, index, index + 1));
        assert!(peer.is_paused());
    }
    // Peer 3 said nothing and got nothing, repeated acknowledgements included.
    assert_eq!(progress(&leader, 3).next_idx, 2);
    leader.step(ack(3, 1, 1)).unwrap();
    leader.raft.bcast_append();
    leader.raft.send_append(3);
    assert!(emitted(&mut leader).is_empty());
}

/// Lowering the cap to 0 while messages are in flight takes effect at once; the window drains by acknowledgements and heartbeat
/// responses without anything new being sent.
#[test]
fn lowering_the_cap_with_messages_in_flight() {
    let mut leader = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut leader);
    for _ in 0..3 {
        leader.step(proposal(&[b"x"])).unwrap();
    }
    settle(&mut leader);
    assert_eq!(progress(&leader, 2).ins.count(), 3);
    leader.raft.adjust_max_inflight_msgs(2, 0);
    assert!(progress(&leader, 2).is_paused());

    leader.step(heartbeat_response(2, 1, b"")).unwrap();
    assert_eq!(progress(&leader, 2).ins.count(), 2);
    leader.step(ack(2, 1, 4)).unwrap();
    assert_eq!(progress(&leader, 2).ins.count(), 0);
    leader.step(proposal(&[b"y"])).unwrap();
    let to_2 = settle(&mut leader).into_iter().filter(|m| m.to == 2).count();
    assert_eq!((to_2, progress(&leader, 2).next_idx), (0, 5));
}

/// A rejection still turns a peer at cap 0 into a probe and sends it one Append, and its heartbeat responses one more each, until it
/// acknowledges something new. A rejection the shared path will repair must therefore not be stepped.
#[test]
fn a_rejection_at_cap_zero_still_probes() {
    let mut leader = leader_in_step();
    leader.step(proposal(&[b"2", b"3", b"4"])).unwrap();
    settle(&mut leader);

    leader.step(reject(2, 1, 3, 1, 1)).unwrap();
    let sent = emitted(&mut leader);
    assert_eq!((sent.len(), sent[0].to, sent[0].index, sent[0].entries.len()), (1, 2, 1, 3));
    assert_eq!(progress(&leader, 2).state, ProgressState::Probe);

    leader.step(ack(2, 1, 1)).unwrap(); // Old news: still a probe, still paused.
    leader.step(proposal(&[b"5"])).unwrap();
    assert!(settle(&mut leader).is_empty());
    leader.step(heartbeat_response(2, 1, b"")).unwrap();
    assert_eq!(emitted(&mut leader).len(), 1);

    leader.step(ack(2, 1, 4)).unwrap();
    let peer = progress(&leader, 2);
    assert_eq!((peer.state, peer.next_idx), (ProgressState::Replicate, 5));
    leader.step(heartbeat_response(2, 1, b"")).unwrap();
    assert!(emitted(&mut leader).is_empty());
}

/// Giving the window back sends nothing by itself; `send_append` resumes right after the last acknowledgement and further
/// acknowledgements fill the window. `send_append` panics for a node that is not a member.
#[test]
fn raising_the_cap_resumes_unicast() {
    let mut leader = leader_with(Config { max_size_per_msg: 0, ..config(1) }, &[1, 2, 3]);
    acknowledge_all(&mut leader);
    silence(&mut leader);
    leader.step(proposal(&[b"2", b"3", b"4", b"5"])).unwrap();
    settle(&mut leader);

    leader.raft.adjust_max_inflight_msgs(2, 8);
    assert!(emitted(&mut leader).is_empty());
    leader.raft.send_append(2);
    assert_eq!(spans(&emitted(&mut leader)), [(2, 1, 1)]);
    leader.step(ack(2, 1, 2)).unwrap();
    assert_eq!(spans(&emitted(&mut leader)), [(2, 2, 1), (2, 3, 1), (2, 4, 1)]);

    leader.raft.adjust_max_inflight_msgs(2, 0);
    leader.step(ack(2, 1, 5)).unwrap();
    leader.step(proposal(&[b"6"])).unwrap();
    assert!(settle(&mut leader).is_empty());

    // Nothing new for the peer: `send_append` sends an empty Append, which tells it the commit index.
    leader.step(ack(2, 1, 6)).unwrap();
    leader.raft.adjust_max_inflight_msgs(2, 8);
    leader.raft.send_append(2);
    assert_eq!(spans(&emitted(&mut leader)), [(2, 6, 0)]);

    leader.raft.adjust_max_inflight_msgs(99, 8);
    assert!(panic_of(|| leader.raft.send_append(99)).contains("None"));
}

/// With entries sent and lost, `next_idx` is ahead of the truth: a peer leaving step is made a probe first, so that unicast starts
/// from what it acknowledged.
#[test]
fn a_peer_that_may_have_lost_messages_is_probed() {
    let mut leader = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut leader);
    leader.step(proposal(&[b"2", b"3"])).unwrap();
    settle(&mut leader);
    leader.raft.send_append(2);
    assert_eq!(spans(&emitted(&mut leader)), [(2, 3, 0)]);

    leader.raft.mut_prs().get_mut(2).unwrap().become_probe();
    leader.raft.send_append(2);
    assert_eq!(spans(&emitted(&mut leader)), [(2, 1, 2)]);
}

/// Each term starts with every peer in Probe, which ignores the cap, so a new leader sends each peer one Append whatever the caps are.
/// Caps survive the term: set them all on becoming leader, whichever role came before.
#[test]
fn peers_start_a_term_in_probe_and_caps_survive_it() {
    let mut leader = leader_in_step();
    leader.step(message(MessageType::MsgHeartbeat, 2, 2)).unwrap();
    assert_eq!(leader.raft.state, StateRole::Follower);
    settle(&mut leader);

    win_election(&mut leader);
    assert_eq!(settle(&mut leader).len(), 2);
    for id in [2, 3] {
        assert_eq!(progress(&leader, id).state, ProgressState::Probe);
        leader.step(ack(id, 3, 2)).unwrap();
        assert_eq!(progress(&leader, id).state, ProgressState::Replicate);
    }
    leader.step(proposal(&[b"x"])).unwrap();
    assert!(emitted(&mut leader).is_empty());
}

/// A member added by a configuration change starts with the configured cap, in Probe, and is sent an Append from within
/// `apply_conf_change`: set the caps after each change. A promotion keeps progress and cap.
#[test]
fn caps_are_the_configured_value_for_new_peers() {
    let mut leader = leader_in_step();
    leader.apply_conf_change(&conf_change(ConfChangeType::AddLearnerNode, 4)).unwrap();
    assert_eq!(spans(&emitted(&mut leader)), [(4, 0, 1)]);
    leader.step(ack(4, 1, 1)).unwrap();
    assert_eq!(spans(&emitted(&mut leader)), [(4, 1, 0)]); // The end of a pause is announced with an empty Append.
    leader.step(proposal(&[b"2"])).unwrap();
    assert_eq!(spans(&settle(&mut leader)), [(4, 1, 1)]);

    leader.raft.adjust_max_inflight_msgs(4, 0);
    leader.step(ack(4, 1, 2)).unwrap();
    leader.apply_conf_change(&conf_change(ConfChangeType::AddNode, 4)).unwrap();
    assert_eq!(progress(&leader, 4).matched, 2);
    leader.step(proposal(&[b"3"])).unwrap();
    assert!(settle(&mut leader).is_empty());
}

/// Installing a snapshot rebuilds every peer's progress with the configured cap: another reason to set the caps on becoming leader.
#[test]
fn caps_are_the_configured_value_after_a_snapshot() {
    let mut node = follower_in(1, 1);
    silence(&mut node);
    node.step(snapshot(2, 1, (5, 1), &[1, 2, 3])).unwrap();
    settle(&mut node);
    assert_eq!(node.raft.raft_log.last_index(), 5);

    win_election(&mut node);
    settle(&mut node);
    acknowledge_all(&mut node);
    node.step(proposal(&[b"x"])).unwrap();
    assert_eq!(settle(&mut node).len(), 2);
}

/// A leadership transfer to a peer at cap 0 that lacks the tail sends it nothing; once our own repair has brought it up to date, its
/// acknowledgement triggers `MsgTimeoutNow`.
#[test]
fn transfer_to_a_lagging_peer_at_cap_zero_waits_for_our_repair() {
    let mut leader = leader_in_step();
    leader.step(proposal(&[b"2"])).unwrap();
    settle(&mut leader);
    leader.transfer_leader(2);
    assert!(emitted(&mut leader).is_empty());
    leader.step(ack(2, 1, 2)).unwrap();
    let sent = emitted(&mut leader);
    assert_eq!((sent.len(), sent[0].get_msg_type()), (1, MessageType::MsgTimeoutNow));
}

/// `report_unreachable` turns a replicating peer into a probe and so undoes the cap: never call it for a peer in step.
#[test]
fn report_unreachable_undoes_the_cap() {
    let mut leader = leader_in_step();
    leader.report_unreachable(2);
    leader.step(proposal(&[b"2"])).unwrap();
    assert_eq!(spans(&settle(&mut leader)), [(2, 1, 1)]);
}

/// A peer that was sent a snapshot is paused until it acknowledges the snapshot's index or `report_snapshot` is called: call it always,
/// failure included.
#[test]
fn a_peer_being_sent_a_snapshot_is_paused_until_reported() {
    let mut leader = leader_with_log(&[1, 2, 3], &[1, 1, 1, 1, 1]);
    leader.step(ack(3, 2, 6)).unwrap();
    settle(&mut leader);
    leader.mut_store().wl().compact(6).unwrap();
    leader.step(reject(2, 2, 5, 0, 0)).unwrap();
    let sent = emitted(&mut leader);
    assert_eq!((sent.len(), sent[0].get_msg_type()), (1, MessageType::MsgSnapshot));

    for _ in 0..10 {
        leader.step(heartbeat_response(2, 2, b"")).unwrap();
        leader.step(proposal(&[b"x"])).unwrap();
    }
    assert!(settle(&mut leader).iter().all(|m| m.to != 2));
    assert_eq!(progress(&leader, 2).state, ProgressState::Snapshot);

    leader.report_snapshot(2, SnapshotStatus::Failure);
    assert_eq!(progress(&leader, 2).state, ProgressState::Probe);
    leader.step(heartbeat_response(2, 2, b"")).unwrap();
    assert_eq!(emitted(&mut leader)[0].get_msg_type(), MessageType::MsgSnapshot);
}

// ------------------------------------------------------------------------------------------------------ acknowledgements

/// An acknowledgement beyond the leader's log counts towards the quorum, and makes the leader address the peer with a message that
/// panics it. `index <= last_index` is ours to check, for the aggregator's figures too.
#[test]
fn an_inflated_acknowledgement_counts_towards_the_quorum() {
    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    leader.step(ack(2, 1, 1000)).unwrap();
    assert_eq!(leader.raft.raft_log.committed, 1);

    leader.step(proposal(&[b"x"])).unwrap();
    let poison = emitted(&mut leader).into_iter().find(|m| m.to == 2).unwrap();
    assert_eq!((poison.index, poison.log_term), (1000, 0));
    let mut follower = follower_in(2, 1);
    assert!(panic_of(|| follower.step(poison).unwrap()).contains("out of range"));
}

/// Two inflated acknowledgements stop commits altogether: the majority's index is then one the leader does not have.
#[test]
fn a_majority_of_inflated_acknowledgements_blocks_commits() {
    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    leader.raft.mut_prs().get_mut(2).unwrap().maybe_update(1000);
    leader.step(ack(3, 1, 1000)).unwrap();
    assert_eq!(leader.raft.raft_log.committed, 0);
}

/// With `skip_bcast_commit` a commit sends nothing, so our notice is the only one; but while a configuration change is pending the
/// crate broadcasts anyway, to every peer that is not paused.
#[test]
fn skip_bcast_commit_holds_except_while_a_change_is_pending() {
    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    leader.step(ack(2, 1, 1)).unwrap();
    assert_eq!(leader.raft.raft_log.committed, 1);
    assert!(emitted(&mut leader).is_empty());
    acknowledge_all(&mut leader);

    leader.propose_conf_change(Vec::new(), conf_change(ConfChangeType::AddLearnerNode, 4)).unwrap();
    settle(&mut leader);
    leader.step(ack(2, 1, 2)).unwrap();
    assert_eq!(leader.raft.raft_log.committed, 2);
    assert_eq!(emitted(&mut leader).len(), 2);

    let mut silent = leader_in_step();
    silent.propose_conf_change(Vec::new(), conf_change(ConfChangeType::AddLearnerNode, 4)).unwrap();
    settle(&mut silent);
    silent.step(ack(2, 1, 2)).unwrap();
    assert!(emitted(&mut silent).is_empty());
}

/// An acknowledgement that says nothing new still counts as a sign of life for check-quorum: repeats are worth stepping.
#[test]
fn a_repeated_acknowledgement_keeps_the_leader_in_office() {
    let mut leader = leader_in_step();
    for _ in 0..10 {
        for _ in 0..leader.raft.election_timeout() - 1 {
            leader.tick();
        }
        leader.step(ack(2, 1, 1)).unwrap();
        leader.tick();
        assert_eq!(leader.raft.state, StateRole::Leader);
    }
    for _ in 0..2 * leader.raft.election_timeout() {
        leader.tick();
    }
    assert_ne!(leader.raft.state, StateRole::Leader);
}

/// With check-quorum or pre-vote, an Append or heartbeat of a lower term is answered with an empty acknowledgement of the higher term,
/// which deposes the sender: an acknowledgement of index 0 and another term is no acknowledgement and never enters an aggregator's sum.
#[test]
fn a_lower_term_append_is_answered_with_an_empty_acknowledgement_of_the_higher_term() {
    for (check_quorum, pre_vote) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut node = node_from(Config { check_quorum, pre_vote, ..config(3) }, store(&[1, 2, 3], &[], &[]));
        node.step(message(MessageType::MsgHeartbeat, 2, 7)).unwrap();
        emitted(&mut node);
        node.step(append(1, 1, (0, 0), &[1], 0)).unwrap();
        let answers = emitted(&mut node);
        assert_eq!(answers.len(), usize::from(check_quorum || pre_vote));
        for answer in answers {
            assert_eq!(answer.get_msg_type(), MessageType::MsgAppendResponse);
            assert_eq!((answer.term, answer.index, answer.reject), (7, 0, false));
            let mut old = leader_of(&[1, 2, 3]);
            old.step(answer).unwrap();
            assert_eq!((old.raft.state, old.raft.term), (StateRole::Follower, 7));
        }
    }
}

/// Rejections at or below what a replicating peer acknowledged are ignored, as is any rejection of a probe that is not of the very
/// message outstanding. What is not recognised is a late copy that happens to name the outstanding index: `next_idx` then falls
/// below `matched`, which costs resent entries and nothing else.
#[test]
fn stale_and_reordered_rejections() {
    let mut leader = leader_with_log(&[1, 2, 3], &[1, 1, 1, 1, 1]);
    leader.step(ack(2, 2, 6)).unwrap();
    emitted(&mut leader);
    for stale in [0, 5, 6] {
        leader.step(reject(2, 2, stale, stale, 1)).unwrap();
        assert_eq!(progress(&leader, 2).state, ProgressState::Replicate);
    }
    leader.step(proposal(&[b"7", b"8"])).unwrap();
    settle(&mut leader);

    leader.step(reject(2, 2, 8, 6, 2)).unwrap();
    let peer = progress(&leader, 2);
    assert_eq!((peer.state, peer.matched, peer.next_idx), (ProgressState::Probe, 6, 7));
    assert_eq!(spans(&emitted(&mut leader)), [(2, 6, 2)]);
    leader.step(reject(2, 2, 8, 6, 2)).unwrap();
    assert!(emitted(&mut leader).is_empty());

    leader.step(reject(2, 2, 6, 2, 1)).unwrap();
    let peer = progress(&leader, 2);
    assert_eq!((peer.matched, peer.next_idx), (6, 3));
    leader.step(ack(2, 2, 8)).unwrap();
    let peer = progress(&leader, 2);
    assert_eq!((peer.matched, peer.next_idx), (8, 9));
}

// --------------------------------------------------------------------------------------------------- commit on followers

/// Committing by notice is `maybe_commit(k, term(k))`, fine anywhere up to the end of the log. Beyond it the crate does not refuse but
/// panics, because the unknown index has term 0 on both sides of the comparison: test `k <= last_index` first, whatever
/// `verified` says.
#[test]
fn commit_by_notice_needs_a_guard_against_the_end_of_the_log() {
    let mut follower = follower_in(2, 1);
    follower.step(append(1, 1, (0, 0), &[1, 1, 1], 0)).unwrap();
    let log = &mut follower.raft.raft_log;
    for (k, moved, committed) in [(2, true, 2), (1, false, 2), (2, false, 2), (0, false, 2), (3, true, 3)] {
        let term = log.term(k).unwrap();
        assert_eq!((log.maybe_commit(k, term), log.committed), (moved, committed));
    }
    // A term that is not the entry's own is refused, within the log and beyond.
    assert!(!log.maybe_commit(4, 1));
    let beyond = log.term(4).unwrap();
    assert_eq!(beyond, 0);
    assert!(panic_of(|| _ = log.maybe_commit(4, beyond)).contains("to_commit 4 is out of range"));
    assert!(follower.has_ready());
}

/// A heartbeat's commit index is neither clamped nor compared with the log: sharing one commits a divergent tail. An Append's is
/// clamped to what it proves.
#[test]
fn a_shared_commit_in_a_heartbeat_commits_a_divergent_tail() {
    let mut follower = follower_in(2, 1);
    follower.step(append(1, 1, (0, 0), &[1, 1, 1], 0)).unwrap(); // A leader of term 1 that will be replaced.

    follower.step(append(3, 2, (1, 1), &[], 3)).unwrap(); // Term 2 has replaced entries 2 and 3; this one proves entry 1 only.
    assert_eq!(follower.raft.raft_log.committed, 1);

    let mut heartbeat = message(MessageType::MsgHeartbeat, 3, 2);
    heartbeat.commit = 3;
    follower.step(heartbeat).unwrap();
    assert_eq!((follower.raft.raft_log.committed, follower.raft.raft_log.term(3)), (3, Ok(1)));
}

// ----------------------------------------------------------------------------------------------------------- persistence

/// The leader counts its own copy only once `on_persist_entries` said so (through `on_persist_ready`); two of three followers can
/// commit before that, and what is handed out to apply then still waits for the leader's own disk.
#[test]
fn the_leader_counts_itself_only_once_persisted() {
    let mut leader = leader_of(&[1, 2, 3]);
    let number = store_ready(&mut leader).0;
    leader.step(ack(2, 1, 1)).unwrap();
    assert_eq!(leader.raft.raft_log.committed, 0);
    leader.on_persist_ready(number);
    assert_eq!(leader.raft.raft_log.committed, 1);
    settle(&mut leader);

    leader.step(proposal(&[b"x"])).unwrap();
    let number = store_ready(&mut leader).0;
    leader.step(ack(2, 1, 2)).unwrap();
    leader.step(ack(3, 1, 2)).unwrap();
    assert_eq!((leader.raft.raft_log.committed, leader.raft.raft_log.persisted), (2, 1));
    assert!(leader.ready().committed_entries().is_empty());
    leader.on_persist_ready(number);
    assert!(leader.raft.raft_log.has_next_entries());
}

/// `advance_append` declares this Ready and all before it persisted, and returns what that allowed; only `advance_append_async` leaves
/// it to `on_persist_ready`. There is no LightReady then: ask `has_ready` again.
#[test]
fn advance_append_declares_everything_persisted() {
    let mut at_once = leader_of(&[1]);
    let mut ready = at_once.ready();
    at_once.store().wl().append(&ready.take_entries()).unwrap();
    let mut light = at_once.advance_append(ready);
    assert_eq!(at_once.raft.raft_log.persisted, 1);
    assert_eq!((light.commit_index(), light.take_committed_entries().len()), (Some(1), 1));

    let mut later = leader_of(&[1]);
    let number = store_ready(&mut later).0;
    assert_eq!((later.raft.raft_log.persisted, later.raft.raft_log.committed), (0, 0));
    assert!(!later.has_ready());
    later.on_persist_ready(number);
    assert_eq!((later.raft.raft_log.persisted, later.raft.raft_log.committed), (1, 1));
    assert!(later.has_ready());
    assert_eq!(later.ready().committed_entries().len(), 1);
}

/// A Ready without entries and without `must_sync` can still acknowledge entries of an earlier Ready: messages are held in order until
/// *every* earlier Ready is persisted, not just their own.
#[test]
fn a_ready_without_entries_can_acknowledge_unpersisted_ones() {
    let mut follower = follower_in(2, 1);
    follower.step(append(1, 1, (0, 0), &[1], 0)).unwrap();
    let (first, messages) = store_ready(&mut follower);
    assert!(messages.is_empty(), "a follower has no messages to send before persisting");

    follower.step(append(1, 1, (0, 0), &[1], 0)).unwrap();
    let mut ready = follower.ready();
    assert!(ready.entries().is_empty() && !ready.must_sync());
    assert_eq!(follower.raft.raft_log.persisted, 0);
    let held = ready.take_persisted_messages();
    assert_eq!((held[0].get_msg_type(), held[0].index, held[0].reject), (MessageType::MsgAppendResponse, 1, false));

    follower.advance_append_async(ready);
    follower.on_persist_ready(first);
    assert_eq!(follower.raft.raft_log.persisted, 1);
}

/// Winning an election with entries not yet reported persisted panics: vote requests leave only after `on_persist_ready` of all that
/// came before them.
#[test]
fn becoming_leader_with_an_unpersisted_log_panics() {
    let mut careful = node_of(1, &[1, 2, 3]);
    careful.step(append(2, 1, (0, 0), &[1], 0)).unwrap();
    let (number, _) = store_ready(&mut careful);
    careful.on_persist_ready(number);
    win_election(&mut careful);

    let mut hasty = node_of(1, &[1, 2, 3]);
    hasty.step(append(2, 1, (0, 0), &[1], 0)).unwrap();
    store_ready(&mut hasty);
    hasty.campaign().unwrap();
    store_ready(&mut hasty);
    hasty.step(granted(MessageType::MsgRequestPreVoteResponse, 2, 2)).unwrap();
    store_ready(&mut hasty);
    let vote = granted(MessageType::MsgRequestVoteResponse, 2, 2);
    assert!(panic_of(|| hasty.step(vote).unwrap()).contains("assertion `left == right` failed"));
}

/// A sole voter (with learners, as when a first node is joined by others) becomes leader within one call, and its Appends are listed
/// as sendable at once although the Ready that holds its new term is not persisted: after a crash it could lead the same term again
/// with another log. Messages of a Ready that changes term or vote are held, leader or not.
#[test]
fn a_sole_voter_sends_before_its_term_is_persisted() {
    let mut node = node_from(config(1), store(&[1], &[2], &[]));
    node.campaign().unwrap();
    assert_eq!(node.raft.state, StateRole::Leader);
    let ready = node.ready();
    assert_eq!((ready.hs().unwrap().term, ready.must_sync()), (1, true));
    assert_eq!((ready.messages()[0].to, ready.messages()[0].term), (2, 1));
    assert!(ready.persisted_messages().is_empty());
}

/// Which of the two lists messages are in depends on the role when `ready` is called, not when they were made: a deposed leader's
/// Appends are held with the rest.
#[test]
fn the_role_at_ready_decides_which_messages_are_held() {
    let mut leader = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut leader);
    settle(&mut leader);
    leader.step(proposal(&[b"x"])).unwrap();
    leader.step(message(MessageType::MsgHeartbeat, 2, 2)).unwrap();
    let ready = leader.ready();
    assert!(ready.messages().is_empty());
    assert_eq!(ready.persisted_messages()[0].get_msg_type(), MessageType::MsgAppend);
}

/// A disk report for entries another leader has replaced meanwhile is recognised by its term and counts for nothing. The term must be
/// the one that was *written*: looked up in the log when the report arrives, it always matches, and unpersisted entries count.
#[test]
fn a_late_disk_report_for_replaced_entries_is_ignored() {
    let replaced = || {
        let mut follower = follower_in(2, 1);
        follower.step(append(1, 1, (0, 0), &[1, 1], 0)).unwrap();
        let (first, _) = store_ready(&mut follower);
        follower.step(append(3, 2, (1, 1), &[2], 0)).unwrap();
        let (second, _) = store_ready(&mut follower);
        (follower, first, second)
    };
    let (mut follower, first, second) = replaced();
    follower.on_persist_ready(first);
    assert_eq!(follower.raft.raft_log.persisted, 0);
    follower.on_persist_ready(second);
    assert_eq!(follower.raft.raft_log.persisted, 2);

    let (mut careless, ..) = replaced();
    let term_now = careless.raft.raft_log.term(2).unwrap();
    careless.raft.on_persist_entries(2, term_now);
    assert_eq!(careless.raft.raft_log.persisted, 2);
}

/// Entries must be readable through `Storage` before `advance_append_async`, which forgets its own copy: otherwise the log silently
/// gets shorter and the next proposal takes the same index.
#[test]
fn entries_must_be_readable_before_advancing() {
    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    leader.step(proposal(&[b"lost"])).unwrap();
    assert_eq!(leader.raft.raft_log.last_index(), 2);
    let ready = leader.ready();
    leader.advance_append_async(ready);
    assert_eq!(leader.raft.raft_log.last_index(), 1);
}

/// Nothing may be stepped or proposed between `ready` and `advance`: a changed tail panics.
#[test]
fn a_call_between_ready_and_advance_panics() {
    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    leader.step(proposal(&[b"x"])).unwrap();
    let ready = leader.ready();
    leader.step(proposal(&[b"y"])).unwrap();
    assert!(panic_of(|| leader.advance_append_async(ready)).contains("has different index"));
}

/// Reporting as applied what is not both committed and persisted panics: apply progress comes only from entries the crate handed out.
#[test]
fn applying_beyond_committed_and_persisted_panics() {
    let mut leader = leader_of(&[1, 2, 3]);
    settle(&mut leader);
    assert!(panic_of(|| leader.advance_apply_to(1)).contains("applied(1) is out of range"));
}

/// The whole loop for a disk on another thread, as all of the above require it: make entries readable, advance, queue; on a disk
/// report call `on_persist_ready` first and send what was held second. Three nodes, disks of random speed, elections in between: no
/// panic, equal prefixes throughout, everything applied in the end.
#[test]
fn the_asynchronous_ready_loop() {
    for seed in 1..=20 {
        let mut draw = random(seed);
        let mut members: Vec<Member> = (1..=3).map(Member::new).collect();
        let mut wire = VecDeque::new();
        for body in 0..4000u32 {
            let member = &mut members[draw(3)];
            match draw(100) {
                0 => member.node.campaign().unwrap(),
                1..20 if member.node.raft.state == StateRole::Leader => {
                    member.node.step(proposal(&[&body.to_le_bytes()])).unwrap();
                }
                20..50 => member.disk_report(&mut wire),
                _ => deliver(&mut members, &mut wire),
            }
            members.iter_mut().for_each(|m| m.handle_readys(&mut wire));
            let longest = members.iter().map(|m| &m.applied).max_by_key(|applied| applied.len()).unwrap();
            assert!(members.iter().all(|m| longest.starts_with(&m.applied)));
        }

        let quiet = |members: &[Member], wire: &VecDeque<Message>| {
            wire.is_empty() && members.iter().all(|m| m.disk.is_empty() && !m.node.has_ready())
        };
        let mut campaigned = false;
        while !(campaigned && quiet(&members, &wire)) {
            if quiet(&members, &wire) {
                members.iter_mut().for_each(|m| m.node.raft.become_follower(m.node.raft.term, INVALID_ID));
                let log = |m: &&mut Member| (m.node.raft.raft_log.last_term(), m.node.raft.raft_log.last_index());
                members.iter_mut().max_by_key(log).unwrap().node.campaign().unwrap();
                campaigned = true;
            }
            deliver(&mut members, &mut wire);
            members.iter_mut().for_each(|m| {
                m.disk_report(&mut wire);
                m.handle_readys(&mut wire);
            });
        }
        assert!(members[0].applied.len() > 50, "seed {seed}: {}", members[0].applied.len());
        assert!(members.iter().all(|m| m.applied == members[0].applied), "seed {seed}");
    }
}

// ------------------------------------------------------------------------------------------------ elections and leases

/// A pre-vote that comes after the round it was meant for has been won counts in the next round too, since its term is the node's own
/// by then. So a node can leave its term although hardly anybody would vote for it; ours drops such pre-votes.
#[test]
fn a_late_pre_vote_counts_in_the_next_round() {
    let mut node = node_of(1, &[1, 2, 3, 4, 5]);
    let pre_vote = |from| granted(MessageType::MsgRequestPreVoteResponse, from, 1);
    node.campaign().unwrap();
    settle(&mut node);
    node.step(pre_vote(2)).unwrap();
    node.step(pre_vote(3)).unwrap();
    settle(&mut node);
    assert_eq!((node.raft.state, node.raft.term), (StateRole::Candidate, 1));
    node.campaign().unwrap();
    settle(&mut node);
    assert_eq!((node.raft.state, node.raft.term), (StateRole::PreCandidate, 1));
    node.step(pre_vote(4)).unwrap();
    node.step(pre_vote(5)).unwrap();
    assert_eq!((node.raft.state, node.raft.term), (StateRole::Candidate, 2));
}

/// Under check-quorum a follower that knows a leader ignores votes and pre-votes of higher terms until its election timeout, so a
/// dead leader's followers do not elect before that. Forgetting the leader lifts it, which suspicion must do on *every* node; the
/// leader itself never listens.
#[test]
fn a_known_leader_makes_votes_be_ignored() {
    for kind in [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote] {
        let mut request = vote_request(3, 2, (0, 0));
        request.set_msg_type(kind);

        let mut suspicious = follower_in(2, 1);
        suspicious.step(request.clone()).unwrap();
        assert!(emitted(&mut suspicious).is_empty());
        assert_eq!(suspicious.raft.term, 1);
        suspicious.raft.leader_id = INVALID_ID;
        suspicious.step(request.clone()).unwrap();
        assert!(!emitted(&mut suspicious)[0].reject);

        let mut patient = follower_in(2, 1);
        patient.raft.set_randomized_election_timeout(2 * patient.raft.election_timeout() - 1);
        for _ in 0..patient.raft.election_timeout() {
            patient.tick();
        }
        patient.step(request.clone()).unwrap();
        assert!(!emitted(&mut patient)[0].reject);

        let mut forced = follower_in(2, 1);
        let mut transfer = request.clone();
        transfer.context = Bytes::from_static(b"CampaignTransfer");
        forced.step(transfer).unwrap();
        assert!(!emitted(&mut forced)[0].reject);

        let mut leader = leader_with_log(&[1, 2, 3], &[]);
        emitted(&mut leader);
        request.term = 9;
        for _ in 0..10 * leader.raft.election_timeout() {
            leader.step(request.clone()).unwrap();
            leader.step(ack(2, 1, 1)).unwrap();
            leader.tick();
        }
        assert_eq!((leader.raft.state, leader.raft.term), (StateRole::Leader, 1));
    }
}

/// Lease reads are answered at once by anything that calls itself leader and has committed in its term. Cut off, that lasts nearly two
/// election timeouts, long after others may have elected and written: never use them.
#[test]
fn lease_based_reads_check_only_the_role() {
    let lease = Config { read_only_option: ReadOnlyOption::LeaseBased, ..config(1) };
    let mut leader = leader_with(lease, &[1, 2, 3]);
    settle(&mut leader);
    leader.read_index(b"early".to_vec());
    assert!(leader.raft.read_states.is_empty(), "nothing committed in this term: dropped without a word");

    acknowledge_all(&mut leader);
    for _ in 0..2 * leader.raft.election_timeout() - 1 {
        leader.tick();
    }
    settle(&mut leader);
    leader.read_index(b"stale".to_vec());
    assert_eq!(leader.raft.read_states.len(), 1);
    assert!(emitted(&mut leader).is_empty());

    let mut safe = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut safe);
    safe.read_index(b"safe".to_vec());
    assert!(safe.raft.read_states.is_empty());
    safe.step(heartbeat_response(2, 1, b"safe")).unwrap();
    assert_eq!(safe.raft.read_states.len(), 1);
}

/// The election timeout we set must lie in [min, max), and any change of role or term redraws it from the thread's random source:
/// set it again after each step and tick, or a seed does not replay. A pre-vote alone does not redraw it.
#[test]
fn the_election_timeout_is_ours_only_until_the_next_reset() {
    let wide = Config { min_election_tick: 10, max_election_tick: usize::MAX, ..config(1) };
    let mut node = node_from(wide, store(&[1, 2, 3], &[], &[]));
    node.raft.set_randomized_election_timeout(10);
    node.campaign().unwrap();
    assert_eq!((node.raft.state, node.raft.randomized_election_timeout()), (StateRole::PreCandidate, 10));
    node.raft.become_follower(1, INVALID_ID);
    assert_ne!(node.raft.randomized_election_timeout(), 10);

    let mut node = node_of(1, &[1, 2, 3]);
    let min = node.raft.election_timeout();
    node.raft.set_randomized_election_timeout(min);
    node.raft.set_randomized_election_timeout(2 * min - 1);
    for outside in [min - 1, 2 * min] {
        assert!(panic_of(|| node.raft.set_randomized_election_timeout(outside)).contains("assertion failed"));
    }
}

/// Drawing afresh before each tick makes nearly everybody time out near the minimum, together: one draw per role or term change.
#[test]
fn a_fresh_draw_per_tick_bunches_nodes_at_the_minimum() {
    const MIN: usize = 100;
    const MAX: usize = 1100;
    let mut random = random(1);
    let mut draw = || MIN + random(MAX - MIN);
    let mut early = |per_tick: bool| {
        let early = |_: &u32| {
            let spread = Config { election_tick: MIN, max_election_tick: MAX, ..config(1) };
            let mut node = node_from(spread, store(&[1, 2, 3], &[], &[]));
            node.raft.set_randomized_election_timeout(draw());
            let mut ticks = 0;
            while node.raft.state == StateRole::Follower {
                if per_tick {
                    node.raft.set_randomized_election_timeout(draw());
                }
                node.tick();
                ticks += 1;
            }
            ticks < MIN + (MAX - MIN) / 10
        };
        (0..100).filter(early).count()
    };
    let (bunched, spread) = (early(true), early(false));
    assert!(bunched > 90, "{bunched} % within the first tenth of the range");
    assert!(spread < 30, "{spread} % within the first tenth of the range");
}

/// Apart from the timeout the crate is deterministic, the order of messages to several peers included: equal histories give equal
/// output, which is what replaying a seed rests on.
#[test]
fn equal_histories_give_equal_messages_in_equal_order() {
    let run = || {
        let mut leader = leader_of(&[1, 2, 3, 4, 5, 6, 7]);
        let mut sent = settle(&mut leader);
        acknowledge_all(&mut leader);
        for _ in 0..20 {
            leader.step(proposal(&[b"x", b"y"])).unwrap();
            leader.tick();
            sent.extend(settle(&mut leader));
        }
        sent
    };
    assert_eq!(run(), run());
}

// ------------------------------------------------------------------------------------------------------------- proposals

/// A size limit of 0 means one entry per message, and one call sends one message per peer whatever the backlog; the rest follows with
/// the acknowledgements. The limit is set to what fits a datagram.
#[test]
fn max_size_zero_means_one_entry_per_message() {
    let mut leader = leader_with(Config { max_size_per_msg: 0, ..config(1) }, &[1, 2, 3]);
    acknowledge_all(&mut leader);
    leader.step(proposal(&[b"2", b"3", b"4"])).unwrap();
    let sent = settle(&mut leader);
    assert_eq!(sent.iter().map(|m| m.entries.len()).collect::<Vec<_>>(), [1, 1]);
    leader.step(ack(2, 1, 2)).unwrap();
    assert_eq!(spans(&emitted(&mut leader)), [(2, 2, 1), (2, 3, 1)]);
}

/// Beyond `max_uncommitted_size` a batch is dropped whole and the log is as before: the caller returns the repliers' slots and keeps
/// the bodies. Only data counts, and with nothing uncommitted any size passes. During a transfer and without a leader everything is
/// dropped.
#[test]
fn proposals_are_dropped_whole() {
    let limited = Config { max_size_per_msg: 0, max_uncommitted_size: 10, ..config(1) };
    let mut leader = leader_with(limited, &[1, 2, 3]);
    acknowledge_all(&mut leader);
    leader.step(proposal(&[&[0; 100]])).unwrap();
    assert_eq!(leader.step(proposal(&[b"a", b"b"])), Err(Error::ProposalDropped));
    assert_eq!(leader.raft.raft_log.last_index(), 2);
    leader.step(proposal(&[b""])).unwrap();
    acknowledge_all(&mut leader);
    assert_eq!(leader.raft.uncommitted_size(), 0);
    leader.step(proposal(&[b"12345", b"67890"])).unwrap();
    assert_eq!(leader.step(proposal(&[b"1"])), Err(Error::ProposalDropped));

    let mut transferring = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut transferring);
    transferring.transfer_leader(2);
    assert_eq!(transferring.step(proposal(&[b"x"])), Err(Error::ProposalDropped));

    let mut leaderless = node_of(1, &[1, 2, 3]);
    assert_eq!(leaderless.step(proposal(&[b"x"])), Err(Error::ProposalDropped));
    leaderless.campaign().unwrap();
    assert_eq!(leaderless.step(proposal(&[b"x"])), Err(Error::ProposalDropped));
}

/// A follower does not refuse a proposal but forwards it, with the whole body, to the node it takes for the leader: check the role
/// before proposing.
#[test]
fn a_follower_forwards_proposals() {
    let mut follower = follower_in(2, 1);
    follower.step(proposal(&[b"x"])).unwrap();
    let sent = emitted(&mut follower);
    assert_eq!((sent[0].get_msg_type(), sent[0].to, sent[0].term), (MessageType::MsgPropose, 1, 0));
    assert_eq!(follower.raft.raft_log.last_index(), 0);
}

/// One `MsgPropose` with k entries is one append and one message per peer; k proposals are k of each. Whatever is pending goes into one.
#[test]
fn one_proposal_with_k_entries_is_one_append() {
    let mut batched = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut batched);
    batched.step(proposal(&[b"2", b"3", b"4"])).unwrap();
    assert_eq!(settle(&mut batched).iter().map(|m| m.entries.len()).collect::<Vec<_>>(), [3, 3]);

    let mut single = leader_of(&[1, 2, 3]);
    acknowledge_all(&mut single);
    for data in [b"2", b"3", b"4"] {
        single.step(proposal(&[data])).unwrap();
    }
    assert_eq!(settle(&mut single).iter().map(|m| m.entries.len()).collect::<Vec<_>>(), [1; 6]);
}

// ------------------------------------------------------------------------------------------------------------ membership

/// A leader that applies a change excluding itself stays leader and panics at the next acknowledgement or disk report that would
/// commit something: it calls `become_follower` before any other call.
#[test]
fn a_leader_that_excluded_itself_must_step_down_at_once() {
    let excluded = || {
        let mut leader = leader_of(&[1, 2, 3]);
        acknowledge_all(&mut leader);
        leader.step(proposal(&[b"2"])).unwrap();
        let number = store_ready(&mut leader).0;
        leader.apply_conf_change(&conf_change(ConfChangeType::RemoveNode, 1)).unwrap();
        assert_eq!(leader.raft.state, StateRole::Leader);
        (leader, number)
    };

    let (mut by_ack, _) = excluded();
    by_ack.step(ack(2, 1, 2)).unwrap();
    assert!(panic_of(|| by_ack.step(ack(3, 1, 2)).unwrap()).contains("None"));

    let (mut by_disk, number) = excluded();
    assert!(panic_of(|| by_disk.on_persist_ready(number)).contains("None"));

    let (mut stepped_down, number) = excluded();
    stepped_down.raft.become_follower(1, INVALID_ID);
    stepped_down.on_persist_ready(number);
    stepped_down.step(ack(2, 1, 2)).unwrap();
    stepped_down.step(ack(3, 1, 2)).unwrap();
    for _ in 0..100 {
        stepped_down.tick();
    }
    settle(&mut stepped_down);
    assert_eq!(stepped_down.raft.state, StateRole::Follower);
}

/// Reporting a joint change as applied appends the entry that leaves it, and sends nothing: `advance_apply` (and `Raft::commit_apply`)
/// is a call like any other, after which the log and the outbox are looked at again.
#[test]
fn applying_a_joint_change_appends_the_entry_that_leaves_it() {
    let mut leader = leader_in_step();
    let mut change = ConfChangeV2::default();
    for (kind, node_id) in [(ConfChangeType::AddNode, 4), (ConfChangeType::RemoveNode, 3)] {
        let mut single = ConfChangeSingle { node_id, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        change.mut_changes().push(single);
    }
    leader.propose_conf_change(Vec::new(), change.clone()).unwrap();
    let (number, _) = store_ready(&mut leader);
    leader.on_persist_ready(number);
    leader.step(ack(2, 1, 2)).unwrap();
    assert_eq!(store_ready(&mut leader).0, number + 1);
    leader.apply_conf_change(&change).unwrap();
    emitted(&mut leader);
    assert_eq!(leader.raft.raft_log.last_index(), 2);

    leader.advance_apply();
    assert_eq!(leader.raft.raft_log.last_index(), 3);
    assert_eq!(leader.raft.raft_log.unstable_entries()[0].get_entry_type(), EntryType::EntryConfChangeV2);
    assert!(emitted(&mut leader).is_empty());
}

// --------------------------------------------------------------------------------------------------------------- helpers

type Node = RawNode<MemStorage>;

/// The settings we run with, as far as they matter here; no size limits.
fn config(id: u64) -> Config {
    Config {
        id,
        election_tick: 10,
        heartbeat_tick: 1,
        max_size_per_msg: NO_LIMIT,
        check_quorum: true,
        pre_vote: true,
        skip_bcast_commit: true,
        ..Config::default()
    }
}

/// A log with one entry per given term, nothing committed.
fn store(voters: &[u64], learners: &[u64], log_terms: &[u64]) -> MemStorage {
    let store = MemStorage::new_with_conf_state((voters.to_vec(), learners.to_vec()));
    store.wl().append(&entries(1, log_terms)).unwrap();
    store.wl().mut_hard_state().term = log_terms.last().copied().unwrap_or(0);
    store
}

fn node_from(config: Config, store: MemStorage) -> Node {
    RawNode::new(&config, store, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

fn node_of(id: u64, voters: &[u64]) -> Node {
    node_with_log(id, voters, &[])
}

fn node_with_log(id: u64, voters: &[u64], log_terms: &[u64]) -> Node {
    node_from(config(id), store(voters, &[], log_terms))
}

/// One of nodes 1, 2, 3 with an empty log that has just heard leader 1 (or 3, if it is node 1 itself) in this term.
fn follower_in(id: u64, term: u64) -> Node {
    let mut node = node_of(id, &[1, 2, 3]);
    let leader = if id == 1 { 3 } else { 1 };
    node.step(message(MessageType::MsgHeartbeat, leader, term)).unwrap();
    settle(&mut node);
    node
}

/// Node 1, just elected in term 1: its empty entry at index 1 is neither persisted nor sent.
fn leader_of(voters: &[u64]) -> Node {
    leader_with(config(1), voters)
}

fn leader_with(config: Config, voters: &[u64]) -> Node {
    let mut node = node_from(config, store(voters, &[], &[]));
    win_election(&mut node);
    node
}

/// Node 1, leader of the term after the log's last, its empty entry persisted and sent.
fn leader_with_log(voters: &[u64], log_terms: &[u64]) -> Node {
    let mut node = node_with_log(1, voters, log_terms);
    win_election(&mut node);
    settle(&mut node);
    node
}

/// Node 1 leads nodes 2 and 3 in term 1, both in step at cap 0 with the empty entry at index 1 committed and applied.
fn leader_in_step() -> Node {
    let mut leader = leader_of(&[1, 2, 3]);
    silence(&mut leader);
    acknowledge_all(&mut leader);
    leader
}

/// Has every other voter grant whatever this node asks for, until it leads.
fn win_election(node: &mut Node) {
    let own = node.raft.id;
    node.campaign().unwrap();
    while node.raft.state != StateRole::Leader {
        for request in settle(node) {
            let answer = match request.get_msg_type() {
                MessageType::MsgRequestPreVote => MessageType::MsgRequestPreVoteResponse,
                MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
                other => panic!("unexpected {other:?}"),
            };
            assert_ne!(request.to, own);
            node.step(granted(answer, request.to, request.term)).unwrap();
        }
    }
}

/// Sets the cap of every peer to 0.
fn silence(node: &mut Node) {
    for id in peers(node) {
        node.raft.adjust_max_inflight_msgs(id, 0);
    }
}

/// Persists all, has every peer acknowledge the whole log, applies all, drops what was sent meanwhile.
fn acknowledge_all(leader: &mut Node) {
    settle(leader);
    let (term, last) = (leader.raft.term, leader.raft.raft_log.last_index());
    for id in peers(leader) {
        leader.step(ack(id, term, last)).unwrap();
    }
    settle(leader);
    assert_eq!(leader.raft.raft_log.committed, last);
}

fn peers(node: &Node) -> Vec<u64> {
    let mut ids: Vec<u64> = node.raft.prs().iter().map(|(&id, _)| id).filter(|&id| id != node.raft.id).collect();
    ids.sort_unstable();
    ids
}

/// Handles Readys synchronously until there is none; returns all messages.
fn settle(node: &mut Node) -> Vec<Message> {
    let mut sent = Vec::new();
    while node.has_ready() {
        let mut ready = node.ready();
        sent.extend(ready.take_messages());
        sent.extend(ready.take_persisted_messages());
        if !ready.snapshot().is_empty() {
            node.store().wl().apply_snapshot(ready.snapshot().clone()).unwrap();
        }
        node.store().wl().append(&ready.take_entries()).unwrap();
        if let Some(state) = ready.hs() {
            node.store().wl().set_hardstate(state.clone());
        }
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            node.store().wl().mut_hard_state().commit = commit;
        }
        sent.extend(light.take_messages());
        node.advance_apply();
    }
    sent
}

/// Makes one Ready readable, not persisted; returns its number and what may be sent at once.
fn store_ready(node: &mut Node) -> (u64, Vec<Message>) {
    let mut ready = node.ready();
    let number = ready.number();
    let messages = ready.take_messages();
    node.store().wl().append(&ready.take_entries()).unwrap();
    node.advance_append_async(ready);
    (number, messages)
}

/// A node whose disk reports later than asked. Bodies are what it applied, in order.
struct Member {
    node: Node,
    promised: (u64, u64),
    disk: VecDeque<(u64, Vec<Message>)>,
    applied: Vec<Bytes>,
}

impl Member {
    fn new(id: u64) -> Self {
        let restless = Config { check_quorum: false, pre_vote: false, skip_bcast_commit: false, ..config(id) };
        let node = node_from(restless, store(&[1, 2, 3], &[], &[]));
        Self { node, promised: (0, INVALID_ID), disk: VecDeque::new(), applied: Vec::new() }
    }

    fn handle_readys(&mut self, wire: &mut VecDeque<Message>) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            let number = ready.number();
            let mut at_once = ready.take_messages();
            let mut held = ready.take_persisted_messages();
            if let Some(state) = ready.hs() {
                self.node.store().wl().set_hardstate(state.clone());
                if self.promised != (state.term, state.vote) {
                    self.promised = (state.term, state.vote);
                    held.append(&mut at_once);
                }
            }
            self.node.store().wl().append(&ready.take_entries()).unwrap();
            let committed = ready.take_committed_entries();
            self.node.advance_append_async(ready);

            wire.extend(at_once);
            self.disk.push_back((number, held));
            if let Some(last) = committed.last() {
                self.node.advance_apply_to(last.index);
            }
            self.applied.extend(committed.into_iter().map(|entry| entry.data).filter(|data| !data.is_empty()));
        }
    }

    fn disk_report(&mut self, wire: &mut VecDeque<Message>) {
        if let Some((number, held)) = self.disk.pop_front() {
            self.node.on_persist_ready(number);
            wire.extend(held);
        }
    }
}

fn deliver(members: &mut [Member], wire: &mut VecDeque<Message>) {
    if let Some(message) = wire.pop_front() {
        members[message.to as usize - 1].node.step(message).unwrap();
    }
}

/// Numbers below the argument; the same for the same seed.
fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// What the last calls put into the outbox, without touching persistence.
fn emitted(node: &mut Node) -> Vec<Message> {
    mem::take(&mut node.raft.msgs)
}

/// (to, anchor, number of entries) of Appends.
fn spans(messages: &[Message]) -> Vec<(u64, u64, usize)> {
    assert!(messages.iter().all(|m| m.get_msg_type() == MessageType::MsgAppend), "{messages:?}");
    messages.iter().map(|m| (m.to, m.index, m.entries.len())).collect()
}

fn progress(node: &Node, id: u64) -> &Progress {
    node.raft.prs().get(id).unwrap()
}

/// The text of the panic that `f` must end in.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("this call is expected to panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("panics carry text")).to_owned(),
    }
}

fn message(kind: MessageType, from: u64, term: u64) -> Message {
    let mut message = Message { from, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn append(from: u64, term: u64, (index, log_term): (u64, u64), entry_terms: &[u64], commit: u64) -> Message {
    let mut append = message(MessageType::MsgAppend, from, term);
    (append.index, append.log_term, append.commit) = (index, log_term, commit);
    append.set_entries(entries(index + 1, entry_terms).into());
    append
}

fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    (first..).zip(terms).map(|(index, &term)| Entry { index, term, ..Entry::default() }).collect()
}

fn ack(from: u64, term: u64, index: u64) -> Message {
    Message { index, ..message(MessageType::MsgAppendResponse, from, term) }
}

fn reject(from: u64, term: u64, index: u64, reject_hint: u64, log_term: u64) -> Message {
    Message { reject: true, index, reject_hint, log_term, ..message(MessageType::MsgAppendResponse, from, term) }
}

fn heartbeat_response(from: u64, term: u64, context: &[u8]) -> Message {
    Message { context: Bytes::copy_from_slice(context), ..message(MessageType::MsgHeartbeatResponse, from, term) }
}

fn vote_request(from: u64, term: u64, (index, log_term): (u64, u64)) -> Message {
    Message { index, log_term, ..message(MessageType::MsgRequestVote, from, term) }
}

fn granted(kind: MessageType, from: u64, term: u64) -> Message {
    message(kind, from, term)
}

fn proposal(bodies: &[&[u8]]) -> Message {
    let entry = |body: &&[u8]| Entry { data: Bytes::copy_from_slice(body), ..Entry::default() };
    let mut propose = message(MessageType::MsgPropose, 1, 0);
    propose.set_entries(bodies.iter().map(entry).collect::<Vec<_>>().into());
    propose
}

fn snapshot(from: u64, term: u64, (index, log_term): (u64, u64), voters: &[u64]) -> Message {
    let mut snapshot = message(MessageType::MsgSnapshot, from, term);
    let metadata = snapshot.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, log_term);
    metadata.mut_conf_state().set_voters(voters.to_vec());
    snapshot
}

fn conf_change(kind: ConfChangeType, node_id: u64) -> ConfChange {
    let mut change = ConfChange { node_id, ..ConfChange::default() };
    change.set_change_type(kind);
    change
}
