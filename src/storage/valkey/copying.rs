//! Topics that are copied: told to another storage, or taken over from one.
//!
//! What is taken over comes in scripts, many messages in each, over the connection of groups: it is in the way of no append.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tidemill_proto::page::Order;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, Timestamp, TopicName, TopicSelector};

use super::calls::Call;
use super::entry::{self, read_id};
use super::failure::{Effect, unexpected};
use super::keys::sortable;
use super::marker::new_epoch;
use super::reads::{Ask, CHUNK_MAX};
use super::resp::{Arguments, Parts, Reply};
use super::scripts::{self, Script};
use super::{Shard, Valkey, at, recurring, waiting_body};
use crate::storage::copying::follow_each_other;
use crate::storage::{
    CopiedDead, CopiedGroup, CopiedPending, CopiedTopic, CopiedUnique, CopyStore, Epoch, OddNames,
    StorageError, StoredMessage, StoredRecurring, UniquePage, Unlisted, WaitingMessage, WhyReadOnly,
};
use form::{described, read_copied, unsorted};
pub(super) use form::{digits, lost};

mod form;
mod taking;

/// Deletions that are taken over in one step.
const DELETIONS_STEP: usize = 1_000;
/// Bytes of a reply that describes a topic, about, and at most: it has two whole messages, which are not sent on.
const TOPIC_BYTES: usize = 8 * 1024;
const TOPIC_BYTES_MAX: usize = 1024 * 1024;
/// Answers of scripts.
const NO_TOPIC: i64 = 1;
const NOT_A_TOPIC: i64 = 2;
const REFUSED: i64 = 3;
const NOT_LAST: i64 = 4;

/// What a script answers: all is well, with what follows; or a code, with the id that follows.
type Answer<T> = Result<T, (i64, Option<MessageId>)>;

fn behind_code<T>(reply: Reply<'_>, read: impl FnOnce(&mut Parts<'_>) -> Option<T>) -> Option<Answer<T>> {
    let Reply::Array(mut parts) = reply else { return None };
    match parts.next()?.integer()? {
        0 => read(&mut parts).map(Ok),
        code => Some(Err((code, parts.next().and_then(|id| read_id(id.bytes()?))))),
    }
}

impl Shard {
    /// Calls a script, and reads what follows its 0. `refused` is what a 3 says.
    pub(super) async fn copy_call<T: Send + 'static>(
        &self,
        (script, effect): (&'static Script, Effect),
        keys: &[String],
        arguments: Arguments,
        refused: StorageError,
        read: impl FnOnce(&mut Parts<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let room = (TOPIC_BYTES, TOPIC_BYTES_MAX);
        self.copy_call_of((script, effect), keys, arguments, refused, room, read).await
    }

    /// The same where the reply has other bytes: about so many, and at most.
    pub(super) async fn copy_call_of<T: Send + 'static>(
        &self,
        (script, effect): (&'static Script, Effect),
        keys: &[String],
        arguments: Arguments,
        refused: StorageError,
        (expected, bytes_max): (usize, usize),
        read: impl FnOnce(&mut Parts<'_>) -> Option<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let call = Call::with_arguments(script, effect, keys, arguments).replied(expected, bytes_max);
        let answer = self.calls.call(call, |reply| behind_code(reply, read)).await?;
        answer.map_err(|(code, id)| {
            let place = usize::try_from(-code).ok().and_then(|place| place.checked_sub(1));
            match (code, place.and_then(|place| keys.get(place))) {
                (_, Some(key)) => StorageError::ForeignKey(key.as_str().into()),
                (NO_TOPIC, None) => StorageError::NoTopic,
                (NOT_A_TOPIC, None) => StorageError::NotATopic,
                (REFUSED, None) => refused,
                (NOT_LAST, None) => StorageError::NotLast(id.unwrap_or(MessageId::MIN)),
                _ => unexpected("EVALSHA", effect),
            }
        })
    }

    /// Changes a topic, and tells of it.
    pub(super) async fn copy_change(
        &self,
        topic: &TopicName,
        script: &'static Script,
        keys: &[String],
        arguments: Arguments,
        refused: StorageError,
    ) -> Result<(), StorageError> {
        let changing = self.doorbell.changing([topic]);
        let done = self.copy_call((script, Effect::Write), keys, arguments, refused, |_| Some(())).await;
        match &done {
            Ok(()) => changing.answered([topic]),
            Err(StorageError::Indeterminate(_)) => {}
            Err(_) => changing.answered([]),
        }
        done
    }

    pub(super) async fn copied(&self, topic: &TopicName) -> Result<CopiedTopic, StorageError> {
        let keys = [self.keys.stream(topic), self.keys.description(topic)];
        let call = (&scripts::COPIED_TOPIC, Effect::Read);
        let name = topic.clone();
        let mut copied = self
            .copy_call(call, &keys, Arguments::default(), StorageError::NoTopic, move |parts| {
                read_copied(&name, parts)
            })
            .await?;
        if copied.topic.compact_by.is_some() {
            copied.untold = Some(self.latest_untold(topic).await?);
        }
        if copied.taken_out.is_some() {
            let deletions = self.deletions(topic).await?;
            let taken_out = copied.taken_out.map(sortable);
            let remembered = deletions.last().and_then(|text| text.strip_prefix('~'));
            copied.taken_out_by_others = match taken_out {
                Some(id) if deletions.contains(&id) => remembered.and_then(unsorted),
                _ => copied.taken_out,
            };
        }
        Ok(copied)
    }

    /// Returns what is remembered of messages that were taken out, in its order.
    async fn deletions(&self, topic: &TopicName) -> Result<Vec<String>, StorageError> {
        let found = self.page.remembered(&self.keys.deleted(topic)).await?;
        Ok(found)
    }

    async fn copied_messages(
        &self,
        topic: &TopicName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        let Some(from) = after.next() else { return Ok(Vec::new()) };
        let (stream, from) = (self.keys.stream(topic), from.to_string());
        let _room = self.page.room_for(&stream, limit, bytes_max).await?;
        let count = self.page.first_chunk(&stream, limit.min(CHUNK_MAX), bytes_max);
        let (order, to) = (Order::Asc, "+");
        let ask = Ask { stream: &stream, order, from: &from, to, count, in_front: 0, bytes_max };
        Ok(self.page.range(ask).await?.entries)
    }

    async fn begin_import(&self, other: &CopiedTopic) -> Result<(), StorageError> {
        let topic = &other.topic.topic_name;
        let index = &self.indexes.topics;
        let (count, is_closed) = tokio::try_join!(index.count(), index.is_closed())?;
        if is_closed {
            return Err(StorageError::ReadOnly(WhyReadOnly::NotMade));
        }
        if count >= self.limits.topics_max {
            return Err(StorageError::TopicsLimit);
        }
        let [due, bodies, recurring] = self.keys.schedules(topic);
        let beside = [self.keys.last_id(topic), self.keys.deleted(topic), due, bodies, recurring];
        let keys = [vec![self.keys.stream(topic), self.keys.description(topic)], beside.to_vec()].concat();
        let before = other.given.unwrap_or(other.length).saturating_sub(other.length);
        let epoch = match other.epoch {
            Epoch::Marked(epoch) => format!("{epoch:016x}"),
            Epoch::Unmarked => new_epoch(),
        };
        let born = other.born.unwrap_or(MessageId::MIN).to_string();
        let mut arguments: Arguments = [epoch, born, before.to_string()].iter().collect();
        arguments.extend(described(other));
        let is_new = index.add(&[topic]).await? == [true];
        let refused = StorageError::TopicExists;
        let begun = self.copy_change(topic, &scripts::BEGIN_IMPORT, &keys, arguments, refused).await;
        if is_new && let Err(StorageError::NotATopic | StorageError::ForeignKey(_)) = &begun {
            index.remove(&[topic]).await?;
        }
        begun?;
        self.note_unfinished(&[topic]).await
    }

    async fn import_waiting(
        &self,
        topic: &TopicName,
        first: bool,
        waiting: &[WaitingMessage],
        recurring: &[StoredRecurring],
    ) -> Result<(), StorageError> {
        let mut arguments: Arguments = [if first { "1" } else { "" }].iter().collect();
        let mut add = |id: &str, due: Option<Timestamp>, body: Vec<u8>, rule: &str| {
            let due = due.map_or_else(String::new, |due| due.as_millis().to_string());
            arguments.add(id.as_bytes()).add(due.as_bytes()).add(&body).add(rule.as_bytes());
        };
        for WaitingMessage { id, due, body, ttl } in waiting {
            add(id.as_str(), Some(*due), waiting_body::write(body, *ttl), "");
        }
        for StoredRecurring { name, rule, body, ttl, next } in recurring {
            add(&format!("~{name}"), *next, waiting_body::write(body, *ttl), &recurring::write_rule(rule));
        }
        let keys = self.keys_of_waiting(topic);
        let refused = StorageError::TopicExists;
        self.copy_change(topic, &scripts::IMPORT_WAITING, &keys, arguments, refused).await?;
        let due = waiting.iter().map(|waiting| waiting.due);
        if let Some(due) = due.chain(recurring.iter().filter_map(|recurring| recurring.next)).min() {
            self.note_due(&[(topic, due.as_millis())]).await;
        }
        Ok(())
    }

    async fn import_messages(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        after: MessageId,
        messages: &[StoredMessage],
    ) -> Result<(), StorageError> {
        if !follow_each_other(after, messages) {
            return Err(StorageError::NotLast(self.copied(topic).await?.last));
        }
        let mut arguments = Arguments::default();
        arguments.add(digits(epoch).as_bytes()).add(after.text().as_bytes());
        for message in messages {
            entry::import(&mut arguments, message);
        }
        let keys = [self.keys.stream(topic)];
        let refused = StorageError::TopicExists;
        self.copy_change(topic, &scripts::IMPORT_MESSAGES, &keys, arguments, refused).await
    }

    async fn import_forgotten(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        messages: &[MessageId],
    ) -> Result<(), StorageError> {
        let keys = [self.keys.stream(topic), self.keys.description(topic)];
        let ids = messages.iter().map(|id| sortable(*id));
        let arguments: Vec<String> = std::iter::once(digits(epoch)).chain(ids).collect();
        let (arguments, refused) = (arguments.iter().collect(), StorageError::TopicExists);
        self.copy_change(topic, &scripts::IMPORT_FORGOTTEN, &keys, arguments, refused).await
    }

    async fn finish_import(&self, other: &CopiedTopic, deletions: &[MessageId]) -> Result<(), StorageError> {
        let topic = &other.topic.topic_name;
        let found = self.copied(topic).await?;
        if found.freeze.is_none() && found.epoch == other.epoch && other.epoch != Epoch::Unmarked {
            self.list_copied(topic).await?;
            return self.indexes.importing.remove(&[topic]).await;
        }
        // What the log keeps no more is among the latest messages before it goes.
        if other.topic.compact_by.is_some() {
            self.latest_untold(topic).await?;
        }
        let epoch = digits(other.epoch);
        let keys = [self.keys.stream(topic), self.keys.description(topic), self.keys.deleted(topic)];
        let others = other.taken_out_by_others.map(|id| (format!("~{}", sortable(id)), String::new()));
        let all = deletions.iter().map(|id| (sortable(*id), id.to_string())).chain(others);
        let all: Vec<(String, String)> = all.collect();
        for some in all.chunks(DELETIONS_STEP) {
            let mut arguments: Arguments = [&epoch].iter().collect();
            for (remembered, id) in some {
                arguments.add(remembered.as_bytes()).add(id.as_bytes());
            }
            let refused = StorageError::TopicExists;
            self.copy_change(topic, &scripts::IMPORT_DELETIONS, &keys, arguments, refused).await?;
        }
        let keys = [self.keys.stream(topic), self.keys.description(topic)];
        let text = |id: Option<MessageId>| id.map_or_else(String::new, |id| id.to_string());
        let mut arguments: Arguments = [
            epoch,
            other.last.to_string(),
            other.given.map_or_else(String::new, |given| given.to_string()),
            other.taken_out.unwrap_or(MessageId::MIN).to_string(),
            text(other.first),
            other.ended.as_ref().map_or_else(String::new, |ended| ended.state.as_str().to_owned()),
            text(other.untold.and_then(|untold| untold.newest)),
            text(other.untold.and_then(|untold| untold.keyless)),
            lost(&other.holes),
        ]
        .iter()
        .collect();
        arguments.extend(described(other));
        let refused = StorageError::TopicExists;
        self.copy_change(topic, &scripts::FINISH_IMPORT, &keys, arguments, refused).await?;
        self.refusing.note(topic, other.topic.when_full == tidemill_proto::topics::WhenFull::Refuse);
        // A sweep that came by between the name and the topic has taken it for one that is gone.
        self.list_copied(topic).await?;
        self.indexes.importing.remove(&[topic]).await
    }
}

#[async_trait]
impl CopyStore for Valkey {
    async fn identity(&self, topics: Option<&TopicSelector>) -> Result<Vec<String>, StorageError> {
        if let Some(TopicSelector::Topic(topic)) = topics {
            let identity = at!(self, topic, shard => shard.identity().await)?;
            return Ok(identity.into_iter().collect());
        }
        // Which servers there are is known once one can be asked.
        at!(self, shard => shard.identity().await)?;
        let mut shards = self.shards();
        if let Some(topics) = topics {
            shards.retain(|shard| shard.others.as_ref().is_none_or(|others| others.may_have(topics)));
        }
        let all = try_join_all(shards.iter().map(|shard| shard.identity())).await?;
        Ok(all.into_iter().flatten().collect())
    }

    fn retention(&self) -> Option<Duration> {
        self.retention
    }

    async fn unlisted(&self) -> Result<Unlisted, StorageError> {
        // Which servers there are is known once one can be asked.
        at!(self, shard => shard.identity().await)?;
        let mut all = Unlisted::default();
        for one in try_join_all(self.shards().iter().map(|shard| shard.unlisted())).await? {
            all.names.extend(one.names);
            all.odd.add_all(one.odd);
        }
        Ok(all)
    }

    async fn odd_groups(&self, topic: &TopicName) -> Result<OddNames, StorageError> {
        at!(self, topic, shard => shard.odd_groups(topic).await)
    }

    async fn claim_import(&self, topic: &TopicName, token: u64) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.claim_import(topic, token).await)
    }

    async fn list_copied(&self, topic: &TopicName) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.list_copied(topic).await)
    }

    async fn copied(&self, topic: &TopicName) -> Result<CopiedTopic, StorageError> {
        at!(self, topic, shard => shard.copied(topic).await)
    }

    async fn copied_messages(
        &self,
        topic: &TopicName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        at!(self, topic, shard => shard.copied_messages(topic, after, limit, bytes_max).await)
    }

    async fn copied_deletions(&self, topic: &TopicName) -> Result<Vec<MessageId>, StorageError> {
        let found = at!(self, topic, shard => shard.deletions(topic).await)?;
        if found.is_empty() {
            self.copied(topic).await?;
        }
        Ok(found.iter().filter_map(|text| unsorted(text)).collect())
    }

    async fn freeze(&self, topic: &TopicName, frozen: bool) -> Result<(), StorageError> {
        at!(self, topic, shard => {
            let keys = [shard.keys.stream(topic)];
            let arguments = [if frozen { "1" } else { "" }].iter().collect();
            let refused = StorageError::ReadOnly(WhyReadOnly::Importing);
            shard.copy_change(topic, &scripts::FREEZE, &keys, arguments, refused).await
        })
    }

    async fn refuse_new_topics(&self, refused: bool) -> Result<(), StorageError> {
        let closed = at!(self, shard => shard.indexes.topics.close(refused).await);
        match closed {
            // One server after the other is told, and those before are.
            Err(StorageError::Unavailable(cause)) if self.shards().len() > 1 => {
                Err(StorageError::Indeterminate(cause))
            }
            closed => closed,
        }
    }

    async fn refuses_new_topics(&self) -> Result<bool, StorageError> {
        at!(self, shard => shard.indexes.topics.is_closed().await)
    }

    async fn begin_import(&self, other: &CopiedTopic) -> Result<(), StorageError> {
        at!(self, &other.topic.topic_name, shard => shard.begin_import(other).await)
    }

    async fn import_messages(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        after: MessageId,
        messages: &[StoredMessage],
    ) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_messages(topic, epoch, after, messages).await)
    }

    async fn import_forgotten(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        messages: &[MessageId],
    ) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_forgotten(topic, epoch, messages).await)
    }

    async fn copied_group(&self, topic: &TopicName, group: &GroupName) -> Result<CopiedGroup, StorageError> {
        at!(self, topic, shard => shard.copied_group((topic, group)).await)
    }

    async fn copied_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedPending>, StorageError> {
        at!(self, topic, shard => shard.copied_pending((topic, group), after, limit).await)
    }

    async fn copied_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedDead>, StorageError> {
        at!(self, topic, shard => shard.copied_dead((topic, group), after, limit).await)
    }

    async fn copied_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<UniquePage, StorageError> {
        at!(self, topic, shard => shard.copied_unique((topic, group), after, limit).await)
    }

    async fn import_group(&self, topic: &TopicName, group: &CopiedGroup) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_group(topic, group).await)
    }

    async fn import_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        pending: &[CopiedPending],
    ) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_pending((topic, group), pending).await)
    }

    async fn import_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        dead: &[CopiedDead],
    ) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_dead((topic, group), dead).await)
    }

    async fn import_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        unique: &[CopiedUnique],
    ) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_unique((topic, group), unique).await)
    }

    async fn import_waiting(
        &self,
        topic: &TopicName,
        first: bool,
        waiting: &[WaitingMessage],
        recurring: &[StoredRecurring],
    ) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.import_waiting(topic, first, waiting, recurring).await)
    }

    async fn finish_import(&self, other: &CopiedTopic, deletions: &[MessageId]) -> Result<(), StorageError> {
        at!(self, &other.topic.topic_name, shard => shard.finish_import(other, deletions).await)
    }
}
