//! A bare server: commands as bytes, and replies read no further than needed.
//!
//! The client library of Valkey is not used: the bare server is the yardstick, so nothing may stand
//! between it and the load.

use tidemill_resp::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::target::{Target, describe};

/// Largest reply in bytes.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// The extent of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes of it.
    pub(crate) bytes: usize,
    /// Whether it is an error.
    pub(crate) is_error: bool,
}

/// Returns the extent of the reply at the start of `bytes`; `None` if it is not whole.
pub(crate) fn extent(bytes: &[u8]) -> Result<Option<Extent>, String> {
    Ok(length(bytes)?.map(|length| Extent { bytes: length, is_error: bytes[0] == b'-' }))
}

fn length(bytes: &[u8]) -> Result<Option<usize>, String> {
    tidemill_resp::extent(bytes).map_err(|_| "the answer is not RESP".to_owned())
}

/// Returns a command as bytes.
pub(crate) fn command(arguments: &[&str]) -> Vec<u8> {
    let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    let mut request = Request::default();
    request.add(&arguments);
    request.into_bytes()
}

/// A connection to a bare server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Opens a connection, logs in and selects the database.
    pub(crate) async fn open(target: &Target, number: usize) -> Result<Self, String> {
        let stream = target.connect(number).await?;
        let mut connection = Self { stream, buffer: Vec::new(), filled: 0 };
        if let Some((user, password)) = &target.login {
            let login = match user.as_str() {
                "" => command(&["AUTH", password]),
                user => command(&["AUTH", user, password]),
            };
            connection.ask(&login).await?;
        }
        if let Some(database) = target.database {
            connection.ask(&command(&["SELECT", &database.to_string()])).await?;
        }
        Ok(connection)
    }

    /// Returns the socket, for whoever sends more than one command at a time.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends a command and returns the reply as it came; an error of the server is an error.
    pub(crate) async fn ask(&mut self, command: &[u8]) -> Result<&[u8], String> {
        self.exchange(command, 1, 0).await?;
        Ok(&self.buffer[..self.filled])
    }

    /// Sends `count` commands at once and reads their replies; returns how many were refused. With
    /// `count` above 1 only the number of replies is looked at.
    pub(crate) async fn exchange(
        &mut self,
        commands: &[u8],
        count: usize,
        refusals_max: usize,
    ) -> Result<usize, String> {
        self.stream.write_all(commands).await.map_err(|error| describe("cannot send", &error))?;
        self.filled = 0;
        let (mut at, mut seen, mut refused) = (0, 0, 0);
        while seen < count {
            self.fill().await?;
            while let Some(extent) = extent(&self.buffer[at..self.filled])? {
                seen += 1;
                if extent.is_error {
                    refused += 1;
                    if refused > refusals_max {
                        return Err(refusal(&self.buffer[at..at + extent.bytes]));
                    }
                }
                at += extent.bytes;
            }
        }
        Ok(refused)
    }

    async fn fill(&mut self) -> Result<(), String> {
        // Only once there is something to read: thousands of idle connections need no buffer.
        self.stream.readable().await.map_err(|error| describe("cannot read", &error))?;
        if self.filled == self.buffer.len() {
            if self.filled >= REPLY_BYTES_MAX {
                return Err("a reply that is too large".to_owned());
            }
            self.buffer.resize((self.filled * 2).max(READ_BYTES), 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await {
            Ok(0) => Err("the connection was closed".to_owned()),
            Ok(bytes) => {
                self.filled += bytes;
                Ok(())
            }
            Err(error) => Err(describe("cannot read", &error)),
        }
    }
}

/// Returns the number in a reply that is one.
pub(crate) fn integer(reply: &[u8]) -> Result<u64, String> {
    let text = reply.strip_prefix(b":").and_then(|rest| std::str::from_utf8(rest).ok());
    text.and_then(|text| text.trim_end().parse().ok()).ok_or_else(|| "an answer that is no number".to_owned())
}

/// Returns the id of the last entry in a reply of `XREAD` for one key, or of `XRANGE`: the last string
/// that stands first in an array whose second part is an array.
pub(crate) fn last_entry(reply: &[u8]) -> Option<String> {
    let entries = match part(reply, 0) {
        // [[key, [entry, …]]]
        Some(stream) if part(stream, 0).is_some_and(|key| key.starts_with(b"$")) && is_nested(stream) => {
            part(stream, 1)?
        }
        // [entry, …]
        _ => reply,
    };
    let id = part(part(entries, count(entries)?.checked_sub(1)?)?, 0)?;
    let text = id.split(|byte| *byte == b'\n').nth(1)?;
    std::str::from_utf8(text).ok().map(|text| text.trim_end().to_owned())
}

/// Returns whether the second part of an array is an array of arrays, as with a key and its entries.
fn is_nested(array: &[u8]) -> bool {
    part(array, 1).and_then(|second| part(second, 0)).is_some_and(|first| first.starts_with(b"*"))
}

fn count(array: &[u8]) -> Option<usize> {
    let line = array.strip_prefix(b"*")?.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Returns a part of an array, with whatever follows it.
fn part(array: &[u8], index: usize) -> Option<&[u8]> {
    if index >= count(array)? {
        return None;
    }
    let mut rest = &array[memchr::memchr(b'\n', array)? + 1..];
    for _ in 0..index {
        rest = &rest[length(rest).ok()??..];
    }
    Some(rest)
}

/// Returns the first word of an error reply, which says its kind, with the start of the rest.
pub(crate) fn refusal(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reply[..reply.len().min(120)]);
    format!("the server refused: {}", text.trim_start_matches('-').trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_they_end() {
        for text in ["+OK\r\n", "-ERR no\r\n", ":12\r\n", "$5\r\nhe\r\no\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n"]
            .into_iter()
            .chain(["*2\r\n$1\r\na\r\n*1\r\n:3\r\n"])
        {
            let whole = [text.as_bytes(), b"+NEXT"].concat();
            let found = extent(&whole).expect("RESP").expect("a whole reply");
            assert_eq!(found.bytes, text.len(), "{text}");
            for cut in 0..text.len() {
                assert_eq!(extent(&text.as_bytes()[..cut]).expect("so far"), None, "{text} cut at {cut}");
            }
        }
        assert!(extent(b"HTTP/1.1\r\n").is_err());
        assert!(extent("*1\r\n".repeat(100).as_bytes()).is_err(), "nesting has a bound");
    }

    #[test]
    fn the_last_entry_is_found() {
        let entries = "*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n*2\r\n$3\r\n2-7\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let read = format!("*1\r\n*2\r\n$1\r\nk\r\n{entries}");
        assert_eq!(last_entry(entries.as_bytes()).as_deref(), Some("2-7"));
        assert_eq!(last_entry(read.as_bytes()).as_deref(), Some("2-7"));
        assert_eq!(last_entry(b"*-1\r\n"), None);
        assert_eq!(last_entry(b"*0\r\n"), None);
    }

    #[test]
    fn commands_are_arrays_of_strings() {
        assert_eq!(command(&["GET", "k"]), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
