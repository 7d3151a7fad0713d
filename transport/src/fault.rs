//! Loss and duplication on purpose, around any [`Datapath`]: the same faults in a test, in a demonstration
//! (`--drop 5%`) and on real sockets.

use std::io;
use std::net::SocketAddrV4;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::Instant;
use crate::datapath::{Capabilities, Datapath, ReceiveBatch, SocketCounters, SocketId, TransmitBatch, Wake};

/// How often a fault happens on one socket, each a probability from 0 to 1 per datagram.
///
/// Duplication is drawn for datagrams that were not lost; the copy follows directly behind the original.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// An arrived datagram is not delivered.
    pub receive_loss: f64,
    /// An arrived datagram is delivered twice.
    pub receive_duplication: f64,
    /// A datagram is not sent, drawn for each receiver.
    pub transmit_loss: f64,
    /// A datagram is sent twice, drawn for each receiver.
    pub transmit_duplication: f64,
}

impl Faults {
    /// No faults.
    pub const NONE: Self =
        Self { receive_loss: 0.0, receive_duplication: 0.0, transmit_loss: 0.0, transmit_duplication: 0.0 };

    fn assert_valid(&self) {
        for (name, probability) in [
            ("receive_loss", self.receive_loss),
            ("receive_duplication", self.receive_duplication),
            ("transmit_loss", self.transmit_loss),
            ("transmit_duplication", self.transmit_duplication),
        ] {
            assert!((0.0..=1.0).contains(&probability), "{name} is a probability from 0 to 1, not {probability}");
        }
    }
}

/// What a [`Faulty`] did on one socket, in datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounters {
    /// Arrived and not delivered.
    pub receive_lost: u64,
    /// Delivered twice.
    pub receive_duplicated: u64,
    /// Not sent.
    pub transmit_lost: u64,
    /// Sent twice.
    pub transmit_duplicated: u64,
}

/// A datapath that loses and duplicates datagrams of the one it wraps, reproducibly: equal seeds, settings and sequences
/// of calls with equal datagrams make equal faults.
///
/// Duplicates come on top of the budget of a [`Datapath::receive`]. What other threads send past this object (through
/// a [`crate::udp::Sender`]) is not touched.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    rng: SmallRng,
    default: Faults,
    sockets: Vec<PerSocket>,
    arrived: ReceiveBatch,
    sent: TransmitBatch,
    receivers: Vec<SocketAddrV4>,
}

#[derive(Clone, Debug)]
struct PerSocket {
    faults: Faults,
    counters: FaultCounters,
}

impl<D: Datapath> Faulty<D> {
    /// Wraps `inner`; every socket gets `faults`.
    ///
    /// # Panics
    /// If one of `faults` is not a probability.
    pub fn new(inner: D, seed: u64, faults: Faults) -> Self {
        faults.assert_valid();
        Self {
            inner,
            rng: SmallRng::seed_from_u64(seed),
            default: faults,
            sockets: Vec::new(),
            arrived: ReceiveBatch::new(),
            sent: TransmitBatch::new(),
            receivers: Vec::new(),
        }
    }

    /// From now on, `socket` has these faults and no others.
    ///
    /// # Panics
    /// If one of `faults` is not a probability.
    pub fn set(&mut self, socket: SocketId, faults: Faults) {
        faults.assert_valid();
        self.socket(socket).faults = faults;
    }

    /// What was done to the datagrams of `socket` so far.
    pub fn fault_counters(&self, socket: SocketId) -> FaultCounters {
        self.sockets.get(socket.0).map(|socket| socket.counters).unwrap_or_default()
    }

    /// The datapath inside.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn socket(&mut self, socket: SocketId) -> &mut PerSocket {
        if self.sockets.len() <= socket.0 {
            self.sockets.resize(socket.0 + 1, PerSocket { faults: self.default, counters: FaultCounters::default() });
        }
        &mut self.sockets[socket.0]
    }

    /// How often a datagram shall appear.
    fn copies(&mut self, loss: f64, duplication: f64) -> Copies {
        if chance(&mut self.rng, loss) {
            Copies::None
        } else if chance(&mut self.rng, duplication) {
            Copies::Two
        } else {
            Copies::One
        }
    }
}

impl<D: Datapath> Datapath for Faulty<D> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn receive(&mut self, socket: SocketId, budget: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        let Faults { receive_loss, receive_duplication, .. } = self.socket(socket).faults;
        if receive_loss == 0.0 && receive_duplication == 0.0 {
            return self.inner.receive(socket, budget, batch);
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.clear();
        let taken = self.inner.receive(socket, budget, &mut arrived);
        for received in arrived.iter() {
            match self.copies(receive_loss, receive_duplication) {
                Copies::None => self.socket(socket).counters.receive_lost += 1,
                Copies::One => batch.push(received.socket, received.from, received.bytes),
                Copies::Two => {
                    batch.push(received.socket, received.from, received.bytes);
                    batch.push(received.socket, received.from, received.bytes);
                    self.socket(socket).counters.receive_duplicated += 1;
                }
            }
        }
        self.arrived = arrived;
        taken
    }

    fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()> {
        let mut sent = std::mem::take(&mut self.sent);
        let mut receivers = std::mem::take(&mut self.receivers);
        for (socket, to, packet) in batch.packets() {
            let Faults { transmit_loss, transmit_duplication, .. } = self.socket(socket).faults;
            receivers.clear();
            for &to in to {
                match self.copies(transmit_loss, transmit_duplication) {
                    Copies::None => self.socket(socket).counters.transmit_lost += 1,
                    Copies::One => receivers.push(to),
                    Copies::Two => {
                        receivers.extend([to, to]);
                        self.socket(socket).counters.transmit_duplicated += 1;
                    }
                }
            }
            sent.push_many(socket, &receivers, packet.clone());
        }
        batch.clear();
        let result = self.inner.transmit(&mut sent);
        sent.clear();
        self.sent = sent;
        self.receivers = receivers;
        result
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Wake> {
        self.inner.wait(deadline)
    }

    fn counters(&self, socket: SocketId) -> SocketCounters {
        self.inner.counters(socket)
    }
}

enum Copies {
    None,
    One,
    Two,
}

/// Draws only where chance decides.
fn chance(rng: &mut SmallRng, probability: f64) -> bool {
    probability > 0.0 && rng.random_bool(probability)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::Ipv4Addr;

    use bytes::Bytes;

    use super::*;

    const A: SocketId = SocketId(0);
    const B: SocketId = SocketId(1);
    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2);

    #[test]
    fn without_faults_it_is_transparent() {
        let mut faulty = Faulty::new(Memory::with(&[(A, 10), (B, 10)]), 1, Faults::NONE);
        assert_eq!(receive_all(&mut faulty, A), (0..10).collect::<Vec<_>>());
        assert_eq!(receive_all(&mut faulty, B), (0..10).collect::<Vec<_>>());
        transmit(&mut faulty, A, 10);
        assert_eq!(faulty.inner().sent.len(), 20);
        assert_eq!(faulty.fault_counters(A), FaultCounters::default());
    }

    #[test]
    fn received_loss_and_duplication_add_up_and_stay_in_order() {
        let faults = Faults { receive_loss: 0.3, receive_duplication: 0.2, ..Faults::NONE };
        let mut faulty = Faulty::new(Memory::with(&[(A, 200)]), 7, faults);
        let got = receive_all(&mut faulty, A);
        let counters = faulty.fault_counters(A);
        assert!(counters.receive_lost > 0);
        assert!(counters.receive_duplicated > 0);
        assert_eq!(got.len() as u64, 200 - counters.receive_lost + counters.receive_duplicated);
        assert!(got.is_sorted());
        assert_eq!((counters.transmit_lost, counters.transmit_duplicated), (0, 0));
    }

    #[test]
    fn transmitted_loss_and_duplication_add_up_per_receiver() {
        let faults = Faults { transmit_loss: 0.3, transmit_duplication: 0.2, ..Faults::NONE };
        let mut faulty = Faulty::new(Memory::with(&[]), 7, faults);
        transmit(&mut faulty, A, 100);
        let counters = faulty.fault_counters(A);
        assert!(counters.transmit_lost > 0);
        assert!(counters.transmit_duplicated > 0);
        assert_eq!(faulty.inner().sent.len() as u64, 200 - counters.transmit_lost + counters.transmit_duplicated);
        assert!(faulty.inner().sent.iter().map(|sent| sent.2).is_sorted());
    }

    #[test]
    fn sockets_are_separate_and_certainty_is_certain() {
        let mut faulty = Faulty::new(Memory::with(&[(A, 5), (B, 5)]), 3, Faults::NONE);
        faulty.set(A, Faults { receive_loss: 1.0, ..Faults::NONE });
        faulty.set(B, Faults { receive_duplication: 1.0, transmit_loss: 1.0, ..Faults::NONE });
        assert_eq!(receive_all(&mut faulty, A), Vec::<u8>::new());
        assert_eq!(receive_all(&mut faulty, B), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        transmit(&mut faulty, A, 3);
        transmit(&mut faulty, B, 3);
        assert_eq!(faulty.inner().sent.len(), 6);
        assert_eq!(faulty.fault_counters(A), FaultCounters { receive_lost: 5, ..FaultCounters::default() });
        let b = FaultCounters { receive_duplicated: 5, transmit_lost: 6, ..FaultCounters::default() };
        assert_eq!(faulty.fault_counters(B), b);
        faulty.set(B, Faults::NONE);
        transmit(&mut faulty, B, 1);
        assert_eq!(faulty.inner().sent.len(), 8);
    }

    #[test]
    fn a_seed_replays() {
        let run = |seed| {
            let faults = Faults { receive_loss: 0.5, ..Faults::NONE };
            receive_all(&mut Faulty::new(Memory::with(&[(A, 100)]), seed, faults), A)
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    #[should_panic(expected = "transmit_loss is a probability from 0 to 1, not 5")]
    fn percent_is_refused() {
        let _ = Faulty::new(Memory::with(&[]), 1, Faults { transmit_loss: 5.0, ..Faults::NONE });
    }

    /// Takes a datagram at a time, so that budgets and batch ends are crossed as well.
    fn receive_all(faulty: &mut Faulty<Memory>, socket: SocketId) -> Vec<u8> {
        let mut batch = ReceiveBatch::new();
        while faulty.receive(socket, 3, &mut batch).expect("memory") == 3 {}
        batch.iter().map(|received| received.bytes[0]).collect()
    }

    /// Sends `count` packets to two receivers each.
    fn transmit(faulty: &mut Faulty<Memory>, socket: SocketId, count: u8) {
        let mut batch = TransmitBatch::new();
        for i in 0..count {
            batch.push_many(socket, &[PEER, OTHER], Bytes::copy_from_slice(&[i]));
        }
        faulty.transmit(&mut batch).expect("memory");
        assert!(batch.is_empty());
    }

    /// A datapath in memory: what waits to be received, and what was sent.
    struct Memory {
        waiting: Vec<VecDeque<u8>>,
        sent: Vec<(SocketId, SocketAddrV4, u8)>,
    }

    impl Memory {
        /// On each of these sockets, this many datagrams wait.
        fn with(waiting: &[(SocketId, u8)]) -> Self {
            Self { waiting: waiting.iter().map(|&(_, count)| (0..count).collect()).collect(), sent: Vec::new() }
        }
    }

    impl Datapath for Memory {
        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }

        fn receive(&mut self, socket: SocketId, budget: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
            let waiting = &mut self.waiting[socket.0];
            let count = budget.min(waiting.len());
            for byte in waiting.drain(..count) {
                batch.push(socket, PEER, &[byte]);
            }
            Ok(count)
        }

        fn transmit(&mut self, batch: &mut TransmitBatch) -> io::Result<()> {
            self.sent.extend(batch.iter().map(|outgoing| (outgoing.socket, outgoing.to, outgoing.packet[0])));
            batch.clear();
            Ok(())
        }

        fn wait(&mut self, _: Option<Instant>) -> io::Result<Wake> {
            unreachable!("nothing here blocks")
        }

        fn counters(&self, _: SocketId) -> SocketCounters {
            SocketCounters::default()
        }
    }
}
