//! Reading the latest messages of the keys of a topic that is compacted.

use tidemill_proto::page::Order;
use tidemill_proto::{MessageId, TopicName};

use super::calls::Call;
use super::entry::{self, read_id};
use super::facts::read_untold;
use super::failure::{Effect, of_key, unexpected};
use super::keys::sortable;
use super::marker::{End, Marker, new_epoch};
use super::resp::Reply;
use super::{Shard, scripts};
use crate::storage::history::Untold;
use crate::storage::{Batch, CopiedUntold, Epoch, GapCheck, LatestRange, Range, StorageError, StoredMessage};

/// How often the script is called until it has looked at all messages, of which each call looks at 128 at the least.
const CALLS_MAX: usize = 1_000_000;
/// Bytes that an answer may have beside the messages that are asked for: one may be as large as a message can be.
const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Answers of the script.
const NO_TOPIC: i64 = 1;
const NOT_A_TOPIC: i64 = 2;
const NOT_COMPACTED: i64 = 3;
const AGAIN: i64 = 4;
const FOREIGN: i64 = -3;

/// What the script has found.
struct Found {
    last_given: MessageId,
    marker: Marker,
    end: Option<End>,
    untold: Untold,
    is_more: bool,
    entries: Vec<StoredMessage>,
}

impl Shard {
    /// Returns the latest messages of the keys of a topic.
    pub(super) async fn latest(&self, topic: &TopicName, range: LatestRange) -> Result<Batch, StorageError> {
        let mut found = self.find_latest(topic, range.after, range).await?;
        let (mut after, mut gap) = (range.after, None);
        if range.is_told() {
            let LatestRange { after: cursor, gap_check, .. } = range;
            let plain = Range { order: Order::Asc, after: cursor, gap_check, limit: 1, bytes_max: 1 };
            let plain = self.read(topic, plain).await?.gap;
            let first = found.entries.first().map(|entry| entry.id);
            let to = first.or(found.last_given.next()).unwrap_or(MessageId::MAX);
            if let Some(verdict) = range.judge(plain, found.untold, to) {
                if verdict.resume != after {
                    found = self.find_latest(topic, verdict.resume, range).await?;
                }
                (gap, after) = (Some(verdict.gap), verdict.resume);
            }
        }
        let now = self.clock.now();
        let looked_at = found.entries.last().map(|entry| entry.id);
        // What was replaced, or has no key, is behind the reader then.
        let is_given = found.marker.born.is_none_or(|born| found.last_given >= born);
        let end = Some(found.last_given).filter(|last| {
            is_given && !found.is_more && *last > MessageId::MIN && after.is_none_or(|after| *last > after)
        });
        let of_epoch = Epoch::Marked(found.marker.epoch);
        let state = found.end.map(|end| end.state).unwrap_or_default();
        let at_end = !found.is_more;
        let count = found.entries.len() as u64;
        let messages: Vec<StoredMessage> =
            found.entries.into_iter().filter(|entry| !entry.is_expired(now)).collect();
        Ok(Batch {
            gap,
            next: messages.last().map(|message| message.id).or(looked_at.filter(|_| !at_end)),
            messages,
            reached: end.or(looked_at),
            looked_at: count,
            at_end,
            epoch: Some(of_epoch),
            state,
            ..Batch::default()
        })
    }

    /// Brings the table up to the newest message, and returns what is gone of which it has no trace.
    pub(super) async fn latest_untold(&self, topic: &TopicName) -> Result<CopiedUntold, StorageError> {
        let range =
            LatestRange { after: None, gap_check: GapCheck::None, goes_on: true, limit: 1, bytes_max: 1 };
        match self.find_latest(topic, Some(MessageId::MAX), range).await {
            Ok(Found { untold: Untold { newest, keyless }, .. }) => Ok(CopiedUntold { newest, keyless }),
            // It was, a moment ago.
            Err(StorageError::NotCompacted) => Ok(CopiedUntold::default()),
            Err(error) => Err(error),
        }
    }

    /// Returns the message with this id, if it is the latest of its key.
    pub(super) async fn latest_of(
        &self,
        topic: &TopicName,
        id: MessageId,
    ) -> Result<Option<StoredMessage>, StorageError> {
        let range = LatestRange {
            after: id.previous(),
            gap_check: GapCheck::None,
            goes_on: true,
            limit: 1,
            bytes_max: 1,
        };
        match self.latest(topic, range).await {
            Ok(batch) => Ok(batch.messages.into_iter().find(|message| message.id == id)),
            Err(StorageError::NotCompacted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn find_latest(
        &self,
        topic: &TopicName,
        after: Option<MessageId>,
        range: LatestRange,
    ) -> Result<Found, StorageError> {
        let keys = [self.keys.stream(topic), self.keys.description(topic)];
        let arguments = [
            after.map_or_else(String::new, sortable),
            range.limit.to_string(),
            range.bytes_max.min(REPLY_BYTES_MAX).to_string(),
            new_epoch(),
        ];
        for _ in 0..CALLS_MAX {
            let expected = range.bytes_max.min(REPLY_BYTES_MAX);
            let call = Call::new(&scripts::LATEST, Effect::Write, &keys, &arguments)
                .replied(expected, REPLY_BYTES_MAX);
            let answer = self.calls.call(call, read).await;
            match answer.map_err(|error| of_key(error, &*keys[0]))? {
                Ok(found) => return Ok(found),
                Err(NO_TOPIC) => return Err(StorageError::NoTopic),
                Err(NOT_A_TOPIC) => return Err(StorageError::NotATopic),
                Err(NOT_COMPACTED) => return Err(StorageError::NotCompacted),
                Err(FOREIGN) => return Err(StorageError::ForeignKey(self.keys.latest(topic).into())),
                Err(AGAIN) => {}
                Err(_) => break,
            }
        }
        Err(unexpected("EVALSHA", Effect::Read))
    }
}

/// Reads an answer: its code, or what follows a 0.
fn read(reply: Reply<'_>) -> Option<Result<Found, i64>> {
    let Reply::Array(mut parts) = reply else { return None };
    let code = parts.next()?.integer()?;
    if code != 0 {
        return Some(Err(code));
    }
    let last_given = read_id(parts.next()?.bytes()?)?;
    let marker = Marker::read(parts.next()?.bytes()?)?;
    let end = End::read(parts.next()?.bytes()?);
    let untold = read_untold(parts.next()?.bytes()?)?;
    let is_more = parts.next()?.integer()? == 1;
    let entries = entry::read_all(parts.next()?)?;
    let last_given = end.map_or(last_given, |end| end.last);
    Some(Ok(Found { last_given, marker, end, untold, is_more, entries }))
}
