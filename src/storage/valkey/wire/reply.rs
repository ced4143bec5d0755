//! Replies: what the server answers on the wire (RESP 2 and 3), as far as appends and looks need it.
//!
//! It knows the form of replies and no command. Replies are first found to be whole and in form, then
//! cut out of what was read, then read in place: a reply costs no allocation. Of the forms of RESP 3 only
//! those are known that these commands can be answered with; any other is an error, as is whatever passes
//! a bound. No input is answered with a panic.

use bytes::{Buf as _, Bytes, BytesMut};

/// Most bytes of one reply. The longest is that to a look, about a kilobyte.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of the replies to one request: a batch whose every message is refused at length.
const REPLIES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most elements of one reply, those of its parts included. That to `HELLO` lists modules.
const ELEMENTS_MAX: usize = 1_024;
/// Deepest nesting of a reply. That to `HELLO` has four levels.
const DEPTH_MAX: usize = 6;
/// What stands in front of the text of a verbatim string: its kind, and a colon.
const KIND_BYTES: usize = 4;

/// What the server sent is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::storage::valkey) enum Malformed {
    /// It has no form that is known here.
    #[error("a reply in a form that no command of the relay has")]
    Form,
    /// It passes a bound.
    #[error("a reply that is too large")]
    TooLarge,
    /// There was no command that it could answer.
    #[error("a reply that nobody has asked for")]
    Unasked,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::valkey) enum Reply<'a> {
    /// A short text, as `OK`.
    Simple(&'a [u8]),
    /// An error: its code, a blank, and a sentence.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Nothing.
    Nil,
    /// Several; of a map, keys and values in turn.
    Array(Parts<'a>),
}

impl<'a> Reply<'a> {
    /// Returns the bytes of a string.
    pub(in crate::storage::valkey) fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => Some(bytes),
            Self::Error(_) | Self::Integer(_) | Self::Nil | Self::Array(_) => None,
        }
    }

    /// Returns a number.
    pub(in crate::storage::valkey) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the text of an error.
    pub(in crate::storage::valkey) fn error(&self) -> Option<String> {
        match self {
            Self::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }
}

/// Replies that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::valkey) struct Parts<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        self.left = self.left.checked_sub(1)?;
        loop {
            // Both were found whole before.
            let extent = extent(self.bytes).ok().flatten()?;
            let (whole, rest) = self.bytes.split_at_checked(extent)?;
            self.bytes = rest;
            if !is_push(whole) {
                return read(whole);
            }
        }
    }
}

/// The replies to one request.
#[derive(Clone, Debug, Default)]
pub(in crate::storage::valkey) struct Replies {
    bytes: Bytes,
    count: usize,
}

impl Replies {
    /// Returns the replies, one for each command.
    pub(in crate::storage::valkey) fn iter(&self) -> Parts<'_> {
        Parts { bytes: &self.bytes, left: self.count }
    }
}

/// Cuts replies out of what was read.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Up to where the buffer holds whole replies.
    at: usize,
    /// How many of these answer a command.
    count: usize,
}

impl Cutter {
    /// Cuts the replies to `count` commands off the front of `read`, if they are whole. What the server
    /// sends unasked goes to `unasked`.
    pub(super) fn cut(
        &mut self,
        read: &mut BytesMut,
        count: usize,
        unasked: &mut impl FnMut(Parts<'_>),
    ) -> Result<Option<Replies>, Malformed> {
        while self.count < count {
            let rest = read.get(self.at..).unwrap_or_default();
            let Some(length) = extent(rest)? else {
                if self.count == 0 {
                    self.forget(read);
                }
                return if read.len() > REPLIES_BYTES_MAX { Err(Malformed::TooLarge) } else { Ok(None) };
            };
            match push(rest) {
                Some(parts) => unasked(parts),
                None => self.count += 1,
            }
            self.at += length;
        }
        let bytes = read.split_to(self.at).freeze();
        *self = Self::default();
        Ok(Some(Replies { bytes, count }))
    }

    /// Hands `unasked` what the server may send unasked. Anything else is an error.
    pub(super) fn pass_over(
        &mut self,
        read: &mut BytesMut,
        unasked: &mut impl FnMut(Parts<'_>),
    ) -> Result<(), Malformed> {
        loop {
            let rest = read.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                read.clear();
                *self = Self::default();
                return Ok(());
            }
            if !is_push(rest) {
                return Err(Malformed::Unasked);
            }
            let Some(length) = extent(rest)? else {
                self.forget(read);
                return Ok(());
            };
            if let Some(parts) = push(rest) {
                unasked(parts);
            }
            self.at += length;
        }
    }
}

impl Cutter {
    /// Drops what was handed on, so that it does not pile up in front of a message that is not whole.
    fn forget(&mut self, read: &mut BytesMut) {
        read.advance(self.at);
        self.at = 0;
    }
}

/// Returns the parts of a message that answers no command, and is whole.
fn push(bytes: &[u8]) -> Option<Parts<'_>> {
    let head = Head::read(bytes).ok().flatten().filter(|_| is_push(bytes))?;
    let Kind::Elements(left) = head.kind else { return None };
    Some(Parts { bytes: bytes.get(head.bytes..)?, left })
}

/// Whether this is a message that answers no command.
fn is_push(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'>')
}

/// Returns the length of the reply at the start of `bytes`; `None` if it is not whole.
fn extent(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut elements_left = ELEMENTS_MAX;
    let extent = extent_within(bytes, 0, &mut elements_left)?;
    match extent {
        None if bytes.len() >= REPLY_BYTES_MAX => Err(Malformed::TooLarge),
        Some(length) if length > REPLY_BYTES_MAX => Err(Malformed::TooLarge),
        extent => Ok(extent),
    }
}

fn extent_within(bytes: &[u8], depth: usize, elements_left: &mut usize) -> Result<Option<usize>, Malformed> {
    let Some(head) = Head::read(bytes)? else { return Ok(None) };
    let elements = match head.kind {
        Kind::Line => return Ok(Some(head.bytes)),
        Kind::Text(length) => {
            let end = head.bytes + length;
            return match bytes.get(end..end + 2) {
                Some(b"\r\n") => Ok(Some(end + 2)),
                Some(_) => Err(Malformed::Form),
                None => Ok(None),
            };
        }
        Kind::Elements(_) if depth == DEPTH_MAX || (depth > 0 && is_push(bytes)) => {
            return Err(Malformed::Form);
        }
        Kind::Elements(elements) => elements,
    };
    *elements_left = elements_left.checked_sub(elements).ok_or(Malformed::TooLarge)?;
    let mut at = head.bytes;
    for _ in 0..elements {
        match extent_within(bytes.get(at..).unwrap_or_default(), depth + 1, elements_left)? {
            Some(length) => at += length,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Reads a reply that is whole. A push is none.
fn read(bytes: &[u8]) -> Option<Reply<'_>> {
    let head = Head::read(bytes).ok()??;
    let behind = bytes.get(head.bytes..)?;
    Some(match (bytes.first()?, head.kind) {
        (b'+', _) => Reply::Simple(head.text),
        (b'-', _) => Reply::Error(head.text),
        (b':', _) => Reply::Integer(number(head.text).ok()?),
        (b'=', Kind::Text(length)) => Reply::Bulk(behind.get(KIND_BYTES..length)?),
        (_, Kind::Text(length)) => Reply::Bulk(behind.get(..length)?),
        (b'>', Kind::Elements(_)) => return None,
        (_, Kind::Elements(elements)) => Reply::Array(Parts { bytes: behind, left: elements }),
        (_, Kind::Line) => Reply::Nil,
    })
}

/// What follows the first line of a reply.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing.
    Line,
    /// So many bytes, and the end of a line.
    Text(usize),
    /// So many replies.
    Elements(usize),
}

/// The first line of a reply.
#[derive(Clone, Copy, Debug)]
struct Head<'a> {
    kind: Kind,
    /// What stands between the first byte and the end of the line.
    text: &'a [u8],
    /// The bytes of the line with its end.
    bytes: usize,
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(first) = bytes.first() else { return Ok(None) };
        if !b"+-:$*_=%>".contains(first) {
            return Err(Malformed::Form);
        }
        let within = bytes.get(..REPLY_BYTES_MAX).unwrap_or(bytes);
        let Some(end) = memchr::memchr(b'\n', within) else {
            return if within.len() == REPLY_BYTES_MAX { Err(Malformed::TooLarge) } else { Ok(None) };
        };
        let text = bytes.get(1..end).and_then(|text| text.strip_suffix(b"\r")).ok_or(Malformed::Form)?;
        let kind = match first {
            b'+' | b'-' => Kind::Line,
            b':' => number(text).map(|_| Kind::Line)?,
            b'_' if text.is_empty() => Kind::Line,
            b'$' | b'*' if text == b"-1" => Kind::Line,
            b'$' => Kind::Text(length(text)?),
            b'=' => Kind::Text(length(text).and_then(|length| match length {
                0..KIND_BYTES => Err(Malformed::Form),
                length => Ok(length),
            })?),
            b'*' | b'>' => Kind::Elements(length(text)?),
            b'%' => Kind::Elements(length(text)? * 2),
            _ => return Err(Malformed::Form),
        };
        Ok(Some(Self { kind, text, bytes: end + 1 }))
    }
}

/// Reads a length, which no reply here has larger than a reply may be.
fn length(text: &[u8]) -> Result<usize, Malformed> {
    let length = usize::try_from(number(text)?).map_err(|_| Malformed::Form)?;
    if length > REPLY_BYTES_MAX { Err(Malformed::TooLarge) } else { Ok(length) }
}

/// Reads a number: digits, and a minus where it is negative.
fn number(text: &[u8]) -> Result<i64, Malformed> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Malformed::Form);
    }
    let mut number = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Malformed::Form);
        }
        let digit = i64::from(digit - b'0');
        // The smallest number has no positive counterpart, so it is counted downwards.
        number = number
            .checked_mul(10)
            .and_then(|number| number.checked_add(if negative { -digit } else { digit }))
            .ok_or(Malformed::Form)?;
    }
    Ok(number)
}

#[cfg(test)]
mod tests;
