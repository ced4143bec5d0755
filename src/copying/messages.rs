//! Copying the messages of a topic: those of its log, and of one that is compacted the latest that this has no more.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;

use tidemill_proto::MessageId;
use tidemill_proto::copy::CopyRead;

use super::side::{ask, len_bytes};
use super::{Copy, CopyError, Progress, Side, Write};
use crate::storage::{CopiedTopic, StoredMessage, latest_key};

impl Copy {
    /// Copies the messages of a topic behind an id, up to the last that it had.
    pub(super) async fn copy_messages(
        &self,
        source: &CopiedTopic,
        after: MessageId,
    ) -> Result<(), CopyError> {
        let topic = &source.topic.topic_name;
        let read = async |after: MessageId| {
            let asked = CopyRead::Messages { topic: topic.clone(), after };
            let mut messages: Vec<StoredMessage> = self.ask_source(topic, asked).await?;
            messages.truncate(messages.partition_point(|message| message.id <= source.last));
            Ok::<_, CopyError>(messages)
        };
        if after == MessageId::MIN {
            // Where the target has lost what came of it, it comes again.
            let before = self.came.lock().insert(topic.clone(), [source.length, 0, 0]).unwrap_or_default();
            let Progress { expected, messages, bytes, .. } = &*self.progress;
            for (of, count) in [expected, messages, bytes].into_iter().zip(before) {
                of.fetch_sub(count, Ordering::Relaxed);
            }
            expected.fetch_add(source.length, Ordering::Relaxed);
        }
        let mut after = self.copy_latest(source, after).await?;
        let mut page = read(after).await?;
        while let Some(last) = page.last().map(|message| message.id) {
            let import = self.import_messages(source, after, page);
            let (imported, next) = tokio::join!(import, read(last));
            imported?;
            (after, page) = (last, next?);
        }
        Ok(())
    }

    async fn import_messages(
        &self,
        source: &CopiedTopic,
        after: MessageId,
        messages: Vec<StoredMessage>,
    ) -> Result<(), CopyError> {
        let topic = source.topic.topic_name.clone();
        let count = messages.len() as u64;
        let bytes = len_bytes(&messages);
        let write = Write::Messages { topic, epoch: source.epoch, after, messages };
        self.import(&source.topic.topic_name, write).await?;
        self.progress.messages.fetch_add(count, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some([_, came, bytes_came]) = self.came.lock().get_mut(&source.topic.topic_name) {
            (*came, *bytes_came) = (*came + count, *bytes_came + bytes as u64);
        }
        *self.fails_since.lock() = None;
        Ok(())
    }

    /// Copies the latest messages of keys behind an id that the log of a topic has no more, and returns the last of them.
    async fn copy_latest(&self, source: &CopiedTopic, after: MessageId) -> Result<MessageId, CopyError> {
        let mut after = after;
        if source.topic.compact_by.is_none() {
            return Ok(after);
        }
        loop {
            let mut messages = self.latest(Side::Source, source, after).await?;
            let is_older = |message: &StoredMessage| {
                message.id <= source.last && source.first.is_none_or(|first| message.id < first)
            };
            messages.truncate(messages.partition_point(is_older));
            let Some(last) = messages.last().map(|message| message.id) else { return Ok(after) };
            self.import_messages(source, after, messages).await?;
            after = last;
        }
    }

    /// Counts the latest messages of keys that the log of a topic has no more, and that are copied beside it.
    pub(super) async fn count_latest(&self, source: &CopiedTopic) -> Result<u64, CopyError> {
        let (mut after, mut count) = (MessageId::MIN, 0);
        while source.topic.compact_by.is_some() {
            let messages = self.latest(Side::Source, source, after).await?;
            let is_older = |message: &StoredMessage| {
                message.id <= source.last && source.first.is_none_or(|first| message.id < first)
            };
            let older = messages.partition_point(is_older);
            count += older as u64;
            match messages.last() {
                Some(last) if older == messages.len() => after = last.id,
                _ => break,
            }
        }
        Ok(count)
    }

    /// Returns a page of the latest messages of the keys of a topic behind an id.
    async fn latest(
        &self,
        side: Side,
        source: &CopiedTopic,
        after: MessageId,
    ) -> Result<Vec<StoredMessage>, CopyError> {
        let topic = &source.topic.topic_name;
        let asked = CopyRead::Latest { topic: topic.clone(), after };
        ask(self.side(side), asked).await.map_err(side.failed(topic))
    }

    /// Has the target show none for keys for which the source shows none, as their latest messages were deleted by request,
    /// or dropped, and older ones are in the log.
    pub(super) async fn forget_latest(&self, source: &CopiedTopic) -> Result<(), CopyError> {
        let Some(field) = source.topic.compact_by.as_deref() else { return Ok(()) };
        let topic = &source.topic.topic_name;
        let key_of = |message: &StoredMessage| latest_key(field, message.body.metadata.as_deref());
        let (mut shown, mut newer, mut after) = (BTreeSet::new(), HashSet::new(), MessageId::MIN);
        loop {
            let page = self.latest(Side::Source, source, after).await?;
            let Some(last) = page.last().map(|message| message.id) else { break };
            shown.extend(page.iter().map(|message| message.id));
            // Where the source goes on, these came in place of others since.
            newer.extend(page.iter().filter(|message| message.id > source.last).filter_map(key_of));
            after = last;
        }
        let mut after = MessageId::MIN;
        loop {
            let page = self.latest(Side::Target, source, after).await?;
            let Some(last) = page.last().map(|message| message.id) else { return Ok(()) };
            let is_gone = |message: &&StoredMessage| {
                !shown.contains(&message.id) && key_of(message).is_some_and(|key| !newer.contains(&key))
            };
            let ids: Vec<MessageId> = page.iter().filter(is_gone).map(|message| message.id).collect();
            if !ids.is_empty() {
                self.import(topic, Write::Forget { topic: topic.clone(), epoch: source.epoch, ids }).await?;
            }
            after = last;
        }
    }
}
