//! What live readers ask for: the tail of a topic, and changes of many topics at once.

use std::collections::HashSet;

use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, TopicName};

use super::Shard;
use super::entry::read_id;
use super::facts::Of;
use super::failure::{Effect, Redirect, is_no_such_key, of_reply, unexpected};
use super::marker::{self, Found};
use super::resp::{Bounds, Reply, Request, RespError};
use crate::chance::random;
use crate::storage::{Changes, Epoch, Followed, StorageError, Tail};

/// Topics named in one command.
const TOPICS_CHUNK: usize = 256;
/// Topics in one question whose newest entries are asked for, too. That costs the server as much again for each, and
/// it is rare that nothing else shows what became of a topic: where a question names more, chance has each of them
/// have its turn.
const NEWEST_ASKED: usize = 8;
/// What the answer to a question for changes of as many topics may have: a message of 16 KiB for each.
const CHANGES_BOUNDS: Bounds = Bounds { bytes: 4 * 1024 * 1024, elements: 64 * 1024, pass_over: true };

impl Shard {
    /// Returns the newest end of a topic.
    pub(super) async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError> {
        let (stream, deleted) = (self.keys.stream(topic), self.keys.deleted(topic));
        let of = Of { stream: &stream, deleted: &deleted };
        self.read.tail_of(of, &self.keys.description(topic)).await
    }

    /// Tells what became of topics since they were looked at.
    pub(super) async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError> {
        let mut changes = Changes::default();
        for (at, chunk) in topics.chunks(TOPICS_CHUNK).enumerate() {
            self.changes_of(chunk, at * TOPICS_CHUNK, &mut changes).await?;
        }
        Ok(changes)
    }

    /// Tells what became of topics of which the first has this place in the question.
    async fn changes_of(
        &self,
        asked: &[Followed],
        at: usize,
        changes: &mut Changes,
    ) -> Result<(), StorageError> {
        let places = at..at + asked.len();
        let streams: Vec<String> = asked.iter().map(|asked| self.keys.stream(&asked.topic)).collect();
        let mut request = Request::default();
        // In a cluster no command names topics of several slots.
        let at_once = if self.seat().is_some() { 1 } else { asked.len().max(1) };
        for (asked, streams) in asked.chunks(at_once).zip(streams.chunks(at_once)) {
            let mut command = request.begin(4 + 2 * asked.len());
            command.arg(b"XREAD").arg(b"COUNT").arg(b"1").arg(b"STREAMS");
            for stream in streams {
                command.arg(stream.as_bytes());
            }
            for asked in asked {
                command.arg(asked.seen.unwrap_or(MessageId::MIN).text().as_bytes());
            }
        }
        // Readers may wait for very many topics that nobody has made yet.
        let existed: Vec<(usize, &Followed, &String)> = (places.clone().zip(asked).zip(&streams))
            .filter(|((_, asked), _)| asked.exists)
            .map(|((place, asked), stream)| (place, asked, stream))
            .collect();
        for (_, _, stream) in &existed {
            request.add(&[b"XINFO", b"GROUPS", stream.as_bytes()]);
        }
        let stride = asked.len().div_ceil(NEWEST_ASKED);
        let turn = usize::try_from(random() % stride as u64).unwrap_or(0);
        let is_looked_at = |(place, asked, stream): &(usize, &Followed, &String)| {
            place % stride == turn && asked.seen.is_some() && self.read.are_light(stream)
        };
        let looked_at: Vec<_> = existed.iter().copied().filter(is_looked_at).collect();
        for (_, _, stream) in &looked_at {
            request.add(&[b"XREVRANGE", stream.as_bytes(), b"+", b"-", b"COUNT", b"1"]);
        }
        request.bound(CHANGES_BOUNDS);
        let replies = match self.read.try_ask(&request).await? {
            Ok(replies) => replies,
            Err(RespError::TooLarge { .. }) => {
                // Of each topic that has changed a message comes along. Where these are too much, each topic is to
                // be looked at.
                changes.changed.extend(places);
                return Ok(());
            }
            Err(error) => return Err(self.read.connection().failed(error, Effect::Read)),
        };
        let mut replies = replies.iter();
        let mut named = HashSet::new();
        for streams in streams.chunks(at_once) {
            match replies.next() {
                // One key that is no stream, or that lives elsewhere by now, spoils the question: each is to be looked
                // at alone.
                Some(Reply::Error(text)) if text.starts_with(b"WRONGTYPE") || self.moves(text) => {
                    named.extend(streams.iter().map(String::as_bytes));
                }
                reply => {
                    let there = names_of(checked(reply, "XREAD")?);
                    named.extend(there.ok_or_else(|| unexpected("XREAD", Effect::Read))?);
                }
            }
        }
        let is_changed = |(_, stream): &(usize, &String)| named.contains(stream.as_bytes());
        changes.changed.extend(places.zip(&streams).filter(is_changed).map(|(place, _)| place));
        for (place, asked, stream) in existed {
            match replies.next() {
                Some(Reply::Error(text)) if is_no_such_key(&String::from_utf8_lossy(text)) => {
                    changes.gone.push(place);
                }
                // It was found to be no stream, or elsewhere, before, or is since.
                Some(Reply::Error(text))
                    if text.starts_with(b"WRONGTYPE")
                        || Redirect::read(&String::from_utf8_lossy(text)).is_some() =>
                {
                    if !named.contains(stream.as_bytes()) {
                        changes.changed.push(place);
                    }
                }
                reply => {
                    let marker = marker::find(checked(reply, "XINFO GROUPS")?);
                    if !named.contains(stream.as_bytes()) && is_another(asked, marker) {
                        changes.changed.push(place);
                    }
                }
            }
        }
        for (place, asked, _) in looked_at {
            // It may have gone since, or be another value: the next question tells.
            let Some(Reply::Array(mut entries)) = replies.next() else { continue };
            let Some(Reply::Array(mut newest)) = entries.next() else { continue };
            let newest = newest.next().and_then(|id| read_id(id.bytes()?));
            // As many messages as there were, and others than those; or the newest was taken out, which costs a look.
            if newest < asked.seen {
                changes.changed.push(place);
            }
        }
        Ok(())
    }
}

impl Shard {
    /// Whether an error says that a topic lives elsewhere; that is noted.
    fn moves(&self, text: &[u8]) -> bool {
        let Some(seat) = self.seat() else { return false };
        let redirect = Redirect::read(&String::from_utf8_lossy(text));
        redirect.inspect(|redirect| seat.heed(redirect)).is_some()
    }
}

/// Whether a topic that has nothing behind what was seen is not what it was: another one, or one that was given
/// fewer or more than those that were seen, or has ended, or has lost some. What nobody has marked yet may be, and is looked at.
fn is_another(asked: &Followed, found: Option<Found>) -> bool {
    let Some(Found { marker, given, end, holes }) = found else { return true };
    if holes.iter().any(|hole| Some(hole.to) > asked.seen) {
        return true;
    }
    match (asked.epoch, marker) {
        (Epoch::Unmarked, _) | (Epoch::Marked(_), None) => true,
        (Epoch::Marked(epoch), Some(marker)) => {
            epoch != marker.epoch
                || asked.given.is_some_and(|known| given.is_some_and(|given| given != known))
                || asked.state != end.map_or(RunState::Open, |end| end.state)
        }
    }
}

/// Returns the reply, or the contract's error where there is none or it is an error.
fn checked<'a>(reply: Option<Reply<'a>>, command: &'static str) -> Result<Reply<'a>, StorageError> {
    match reply {
        Some(Reply::Error(text)) => Err(of_reply(String::from_utf8_lossy(text).into_owned())),
        Some(reply) => Ok(reply),
        None => Err(unexpected(command, Effect::Read)),
    }
}

/// Returns the keys that a reply to `XREAD` names, which is a map.
fn names_of(reply: Reply<'_>) -> Option<HashSet<&[u8]>> {
    let mut parts = match reply {
        Reply::Nil => return Some(HashSet::new()),
        Reply::Array(parts) => parts,
        _ => return None,
    };
    let mut names = HashSet::with_capacity(parts.left() / 2);
    while let Some(name) = parts.next() {
        names.insert(name.bytes()?);
        parts.next()?;
    }
    Some(names)
}
