//! Reading and trimming: ranges of stream entries become pages of messages.
//!
//! A read asks for entries in chunks, because the server bounds a range in entries and a page is
//! bounded in bytes: the size of the first chunk's entries tells how many more may come at once.

use async_trait::async_trait;
use glide::ValkeyValue;
use tidemill_proto::page::Order;
use tidemill_proto::{MessageId, TopicName};

use super::failure::{Effect, checked, unexpected};
use super::lanes::Outcome;
use super::{Valkey, entry, keys};
use crate::storage::{Batch, MessageStore, NewMessage, Range, StorageError, StoredMessage, Trim};

/// Entries in the first chunk of a read. With payloads of the default limit it is still bounded.
const CHUNK_FIRST: usize = 100;
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
        let stream = keys::stream(topic);
        let mut batch = Batch::default();
        let mut after = range.after;
        let (mut bytes, mut expired, mut chunk) = (0, 0, range.limit.min(CHUNK_FIRST));
        loop {
            let entries = match bounds(range.order, after) {
                Some((from, to)) => self.range(&stream, range.order, &from, &to, chunk).await?,
                None => Vec::new(),
            };
            if entries.is_empty() && after == range.after {
                self.must_exist(&stream).await?;
            }
            let end_reached = entries.len() < chunk;
            let (mut chunk_bytes, mut chunk_len) = (0, 0);
            let now = self.clock.now();
            for entry in entries {
                let id = entry.message.id;
                let len = entry.message.body.len_bytes();
                (chunk_bytes, chunk_len) = (chunk_bytes + len, chunk_len + 1);
                if entry.expires_at.is_some_and(|at| at <= now) {
                    expired += 1;
                } else {
                    if !batch.messages.is_empty() && bytes + len > range.bytes_max {
                        return Ok(batch);
                    }
                    bytes += len;
                    batch.messages.push(entry.message);
                    batch.next = Some(id);
                    if batch.messages.len() == range.limit || bytes >= range.bytes_max {
                        return Ok(batch);
                    }
                }
                after = Some(id);
            }
            if end_reached {
                return Ok(batch);
            }
            if expired >= EXPIRED_MAX {
                batch.next = after;
                return Ok(batch);
            }
            chunk = next_chunk(&range, batch.messages.len(), bytes, chunk_bytes / chunk_len.max(1));
        }
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        let stream = keys::stream(topic);
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
        let stream = keys::stream(topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("XTRIM").arg(&stream);
        match trim {
            Trim::Keep(count) => pipeline.arg("MAXLEN").arg("=").arg(count.to_string()),
            Trim::Before(id) => pipeline.arg("MINID").arg("=").arg(id.to_string()),
        };
        pipeline.cmd("EXISTS").arg(&stream);
        let replies = self.publish.run(&pipeline, Effect::Write).await?;
        let [removed, exists] =
            <[ValkeyValue; 2]>::try_from(replies).map_err(|_| unexpected("XTRIM", Effect::Write))?;
        match (checked(removed)?, checked(exists)?) {
            (_, ValkeyValue::Int(0)) => Err(StorageError::NoTopic),
            (ValkeyValue::Int(removed), _) => Ok(u64::try_from(removed).unwrap_or(0)),
            _ => Err(unexpected("XTRIM", Effect::Write)),
        }
    }
}

impl Valkey {
    async fn range(
        &self,
        stream: &str,
        order: Order,
        from: &str,
        to: &str,
        count: usize,
    ) -> Result<Vec<entry::Entry>, StorageError> {
        let _turn = self.read_turn().await;
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
fn bounds(order: Order, after: Option<MessageId>) -> Option<(String, String)> {
    match (order, after) {
        (Order::Asc, None) => Some(("-".to_owned(), "+".to_owned())),
        (Order::Desc, None) => Some(("+".to_owned(), "-".to_owned())),
        (Order::Asc, Some(id)) => id.next().map(|id| (id.to_string(), "+".to_owned())),
        (Order::Desc, Some(id)) => id.previous().map(|id| (id.to_string(), "-".to_owned())),
    }
}

/// Returns how many entries to ask for next, from what is missing and what entries weigh here.
fn next_chunk(range: &Range, found: usize, bytes: usize, entry_bytes: usize) -> usize {
    let fitting = range.bytes_max.saturating_sub(bytes) / entry_bytes.max(1) + 1;
    let missing = range.limit - found;
    // Where most entries have expired, asking for just what is missing would take many turns.
    let wanted = if found == 0 { CHUNK_MAX } else { missing };
    wanted.min(fitting).clamp(1, CHUNK_MAX)
}
