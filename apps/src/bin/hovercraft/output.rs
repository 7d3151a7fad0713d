//! What people and scripts get to read: lines, tables, failures.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The thing checked failed, or the thing asked for did not happen.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Wrong use; the same code that clap uses.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Why a command ends badly: what happened, what it means, what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    means: Option<String>,
    todo: Option<String>,
}

impl Failure {
    /// Something went wrong while doing what was asked.
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self { code: EXIT_FAILED, what: what.to_string(), means: None, todo: None }
    }

    /// What was asked makes no sense.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self { code: EXIT_USAGE, ..Self::new(what) }
    }

    pub(crate) fn means(mut self, means: impl fmt::Display) -> Self {
        self.means = Some(means.to_string());
        self
    }

    pub(crate) fn todo(mut self, todo: impl fmt::Display) -> Self {
        self.todo = Some(todo.to_string());
        self
    }

    /// What happened, in one sentence.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        tell(self);
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for more in [&self.means, &self.todo].into_iter().flatten() {
            write!(f, "\n  {}", more.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// Prints a line to stdout. A reader that has gone (`hovercraft status | head -1`) is no error.
pub(crate) fn say(line: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints a line to stderr.
pub(crate) fn tell(line: impl fmt::Display) {
    _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes bytes to stdout as they are.
pub(crate) fn say_bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Rows under a heading, columns as wide as they need to be, numbers to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a row; missing cells at its end stay empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                let right = cell.starts_with(|first: char| first.is_ascii_digit());
                let cell = if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes; white space between them is ignored.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>, Failure> {
    let wrong =
        |why: String| Failure::usage(why).todo("With --hex, write two hexadecimal digits for each byte: 00ff7a");
    let mut nibbles = Vec::new();
    for digit in text.chars().filter(|digit| !digit.is_whitespace()) {
        let value =
            digit.to_digit(16).ok_or_else(|| wrong(format!("{digit:?} in {text:?} is no hexadecimal digit")))?;
        nibbles.push(value as u8);
    }
    if nibbles.len() % 2 != 0 {
        return Err(wrong(format!("{text:?} has an odd number of hexadecimal digits")));
    }
    Ok(nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// 12345678 as 12 345 678.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_there_and_back() {
        assert_eq!(from_hex("00 fF7a").expect("hex"), [0, 0xff, 0x7a]);
        assert_eq!(to_hex(&[0, 0xff, 0x7a]), "00ff7a");
        assert_eq!(from_hex("").expect("hex"), Vec::<u8>::new());
        assert!(from_hex("0").expect_err("odd").to_string().contains("odd number"));
        assert!(from_hex("0g").expect_err("not hex").to_string().contains("'g'"));
    }

    #[test]
    fn numbers_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1 000");
        assert_eq!(grouped(12_345_678), "12 345 678");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["node", "role", "last"]);
        table.row(["n1".into(), "leader".into(), "12345".into()]);
        table.row(["n10".into(), "follower".into(), "7".into()]);
        table.row(["n3".into(), "unreachable".into()]);
        let text = "node  role         last\n\
                    n1    leader       12345\n\
                    n10   follower         7\n\
                    n3    unreachable";
        assert_eq!(table.to_string(), text);
    }

    #[test]
    fn a_failure_says_what_and_what_to_do() {
        let failure = Failure::new("it broke").means("nothing was written").todo("try again");
        assert_eq!(failure.to_string(), "error: it broke\n  nothing was written\n  try again");
    }
}
