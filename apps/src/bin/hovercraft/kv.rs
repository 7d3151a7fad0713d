//! `hovercraft kv`: talk to a key-value cluster.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use hovercraft::client::{Client, ClientOptions, Kind, NotExecuted, Outcome, SubmitError};
use hovercraft::cluster::ClusterConfig;
use hovercraft_apps::kv::{CodecError, Request, Response};
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
        hovercraft kv set icon - < icon.png\n  \
        hovercraft kv get icon > copy.png")]
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
    /// Print one JSON object; bytes that are not text appear in it as {"hex": "00ff"}.
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
    let json = args.json;
    run_command(args).inspect_err(|failure| {
        if json {
            say(json!({ "error": failure.what() }));
        }
    })
}

fn run_command(args: Args) -> Result<ExitCode, Failure> {
    let Args { config, timeout, hex, json, command } = args;
    // Whether it makes sense comes before whether anybody is there.
    let request = command.into_request(hex)?;
    Request::decode(&request.encode()).map_err(too_long)?;
    let config_path = find_config(config.as_deref())?;
    let config = ClusterConfig::load(&config_path).map_err(Failure::usage)?;
    let options = ClientOptions { give_up: timeout, ..config.client_options() };
    let client =
        Client::connect(&options).map_err(|error| Failure::new(format!("cannot talk to the cluster: {error}")))?;
    let mut conversation = Conversation { client, voice: Voice { hex, json }, timeout };
    if let Request::Scan { start, end, limit } = request {
        return conversation.scan(start, end, limit);
    }
    let response = conversation.ask(&request)?;
    conversation.voice.tell_result(response)
}

impl KvCommand {
    fn into_request(self, hex: bool) -> Result<Request, Failure> {
        let bytes = |text: OsString| -> Result<Bytes, Failure> {
            if hex { from_hex(&text.to_string_lossy()).map(Bytes::from) } else { Ok(text.into_vec().into()) }
        };
        let value =
            |text: OsString| -> Result<Bytes, Failure> { if text == "-" { read_stdin(hex) } else { bytes(text) } };
        Ok(match self {
            Self::Get { key } => Request::Get { key: bytes(key)? },
            Self::Set { key, value: text } => Request::Set { key: bytes(key)?, value: value(text)? },
            Self::Del { key } => Request::Del { key: bytes(key)? },
            Self::Cas { key, expected, new, absent } => {
                let (expect, new) = match (absent, expected, new) {
                    (true, Some(new), None) => (None, new),
                    (false, Some(expected), Some(new)) => (Some(bytes(expected)?), new),
                    (true, _, _) => return Err(Failure::usage("with --absent, cas takes a key and the new value")),
                    (false, _, _) => {
                        return Err(Failure::usage("cas takes a key, the expected value and the new value"));
                    }
                };
                Request::Cas { key: bytes(key)?, expect, new: value(new)? }
            }
            Self::Incr { key, by } => Request::Incr { key: bytes(key)?, delta: by },
            Self::Scan { prefix: Some(prefix), limit, .. } => {
                let start = bytes(prefix)?;
                let end = after_prefix(&start);
                Request::Scan { start, end, limit }
            }
            Self::Scan { prefix: None, from, to, limit } => {
                let start = from.map(bytes).transpose()?.unwrap_or_default();
                Request::Scan { start, end: to.map(bytes).transpose()?, limit }
            }
        })
    }
}

/// The first key after all those that begin with `prefix`; none if there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// How to speak with the user.
#[derive(Clone, Copy)]
struct Voice {
    hex: bool,
    json: bool,
}

impl Voice {
    /// Bytes for people: as they are if they are text, escaped if not, hexadecimal if so wanted.
    fn text(self, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            _ if self.hex => to_hex(bytes),
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => bytes.escape_ascii().to_string(),
        }
    }

    /// Bytes for programs: a string if they are text or if hexadecimal digits are wanted, else `{"hex": "00ff"}`.
    fn value(self, bytes: &[u8]) -> Value {
        match std::str::from_utf8(bytes) {
            _ if self.hex => to_hex(bytes).into(),
            Ok(text) => text.into(),
            Err(_) => json!({ "hex": to_hex(bytes) }),
        }
    }

    /// What a command came to, and its exit code.
    fn tell_result(self, response: Response) -> Result<ExitCode, Failure> {
        match response {
            Response::Stored => self.done("ok", json!({ "stored": true })),
            Response::Swapped => self.done("ok", json!({ "swapped": true })),
            Response::Number(sum) => self.done(&sum.to_string(), json!({ "value": sum })),
            Response::Deleted(true) => self.done("ok", json!({ "deleted": true })),
            Response::Deleted(false) => return Ok(self.not_done("the key has no value", json!({ "deleted": false }))),
            Response::Mismatch(found) => {
                let why = match &found {
                    Some(found) => format!("not swapped: the value is {}", self.text(found)),
                    None => "not swapped: the key has no value".to_owned(),
                };
                let found = found.map(|found| self.value(&found));
                return Ok(self.not_done(&why, json!({ "swapped": false, "found": found })));
            }
            Response::Value(None) => return Ok(self.not_done("the key has no value", json!({ "value": null }))),
            Response::Value(Some(value)) if self.json || self.hex => {
                self.done(&self.text(&value), json!({ "value": self.value(&value) }));
            }
            // As it is, so that it can go into a file.
            Response::Value(Some(value)) => {
                say_bytes(&value);
                if std::io::stdout().is_terminal() && value.last() != Some(&b'\n') {
                    say("");
                }
            }
            _ => return Err(nonsense()),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn done(self, line: &str, value: Value) {
        if self.json { say(value) } else { say(line) }
    }

    fn not_done(self, why: &str, value: Value) -> ExitCode {
        if self.json {
            say(value);
        }
        tell(why);
        EXIT_FAILED.into()
    }
}

/// A cluster on one side, a user on the other.
struct Conversation {
    client: Client,
    voice: Voice,
    timeout: Duration,
}

impl Conversation {
    fn ask(&mut self, request: &Request) -> Result<Response, Failure> {
        let kind = if request.is_read() { Kind::Read } else { Kind::Write };
        let outcome = match self.client.run(kind, request.encode()) {
            Ok(completion) => completion.outcome,
            Err(SubmitError::TooLarge { limit, .. }) => Outcome::TooLarge { limit },
            Err(error) => return Err(Failure::new(error)),
        };
        let failure = match outcome {
            Outcome::Ok(reply) => match Response::decode(&reply) {
                Ok(Response::Error(why)) => Failure::new(why).means("Nothing was changed."),
                Ok(response) => return Ok(response),
                Err(_) => nonsense(),
            },
            Outcome::Unknown if request.is_read() => self.unknown("Nothing was changed; there is just no answer."),
            Outcome::Unknown => self.unknown("The command may have been executed, or may be yet, or not."),
            Outcome::NotExecuted(NotExecuted::NeverSent) => {
                self.unknown("Nobody let this client in, so the command has not been sent: it is safe to repeat it.")
            }
            Outcome::NotExecuted(NotExecuted::Dropped) => {
                Failure::new("the cluster is overloaded and refused the command")
                    .means("It was certainly not executed.")
                    .todo("Repeat it.")
            }
            Outcome::Expired => Failure::new("the cluster has forgotten this client: the outcome is unknown")
                .means("The command may have been executed or not.")
                .todo("Look with `hovercraft kv get` before you repeat it."),
            Outcome::TooLarge { limit } => Failure::new(format!("the request is too long: the limit is {limit} bytes"))
                .means("It was refused before it got a place in the order; nothing was changed.")
                .todo("Store less at a time, or raise `limits.request_max` in the cluster's configuration."),
            Outcome::ReplyGone => Failure::new("the command was executed, but its answer is lost")
                .means("It took longer than the cluster keeps answers.")
                .todo("Look with `hovercraft kv get`; do not repeat it."),
            Outcome::ServiceError(why) => {
                Failure::new(format!("the service failed: {}", String::from_utf8_lossy(&why)))
            }
        };
        Err(failure)
    }

    fn unknown(&self, means: &str) -> Failure {
        Failure::new(format!("no answer within {:?}: the outcome is unknown", self.timeout))
            .means(means)
            .todo("`hovercraft status` shows whether a majority of the nodes is up; --timeout SECONDS waits longer.")
    }

    /// Asks page by page: one reply holds only so much.
    fn scan(&mut self, mut start: Bytes, end: Option<Bytes>, limit: u64) -> Result<ExitCode, Failure> {
        let voice = self.voice;
        let mut pairs = Vec::new();
        let mut left = limit;
        let mut more = true;
        while more && left > 0 {
            let request = Request::Scan { start: start.clone(), end: end.clone(), limit: left };
            let Response::Page(page) = self.ask(&request)? else { return Err(nonsense()) };
            left = left.saturating_sub(page.pairs.len() as u64);
            for (key, value) in page.pairs {
                if voice.json {
                    pairs.push(json!([voice.value(&key), voice.value(&value)]));
                } else {
                    say(format_args!("{}\t{}", voice.text(&key), voice.text(&value)));
                }
            }
            more = page.next.is_some();
            start = page.next.unwrap_or_default();
        }
        if voice.json {
            say(json!({ "pairs": pairs, "more": more }));
        } else if more {
            let next = voice.text(&start);
            tell(format_args!("only the first {limit} pairs; --limit N shows more, --from {next} the next"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What the store would refuse need not be sent.
fn too_long(error: CodecError) -> Failure {
    Failure::new(error)
        .means("The store refuses longer ones, so nothing was sent and nothing was changed.")
        .todo("Split it over several keys.")
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
        let plain = Voice { hex: false, json: false };
        assert_eq!(plain.text("größe".as_bytes()), "größe");
        assert_eq!(plain.text(b"a\tb\xff"), "a\\tb\\xff");
        assert_eq!(Voice { hex: true, ..plain }.text(b"\x00"), "00");
        assert_eq!(plain.value(b"a\tb"), json!("a\tb"));
        assert_eq!(plain.value(b"\x00\xff"), json!({ "hex": "00ff" }));
    }
}
