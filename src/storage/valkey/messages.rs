//! Reading: ranges of stream entries become pages of messages.
//!
//! A read asks for entries in chunks, because the server bounds a range in entries and a page is
//! bounded in bytes: what entries of the topic weigh tells how many may come at once (see `reads`).

use tidemill_proto::page::Order;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::Shard;
use super::entry::Entry;
use super::keys::Keys;
use super::reads::{Ask, CHUNK_MAX, Found, Reads, SMALL_BYTES_MAX};
use crate::storage::history::Verdict;
use crate::storage::{Batch, Range, Reader, StorageError, StoredMessage};

/// Most expired entries looked at in one read, so that a read ends in time however many there are.
const EXPIRED_MAX: usize = 20_000;

impl Shard {
    /// Returns the messages of a range.
    pub(super) async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        let stream = self.keys.stream(topic);
        let reads = if range.bytes_max <= SMALL_BYTES_MAX { &self.read } else { &self.page };
        let mut batch = Batch::default();
        let mut collected = Collected { range, bytes: 0, expired: 0, after: range.after };
        let mut chunk = reads.first_chunk(&stream, range.limit, range.bytes_max);
        let mut first_chunk = true;
        loop {
            let (mut found, at_cursor) = collected.chunk(reads, &stream, chunk).await?;
            if found.entries.is_empty() && first_chunk && at_cursor == AtCursor::NotAsked {
                reads.must_exist(&stream).await?;
            }
            if at_cursor == AtCursor::Gone {
                if !first_chunk {
                    // What is behind here was trimmed meanwhile: the next read tells it.
                    batch.next = collected.after;
                    return Ok(batch);
                }
                let (judged, verdict) = collected.judge(reads, self.keys, topic, chunk).await?;
                found = judged;
                if let Some(verdict) = verdict {
                    batch.gap = Some(verdict.gap);
                    if verdict.resume != collected.after {
                        collected.after = verdict.resume;
                        collected.range.reader = Reader::Anywhere;
                        (found, _) = collected.chunk(reads, &stream, chunk).await?;
                    }
                }
            }
            if range.order == Order::Asc {
                // From here on this read goes on from entries that it has seen itself.
                collected.range.reader = Reader::Seen;
            }
            first_chunk = false;
            let entry_bytes = mean_bytes(&found.entries);
            if collected.take(found.entries, &mut batch, self.clock.now()) {
                return Ok(batch);
            }
            if found.is_all {
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

    /// Returns the message with this id, if there is one.
    pub(super) async fn get(
        &self,
        topic: &TopicName,
        id: MessageId,
    ) -> Result<Option<StoredMessage>, StorageError> {
        let stream = self.keys.stream(topic);
        let id = id.to_string();
        let (from, to) = (&id[..], &id[..]);
        let ask = Ask { stream: &stream, order: Order::Asc, from, to, count: 1, in_front: 0, bytes_max: 0 };
        let Some(entry) = self.read.range(ask).await?.entries.pop() else {
            self.read.must_exist(&stream).await?;
            return Ok(None);
        };
        let now = self.clock.now();
        Ok(if entry.expires_at.is_some_and(|at| at <= now) { None } else { Some(entry.message) })
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

    /// Reads the next entries of a page. A cursor whose reader is to be told of gaps is read with
    /// them: that it is still there proves that nothing behind it is missing, at the price of one
    /// entry and no further question.
    async fn chunk(
        &self,
        reads: &Reads,
        stream: &str,
        count: usize,
    ) -> Result<(Found, AtCursor), StorageError> {
        let Range { order, bytes_max, .. } = self.range;
        let ask = |from, to, in_front| Ask { stream, order, from, to, count, in_front, bytes_max };
        let nothing = Found { entries: Vec::new(), is_all: true };
        if let Some(cursor) = self.after.filter(|_| self.range.reader != Reader::Anywhere) {
            if cursor == MessageId::MIN {
                // No message has this id.
                return Ok((nothing, AtCursor::Gone));
            }
            let mut found = reads.range(ask(&cursor.to_string(), "+", 1)).await?;
            let is_kept = found.entries.first().is_some_and(|entry| entry.message.id == cursor);
            if is_kept {
                found.entries.remove(0);
            }
            return Ok((found, if is_kept { AtCursor::Kept } else { AtCursor::Gone }));
        }
        let found = match bounds(order, self.after) {
            Some((from, to)) => reads.range(ask(&from, to, 0)).await?,
            None => nothing,
        };
        Ok((found, AtCursor::NotAsked))
    }

    /// Asks for the topic's history and judges a cursor that is no longer kept, with the entries behind
    /// it.
    async fn judge(
        &self,
        reads: &Reads,
        keys: Keys,
        topic: &TopicName,
        count: usize,
    ) -> Result<(Found, Option<Verdict>), StorageError> {
        let cursor = self.after.unwrap_or(MessageId::MIN);
        let from = &cursor.next().unwrap_or(MessageId::MAX).to_string()[..];
        let bytes_max = self.range.bytes_max;
        let stream = &keys.stream(topic)[..];
        let ask = Ask { stream, order: Order::Asc, from, to: "+", count, in_front: 0, bytes_max };
        let (found, facts) = reads.range_with_history(ask, &keys.description(topic)).await?;
        Ok((found, facts.judge(topic, cursor, self.range.reader)))
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
