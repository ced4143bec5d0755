//! Requests: commands in the form of the wire (RESP), written straight into one buffer.
//!
//! It knows the form of a command and no command. The number of arguments stands in front of them, so
//! whoever writes a command says it first.

use std::fmt;

/// Longest text of a number.
const DIGITS_MAX: usize = 20;

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
        self.bytes.push(b'*');
        put_number(&mut self.bytes, arguments as u64);
        self.bytes.extend_from_slice(b"\r\n");
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
        self.joined(&[argument])
    }

    /// Adds an argument that is made of several parts.
    pub(in crate::storage::valkey) fn joined(&mut self, parts: &[&[u8]]) -> &mut Self {
        debug_assert!(self.left > 0, "an argument more than was said");
        self.left = self.left.wrapping_sub(1);
        self.bytes.push(b'$');
        put_number(self.bytes, parts.iter().map(|part| part.len() as u64).sum());
        self.bytes.extend_from_slice(b"\r\n");
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a number as an argument.
    pub(in crate::storage::valkey) fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; DIGITS_MAX];
        let from = write_digits(&mut digits, number);
        self.arg(&digits[from..])
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        debug_assert!(self.left == 0 || std::thread::panicking(), "arguments are missing");
    }
}

fn put_number(bytes: &mut Vec<u8>, number: u64) {
    let mut digits = [0; DIGITS_MAX];
    let from = write_digits(&mut digits, number);
    bytes.extend_from_slice(&digits[from..]);
}

/// Writes a number at the end of `digits` and returns where it begins.
fn write_digits(digits: &mut [u8; DIGITS_MAX], mut number: u64) -> usize {
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            return at;
        }
    }
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

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 7, 10, 99, 1_000, 1_517_363_399_650, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(bytes, number.to_string().into_bytes());
        }
    }
}
