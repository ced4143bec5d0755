//! Requests: commands in the form of the wire (RESP), written straight into one buffer.
//!
//! It knows the form of a command and no command. The number of arguments stands in front of them, so
//! whoever writes a command says it first.

use std::fmt;

/// Commands to be sent together. `Debug` does not show them: they hold payloads, and a password.
#[derive(Default)]
pub(in crate::storage::valkey) struct Request {
    bytes: Vec<u8>,
    commands: usize,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl Request {
    /// Returns an empty request with room for so many bytes.
    pub(in crate::storage::valkey) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), commands: 0 }
    }

    /// Adds a command whose arguments are at hand.
    pub(in crate::storage::valkey) fn add(&mut self, arguments: &[&[u8]]) -> &mut Self {
        let mut command = self.begin(arguments.len());
        for argument in arguments {
            command.arg(argument);
        }
        drop(command);
        self
    }

    /// Adds a command that is answered by messages and not by a reply, as subscribing is in RESP 3.
    pub(super) fn add_unanswered<A: AsRef<[u8]>>(&mut self, name: &[u8], arguments: &[A]) -> &mut Self {
        let mut command = self.begin(1 + arguments.len());
        command.arg(name);
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        drop(command);
        self.commands -= 1;
        self
    }

    /// Begins a command with so many arguments, its name included; all of them must follow.
    pub(in crate::storage::valkey) fn begin(&mut self, arguments: usize) -> Command<'_> {
        self.commands += 1;
        put_count(&mut self.bytes, b'*', arguments);
        Command { bytes: &mut self.bytes, left: arguments }
    }

    /// Returns how many replies there will be.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A command that is being written. `Debug` does not show it either.
pub(in crate::storage::valkey) struct Command<'a> {
    bytes: &'a mut Vec<u8>,
    left: usize,
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Command<'_> {
    /// Adds an argument.
    pub(in crate::storage::valkey) fn arg(&mut self, argument: &[u8]) -> &mut Self {
        self.begin(argument.len());
        self.bytes.extend_from_slice(argument);
        self.end()
    }

    /// Adds an argument that is made of several parts.
    pub(in crate::storage::valkey) fn joined(&mut self, parts: &[&[u8]]) -> &mut Self {
        self.begin(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.end()
    }

    /// Begins an argument of so many bytes.
    fn begin(&mut self, len: usize) {
        debug_assert!(self.left > 0, "an argument more than was said");
        self.left = self.left.wrapping_sub(1);
        put_count(self.bytes, b'$', len);
    }

    fn end(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a number as an argument.
    pub(in crate::storage::valkey) fn number(&mut self, number: u64) -> &mut Self {
        self.arg(itoa::Buffer::new().format(number).as_bytes())
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        debug_assert!(self.left == 0 || std::thread::panicking(), "arguments are missing");
    }
}

/// Adds the line that says how many there are of what follows.
fn put_count(bytes: &mut Vec<u8>, sign: u8, count: usize) {
    bytes.push(sign);
    bytes.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut request = Request::default();
        request.add(&[b"GET", b"k"]);
        request.begin(3).arg(b"SET").joined(&[b"stream:", b"", b"t\r\n"]).number(0);
        assert_eq!(
            request.bytes(),
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$10\r\nstream:t\r\n\r\n$1\r\n0\r\n"
        );
        assert_eq!(request.commands(), 2);
    }
}
