//! An applier's state on its way into a snapshot, and back.
//!
//! | part | layout, network byte order |
//! |---|---|
//! | head | version u16; applied index u64; version of the service's behaviour u32; whether there is a state hash u8; the hash u64 |
//! | sessions | length u64, then as many bytes: see [`SessionTable::snapshot`] |
//! | service | blocks: length u32, then as many bytes; the last one is empty |
//!
//! The service's part ends where it says, so that a service may read to the end and a part is never taken for the whole.

use std::fmt;
use std::io::{self, Read, Write};

use super::Applier;
use super::failure::{RestoreError, catch};
use crate::id::LogIndex;
use crate::service::{Service, SnapshotView};
use crate::session::{SessionTable, SnapshotError};

/// Version of the layout above.
const VERSION: u16 = 1;

/// Longest block. A reader takes any length.
const BLOCK_MAX: usize = 64 << 10;

/// An applier's state at one point of the log, which shares memory with the applier as far as the service can
/// ([`Service::view`]). Goes to another thread, to be written there while the applier goes on.
pub struct Frozen {
    applied: LogIndex,
    version: u32,
    hash: Option<u64>,
    sessions: SessionTable,
    service: Box<dyn SnapshotView>,
}

impl Frozen {
    /// The last entry that is in it.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }
}

impl SnapshotView for Frozen {
    /// Writes it such that [`Applier::restore`], under the same configuration, goes on from there. A panic of the service
    /// is an error.
    fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&VERSION.to_be_bytes())?;
        to.write_all(&self.applied.to_be_bytes())?;
        to.write_all(&self.version.to_be_bytes())?;
        to.write_all(&[u8::from(self.hash.is_some())])?;
        to.write_all(&self.hash.unwrap_or(0).to_be_bytes())?;
        let sessions = self.sessions.snapshot();
        to.write_all(&(sessions.len() as u64).to_be_bytes())?;
        to.write_all(&sessions)?;
        drop(sessions);
        let mut blocks = Blocks { to, block: Vec::with_capacity(BLOCK_MAX) };
        let service = self.service;
        let written = catch(|| service.write(&mut blocks));
        written.unwrap_or_else(|panic| Err(io::Error::other(format!("the service panicked: {panic}"))))?;
        blocks.finish()
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl<S: Service> Applier<S> {
    /// The state as it is now, to be written elsewhere.
    ///
    /// # Panics
    /// After an error, or if the service does.
    pub fn freeze(&self) -> Frozen {
        assert!(!self.broken, "there is no state to snapshot after an error");
        Frozen {
            applied: self.applied,
            version: self.version,
            hash: self.state_hash(),
            sessions: if mutated!(SnapshotWithoutSessions) {
                SessionTable::new(*self.sessions.limits())
            } else {
                self.sessions.clone()
            },
            service: self.service.view(),
        }
    }

    /// Everything as bytes: what [`Applier::freeze`] would write.
    ///
    /// # Panics
    /// After an error, or if the service does.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut to = Vec::new();
        Box::new(self.freeze()).write(&mut to).expect("a service writes its state and a vector takes it");
        to
    }

    /// Replaces service, session table and applied index by those of a snapshot, which is all that `from` has.
    ///
    /// # Errors
    /// See [`RestoreError`], which says after which the state is unspecified and the node must stop.
    ///
    /// # Panics
    /// If an earlier one left the state unspecified.
    pub fn restore(&mut self, from: &mut dyn Read) -> Result<(), RestoreError> {
        use SnapshotError as Bad;
        assert!(!self.broken, "an applier cannot go on after an error");
        let version = u16::from_be_bytes(array(from)?);
        if version != VERSION {
            return Err(Bad::Version { found: version, expected: VERSION }.into());
        }
        let applied = u64::from_be_bytes(array(from)?);
        let service_version = u32::from_be_bytes(array(from)?);
        let [has_hash] = array(from)?;
        let expected = u64::from_be_bytes(array(from)?);
        if has_hash > 1 {
            return Err(Bad::Damaged("it is not what a snapshot looks like").into());
        }
        if applied < self.applied {
            return Err(RestoreError::Stale { found: applied, applied: self.applied });
        }
        if service_version > S::VERSION {
            return Err(RestoreError::TooOld { needed: service_version, has: S::VERSION });
        }
        let sessions_len = u64::from_be_bytes(array(from)?);
        let mut sessions = Vec::new();
        from.take(sessions_len).read_to_end(&mut sessions).map_err(|error| read_error(&error))?;
        if sessions.len() as u64 != sessions_len {
            return Err(Bad::Truncated.into());
        }
        let sessions = SessionTable::restore(*self.sessions.limits(), &sessions)?;
        // From here on there is no way back.
        self.broken = true;
        let mut blocks = Unblocked { from, left: 0, ended: false, error: None };
        let restored = catch(|| self.service.restore_from(&mut blocks));
        let restored = restored.unwrap_or_else(|panic| Err(format!("it panicked: {panic}")));
        if let Some(error) = blocks.error {
            return Err(error);
        }
        restored.map_err(RestoreError::Service)?;
        let mut after = [0];
        if blocks.read(&mut after).map_err(|error| read_error(&error))? != 0 {
            return Err(RestoreError::Service("it has left a part of it unread".to_owned()));
        }
        if from.read(&mut after).map_err(|error| read_error(&error))? != 0 {
            return Err(Bad::Damaged("there are bytes after the end").into());
        }
        self.sessions = sessions;
        self.applied = applied;
        self.version = service_version;
        match self.state_hash() {
            Some(found) if has_hash == 1 && found != expected => Err(RestoreError::StateHash { found, expected }),
            _ => {
                self.broken = false;
                Ok(())
            }
        }
    }
}

fn array<const LEN: usize>(from: &mut dyn Read) -> Result<[u8; LEN], RestoreError> {
    let mut bytes = [0; LEN];
    from.read_exact(&mut bytes).map_err(|error| read_error(&error))?;
    Ok(bytes)
}

fn read_error(error: &io::Error) -> RestoreError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        SnapshotError::Truncated.into()
    } else {
        RestoreError::Read(error.to_string())
    }
}

/// Cuts what is written into blocks.
struct Blocks<'a> {
    to: &'a mut dyn Write,
    block: Vec<u8>,
}

impl Blocks<'_> {
    fn put_block(&mut self) -> io::Result<()> {
        self.to.write_all(&(self.block.len() as u32).to_be_bytes())?;
        self.to.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.put_block()?;
        }
        self.put_block()
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(BLOCK_MAX - self.block.len());
        self.block.extend_from_slice(&bytes[..fits]);
        if self.block.len() == BLOCK_MAX {
            self.put_block()?;
        }
        Ok(fits)
    }

    /// Blocks are as long as they can be, however often the service flushes: equal states, equal bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is in the blocks.
struct Unblocked<'a> {
    from: &'a mut dyn Read,
    /// Bytes of this block that are still to come.
    left: usize,
    /// The empty block has come.
    ended: bool,
    /// What was wrong with `from`, whatever the service makes of it.
    error: Option<RestoreError>,
}

impl Read for Unblocked<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.read_some(to);
        if let Err(error) = &read
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.error.get_or_insert_with(|| read_error(error));
        }
        read
    }
}

impl Unblocked<'_> {
    fn read_some(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        if self.left == 0 && !self.ended {
            let mut len = [0; 4];
            self.from.read_exact(&mut len)?;
            self.left = u32::from_be_bytes(len) as usize;
            self.ended = self.left == 0;
        }
        let len = to.len().min(self.left);
        if len == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut to[..len])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use bytes::Bytes;
    use r2p2::{Digest, Instant};

    use super::super::{ApplierConfig, Committed, Work};
    use super::*;
    use crate::entry::{Entry, EntryKind, RequestHead};
    use crate::id::NodeId;
    use crate::service::{Class, Context, Reply};

    #[test]
    fn a_frozen_state_stays_as_it_was_and_goes_through_any_reader() {
        let len = 200_000_u32;
        let request = |body: Vec<u8>| {
            let request = RequestHead {
                client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9),
                rid: 1,
                session: None,
                identity: Digest(1),
                body_len: u32::try_from(body.len()).unwrap(),
            };
            let kind = EntryKind::Request;
            let entry = Entry { kind, read_only: false, replier: NodeId(9), request, time: Instant::ZERO };
            (entry, Bytes::from(body))
        };
        let mut applier = Applier::new(Piecewise::default(), ApplierConfig::new(NodeId(1)));
        let apply = |applier: &mut Applier<Piecewise>, body: Vec<u8>| {
            let (entry, body) = request(body);
            let index = applier.applied() + 1;
            let work = Work::Apply(Committed { index, entry, body, replayed: false });
            applier.handle(work, &mut |_, _| ()).unwrap();
        };
        let state: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        apply(&mut applier, state.clone());
        let frozen = applier.freeze();
        apply(&mut applier, vec![1]);
        let mut bytes = Vec::new();
        assert_eq!(frozen.applied(), 1);
        Box::new(frozen).write(&mut bytes).unwrap();

        let restore = |bytes, fails, reads| {
            let mut restored = Applier::new(Piecewise { reads, ..Piecewise::default() }, ApplierConfig::new(NodeId(1)));
            let result = restored.restore(&mut Slow { bytes, fails });
            (result, restored)
        };
        let (result, restored) = restore(&bytes, false, 1000);
        assert_eq!((result, restored.applied()), (Ok(()), 1));
        assert_eq!(restored.service().state, state);
        // What is wrong with the reader is known, whatever the service makes of it.
        assert_eq!(restore(&bytes[..bytes.len() - 5], false, 1000).0, Err(SnapshotError::Truncated.into()));
        let read_error = RestoreError::Read("the disk is on fire".into());
        assert_eq!(restore(&bytes[..100_000], true, 1000).0, Err(read_error.clone()));
        assert_eq!(restore(&bytes[..9], true, 1000).0, Err(read_error));
        assert_eq!(restore(&bytes, false, 10).0, Err(RestoreError::Service("it has left a part of it unread".into())));
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(restore(&longer, false, 1000).0, Err(RestoreError::Snapshot(SnapshotError::Damaged(_)))));
    }

    /// Writes and reads its state in pieces, and may be told to stop reading early.
    #[derive(Default)]
    struct Piecewise {
        state: Vec<u8>,
        reads: usize,
    }

    impl Service for Piecewise {
        fn classify(_: &[u8]) -> Class {
            Class::Write
        }

        fn apply(&mut self, _: &Context, request: &Bytes, _: &mut Reply) {
            self.state.extend_from_slice(request);
        }

        fn query(&self, _: &Context, _: &Bytes, _: &mut Reply) {}

        fn snapshot(&self) -> Vec<u8> {
            panic!("it has a view")
        }

        fn restore(&mut self, _: &[u8]) -> Result<(), String> {
            panic!("it reads from a reader")
        }

        fn view(&self) -> Box<dyn SnapshotView> {
            Box::new(Pieces(self.state.clone()))
        }

        fn restore_from(&mut self, from: &mut dyn Read) -> Result<(), String> {
            self.state.clear();
            let mut piece = [0; 999];
            for _ in 0..self.reads {
                // An error of the reader is not told apart from the end.
                let len = from.read(&mut piece).unwrap_or(0);
                self.state.extend_from_slice(&piece[..len]);
            }
            Ok(())
        }
    }

    struct Pieces(Vec<u8>);

    impl SnapshotView for Pieces {
        fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
            for piece in self.0.chunks(333) {
                to.write_all(piece)?;
                to.flush()?;
            }
            Ok(())
        }
    }

    /// Gives a few bytes at a time, then fails or ends.
    struct Slow<'a> {
        bytes: &'a [u8],
        fails: bool,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.bytes.is_empty() && self.fails {
                return Err(io::Error::other("the disk is on fire"));
            }
            let len = to.len().min(777);
            self.bytes.read(&mut to[..len])
        }
    }
}
