//! Two ends and a network in virtual time.

use super::*;

/// What the network and the server do to a [`Pair`]; probabilities per packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// The server answers DROP.
    pub(super) refusal: f64,
    /// The server forgets all sessions.
    pub(super) expiry: f64,
    pub(super) latency_min: Duration,
    pub(super) latency_max: Duration,
}

impl Faults {
    pub(super) const fn none() -> Self {
        Self { loss: 0.0, duplication: 0.0, refusal: 0.0, expiry: 0.0, latency_min: ms(1), latency_max: ms(1) }
    }

    pub(super) const fn bad() -> Self {
        Self { loss: 0.3, duplication: 0.2, refusal: 0.1, expiry: 0.0, latency_min: ms(0), latency_max: ms(30) }
    }
}

/// A client and a server joined by a network, in virtual time.
pub(super) struct Pair {
    now: Instant,
    pub(super) client: Client,
    server: Server,
    faults: Faults,
    rng: SmallRng,
    network: BTreeMap<(Instant, u64), Datagram>,
    carried: u64,
    pub(super) transmitted: u64,
    /// With each, how many operations had ended before it was submitted.
    submitted: Vec<(Ticket, Bytes, usize)>,
    pub(super) done: Vec<Completion>,
    /// Who listens, in this epoch.
    listening: (u64, Vec<SocketAddrV4>),
    /// Whom the shell takes for the group, as of this epoch.
    group: (u64, Vec<SocketAddrV4>),
}

enum Datagram {
    ToServer(Bytes),
    ToClient(SocketAddrV4, Bytes),
}

impl Pair {
    pub(super) fn new(config: ClientConfig, faults: Faults, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            server: Server::new(config.seq_window),
            client: Client::new(config, seed),
            faults,
            rng: SmallRng::seed_from_u64(seed),
            network: BTreeMap::new(),
            carried: 0,
            transmitted: 0,
            submitted: Vec::new(),
            done: Vec::new(),
            listening: (1, NODES.to_vec()),
            group: (1, NODES.to_vec()),
        }
    }

    /// Whether the shell knows who listens.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.group.0 == self.listening.0
    }

    /// Another node listens in the place of one.
    pub(super) fn replace(&mut self, place: usize) {
        self.listening.0 += 1;
        let address = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, self.listening.0 as u8), 9000);
        self.listening.1[place] = address;
    }

    /// What a shell does about a newer epoch, as if whoever answered told it at once.
    fn follow(&mut self) {
        if self.client.newest_epoch().is_some_and(|(epoch, _)| epoch > self.group.0) {
            self.group = self.listening.clone();
            self.client.set_nodes(self.now, &self.group.1);
        }
    }

    fn reaches_anybody(&self, target: Target) -> bool {
        match target {
            Target::Group => self.group.1.iter().any(|node| self.listening.1.contains(node)),
            Target::Address(node) => self.listening.1.contains(&node),
        }
    }

    /// Submits an operation with a body of its own, now and then of several packets.
    pub(super) fn submit(&mut self) {
        let number = self.submitted.len();
        let mut body = number.to_string().into_bytes();
        if number % 7 == 6 {
            body.resize(3000, b' ');
        }
        let body = Bytes::from(body);
        let ticket = self.client.submit(self.now, Kind::Write, body.clone()).unwrap();
        self.submitted.push((ticket, body, self.done.len()));
    }

    /// Runs until nothing is under way and the client waits for nothing.
    pub(super) fn drive(&mut self) {
        while self.step(Instant::FAR_FUTURE) {}
    }

    /// Runs for `time`.
    pub(super) fn drive_bounded(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Obeys the client, then goes to the next event, if there is one until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timeout = loop {
            match self.client.poll_output(self.now) {
                ClientOutput::Transmit { target, packet } => {
                    self.transmitted += 1;
                    if self.reaches_anybody(target) {
                        self.carry(|| Datagram::ToServer(packet.clone()));
                    }
                }
                ClientOutput::Done(completion) => {
                    assert!(self.now.since(completion.submitted) <= self.client.config().give_up);
                    self.done.push(completion);
                }
                ClientOutput::Timeout(at, _) => break at,
            }
        };
        let arrival = self.network.first_key_value().map_or(Instant::FAR_FUTURE, |(&(at, _), _)| at);
        let next = arrival.min(timeout);
        if next == Instant::FAR_FUTURE || next > end {
            return false;
        }
        self.now = self.now.max(next);
        if arrival > timeout {
            self.client.handle_timeout(self.now);
            return true;
        }
        match self.network.pop_first() {
            None => {}
            Some((_, Datagram::ToClient(from, packet))) => {
                self.client.handle_datagram(self.now, from, &packet);
                self.follow();
            }
            Some((_, Datagram::ToServer(packet))) => {
                if self.rng.random_bool(self.faults.expiry) {
                    self.server.sessions.clear();
                }
                let refuse = self.rng.random_bool(self.faults.refusal);
                let (epoch, nodes) = &self.listening;
                let node = nodes[self.rng.random_range(0..nodes.len())];
                for answer in self.server.handle(self.now, &packet, refuse, *epoch) {
                    self.carry(|| Datagram::ToClient(node, answer.clone()));
                }
            }
        }
        true
    }

    fn carry(&mut self, datagram: impl Fn() -> Datagram) {
        let copies = 1 + u32::from(self.rng.random_bool(self.faults.duplication));
        for _ in 0..copies {
            if self.rng.random_bool(self.faults.loss) {
                continue;
            }
            let latency = self.rng.random_range(self.faults.latency_min..=self.faults.latency_max);
            self.carried += 1;
            self.network.insert((self.now + latency, self.carried), datagram());
        }
    }

    pub(super) fn check(&self) {
        let mut ended: BTreeMap<Ticket, &Outcome> = BTreeMap::new();
        for completion in &self.done {
            assert!(ended.insert(completion.ticket, &completion.outcome).is_none(), "ended twice: {completion:?}");
        }
        for (ticket, body, _) in &self.submitted {
            let executions = self.server.executed.iter().filter(|(_, executed)| executed == body).count();
            assert!(executions <= 1, "executed {executions} times: {body:?}");
            match ended.get(ticket) {
                None => panic!("never ended: {body:?}"),
                Some(Outcome::Ok(reply)) => {
                    assert_eq!(executions, 1);
                    assert_eq!(reply.strip_suffix(&body[..]), Some(&b"did "[..]), "somebody else's reply");
                }
                Some(Outcome::NotExecuted(NotExecuted::NeverSent)) => assert_eq!(executions, 0),
                Some(Outcome::Unknown) => {}
                Some(Outcome::Expired) => assert!(self.faults.expiry > 0.0),
                Some(outcome) => panic!("{outcome:?}"),
            }
        }
        assert_eq!(self.done.len(), self.submitted.len());
        self.check_fencing();
        assert_eq!((self.client.outstanding(), self.client.in_flight, self.client.held()), (0, 0, 0));
        assert_eq!((self.client.operations.len(), self.client.timers.len()), (0, 0));
        assert!(self.client.sessions.len() <= 1);
        // Giving up moves first-unacknowledged like completing does: with nothing outstanding it is the next seq.
        for session in self.client.sessions.values() {
            assert!(session.has_room(1));
        }
    }
}

impl Pair {
    /// What had been given up before an operation was submitted is never executed after it, in one session.
    fn check_fencing(&self) {
        let executions: BTreeMap<&Bytes, (usize, u64)> = self
            .server
            .executed
            .iter()
            .enumerate()
            .map(|(order, ((client, _), body))| (body, (order, *client)))
            .collect();
        let execution = |ticket| {
            let (_, body, _) = self.submitted.iter().find(|(other, ..)| *other == ticket)?;
            executions.get(body).copied()
        };
        for (ticket, _, ended_before) in &self.submitted {
            let Some((order, client)) = execution(*ticket) else { continue };
            for ended in &self.done[..*ended_before] {
                if let Some((earlier, same)) = execution(ended.ticket)
                    && same == client
                {
                    assert!(earlier < order, "{ended:?} was executed after {ticket:?}");
                }
            }
        }
    }
}

/// The smallest server that executes once per (session, seq) and fences below first-unacknowledged.
struct Server {
    seq_window: u64,
    reassembler: Reassembler,
    next_index: u64,
    sessions: BTreeMap<u64, Table>,
    executed: Vec<((u64, u64), Bytes)>,
}

#[derive(Default)]
struct Table {
    first_unacked: u64,
    replies: BTreeMap<u64, (u64, Bytes)>,
}

impl Server {
    fn new(seq_window: u64) -> Self {
        let config = config();
        Self {
            seq_window,
            reassembler: Reassembler::new(config.reassembly, config.digest_key),
            next_index: 1,
            sessions: BTreeMap::new(),
            executed: Vec::new(),
        }
    }

    fn handle(&mut self, now: Instant, packet: &[u8], refuse: bool, epoch: u64) -> Vec<Bytes> {
        self.reassembler.expire(now);
        let client = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000);
        let Some(request) = self.reassembler.accept(now, client, packet).unwrap() else { return Vec::new() };
        if refuse {
            return vec![control_packet(MessageType::Drop, request.rid, b"DROP")];
        }
        let asked = request.extensions.session.unwrap();
        let mut head = MessageHead {
            kind: MessageType::Response,
            policy: request.policy,
            rid: request.rid,
            extensions: Extensions { session: Some(asked), epoch: Some(epoch), ..Extensions::default() },
        };
        if asked.client == 0 {
            let index = self.order();
            self.sessions.insert(index, Table { first_unacked: 1, ..Table::default() });
            head.extensions.session = Some(wire::Session { client: index, ..asked });
            head.extensions.entry_index = Some(index);
            return packets_of(&head, b"");
        }
        let index = self.next_index;
        let Some(table) = self.sessions.get_mut(&asked.client) else {
            head.extensions.status = Some(ReplyStatus::Expired);
            return packets_of(&head, b"");
        };
        assert!(asked.first_unacked <= asked.seq);
        table.first_unacked = table.first_unacked.max(asked.first_unacked);
        table.replies = table.replies.split_off(&table.first_unacked);
        if asked.seq < table.first_unacked {
            return Vec::new();
        }
        assert!(asked.seq < asked.first_unacked + self.seq_window, "beyond the window: {asked:?}");
        let (index, reply) = table.replies.entry(asked.seq).or_insert_with(|| {
            self.executed.push(((asked.client, asked.seq), request.body.clone()));
            (index, [b"did ", &request.body[..]].concat().into())
        });
        head.extensions.entry_index = Some(*index);
        let packets = packets_of(&head, reply);
        self.order();
        packets
    }

    fn order(&mut self) -> u64 {
        self.next_index += 1;
        self.next_index - 1
    }
}
