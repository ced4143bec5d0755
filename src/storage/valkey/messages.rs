//! Reading and trimming: ranges of stream entries become pages of messages.
//!
//! A read asks for entries in chunks, because the server bounds a range in entries and a page is
//! bounded in bytes: the size of the first chunk's entries tells how many more may come at once.

use async_trait::async_trait;
use glide::ValkeyValue;
use tidemill_proto::limits::{PAGE_BYTES_MAX, PAYLOAD_BYTES_DEFAULT};
use tidemill_proto::page::Order;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::entry::Entry;
use super::failure::{Effect, checked, is_no_such_key, unexpected};
use super::lanes::Outcome;
use super::{Valkey, entry};
use crate::storage::history::{Facts, Verdict};
use crate::storage::{
    Batch, MessageStore, NewMessage, Range, Reader, StorageError, StoredMessage, Tail, Trim,
};

/// Entries in the first chunk of a read, which tells what entries weigh in this topic. With payloads of
/// the default limit it weighs as much as the largest page.
const CHUNK_FIRST: usize = PAGE_BYTES_MAX / PAYLOAD_BYTES_DEFAULT;
/// Most entries in a chunk.
const CHUNK_MAX: usize = 1_000;
/// Most expired entries looked at in one read, so that a read ends in time however many there are.
const EXPIRED_MAX: usize = 20_000;

#[async_trait]
impl MessageStore for Valkey {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Outcome> {
        self.lanes.append(batch).await
    }

    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        let stream = self.keys.stream(topic);
        let mut batch = Batch::default();
        let mut collected = Collected { range, bytes: 0, expired: 0, after: range.after };
        let mut chunk = range.limit.min(CHUNK_FIRST);
        let mut first_chunk = true;
        loop {
            let found = self.chunk(&stream, &collected, chunk).await?;
            let mut entries = found.entries;
            if entries.is_empty() && first_chunk && found.at_cursor == AtCursor::NotAsked {
                self.must_exist(&stream).await?;
            }
            if found.at_cursor == AtCursor::Gone {
                if !first_chunk {
                    // What is behind here was trimmed meanwhile: the next read tells it.
                    batch.next = collected.after;
                    return Ok(batch);
                }
                let judged = self.judge(topic, &stream, &collected, chunk).await?;
                entries = judged.entries;
                if let Some(verdict) = judged.verdict {
                    batch.gap = Some(verdict.gap);
                    if verdict.resume != collected.after {
                        collected.after = verdict.resume;
                        collected.range.reader = Reader::Anywhere;
                        entries = self.chunk(&stream, &collected, chunk).await?.entries;
                    }
                }
            }
            if range.order == Order::Asc {
                // From here on this read goes on from entries that it has seen itself.
                collected.range.reader = Reader::Seen;
            }
            first_chunk = false;
            let end_reached = entries.len() < chunk;
            let entry_bytes = mean_bytes(&entries);
            if collected.take(entries, &mut batch, self.clock.now()) {
                return Ok(batch);
            }
            if end_reached {
                batch.at_end = true;
                return Ok(batch);
            }
            if collected.expired >= EXPIRED_MAX {
                batch.next = collected.after;
                return Ok(batch);
            }
            chunk = collected.next_chunk(batch.messages.len(), entry_bytes);
        }
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        let stream = self.keys.stream(topic);
        let id = id.to_string();
        let entries = self.range(&stream, Order::Asc, &id, &id, 1).await?;
        let Some(entry) = entries.into_iter().next() else {
            self.must_exist(&stream).await?;
            return Ok(None);
        };
        let now = self.clock.now();
        Ok(if entry.expires_at.is_some_and(|at| at <= now) { None } else { Some(entry.message) })
    }

    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        let stream = self.keys.stream(topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("XTRIM").arg(&stream);
        match trim {
            // The server reads signed numbers.
            Trim::Keep(count) => {
                pipeline.arg("MAXLEN").arg("=").arg(count.min(i64::MAX.unsigned_abs()).to_string())
            }
            Trim::Before(id) => pipeline.arg("MINID").arg("=").arg(id.to_string()),
        };
        pipeline.cmd("EXISTS").arg(&stream);
        let replies = self.change.run(&pipeline, Effect::Write).await?;
        let [removed, exists] =
            <[ValkeyValue; 2]>::try_from(replies).map_err(|_| unexpected("XTRIM", Effect::Write))?;
        match (checked(removed)?, checked(exists)?) {
            (_, ValkeyValue::Int(0)) => Err(StorageError::NoTopic),
            (ValkeyValue::Int(removed), _) => Ok(u64::try_from(removed).unwrap_or(0)),
            _ => Err(unexpected("XTRIM", Effect::Write)),
        }
    }
}

/// A page while it is collected.
struct Collected {
    range: Range,
    bytes: usize,
    expired: usize,
    /// The last id looked at.
    after: Option<MessageId>,
}

/// Entries behind a cursor.
struct Chunk {
    entries: Vec<Entry>,
    at_cursor: AtCursor,
}

/// What became of the message of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtCursor {
    /// It was not to be found.
    NotAsked,
    /// It is there, so its topic is.
    Kept,
    /// It is not there, or there is no topic.
    Gone,
}

/// A judged cursor, with the entries behind it at the same moment.
struct Judged {
    entries: Vec<Entry>,
    verdict: Option<Verdict>,
}

impl Collected {
    /// Takes entries into the page and tells whether it is full.
    fn take(&mut self, entries: Vec<Entry>, batch: &mut Batch, now: Timestamp) -> bool {
        for entry in entries {
            let id = entry.message.id;
            let len = entry.message.body.len_bytes();
            let expired = entry.expires_at.is_some_and(|at| at <= now);
            if !expired && !batch.messages.is_empty() && self.bytes + len > self.range.bytes_max {
                return true;
            }
            self.after = Some(id);
            batch.reached = Some(id);
            batch.looked_at += 1;
            if expired {
                self.expired += 1;
                continue;
            }
            self.bytes += len;
            batch.messages.push(entry.message);
            batch.next = Some(id);
            if batch.messages.len() == self.range.limit || self.bytes >= self.range.bytes_max {
                return true;
            }
        }
        false
    }

    /// Returns how many entries to ask for next, from what is missing and what entries weigh here.
    fn next_chunk(&self, found: usize, entry_bytes: usize) -> usize {
        let fitting = self.range.bytes_max.saturating_sub(self.bytes) / entry_bytes.max(1);
        let missing = self.range.limit - found;
        // Where most entries have expired, asking for just what is missing would take many turns.
        let wanted = if found == 0 { CHUNK_MAX } else { missing };
        wanted.min(fitting.saturating_add(1)).clamp(1, CHUNK_MAX)
    }
}

impl Valkey {
    /// Reads the next entries of a page. A cursor whose reader is to be told of gaps is read with
    /// them: that it is still there proves that nothing behind it is missing, at the price of one
    /// entry and no further question.
    async fn chunk(&self, stream: &str, collected: &Collected, count: usize) -> Result<Chunk, StorageError> {
        let order = collected.range.order;
        if let Some(cursor) = collected.after.filter(|_| collected.range.reader != Reader::Anywhere) {
            if cursor == MessageId::MIN {
                // No message has this id.
                return Ok(Chunk { entries: Vec::new(), at_cursor: AtCursor::Gone });
            }
            let mut entries = self.range(stream, order, &cursor.to_string(), "+", count + 1).await?;
            let is_kept = entries.first().is_some_and(|entry| entry.message.id == cursor);
            if is_kept {
                entries.remove(0);
            }
            entries.truncate(count);
            return Ok(Chunk { entries, at_cursor: if is_kept { AtCursor::Kept } else { AtCursor::Gone } });
        }
        let entries = match bounds(order, collected.after) {
            Some((from, to)) => self.range(stream, order, &from, to, count).await?,
            None => Vec::new(),
        };
        Ok(Chunk { entries, at_cursor: AtCursor::NotAsked })
    }

    /// Asks for the topic's history and judges a cursor that is no longer kept, with the entries behind
    /// it. All is asked in one step of the server: were the topic trimmed between the entries and the
    /// counts, what was missed would be counted wrong, and later gaps with it.
    async fn judge(
        &self,
        topic: &TopicName,
        stream: &str,
        collected: &Collected,
        count: usize,
    ) -> Result<Judged, StorageError> {
        let _turn = self.read_turn().await?;
        let cursor = collected.after.unwrap_or(MessageId::MIN);
        let from = cursor.next().unwrap_or(MessageId::MAX).to_string();
        let mut pipeline = glide::pipe();
        pipeline.atomic();
        pipeline.cmd("XINFO").arg("STREAM").arg(stream);
        pipeline.cmd("HGET").arg(self.keys.description(topic)).arg("born");
        pipeline.cmd("XRANGE").arg(stream).arg(from).arg("+").arg("COUNT").arg(count.to_string());
        let replies = self.read.run(&pipeline, Effect::Read).await?;
        let [info, born, entries] =
            <[ValkeyValue; 3]>::try_from(replies).map_err(|_| unexpected("EXEC", Effect::Read))?;
        if matches!(&info, ValkeyValue::ServerError(error) if is_no_such_key(error)) {
            return Err(StorageError::NoTopic);
        }
        let mut facts = read_facts(checked(info)?).ok_or_else(|| unexpected("XINFO STREAM", Effect::Read))?;
        facts.born = entry::read_id(&checked(born)?);
        let entries = entry::read_all(checked(entries)?).ok_or_else(|| unexpected("XRANGE", Effect::Read))?;
        Ok(Judged { entries, verdict: facts.judge(topic, cursor, collected.range.reader) })
    }

    async fn range(
        &self,
        stream: &str,
        order: Order,
        from: &str,
        to: &str,
        count: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let _turn = self.read_turn().await?;
        let mut pipeline = glide::pipe();
        pipeline.cmd(match order {
            Order::Asc => "XRANGE",
            Order::Desc => "XREVRANGE",
        });
        pipeline.arg(stream).arg(from).arg(to).arg("COUNT").arg(count.to_string());
        let reply = self.read.run_one(&pipeline, Effect::Read).await?;
        entry::read_all(reply).ok_or_else(|| unexpected("XRANGE", Effect::Read))
    }

    /// An empty range does not tell a topic without messages from one that does not exist.
    async fn must_exist(&self, stream: &str) -> Result<(), StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EXISTS").arg(stream);
        match self.read.run_one(&pipeline, Effect::Read).await? {
            ValkeyValue::Int(0) => Err(StorageError::NoTopic),
            _ => Ok(()),
        }
    }
}

/// Returns the bounds of a range after an id, or `None` where nothing can lie there.
fn bounds(order: Order, after: Option<MessageId>) -> Option<(String, &'static str)> {
    match (order, after) {
        (Order::Asc, None) => Some(("-".to_owned(), "+")),
        (Order::Desc, None) => Some(("+".to_owned(), "-")),
        (Order::Asc, Some(id)) => id.next().map(|id| (id.to_string(), "+")),
        (Order::Desc, Some(id)) => id.previous().map(|id| (id.to_string(), "-")),
    }
}

fn mean_bytes(entries: &[Entry]) -> usize {
    let bytes: usize = entries.iter().map(|entry| entry.message.body.len_bytes()).sum();
    bytes / entries.len().max(1)
}

/// Reads the newest end of a topic from the reply to `XINFO STREAM`.
pub(super) fn read_tail(reply: ValkeyValue) -> Option<Tail> {
    let pairs = read_pairs(reply)?;
    let last = entry::read_id(field(&pairs, "last-generated-id")?)?;
    let given = match field(&pairs, "entries-added") {
        Some(ValkeyValue::Int(count)) => u64::try_from(*count).ok(),
        _ => None,
    };
    // A new stream has a last id in front of its first.
    Some(Tail { last: (given != Some(0)).then_some(last).filter(|id| *id != MessageId::MIN), given })
}

fn read_pairs(reply: ValkeyValue) -> Option<Vec<(ValkeyValue, ValkeyValue)>> {
    match reply {
        ValkeyValue::Map(pairs) => Some(pairs),
        ValkeyValue::Array(items) => {
            let mut items = items.into_iter();
            Some(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
        }
        _ => None,
    }
}

fn field<'a>(pairs: &'a [(ValkeyValue, ValkeyValue)], name: &str) -> Option<&'a ValkeyValue> {
    let is_named = |key: &ValkeyValue| match key {
        ValkeyValue::BulkString(bytes) => bytes == name.as_bytes(),
        ValkeyValue::SimpleString(text) => text == name,
        _ => false,
    };
    pairs.iter().find(|(key, _)| is_named(key)).map(|(_, value)| value)
}

/// Returns how many entries were removed from the old end. Servers before 7.0 do not count what they
/// added; and where single entries were deleted, the count does not tell which.
fn count_removed(added: Option<i64>, length: Option<i64>, deleted: Option<&ValkeyValue>) -> Option<u64> {
    let none_deleted = deleted.and_then(entry::read_id) == Some(MessageId::MIN);
    let removed = u64::try_from(added? - length?).ok()?;
    (none_deleted || removed == 0).then_some(removed)
}

/// Reads the reply to `XINFO STREAM`.
fn read_facts(reply: ValkeyValue) -> Option<Facts> {
    let pairs = read_pairs(reply)?;
    let number = |name: &str| match field(&pairs, name) {
        Some(ValkeyValue::Int(number)) => Some(*number),
        _ => None,
    };
    let first = match field(&pairs, "first-entry") {
        Some(ValkeyValue::Array(entry)) => entry.first().and_then(entry::read_id),
        Some(ValkeyValue::Map(entries)) => entries.first().and_then(|(id, _)| entry::read_id(id)),
        _ => None,
    };
    Some(Facts {
        first,
        last_given: entry::read_id(field(&pairs, "last-generated-id")?)?,
        born: None,
        removed: count_removed(
            number("entries-added"),
            number("length"),
            field(&pairs, "max-deleted-entry-id"),
        ),
        last_removed: None,
    })
}
