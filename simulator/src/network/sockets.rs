//! What has reached a host and has not been read: one bounded queue for each of its sockets.

use std::collections::VecDeque;

/// Which of a host's sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    /// Where other nodes send. It is read first.
    Peers,
    /// Where clients send.
    Clients,
}

/// The datagram that found a socket full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full<D>(
    /// The datagram.
    pub D,
);

/// The sockets of a host, with datagrams of type `D`.
#[derive(Clone, Debug)]
pub struct Sockets<D> {
    peers: Queue<D>,
    clients: Queue<D>,
}

#[derive(Clone, Debug)]
struct Queue<D> {
    datagrams: VecDeque<(usize, D)>,
    bytes: usize,
}

impl<D> Default for Queue<D> {
    fn default() -> Self {
        Self { datagrams: VecDeque::new(), bytes: 0 }
    }
}

/// What the kernel keeps for each datagram beside its bytes; also what bounds the number of empty ones.
const OVERHEAD: usize = 256;

impl<D> Default for Sockets<D> {
    fn default() -> Self {
        Self { peers: Queue::default(), clients: Queue::default() }
    }
}

impl<D> Sockets<D> {
    /// A datagram of `len` bytes arrives at a socket that holds `bytes_max` bytes; each takes 256 more than its length.
    ///
    /// # Errors
    /// There is no room.
    pub fn push(&mut self, socket: Socket, len: usize, datagram: D, bytes_max: usize) -> Result<(), Full<D>> {
        let queue = match socket {
            Socket::Peers => &mut self.peers,
            Socket::Clients => &mut self.clients,
        };
        let bytes = len + OVERHEAD;
        if queue.bytes + bytes > bytes_max {
            return Err(Full(datagram));
        }
        queue.bytes += bytes;
        queue.datagrams.push_back((bytes, datagram));
        Ok(())
    }

    /// Reads the next datagram: peers first.
    pub fn pop(&mut self) -> Option<D> {
        let queue = if self.peers.datagrams.is_empty() { &mut self.clients } else { &mut self.peers };
        let (bytes, datagram) = queue.datagrams.pop_front()?;
        queue.bytes -= bytes;
        Some(datagram)
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.peers.datagrams.is_empty() && self.clients.datagrams.is_empty()
    }

    /// The process that owned them has ended.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_first_and_each_socket_in_order() {
        let mut sockets = Sockets::default();
        for (socket, n) in [(Socket::Clients, 1), (Socket::Peers, 2), (Socket::Clients, 3), (Socket::Peers, 4)] {
            assert_eq!(sockets.push(socket, 10, n, 4096), Ok(()));
        }
        let read: Vec<i32> = std::iter::from_fn(|| sockets.pop()).collect();
        assert_eq!(read, [2, 4, 1, 3]);
        assert!(sockets.is_empty());
    }

    #[test]
    fn at_the_limit_is_kept_and_one_byte_past_it_is_not() {
        let mut sockets = Sockets::default();
        let bytes_max = 2 * (OVERHEAD + 100);
        assert_eq!(sockets.push(Socket::Clients, 100, 1, bytes_max), Ok(()));
        assert_eq!(sockets.push(Socket::Clients, 101, 2, bytes_max), Err(Full(2)));
        assert_eq!(sockets.push(Socket::Clients, 100, 3, bytes_max), Ok(()));
        assert_eq!(sockets.push(Socket::Clients, 0, 4, bytes_max), Err(Full(4)), "an empty datagram takes room too");
        assert_eq!(sockets.push(Socket::Peers, 100, 5, bytes_max), Ok(()), "the other socket has room of its own");
        assert_eq!(sockets.pop(), Some(5));
        assert_eq!(sockets.pop(), Some(1));
        assert_eq!(sockets.push(Socket::Clients, 100, 6, bytes_max), Ok(()), "room again");
        sockets.clear();
        assert!(sockets.is_empty());
    }
}
