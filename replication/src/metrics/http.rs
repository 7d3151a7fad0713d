//! As much HTTP as it takes to be read: one request per connection, of bounded length and time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest request in bytes.
pub(super) const REQUEST_MAX: usize = 8 << 10;
/// Most header fields of one.
const FIELDS_MAX: usize = 64;
/// How long a read or write may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most reads for one request: nobody keeps others waiting by sending a byte at a time.
const READS_MAX: usize = 64;

/// Answers the one request on `stream`: with what `numbers` says if it asks for them.
pub(super) fn answer(mut stream: TcpStream, numbers: impl FnOnce() -> Result<String, String>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (status, body) = match receive(&mut stream)? {
        Asked::Numbers => match numbers() {
            Ok(numbers) => ("200 OK", numbers),
            Err(error) => ("503 Service Unavailable", error),
        },
        Asked::Else => ("404 Not Found", "there is only /metrics".to_owned()),
        Asked::WithOtherMethod => ("405 Method Not Allowed", "there is only GET".to_owned()),
        Asked::TooLong => ("431 Request Header Fields Too Large", String::new()),
        Asked::Nonsense => ("400 Bad Request", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

enum Asked {
    Numbers,
    Else,
    WithOtherMethod,
    TooLong,
    Nonsense,
}

fn receive(stream: &mut TcpStream) -> io::Result<Asked> {
    let mut buffer = [0; REQUEST_MAX];
    let mut len = 0;
    for _ in 0..READS_MAX {
        let read = stream.read(&mut buffer[len..])?;
        len += read;
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&buffer[..len]) {
            Ok(httparse::Status::Complete(_)) => {
                let path = request.path.map(|path| path.split('?').next().unwrap_or(path));
                return Ok(match (request.method, path) {
                    (Some("GET"), Some("/metrics")) => Asked::Numbers,
                    (Some("GET"), _) => Asked::Else,
                    _ => Asked::WithOtherMethod,
                });
            }
            Ok(httparse::Status::Partial) if len == REQUEST_MAX => return Ok(Asked::TooLong),
            Ok(httparse::Status::Partial) if read == 0 => return Ok(Asked::Nonsense),
            Ok(httparse::Status::Partial) => {}
            Err(httparse::Error::TooManyHeaders) => return Ok(Asked::TooLong),
            Err(_) => return Ok(Asked::Nonsense),
        }
    }
    Ok(Asked::Nonsense)
}
