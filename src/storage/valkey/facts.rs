//! What the server knows of a stream beside its entries, as numbers alone.
//!
//! `XINFO STREAM` answers with the first and the last entry whole, which may weigh a megabyte each. So it is
//! asked within a script, which hands on only what is needed. A server that runs no scripts, or not for this
//! user, is asked straight, with the same outcome.

use std::sync::atomic::{AtomicBool, Ordering};

use sha1::{Digest as _, Sha1};
use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, Timestamp};

use super::entry::read_id;
use super::failure::{Redirect, is_no_such_key};
use super::keys::sortable;
use super::marker::{self, End, Found, Marker};
use super::resp::{Reply, Request};
use super::{runs, scripts};
use crate::storage::history::{Facts, Forgotten, Hole, Untold};
use crate::storage::{Epoch, Tail, TakenOut};

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

/// The keys of a topic that a question is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of<'a> {
    pub(super) stream: &'a str,
    /// Remembers what was deleted by request.
    pub(super) deleted: &'a str,
}

/// That nothing is missing between the entries that a stream keeps: none was taken out from between them, and none
/// by request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// Which topic it is.
    pub(super) epoch: u64,
    /// How many messages it was given at least (see `marker`).
    pub(super) given: u64,
    /// Whether it takes messages.
    pub(super) state: RunState,
}

/// What comes along with a range: what it proves, and where messages were lost behind its cursor.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    pub(super) proof: Option<Proof>,
    pub(super) holes: Vec<Hole>,
}

/// What the server knows of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    first: Option<MessageId>,
    last_given: MessageId,
    length: Option<u64>,
    /// Servers before 7.0 do not count what they added, nor know what was taken out.
    added: Option<u64>,
    /// The largest id that was ever taken out, and the largest of which it is known that others have done it.
    taken_out: Option<MessageId>,
    by_others: Option<MessageId>,
    marker: Option<Marker>,
    end: Option<End>,
    /// Whether the cursor's message was deleted by request, or the one behind it; how many behind it were, how
    /// many of these in front of the first, and how many at all.
    is_deleted: bool,
    deleted_behind: u64,
    deleted_in_front: u64,
    deleted: u64,
    /// How many more are forgotten, and how many of these lie behind the cursor, where that can be told.
    forgotten: u64,
    forgotten_behind: Option<u64>,
    untold: Option<Untold>,
    /// The holes that end behind the cursor, and whether one ends just there.
    holes: Vec<Hole>,
    is_behind_hole: bool,
}

/// Reads what scripts say of what is gone without a trace: the id behind it, the newest of it, and the newest message
/// without a key, each `-` where there is none. `None` where the topic is not compacted.
pub(super) fn read_untold(text: &[u8]) -> Option<Untold> {
    let mut ids = text.split(|byte| *byte == b' ').map(read_id);
    let (from, upto, keyless) = (ids.next()?, ids.next()?, ids.next()?);
    Some(Untold { newest: from.and_then(MessageId::previous).max(upto), keyless })
}

/// Reads what scripts keep of messages that were deleted by request and are forgotten; of none where there is nothing.
fn read_forgotten(text: &[u8]) -> Option<Forgotten> {
    let mut parts = std::str::from_utf8(text).ok()?.strip_prefix('!')?.split(':');
    let count = parts.next()?.parse().ok()?;
    let mut id = || read_id(parts.next()?.as_bytes());
    Some(Forgotten { count, from: id()?, to: id()? })
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
        // What is on its way to another server says nothing of scripts: they need all of its keys in one place.
        let is_of_stream = is_no_such_key(error)
            || Redirect::read(error).is_some()
            || ["WRONGTYPE", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN"]
                .iter()
                .any(|code| error.contains(code));
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

    /// Adds the question, with what concerns this cursor. It is of as many commands as [`Way::commands`] says.
    pub(super) fn add(&self, request: &mut Request, way: Way, of: Of<'_>, cursor: MessageId) {
        let (stream, deleted) = (of.stream.as_bytes(), of.deleted.as_bytes());
        let digest = self.digest.as_bytes();
        let next = sortable(cursor.next().unwrap_or(MessageId::MAX));
        let cursor = sortable(cursor);
        let (cursor, next) = (cursor.as_bytes(), next.as_bytes());
        match way {
            Way::Digest => request.add(&[b"EVALSHA", digest, b"2", stream, deleted, cursor, next]),
            Way::Text => {
                request.add(&[b"EVAL", scripts::STREAM_FACTS.as_bytes(), b"2", stream, deleted, cursor, next])
            }
            Way::Info => {
                request.add(&[b"XINFO", b"STREAM", stream]);
                request.add(&[b"XINFO", b"GROUPS", stream])
            }
        };
    }
}

impl Way {
    /// Returns how many commands a question is made of.
    pub(super) const fn commands(self) -> usize {
        match self {
            Self::Digest | Self::Text => 1,
            Self::Info => 2,
        }
    }
}

impl Proof {
    /// Adds the question for it, which is of two commands.
    pub(super) fn ask(request: &mut Request, of: Of<'_>) {
        request.add(&[b"XINFO", b"GROUPS", of.stream.as_bytes()]);
        // In front of the ids stands how many are forgotten, which were older than all.
        request.add(&[b"ZLEXCOUNT", of.deleted.as_bytes(), b"[0", b"+"]);
    }

    /// Reads the answers, for a cursor. They prove nothing where they are errors.
    pub(super) fn read<'a>(mut replies: impl Iterator<Item = Reply<'a>>, cursor: MessageId) -> Beside {
        let (groups, deleted) = (replies.next(), replies.next());
        let Some(found) = groups.and_then(marker::find) else { return Beside::default() };
        let (holes, _) = Hole::behind(found.holes, cursor);
        let is_none_deleted = deleted.and_then(|deleted| deleted.integer()) == Some(0);
        // The server does not count from the marker on where an entry behind the oldest was taken out.
        let proof = found.marker.zip(found.given).filter(|_| is_none_deleted && holes.is_empty());
        let of =
            |(marker, given): (Marker, u64)| Self { epoch: marker.epoch, given, state: state_of(found.end) };
        Beside { proof: proof.map(of), holes }
    }
}

impl Numbers {
    /// Reads the answers to the question that was asked this way.
    pub(super) fn read<'a>(
        way: Way,
        cursor: MessageId,
        mut replies: impl Iterator<Item = Reply<'a>>,
    ) -> Option<Self> {
        match way {
            Way::Digest | Way::Text => Self::read_script(replies.next()?, cursor),
            Way::Info => {
                let numbers = Self::read_info(replies.next()?)?;
                let Found { marker, end, holes, .. } = marker::find(replies.next()?)?;
                let (holes, is_behind_hole) = Hole::behind(holes, cursor);
                Some(Self { marker, holes, is_behind_hole, ..numbers }.ended(end))
            }
        }
    }

    fn read_script(reply: Reply<'_>, cursor: MessageId) -> Option<Self> {
        let Reply::Array(mut parts) = reply else { return None };
        let mut next = || parts.next();
        let first = read_id(next()?.bytes()?);
        let last_given = read_id(next()?.bytes()?)?;
        let (length, added) = (number(&next()?), number(&next()?));
        let taken_out = read_id(next()?.bytes()?);
        let marker = Marker::read(next()?.bytes()?);
        let by_others = read_id(next()?.bytes()?);
        let is_deleted = number(&next()?)? == 1;
        let (deleted_behind, deleted_in_front) = (number(&next()?)?, number(&next()?)?);
        let deleted = number(&next()?)?;
        let forgotten = read_forgotten(next()?.bytes()?).unwrap_or(Forgotten::NONE);
        let end = End::read(next()?.bytes()?);
        let untold = read_untold(next()?.bytes()?);
        let Reply::Array(names) = next()? else { return None };
        let holes = names.filter_map(|name| Hole::read(name.bytes()?)).collect();
        let (holes, is_behind_hole) = Hole::behind(holes, cursor);
        let numbers = Self {
            first,
            last_given,
            length,
            added,
            taken_out,
            by_others,
            marker,
            is_deleted,
            deleted_behind,
            deleted_in_front,
            deleted,
            forgotten: forgotten.count,
            forgotten_behind: forgotten.behind(cursor),
            end: None,
            untold,
            holes,
            is_behind_hole,
        };
        Some(numbers.ended(end))
    }

    /// Returns the same of a topic that has ended, if it has: the server knows another last id.
    fn ended(self, end: Option<End>) -> Self {
        Self { end, last_given: end.map_or(self.last_given, |end| end.last), ..self }
    }

    /// Returns whether the topic takes messages.
    pub(super) fn state(&self) -> RunState {
        state_of(self.end)
    }

    fn read_info(reply: Reply<'_>) -> Option<Self> {
        let Reply::Array(mut parts) = reply else { return None };
        let (mut first, mut last_given, mut length, mut added, mut taken_out) =
            (None, None, None, None, None);
        while let Some(name) = parts.next() {
            let value = parts.next()?;
            match name.bytes()? {
                b"length" => length = number(&value),
                b"entries-added" => added = number(&value),
                b"last-generated-id" => last_given = read_id(value.bytes()?),
                b"max-deleted-entry-id" => taken_out = read_id(value.bytes()?),
                b"first-entry" => {
                    if let Reply::Array(mut entry) = value {
                        first = read_id(entry.next()?.bytes()?);
                    }
                }
                _ => {}
            }
        }
        Some(Self {
            first,
            last_given: last_given?,
            length,
            added,
            taken_out,
            by_others: taken_out,
            marker: None,
            end: None,
            is_deleted: false,
            deleted_behind: 0,
            deleted_in_front: 0,
            deleted: 0,
            forgotten: 0,
            forgotten_behind: Some(0),
            untold: None,
            holes: Vec::new(),
            is_behind_hole: false,
        })
    }

    /// Returns where messages were lost behind the cursor.
    pub(super) fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Returns what was taken out.
    pub(super) fn taken_out(&self) -> TakenOut {
        let newest = self.taken_out.filter(|id| *id != MessageId::MIN);
        TakenOut { newest, by_request: self.deleted }
    }

    /// Returns which topic it is.
    pub(super) fn epoch(&self) -> Epoch {
        self.marker.map_or(Epoch::Unmarked, |marker| Epoch::Marked(marker.epoch))
    }

    /// Returns the smallest id that the topic can give, where somebody has written it down.
    fn born(&self) -> Option<MessageId> {
        self.marker.and_then(|marker| marker.born)
    }

    /// Returns the newest end of the topic, with what its description says of late ids, and of why it was cancelled.
    pub(super) fn tail(&self, late: Option<&[u8]>, reason: Option<&[u8]>) -> Tail {
        // A new stream has a last id in front of its first.
        let last = (self.added != Some(0)).then_some(self.last_given).filter(|id| *id != MessageId::MIN);
        let late = late.and_then(|text| self.read_late(text));
        let ended = runs::ended(self.state(), reason);
        Tail {
            first: self.first,
            last,
            given: self.added,
            epoch: self.epoch(),
            born: self.born(),
            late,
            ended,
        }
    }

    /// Reads when late ids were noticed, if that was in this topic and not in one before it.
    fn read_late(&self, text: &[u8]) -> Option<Timestamp> {
        let (epoch, ms) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        let is_of_this = u64::from_str_radix(epoch, 16).ok()? == self.marker?.epoch;
        if is_of_this { ms.parse().ok().map(Timestamp::from_millis) } else { None }
    }

    /// Returns the history of the topic.
    pub(super) fn facts(&self) -> Facts {
        let taken_out = self.by_others.filter(|id| *id != MessageId::MIN);
        // Where each that was taken out stood in front of what is kept, all are gone from the old end.
        let is_between = taken_out.is_some_and(|id| self.first.is_some_and(|first| id > first));
        let gone = self.added.zip(self.length).and_then(|(added, length)| added.checked_sub(length));
        let removed = gone.and_then(|gone| gone.checked_sub(self.deleted + self.forgotten));
        Facts {
            epoch: self.epoch(),
            first: self.first,
            last_given: self.last_given,
            born: self.born(),
            given: self.added,
            // Where single entries were taken out between others, the count does not tell which.
            removed: removed.filter(|removed| !is_between || *removed == 0),
            deleted: self.deleted,
            last_removed: None,
            taken_out,
            is_deleted: self.is_deleted,
            deleted_behind: self.deleted_behind,
            deleted_in_front: self.deleted_in_front,
            forgotten: self.forgotten,
            forgotten_behind: self.forgotten_behind,
            untold: self.untold,
            hole: self.holes.first().copied(),
            is_behind_hole: self.is_behind_hole,
        }
    }
}

/// Returns the state of a topic that has ended so, if it has.
fn state_of(end: Option<End>) -> RunState {
    end.map_or(RunState::Open, |end| end.state)
}

/// Returns a number that is one: the script says -1 for what the server does not know.
fn number(reply: &Reply<'_>) -> Option<u64> {
    u64::try_from(reply.integer()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_script_has_the_server_asked_without_one() {
        let next = |error| Asking::next(Way::Digest, error);
        assert_eq!(next("NOSCRIPT No matching script."), Some(Way::Text));
        assert_eq!(next("NOPERM User may not run 'evalsha'"), Some(Way::Info));
        assert_eq!(next("ERR unknown command 'EVALSHA'"), Some(Way::Info));
        for error in [
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "CLUSTERDOWN Hash slot not served",
            "LOADING Valkey is loading the dataset in memory",
            "ERR no such key",
        ] {
            assert_eq!(next(error), None, "{error}");
        }
    }
}
