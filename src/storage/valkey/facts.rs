//! What the server knows of a stream beside its entries, as numbers alone.
//!
//! `XINFO STREAM` answers with the first and the last entry whole, which may weigh a megabyte each. So it is
//! asked within a script, which hands on only what is needed. A server that runs no scripts, or not for this
//! user, is asked straight, with the same outcome.

use std::sync::atomic::{AtomicBool, Ordering};

use sha1::{Digest as _, Sha1};
use tidemill_proto::MessageId;

use super::entry::read_id;
use super::failure::is_no_such_key;
use super::scripts;
use super::wire::{Reply, Request};
use crate::storage::Tail;
use crate::storage::history::Facts;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With the script by its digest.
    Digest,
    /// With the script's text, which the server knows from then on.
    Text,
    /// With `XINFO STREAM` itself.
    Info,
}

/// Asks for facts, in the way that the server allows for.
#[derive(Debug)]
pub(super) struct Asking {
    digest: String,
    /// Whether the server has refused the script, and not the question.
    refused: AtomicBool,
}

/// What the server knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    first: Option<MessageId>,
    last_given: MessageId,
    length: Option<u64>,
    /// Servers before 7.0 do not count what they added, nor know what was deleted.
    added: Option<u64>,
    deleted: Option<MessageId>,
}

impl Asking {
    pub(super) fn new() -> Self {
        Self { digest: format!("{:x}", Sha1::digest(scripts::STREAM_FACTS)), refused: AtomicBool::new(false) }
    }

    /// Returns the way to ask first.
    pub(super) fn first(&self) -> Way {
        if self.refused.load(Ordering::Relaxed) { Way::Info } else { Way::Digest }
    }

    /// Returns the way to ask after this error, if it is one of the way and not of the stream.
    pub(super) fn next(way: Way, error: &str) -> Option<Way> {
        let is_of_stream = is_no_such_key(error)
            || ["WRONGTYPE", "LOADING", "BUSY", "MASTERDOWN"].iter().any(|code| error.contains(code));
        match way {
            _ if is_of_stream => None,
            Way::Digest if error.starts_with("NOSCRIPT") => Some(Way::Text),
            Way::Digest | Way::Text => Some(Way::Info),
            Way::Info => None,
        }
    }

    /// Notes the way that was answered, so that it comes first from now on.
    pub(super) fn answered(&self, way: Way) {
        if way == Way::Info {
            self.refused.store(true, Ordering::Relaxed);
        }
    }

    /// Adds the question.
    pub(super) fn add(&self, request: &mut Request, way: Way, stream: &str) {
        let stream = stream.as_bytes();
        match way {
            Way::Digest => request.add(&[b"EVALSHA", self.digest.as_bytes(), b"1", stream]),
            Way::Text => request.add(&[b"EVAL", scripts::STREAM_FACTS.as_bytes(), b"1", stream]),
            Way::Info => request.add(&[b"XINFO", b"STREAM", stream]),
        };
    }
}

impl Numbers {
    /// Reads the answer to the question that was asked this way.
    pub(super) fn read(way: Way, reply: Reply<'_>) -> Option<Self> {
        match way {
            Way::Digest | Way::Text => Self::read_script(reply),
            Way::Info => Self::read_info(reply),
        }
    }

    fn read_script(reply: Reply<'_>) -> Option<Self> {
        let Reply::Array(mut parts) = reply else { return None };
        let mut next = || parts.next();
        let first = read_id(next()?.bytes()?);
        let last_given = read_id(next()?.bytes()?)?;
        let (length, added) = (number(&next()?), number(&next()?));
        let deleted = read_id(next()?.bytes()?);
        Some(Self { first, last_given, length, added, deleted })
    }

    fn read_info(reply: Reply<'_>) -> Option<Self> {
        let Reply::Array(mut parts) = reply else { return None };
        let (mut first, mut last_given, mut length, mut added, mut deleted) = (None, None, None, None, None);
        while let Some(name) = parts.next() {
            let value = parts.next()?;
            match name.bytes()? {
                b"length" => length = number(&value),
                b"entries-added" => added = number(&value),
                b"last-generated-id" => last_given = read_id(value.bytes()?),
                b"max-deleted-entry-id" => deleted = read_id(value.bytes()?),
                b"first-entry" => {
                    if let Reply::Array(mut entry) = value {
                        first = read_id(entry.next()?.bytes()?);
                    }
                }
                _ => {}
            }
        }
        Some(Self { first, last_given: last_given?, length, added, deleted })
    }

    /// Returns the newest end of the topic.
    pub(super) fn tail(&self) -> Tail {
        // A new stream has a last id in front of its first.
        let last = (self.added != Some(0)).then_some(self.last_given).filter(|id| *id != MessageId::MIN);
        Tail { last, given: self.added }
    }

    /// Returns the history of a topic that was born at this id.
    pub(super) fn facts(&self, born: Option<MessageId>) -> Facts {
        Facts {
            first: self.first,
            last_given: self.last_given,
            born,
            removed: self.removed(),
            last_removed: None,
        }
    }

    /// Returns how many entries were removed from the old end. Where single entries were deleted, the count
    /// does not tell which.
    fn removed(&self) -> Option<u64> {
        let removed = self.added?.checked_sub(self.length?)?;
        (self.deleted == Some(MessageId::MIN) || removed == 0).then_some(removed)
    }
}

/// Returns a number that is one: the script says -1 for what the server does not know.
fn number(reply: &Reply<'_>) -> Option<u64> {
    u64::try_from(reply.integer()?).ok()
}
