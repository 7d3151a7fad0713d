//! What a process counts, for Prometheus and whoever else reads its text format: `GET /metrics` by HTTP.
//!
//! A [`MetricsServer`] is a thread that answers one request at a time. It asks the node or role for its status as an operator
//! would, by a datagram, and rewrites the answer; so it costs the others nothing as long as nobody reads, and sees only what
//! everybody may see.
//!
//! Counters become `hovercraft_<part>_<what>_total`, what is so now `hovercraft_<what>`, each with the labels `group` and
//! `node` or `role`. A process that does not answer gets 503.

mod http;
mod text;

use std::io;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::client::{self, ClientOptions};
use crate::id::NodeId;

/// How long the process may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose numbers they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A node's.
    Node(NodeId),
    /// Those of what is at this address between clients and nodes.
    Role(SocketAddrV4),
}

/// Serves numbers until it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be used.
    #[error(
        "`metrics`: cannot listen at {address}: {source}; check that this machine has that address (`ip addr`) and that \
         nobody else has the port (`ss -tlnp`)"
    )]
    Listen {
        /// Which.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// No thread.
    #[error("the system does not let us start a thread: {0}; check the limit on processes (`ulimit -u`)")]
    Thread(#[source] io::Error),
}

impl MetricsServer {
    /// Serves the numbers of `subject` at `address`. `options` say how it is reached.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn start(address: SocketAddrV4, subject: Subject, options: ClientOptions) -> Result<Self, MetricsError> {
        let refused = |source| MetricsError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let options = ClientOptions { give_up: PATIENCE, ..options };
        let serve = move || {
            while let Ok((stream, _)) = listener.accept() {
                if asked.load(Ordering::Acquire) {
                    return;
                }
                // Whoever does not wait for the answer does without.
                _ = http::answer(stream, || numbers(subject, &options));
            }
        };
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(MetricsError::Thread)?;
        let address = SocketAddrV4::new(*address.ip(), port);
        tracing::info!(%address, ?subject, "metrics served");
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Ends its waiting for the next connection.
        let ended = TcpStream::connect_timeout(&self.address.into(), PATIENCE).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            _ = thread.join();
        }
    }
}

fn numbers(subject: Subject, options: &ClientOptions) -> Result<String, String> {
    match subject {
        Subject::Node(node) => client::status(options, node).map(|report| text::of_node(&report)),
        Subject::Role(address) => client::role_status(options, address).map(|status| text::of_role(&status)),
    }
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, UdpSocket};

    use multicast::gateway::{Gateway, GatewayConfig};
    use multicast::role::{self, RoleOptions};
    use r2p2::udp::Clock;

    use super::*;
    use crate::cluster::ClusterConfig;

    const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    fn ask(server: &MetricsServer, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may have had enough before it has read all of it.
        _ = stream.write_all(request);
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn a_role_can_be_read() {
        let socket = UdpSocket::bind(ANY).unwrap();
        let gateway = Gateway::new(GatewayConfig::default(), 1);
        let options = RoleOptions { group: 7, ..RoleOptions::default() };
        let gateway = role::start(gateway, Clock::new(), socket, Vec::new(), options).unwrap();
        let options = ClusterConfig::default().client_options();
        let server = MetricsServer::start(ANY, Subject::Role(gateway.address()), options).unwrap();
        let answer = ask(&server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for line in [
            "# TYPE hovercraft_gateway_requests_admitted_total counter",
            "hovercraft_gateway_requests_admitted_total{group=\"7\",role=\"gateway\"} 0",
            "# TYPE hovercraft_gateway_in_flight gauge",
            "hovercraft_gateway_in_flight{group=\"7\",role=\"gateway\"} 0",
        ] {
            assert!(answer.lines().any(|found| found == line), "{line} in\n{answer}");
        }
        let not_found = ask(&server, b"GET /else HTTP/1.1\r\n\r\n");
        assert!(not_found.starts_with("HTTP/1.1 404 "), "{not_found}");
        drop(server);
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_is_answered() {
        let options = ClusterConfig::default().client_options();
        let server = MetricsServer::start(ANY, Subject::Node(NodeId(250)), options).unwrap();
        for (request, status) in [
            (&b"\x00\x01 noise\r\n\r\n"[..], "400"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics HTTP/1.1\r\n\r\n", "503"),
        ] {
            let answer = ask(&server, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        let long = [b"GET /metrics HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; http::REQUEST_MAX]].concat();
        let answer = ask(&server, &long);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
    }
}
