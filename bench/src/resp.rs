//! A bare server: commands as bytes, and replies read no further than needed.
//!
//! The client library of Valkey is not used: the bare server is the yardstick, so nothing may stand
//! between it and the load.

use tidemill_resp::{Malformed, Reply, Request, Scan};
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
    let length = tidemill_resp::extent(bytes).map_err(no_reply)?;
    Ok(length.map(|length| Extent { bytes: length, is_error: bytes[0] == b'-' }))
}

fn no_reply(_: Malformed) -> String {
    "the answer is not RESP".to_owned()
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
        let (mut scan, mut from, mut at) = (Scan::default(), 0, 0);
        let (mut seen, mut refused) = (0, 0);
        while seen < count {
            self.fill().await?;
            loop {
                let step = scan.advance(&self.buffer[at..self.filled]).map_err(no_reply)?;
                at += step.taken;
                if !step.is_whole {
                    break;
                }
                seen += 1;
                if self.buffer[from] == b'-' {
                    refused += 1;
                    if refused > refusals_max {
                        return Err(refusal(&self.buffer[from..at]));
                    }
                }
                from = at;
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
    let number = Reply::read(reply).and_then(|reply| reply.integer());
    number.and_then(|number| number.try_into().ok()).ok_or_else(|| "an answer that is no number".to_owned())
}

/// Returns the id of the last entry in a reply of `XREAD` for one key, or of `XRANGE`.
pub(crate) fn last_entry(reply: &[u8]) -> Option<String> {
    let Reply::Array(mut parts) = Reply::read(reply)? else { return None };
    let entries = parts.clone();
    let Reply::Array(mut first) = parts.next()? else { return None };
    let of_stream = match (first.next()?, first.next()?) {
        // [[key, [entry, …]]]: what an entry holds begins with no array.
        (_, Reply::Array(within)) => matches!(within.clone().next(), Some(Reply::Array(_))).then_some(within),
        _ => None,
    };
    let Reply::Array(mut last) = of_stream.unwrap_or(entries).last()? else { return None };
    std::str::from_utf8(last.next()?.bytes()?).ok().map(str::to_owned)
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
