//! Output: the choice between text and JSON, and text that is safe on a terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use tidemill_proto::{Gap, content_type};

use super::CliError;

/// The form in which a command prints data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// The form in which messages are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people
    #[default]
    Text,
    /// One JSON object a line, as the relay sends it, but for line breaks inside
    Json,
    /// The payload alone, byte for byte; a line end follows JSON, and nothing else
    Raw,
}

/// Writes bytes to standard output.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes a line to standard output.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Returns that something was written, also where nobody reads on: then what was found out still tells how it ends.
#[cfg(feature = "valkey")]
pub(super) fn unless_closed(written: Result<(), CliError>) -> Result<(), CliError> {
    match written {
        Err(CliError::Output(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a value to standard output, as one line of JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), CliError> {
    let text =
        serde_json::to_string(value).map_err(|cause| CliError::Failed("cannot encode", cause.into()))?;
    line(&one_line(&text))
}

/// Returns JSON text without line ends. In valid JSON they stand only between tokens, where a blank
/// means the same.
pub(super) fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// Returns text in which nothing can control a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // The last two ranges turn the direction of text around, so that it reads as something else.
        let is_unsafe =
            character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if is_unsafe {
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// Returns how many of a thing there are: `1 topic`, `2 topics`.
pub(super) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Returns a word as a shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Returns a payload as one line for people: one that is not JSON as text if it says that it is, else
/// its size.
pub(super) fn payload(payload: &[u8], content_type: Option<&str>) -> String {
    let Some(kind) = content_type.filter(|kind| !content_type::is_json(kind)) else {
        return printable(&one_line(&String::from_utf8_lossy(payload)));
    };
    let kind = printable(kind);
    match std::str::from_utf8(payload) {
        Ok(text) if kind.starts_with("text/") => format!("({kind}) {}", printable(text)),
        _ => format!("({kind}, {})", counted(payload.len() as u64, "byte")),
    }
}

/// Returns a gap as a line for people.
pub(super) fn gap(gap: &Gap) -> String {
    let many = gap.missed.map_or_else(|| "messages".to_owned(), |missed| counted(missed, "message"));
    let Gap { topic, from, to, reason, .. } = gap;
    let verb = if gap.missed == Some(1) { "is" } else { "are" };
    format!("gap: {many} of {topic} between {from} and {to} {verb} gone ({})", reason.as_str())
}

/// Returns rows in columns as wide as their widest cell; the last column is as long as it is.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_can_control_a_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}\u{202e}é"), "a\\u001b[2J\\u009b\\u202eé");
        assert_eq!(one_line("{\n\"a\":\r\n1}"), "{ \"a\":  1}");
    }

    #[test]
    fn one_thing_is_told_as_one() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "topic")), ["0 topics", "1 topic", "2 topics"]);
    }

    #[test]
    fn columns_are_aligned_without_blanks_at_the_end() {
        let rows = [["a".to_owned(), "b".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a     b\nlong");
    }
}
