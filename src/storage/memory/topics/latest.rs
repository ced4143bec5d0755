//! The latest messages of the keys of topics that are compacted: what becomes of them, and how they are read.

use tidemill_proto::page::Order;
use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::super::latest::{Found, LatestTable};
use super::{StoredTopic, Topics};
use crate::storage::{Batch, Body, LatestRange, NewMessage, Range, StorageError, StoredMessage, TopicPolicy};

impl StoredTopic {
    /// Returns by how many bytes the table grows at most with this message.
    pub(super) fn latest_growth(&self, body: &Body) -> usize {
        self.latest.as_ref().map_or(0, |latest| latest.growth(body))
    }

    /// Returns the table that the topic has if it is compacted by this field; `None` if it is already.
    pub(super) fn latest_by(&self, field: &str) -> Option<Box<LatestTable>> {
        if self.latest.as_ref().is_some_and(|latest| latest.field() == field) {
            return None;
        }
        let has_lost = self.log.facts(MessageId::MIN).removed != Some(0);
        let in_front = self.log.first_id().and_then(MessageId::previous).unwrap_or(self.log.last_given());
        let mut table = LatestTable::new(field, has_lost.then_some(in_front));
        self.log.for_each(|message| table.note(&message));
        Some(Box::new(table))
    }

    /// Notes a message that was appended.
    pub(super) fn note_latest(&mut self, id: MessageId, message: &NewMessage, now: Timestamp) {
        let TopicPolicy { number, bytes, .. } = self.policy(message.policy);
        let Some(latest) = &mut self.latest else { return };
        let NewMessage { timestamp, expires_at, body, .. } = message.clone();
        latest.note(&StoredMessage { id, timestamp, expires_at, body });
        latest.keep(number, bytes, now);
    }

    /// Takes out what lies in front of the oldest message; returns how many bytes come free.
    pub(super) fn forget_trimmed(&mut self) -> usize {
        let Some(latest) = &mut self.latest else { return 0 };
        let before = latest.bytes();
        if let Some(first) = self.log.first_id().or(self.log.last_given().next()) {
            latest.drop_before(first);
        }
        before - latest.bytes()
    }

    /// Takes out one message; returns whether it was there, and how many bytes come free.
    pub(super) fn forget_latest(&mut self, id: MessageId) -> (bool, usize) {
        let Some(latest) = &mut self.latest else { return (false, 0) };
        let before = latest.bytes();
        let was_latest = latest.forget(id);
        (was_latest, before - latest.bytes())
    }
}

impl Topics {
    /// Returns the latest messages of the keys of a topic.
    pub(in crate::storage::memory) fn latest(
        &self,
        name: &TopicName,
        range: LatestRange,
        now: Timestamp,
    ) -> Result<Batch, StorageError> {
        let topic = self.topic(name)?;
        let table = topic.latest.as_ref().ok_or(StorageError::NotCompacted)?;
        let read = |after, limit| table.read(after, (limit, range.bytes_max), now);
        let (mut after, mut gap) = (range.after, None);
        if range.is_told() {
            let LatestRange { after: cursor, gap_check, .. } = range;
            let plain = Range { order: Order::Asc, after: cursor, gap_check, limit: 1, bytes_max: 1 };
            let plain = topic.log.read(name, plain, None, now).gap;
            let first = read(cursor, 1).messages.first().map(|message| message.id);
            let to = first.or(topic.log.last_given().next()).unwrap_or(MessageId::MAX);
            if let Some(verdict) = range.judge(plain, table.untold(), to) {
                (gap, after) = (Some(verdict.gap), verdict.resume);
            }
        }
        let Found { messages, reached, at_end } = read(after, range.limit);
        let tail = topic.log.tail();
        // What was replaced, or has no key, is behind the reader then.
        let end = tail.last.filter(|last| at_end && after.is_none_or(|after| *last > after));
        Ok(Batch {
            gap,
            next: messages.last().map(|message| message.id),
            looked_at: messages.len() as u64,
            messages,
            reached: end.or(reached),
            at_end,
            epoch: Some(tail.epoch),
            state: topic.ended.as_ref().map_or(RunState::Open, |ended| ended.state),
            ..Batch::default()
        })
    }
}
