//! Requests: commands in the form of the wire (RESP), written straight into one buffer.
//!
//! It knows the form of a command and no command. The number of arguments stands in front of them, so
//! whoever writes a command says it first. A request also says what its replies may have at most, so that
//! whoever reads them holds no more, whatever the server sends.

use std::fmt;

/// Bytes and elements that the replies to any request may have: those to a look have about a kilobyte, and
/// that to `HELLO` lists modules.
const REPLIES_BYTES: usize = 64 * 1024;
const REPLIES_ELEMENTS: usize = 1_024;
/// And so many more for each command: a long error, or the answer of a script.
const REPLY_BYTES: usize = 4 * 1024;
const REPLY_ELEMENTS: usize = 8;

/// What the replies to a request may have at most, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes.
    pub bytes: usize,
    /// Elements of arrays, those of the arrays in them included.
    pub elements: usize,
    /// Whether replies that have more are passed over. Where not, they end the connection: nobody can have
    /// asked for them.
    pub pass_over: bool,
}

/// Commands to be sent together. `Debug` does not show them: they hold payloads, and a password.
#[derive(Default)]
pub struct Request {
    bytes: Vec<u8>,
    commands: usize,
    unanswered: bool,
    bounds: Option<Bounds>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl Request {
    /// Returns an empty request with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), commands: 0, unanswered: false, bounds: None }
    }

    /// Has the replies bounded so, in place of the bounds for requests whose replies are short.
    pub fn bound(&mut self, bounds: Bounds) -> &mut Self {
        self.bounds = Some(bounds);
        self
    }

    /// Returns what the replies may have at most.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds.unwrap_or(Bounds {
            bytes: self.commands.saturating_mul(REPLY_BYTES).saturating_add(REPLIES_BYTES),
            elements: self.commands.saturating_mul(REPLY_ELEMENTS).saturating_add(REPLIES_ELEMENTS),
            pass_over: false,
        })
    }

    /// Adds a command whose arguments are at hand.
    pub fn add(&mut self, arguments: &[&[u8]]) -> &mut Self {
        let mut command = self.begin(arguments.len());
        for argument in arguments {
            command.arg(argument);
        }
        drop(command);
        self
    }

    /// Adds a command that is answered by messages and not by a reply, as subscribing is in RESP 3.
    pub fn add_unanswered<A: AsRef<[u8]>>(&mut self, name: &[u8], arguments: &[A]) -> &mut Self {
        let mut command = self.begin(1 + arguments.len());
        command.arg(name);
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        drop(command);
        self.commands -= 1;
        self.unanswered = true;
        self
    }

    /// Returns whether it has a command that is not answered, unless it is refused.
    #[must_use]
    pub fn has_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Begins a command with so many arguments, its name included; all of them must follow.
    pub fn begin(&mut self, arguments: usize) -> Command<'_> {
        self.commands += 1;
        put_count(&mut self.bytes, b'*', arguments);
        Command { bytes: &mut self.bytes, left: arguments }
    }

    /// Returns how many replies there will be.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Returns what is to be sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what is to be sent.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Arguments of commands that are written later, in the form of the wire. `Debug` does not show them either.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Arguments {
    bytes: Vec<u8>,
    count: usize,
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arguments").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Arguments {
    /// Adds an argument.
    pub fn add(&mut self, argument: &[u8]) -> &mut Self {
        self.count += 1;
        put_argument(&mut self.bytes, argument);
        self
    }

    /// Returns how many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns how many bytes they have as they are sent.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<A: AsRef<[u8]>> Extend<A> for Arguments {
    fn extend<T: IntoIterator<Item = A>>(&mut self, arguments: T) {
        for argument in arguments {
            self.add(argument.as_ref());
        }
    }
}

impl<A: AsRef<[u8]>> FromIterator<A> for Arguments {
    fn from_iter<T: IntoIterator<Item = A>>(arguments: T) -> Self {
        let mut all = Self::default();
        all.extend(arguments);
        all
    }
}

/// A command that is being written. `Debug` does not show it either.
pub struct Command<'a> {
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
    pub fn arg(&mut self, argument: &[u8]) -> &mut Self {
        self.count_down();
        put_argument(self.bytes, argument);
        self
    }

    /// Adds an argument that is made of several parts.
    pub fn joined(&mut self, parts: &[&[u8]]) -> &mut Self {
        self.begin(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.end()
    }

    /// Adds arguments that are written already.
    pub fn all(&mut self, arguments: &Arguments) -> &mut Self {
        debug_assert!(self.left >= arguments.count, "arguments more than was said");
        self.left = self.left.wrapping_sub(arguments.count);
        self.bytes.extend_from_slice(&arguments.bytes);
        self
    }

    /// Begins an argument of so many bytes.
    fn begin(&mut self, len: usize) {
        self.count_down();
        put_count(self.bytes, b'$', len);
    }

    fn count_down(&mut self) {
        debug_assert!(self.left > 0, "an argument more than was said");
        self.left = self.left.wrapping_sub(1);
    }

    fn end(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Adds a number as an argument.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.arg(itoa::Buffer::new().format(number).as_bytes())
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        debug_assert!(self.left == 0 || std::thread::panicking(), "arguments are missing");
    }
}

fn put_argument(bytes: &mut Vec<u8>, argument: &[u8]) {
    put_count(bytes, b'$', argument.len());
    bytes.extend_from_slice(argument);
    bytes.extend_from_slice(b"\r\n");
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
        let later: Arguments = ["k", "v"].iter().collect();
        let mut request = Request::default();
        request.begin(3).arg(b"SET").all(&later);
        assert_eq!(request.bytes(), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
        assert_eq!((later.count(), later.len_bytes()), (2, 14));
    }
}
