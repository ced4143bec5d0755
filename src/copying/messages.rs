//! Copying the messages of a topic: those of its log, and of one that is compacted the latest that this has no more.

use std::sync::atomic::Ordering;

use tidemill_proto::MessageId;

use super::error::not_imported;
use super::{Copy, CopyError, PAGE_BYTES, Side};
use crate::storage::{CopiedTopic, GapCheck, IMPORTED_MAX, LatestRange, StoredMessage};

impl Copy {
    /// Copies the messages of a topic behind an id, up to the last that it had.
    pub(super) async fn copy_messages(
        &self,
        source: &CopiedTopic,
        after: MessageId,
    ) -> Result<(), CopyError> {
        let topic = &source.topic.topic_name;
        let read = async |after: MessageId| {
            let found = self.from.copies.copied_messages(topic, after, IMPORTED_MAX, PAGE_BYTES).await;
            let mut messages = found.map_err(Side::Source.failed(topic))?;
            messages.truncate(messages.partition_point(|message| message.id <= source.last));
            Ok::<_, CopyError>(messages)
        };
        if after == MessageId::MIN {
            self.progress.expected.fetch_add(source.length, Ordering::Relaxed);
        }
        let mut after = self.copy_latest(source, after).await?;
        let mut page = read(after).await?;
        while let Some(last) = page.last().map(|message| message.id) {
            let import = self.to.copies.import_messages(topic, source.epoch, after, &page);
            let (imported, next) = tokio::join!(import, read(last));
            imported.map_err(|error| not_imported(topic, error))?;
            self.note_copied(&page);
            (after, page) = (last, next?);
        }
        Ok(())
    }

    fn note_copied(&self, messages: &[StoredMessage]) {
        let bytes: usize = messages.iter().map(|message| message.body.len_bytes()).sum();
        self.progress.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        *self.fails_since.lock() = None;
    }

    /// Copies the latest messages of keys behind an id that the log of a topic has no more, and returns the last of them.
    async fn copy_latest(&self, source: &CopiedTopic, after: MessageId) -> Result<MessageId, CopyError> {
        let topic = &source.topic.topic_name;
        let mut after = after;
        if source.topic.compact_by.is_none() {
            return Ok(after);
        }
        loop {
            let range = LatestRange {
                after: Some(after),
                gap_check: GapCheck::None,
                goes_on: true,
                limit: IMPORTED_MAX,
                bytes_max: PAGE_BYTES,
            };
            let latest = self.from.messages.latest(topic, range).await.map_err(Side::Source.failed(topic))?;
            let mut messages = latest.messages;
            let is_older = |message: &StoredMessage| {
                message.id <= source.last && source.first.is_none_or(|first| message.id < first)
            };
            messages.truncate(messages.partition_point(is_older));
            let Some(last) = messages.last().map(|message| message.id) else { return Ok(after) };
            let imported = self.to.copies.import_messages(topic, source.epoch, after, &messages).await;
            imported.map_err(|error| not_imported(topic, error))?;
            self.note_copied(&messages);
            after = last;
        }
    }
}
