//! `hovercraft kv`: talk to a key-value cluster.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use hovercraft::client::{Client, ClientOptions, Kind, Outcome, SubmitError};
use hovercraft::cluster::ClusterConfig;
use hovercraft_apps::kv::{Request, Response};
use serde_json::{Value, json};

use crate::output::{EXIT_FAILED, Failure, from_hex, say, say_bytes, tell, to_hex};
use crate::place::find_config;

/// Talk to a key-value cluster: get, set, del, cas, incr, scan.
///
/// Keys and values are bytes: what you type is taken as it is, `-` as a value reads standard input to its end, and with
/// --hex both are written and printed as hexadecimal digits. Every command is executed at most once, however often it has
/// to be sent; if its outcome stays unknown, it says so.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit code 0: done. 1: not done, no value, or the outcome is unknown. 2: wrong use.\n\n\
    Examples:\n  \
        hovercraft kv set greeting hello\n  \
        hovercraft kv get greeting\n  \
        hovercraft kv cas greeting hello 'good day'    only if it still is hello\n  \
        hovercraft kv cas --absent greeting hello      only if there is none\n  \
        hovercraft kv incr visits\n  \
        hovercraft kv scan --prefix gr\n  \
        hovercraft kv set photo - < photo.jpg\n  \
        hovercraft kv get photo > copy.jpg")]
pub(crate) struct Args {
    /// The cluster's configuration [default: that of the cluster `hovercraft up` runs].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// How long to try, in seconds, before the outcome is called unknown.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = parse_timeout, global = true)]
    timeout: Duration,
    /// Keys and values are hexadecimal digits.
    #[arg(long, global = true)]
    hex: bool,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KvCommand,
}

#[derive(Subcommand, Debug)]
enum KvCommand {
    /// Print the value of a key. Exit code 1 if it has none.
    Get {
        /// The key.
        key: OsString,
    },
    /// Give a key a value.
    Set {
        /// The key.
        key: OsString,
        /// The value; `-` reads it from standard input.
        #[arg(allow_hyphen_values = true)]
        value: OsString,
    },
    /// Take a key's value away. Exit code 1 if it has none.
    Del {
        /// The key.
        key: OsString,
    },
    /// Replace a value if it is what you expect. Exit code 1 if it is not.
    Cas {
        /// The key.
        key: OsString,
        /// What its value must be; left out with --absent.
        #[arg(allow_hyphen_values = true, required_unless_present = "absent")]
        expected: Option<OsString>,
        /// The new value; `-` reads it from standard input.
        #[arg(allow_hyphen_values = true)]
        new: Option<OsString>,
        /// The key must have no value.
        #[arg(long)]
        absent: bool,
    },
    /// Add to a number and print the sum. A key without a value counts as 0.
    Incr {
        /// The key.
        key: OsString,
        /// How much to add; may be negative.
        #[arg(allow_negative_numbers = true, default_value_t = 1)]
        by: i64,
    },
    /// Print keys and their values, in the order of the keys.
    Scan {
        /// Only keys that begin with this.
        #[arg(long, conflicts_with_all = ["from", "to"])]
        prefix: Option<OsString>,
        /// The first key.
        #[arg(long)]
        from: Option<OsString>,
        /// The first key that does not count any more.
        #[arg(long)]
        to: Option<OsString>,
        /// At most so many pairs.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u64,
    },
}

pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds, such as 3 or 0.5")?;
    if seconds > 0.0 && seconds <= 3600.0 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("a timeout is more than 0 and at most 3600 seconds".to_owned())
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { config, timeout, hex, json, command } = args;
    let bytes = |text: &OsString| -> Result<Bytes, Failure> {
        if hex {
            from_hex(&text.to_string_lossy()).map(Bytes::from)
        } else {
            Ok(Bytes::copy_from_slice(text.as_bytes()))
        }
    };
    let value = |text: &OsString| -> Result<Bytes, Failure> { if text == "-" { read_stdin(hex) } else { bytes(text) } };
    let conversation = Conversation { hex, json, timeout };
    let config_path = find_config(config.as_deref())?;
    let config = ClusterConfig::load(&config_path).map_err(Failure::usage)?;
    let options = ClientOptions { give_up: timeout, ..config.client_options() };
    let mut connection = Connection { options: &options, client: None };

    match command {
        KvCommand::Get { key } => {
            let Response::Value(found) = connection.ask(&conversation, &Request::Get { key: bytes(&key)? })? else {
                return Err(nonsense());
            };
            Ok(conversation.found(found.as_ref()))
        }
        KvCommand::Set { key, value: text } => {
            let request = Request::Set { key: bytes(&key)?, value: value(&text)? };
            let Response::Stored = connection.ask(&conversation, &request)? else { return Err(nonsense()) };
            conversation.done("ok", || json!({ "stored": true }));
            Ok(ExitCode::SUCCESS)
        }
        KvCommand::Del { key } => {
            let Response::Deleted(existed) = connection.ask(&conversation, &Request::Del { key: bytes(&key)? })? else {
                return Err(nonsense());
            };
            conversation.done(if existed { "ok" } else { "" }, || json!({ "deleted": existed }));
            Ok(if existed { ExitCode::SUCCESS } else { no_value() })
        }
        KvCommand::Cas { key, expected, new, absent } => {
            let (expected, new) = match (absent, expected, new) {
                (true, Some(new), None) => (None, new),
                (false, Some(expected), Some(new)) => (Some(bytes(&expected)?), new),
                (true, _, _) => return Err(Failure::usage("with --absent, cas takes a key and the new value")),
                (false, _, _) => return Err(Failure::usage("cas takes a key, the expected value and the new value")),
            };
            let request = Request::Cas { key: bytes(&key)?, expect: expected, new: value(&new)? };
            match connection.ask(&conversation, &request)? {
                Response::Swapped => {
                    conversation.done("ok", || json!({ "swapped": true }));
                    Ok(ExitCode::SUCCESS)
                }
                Response::Mismatch(found) => {
                    let shown = found.as_deref().map(|found| conversation.text(found));
                    conversation.done("", || json!({ "swapped": false, "found": shown }));
                    match &shown {
                        Some(found) => tell(format_args!("not swapped: the value is {found}")),
                        None => tell("not swapped: the key has no value"),
                    }
                    Ok(EXIT_FAILED.into())
                }
                _ => Err(nonsense()),
            }
        }
        KvCommand::Incr { key, by } => {
            match connection.ask(&conversation, &Request::Incr { key: bytes(&key)?, delta: by })? {
                Response::Number(sum) => {
                    conversation.done(&sum.to_string(), || json!({ "value": sum }));
                    Ok(ExitCode::SUCCESS)
                }
                _ => Err(nonsense()),
            }
        }
        KvCommand::Scan { prefix, from, to, limit } => {
            let (start, end) = match prefix {
                Some(prefix) => {
                    let prefix = bytes(&prefix)?;
                    let end = after_prefix(&prefix);
                    (prefix, end)
                }
                None => {
                    (from.as_ref().map(bytes).transpose()?.unwrap_or_default(), to.as_ref().map(bytes).transpose()?)
                }
            };
            scan(&mut connection, &conversation, start, end, limit)
        }
    }
}

/// Asks page by page: one reply holds only so much.
fn scan(
    connection: &mut Connection<'_>,
    conversation: &Conversation,
    mut start: Bytes,
    end: Option<Bytes>,
    limit: u64,
) -> Result<ExitCode, Failure> {
    let mut pairs = Vec::new();
    let mut left = limit;
    let mut more = true;
    while more && left > 0 {
        let request = Request::Scan { start: start.clone(), end: end.clone(), limit: left };
        let Response::Page(page) = connection.ask(conversation, &request)? else { return Err(nonsense()) };
        left = left.saturating_sub(page.pairs.len() as u64);
        for (key, value) in page.pairs {
            if conversation.json {
                pairs.push(json!([conversation.text(&key), conversation.text(&value)]));
            } else {
                say(format_args!("{}\t{}", conversation.text(&key), conversation.text(&value)));
            }
        }
        more = page.next.is_some();
        start = page.next.unwrap_or_default();
    }
    if conversation.json {
        say(json!({ "pairs": pairs, "more": more }));
    } else if more {
        tell(format_args!("only the first {limit} pairs; --limit N shows more, --from {} the next", conversation.text(&start)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The first key after all those that begin with `prefix`; none if there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// How to speak with the user.
struct Conversation {
    hex: bool,
    json: bool,
    timeout: Duration,
}

impl Conversation {
    /// Bytes for people: as they are if they are text, escaped if not, hexadecimal if so wanted.
    fn text(&self, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            _ if self.hex => to_hex(bytes),
            Ok(text) if self.json || !text.chars().any(char::is_control) => text.to_owned(),
            _ => bytes.escape_ascii().to_string(),
        }
    }

    fn done(&self, line: &str, value: impl FnOnce() -> Value) {
        if self.json {
            say(value());
        } else if !line.is_empty() {
            say(line);
        }
    }

    /// Prints a value as it is, so that it can be piped into a file.
    fn found(&self, value: Option<&Bytes>) -> ExitCode {
        if self.json {
            say(json!({ "value": value.map(|value| self.text(value)) }));
        }
        let Some(value) = value else { return no_value() };
        if self.hex && !self.json {
            say(to_hex(value));
        } else if !self.json {
            say_bytes(value);
            if std::io::IsTerminal::is_terminal(&std::io::stdout()) && value.last() != Some(&b'\n') {
                say("");
            }
        }
        ExitCode::SUCCESS
    }
}

fn no_value() -> ExitCode {
    tell("the key has no value");
    EXIT_FAILED.into()
}

/// A client, once it is needed.
struct Connection<'a> {
    options: &'a ClientOptions,
    client: Option<Client>,
}

impl Connection<'_> {
    fn ask(&mut self, conversation: &Conversation, request: &Request) -> Result<Response, Failure> {
        let client = match &mut self.client {
            Some(client) => client,
            None => {
                let client = Client::connect(self.options)
                    .map_err(|error| Failure::new(format!("cannot talk to the cluster: {error}")))?;
                self.client.insert(client)
            }
        };
        let kind = if request.is_read() { Kind::Read } else { Kind::Write };
        let outcome = match client.run(kind, request.encode()) {
            Ok(completion) => completion.outcome,
            Err(SubmitError::TooLarge { limit, .. }) => Outcome::TooLarge { limit },
            Err(error) => return Err(Failure::new(error)),
        };
        match outcome {
            Outcome::Ok(reply) => match Response::decode(&reply) {
                Ok(Response::Error(why)) => Err(Failure::new(why).means("Nothing was changed.")),
                Ok(response) => Ok(response),
                Err(_) => Err(nonsense()),
            },
            Outcome::Unknown => Err(unknown(request, conversation.timeout)),
            Outcome::Expired => Err(Failure::new("the cluster has forgotten this client")
                .means("The command may have been executed or not.")
                .todo("Look with `hovercraft kv get` before you repeat it.")),
            Outcome::TooLarge { limit } => Err(Failure::new(format!("the request is too long: the limit is {limit} bytes"))
                .means("It was refused before it got a place in the order; nothing was changed.")
                .todo("Store less at a time, or raise `limits.request_max` in the cluster's configuration.")),
            Outcome::NotExecuted(_) => Err(Failure::new("the command was certainly not executed")
                .means("It could not be sent, or the cluster is overloaded and refused it.")
                .todo("Repeat it.")),
            Outcome::ReplyGone => Err(Failure::new("the command was executed, but its answer is lost")
                .means("It took longer than the cluster keeps answers.")
                .todo("Look with `hovercraft kv get`; do not repeat it.")),
            Outcome::ServiceError(why) => {
                Err(Failure::new(format!("the service failed: {}", String::from_utf8_lossy(&why))))
            }
        }
    }
}

fn unknown(request: &Request, timeout: Duration) -> Failure {
    let means = if request.is_read() {
        "Nothing was changed; there is just no answer."
    } else {
        "The command may have been executed, or may be yet, or not."
    };
    Failure::new(format!("no answer within {timeout:?}: the outcome is unknown"))
        .means(means)
        .todo("`hovercraft status` shows whether a majority of the nodes is up. --timeout SECONDS waits longer.")
}

fn nonsense() -> Failure {
    Failure::new("the answer makes no sense for a key-value store")
        .means("The cluster runs another service, or another version of this program.")
        .todo("`hovercraft status` shows which; start it with --app kv.")
}

fn read_stdin(hex: bool) -> Result<Bytes, Failure> {
    let mut input = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut input)
        .map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    if hex { from_hex(&String::from_utf8_lossy(&input)).map(Bytes::from) } else { Ok(input.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after_prefix(b"ab"), Some(Bytes::from_static(b"ac")));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }

    #[test]
    fn timeouts() {
        assert_eq!(parse_timeout("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "NaN", "1e9"] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_for_people() {
        let plain = Conversation { hex: false, json: false, timeout: Duration::ZERO };
        assert_eq!(plain.text("größe".as_bytes()), "größe");
        assert_eq!(plain.text(b"a\tb\xff"), "a\\tb\\xff");
        assert_eq!(Conversation { hex: true, ..plain }.text(b"\x00"), "00");
    }
}
