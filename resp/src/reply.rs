//! Reading a reply in place, once it is known to be whole.

use bytes::Bytes;

use crate::head::{Head, KIND_BYTES, Kind, number};
use crate::scan::extent;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
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
    /// Reads the reply at the start of `bytes`, which is whole.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        Parts { walk: Walk { rest: bytes }, left: 1, is_behind: true }.next()
    }

    /// Returns the bytes of a string.
    #[must_use]
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => Some(bytes),
            Self::Error(_) | Self::Integer(_) | Self::Nil | Self::Array(_) => None,
        }
    }

    /// Returns a number.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the text of an error.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }
}

/// What a walk comes to: a reply, or the beginning of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A short text, as `OK`.
    Simple(&'a [u8]),
    /// An error.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Nothing.
    Nil,
    /// So many follow; of a map, keys and values in turn.
    Elements(usize),
    /// So many follow, and answer no command.
    Push(usize),
}

/// Goes through replies from front to back, and into those that hold others: for what is read whole, and
/// once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    /// Begins in front of replies that are whole.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes the next step; `None` where there is nothing more.
    #[inline]
    pub fn step(&mut self) -> Option<Item<'a>> {
        let head = Head::read(self.rest, 0).ok()??;
        let behind = self.rest.get(head.bytes..)?;
        let (item, rest) = match head.kind {
            Kind::Line => match head.sign {
                b'+' => (Item::Simple(head.text), behind),
                b'-' => (Item::Error(head.text), behind),
                b':' => (Item::Integer(number(head.text).ok()?), behind),
                _ => (Item::Nil, behind),
            },
            Kind::Text(length) => {
                let text = behind.get(..length)?;
                let text = if head.sign == b'=' { text.get(KIND_BYTES..)? } else { text };
                (Item::Bulk(text), behind.get(length + 2..)?)
            }
            Kind::Elements(elements) if head.sign == b'>' => (Item::Push(elements), behind),
            Kind::Elements(elements) => (Item::Elements(elements), behind),
        };
        self.rest = rest;
        Some(item)
    }

    /// Takes a step to a string, and returns its bytes.
    #[inline]
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        match self.step()? {
            Item::Simple(bytes) | Item::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Passes over a reply with all that it holds.
    fn pass_over(&mut self) -> Option<()> {
        // It was found whole before.
        self.rest = self.rest.get(extent(self.rest).ok()??..)?;
        Some(())
    }
}

/// Replies that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// In front of the next, or of the last one.
    walk: Walk<'a>,
    left: usize,
    /// Whether the walk has the last one behind it. One that holds others is passed over when the next is
    /// asked for: most have none behind them.
    is_behind: bool,
}

impl<'a> Parts<'a> {
    /// Returns the parts of a message that answers no command, and is whole.
    pub(crate) fn of_push(bytes: &'a [u8]) -> Option<Self> {
        let mut walk = Walk::new(bytes);
        let Item::Push(left) = walk.step()? else { return None };
        Some(Self { walk, left, is_behind: true })
    }

    /// Returns how many are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Returns a walk through those that are left.
    #[must_use]
    pub fn walk(mut self) -> Walk<'a> {
        if !self.is_behind && self.walk.pass_over().is_none() {
            return Walk::new(&[]);
        }
        self.walk
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        self.left = self.left.checked_sub(1)?;
        if !self.is_behind {
            self.walk.pass_over()?;
            self.is_behind = true;
        }
        loop {
            let mut walk = self.walk;
            let reply = match walk.step()? {
                Item::Simple(text) => Reply::Simple(text),
                Item::Error(text) => Reply::Error(text),
                Item::Integer(number) => Reply::Integer(number),
                Item::Bulk(bytes) => Reply::Bulk(bytes),
                Item::Nil => Reply::Nil,
                Item::Elements(left) => {
                    self.is_behind = false;
                    return Some(Reply::Array(Parts { walk, left, is_behind: true }));
                }
                Item::Push(_) => {
                    self.walk.pass_over()?;
                    continue;
                }
            };
            self.walk = walk;
            return Some(reply);
        }
    }
}

/// The replies to one request.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    bytes: Bytes,
    count: usize,
}

impl Replies {
    pub(crate) fn new(bytes: Bytes, count: usize) -> Self {
        Self { bytes, count }
    }

    /// Returns the replies, one for each command.
    #[must_use]
    pub fn iter(&self) -> Parts<'_> {
        Parts { walk: Walk::new(&self.bytes), left: self.count, is_behind: true }
    }
}

impl<'a> IntoIterator for &'a Replies {
    type Item = Reply<'a>;
    type IntoIter = Parts<'a>;

    fn into_iter(self) -> Parts<'a> {
        self.iter()
    }
}
