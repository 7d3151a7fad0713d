//! A closed loop over TCP, for systems that are not R2P2: connections that each wait for one answer at a time, on one thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use r2p2::Instant;
use r2p2::udp::Clock;

use crate::generator::{GeneratorError, Observer};
use crate::latencies::Latencies;
use crate::process;

/// Longest answer that is waited for: beyond it the other side does not speak what we think it speaks.
const ANSWER_MAX: usize = 1 << 20;
/// How often the observer hears how far it is.
const PROGRESS: Duration = Duration::from_millis(100);

/// What is said on a connection.
pub trait Dialogue {
    /// Writes the next request.
    fn request(&mut self, to: &mut Vec<u8>);
    /// Whether these bytes are a whole answer. Anything else than the answer hoped for is an error that names it.
    ///
    /// # Errors
    /// What the other side said instead.
    fn answered(&self, bytes: &[u8]) -> Result<bool, String>;
}

/// What was measured.
#[derive(Debug, Default)]
pub struct TcpReport {
    /// Answers in the measured time.
    pub answered: u64,
    /// How long they took.
    pub latencies: Latencies,
}

/// Load with one connection to each of `servers`, over and over, until there are `connections`; then the measured time.
///
/// # Errors
/// If a connection fails, or the other side says something unexpected.
pub fn closed_loop(
    servers: &[SocketAddrV4],
    connections: usize,
    warm_up: Duration,
    duration: Duration,
    cores: &[usize],
    dialogue: &mut dyn Dialogue,
    observer: &mut dyn Observer,
) -> Result<TcpReport, GeneratorError> {
    let before = process::cores()?;
    if !cores.is_empty() {
        process::pin(cores)?;
    }
    let result = drive(servers, connections, warm_up, duration, dialogue, observer);
    process::pin(&before)?;
    result
}

fn drive(
    servers: &[SocketAddrV4],
    connections: usize,
    warm_up: Duration,
    duration: Duration,
    dialogue: &mut dyn Dialogue,
    observer: &mut dyn Observer,
) -> Result<TcpReport, GeneratorError> {
    let clock = Clock::new();
    let mut open = Vec::new();
    for server in servers.iter().cycle().take(connections) {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        open.push(Connection { stream, asked: clock.now(), answer: Vec::new() });
    }
    let start = clock.now();
    let (begin, end) = (start + warm_up, start + warm_up + duration);
    let (mut report, mut answered, mut begun, mut told) = (TcpReport::default(), 0_u64, false, start);
    let mut request = Vec::new();
    for connection in &mut open {
        connection.ask(clock.now(), dialogue, &mut request)?;
    }
    let mut ready: Vec<libc::pollfd> = open
        .iter()
        .map(|connection| libc::pollfd { fd: connection.stream.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    loop {
        let millis = PROGRESS.as_millis() as libc::c_int;
        // SAFETY: the pointer and the length are those of the vector.
        let polled = unsafe { libc::poll(ready.as_mut_ptr(), ready.len() as libc::nfds_t, millis) };
        if polled < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Err(io::Error::last_os_error().into());
        }
        for (connection, _) in open.iter_mut().zip(&ready).filter(|(_, ready)| ready.revents != 0) {
            if !connection.read(dialogue)? {
                continue;
            }
            let now = clock.now();
            answered += 1;
            if begin <= connection.asked && now < end {
                report.answered += 1;
                report.latencies.record(now.since(connection.asked));
            }
            connection.ask(now, dialogue, &mut request)?;
        }
        let now = clock.now();
        if !begun && now >= begin {
            begun = true;
            observer.begins(answered);
        }
        if now >= end {
            observer.ends(answered);
            return Ok(report);
        }
        if now.since(told) >= PROGRESS {
            told = now;
            observer.progress(now.since(start).as_secs_f64() / end.since(start).as_secs_f64(), answered);
            if observer.give_up() {
                return Err(GeneratorError::GivenUp);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    asked: Instant,
    answer: Vec<u8>,
}

impl Connection {
    fn ask(&mut self, now: Instant, dialogue: &mut dyn Dialogue, request: &mut Vec<u8>) -> io::Result<()> {
        request.clear();
        dialogue.request(request);
        self.asked = now;
        self.answer.clear();
        // One request at a time always fits the socket's buffer.
        self.stream.write_all(request)
    }

    /// Says whether the answer is there.
    fn read(&mut self, dialogue: &dyn Dialogue) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed a connection")),
            Ok(len) => self.answer.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.answer.len() > ANSWER_MAX {
            return Err(io::Error::other("an answer has no end"));
        }
        dialogue.answered(&self.answer).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::generator::Unobserved;

    struct Lines;

    impl Dialogue for Lines {
        fn request(&mut self, to: &mut Vec<u8>) {
            to.extend_from_slice(b"hello\n");
        }
        fn answered(&self, bytes: &[u8]) -> Result<bool, String> {
            if bytes.starts_with(b"no") { Err("it said no".to_owned()) } else { Ok(bytes.ends_with(b"\n")) }
        }
    }

    #[test]
    fn answers_are_counted_and_a_refusal_ends_it() {
        for (answer, good) in [(&b"hi\n"[..], true), (b"no\n", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let std::net::SocketAddr::V4(server) = listener.local_addr().expect("bound") else {
                panic!("bound to IPv4")
            };
            std::thread::spawn(move || {
                for stream in listener.incoming().take(3) {
                    let mut stream = stream.expect("loopback");
                    std::thread::spawn(move || {
                        let mut request = [0; 6];
                        while stream.read_exact(&mut request).is_ok() && stream.write_all(answer).is_ok() {}
                    });
                }
            });
            let duration = Duration::from_millis(50);
            let report = closed_loop(&[server], 3, Duration::ZERO, duration, &[], &mut Lines, &mut Unobserved);
            match report {
                Ok(report) => assert!(good && report.answered == report.latencies.count() && report.answered > 0),
                Err(error) => assert!(!good && error.to_string().contains("it said no"), "{error}"),
            }
        }
    }
}
