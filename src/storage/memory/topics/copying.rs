//! Topics that are told to another storage, or taken over from one.

use tidemill_proto::page::Order;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::super::group::{Group, KEYED_BYTES, PENDING_BYTES, UNIQUE_BYTES};
use super::super::latest::LatestTable;
use super::super::log::{Log, check_goes_on};
use super::super::schedules::{Schedules, number_of};
use super::super::segment::BODY_BYTES_MAX;
use super::super::work::Kept;
use super::{Shortage, StoredTopic, Topics, bytes_of_empty};
use crate::storage::copying::follow_each_other;
use crate::storage::history::Untold;
use crate::storage::{
    Body, CopiedDead, CopiedGroup, CopiedPending, CopiedTopic, CopiedUnique, CopiedUntold, Epoch, Freeze,
    GapCheck, Range, StorageError, StoredMessage, StoredRecurring, TopicPolicy, WaitingMessage, WhyReadOnly,
};

/// What is kept of a topic that is taken over: all, until that is done.
const ALL: TopicPolicy = TopicPolicy::newest(u64::MAX);

/// A group of a topic.
type Of<'a> = (&'a TopicName, &'a GroupName);

impl Topics {
    pub(in crate::storage::memory) fn copied(&self, name: &TopicName) -> Result<CopiedTopic, StorageError> {
        let topic = self.topic(name)?;
        let tail = topic.log.tail();
        Ok(CopiedTopic {
            topic: topic.to_topic(name),
            epoch: tail.epoch,
            born: tail.born,
            late: tail.late,
            length: topic.log.length() as u64,
            first: tail.first,
            last: tail.last.unwrap_or(MessageId::MIN),
            given: tail.given,
            taken_out: topic.log.deletions().last(),
            taken_out_by_others: None,
            untold: topic.latest.as_ref().map(|latest| {
                let Untold { newest, keyless } = latest.untold();
                CopiedUntold { newest, keyless }
            }),
            holes: topic.log.holes().collect(),
            ended: topic.ended.as_deref().cloned(),
            freeze: topic.freeze,
        })
    }

    pub(in crate::storage::memory) fn copied_messages(
        &self,
        name: &TopicName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Vec<StoredMessage> {
        let Some(topic) = self.topics.get(name) else { return Vec::new() };
        let after = Some(after);
        let range = Range { order: Order::Asc, after, gap_check: GapCheck::None, limit, bytes_max };
        // By that time none has expired.
        topic.log.read(name, range, None, Timestamp::from_millis(0)).messages
    }

    pub(in crate::storage::memory) fn copied_deletions(
        &self,
        name: &TopicName,
    ) -> Result<Vec<MessageId>, StorageError> {
        self.topic(name).map(|topic| topic.log.deletions().collect())
    }

    pub(in crate::storage::memory) fn freeze(
        &mut self,
        name: &TopicName,
        frozen: bool,
    ) -> Result<(), StorageError> {
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        match topic.freeze {
            Some(Freeze::Importing) => return Err(StorageError::ReadOnly(WhyReadOnly::Importing)),
            Some(Freeze::ReadOnly) | None if topic.ended.is_some() => {}
            Some(Freeze::ReadOnly) | None => topic.freeze = frozen.then_some(Freeze::ReadOnly),
        }
        Ok(())
    }

    /// Checks that a topic may be made.
    pub(super) fn check_may_make(&self) -> Result<(), StorageError> {
        if self.refuses_new {
            return Err(StorageError::ReadOnly(WhyReadOnly::NotMade));
        }
        self.check_topics_limit()
    }

    pub(in crate::storage::memory) fn refuse_new(&mut self, refused: bool) {
        self.refuses_new = refused;
    }

    /// Returns how many topics and buckets are being taken over.
    pub(in crate::storage::memory) fn unfinished(&self) -> u64 {
        let topics = self.topics.values().filter(|topic| topic.freeze == Some(Freeze::Importing)).count();
        let buckets =
            self.buckets.values().filter(|bucket| bucket.freeze() == Some(Freeze::Importing)).count();
        (topics + buckets) as u64
    }

    pub(in crate::storage::memory) fn refuses_new(&self) -> bool {
        self.refuses_new
    }

    pub(in crate::storage::memory) fn begin_import(
        &mut self,
        other: &CopiedTopic,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let name = &other.topic.topic_name;
        if self.topics.contains_key(name) {
            return Err(StorageError::TopicExists);
        }
        check_goes_on(other.last.max(other.born.unwrap_or(MessageId::MIN)))?;
        self.check_may_make()?;
        let (description, owner) = (other.topic.description.as_deref(), other.topic.owner_id.as_deref());
        let needed = bytes_of_empty(name, description, owner);
        self.make_room(|_| needed, needed)?;
        self.put(name, TopicUpdate::default(), owner, now);
        let topic = self.topics.get_mut(name).expect("the topic was put there");
        let before = topic.empty_bytes(name);
        topic.freeze = Some(Freeze::Importing);
        topic.log = Log::taken_over(other, topic.log.tail().epoch);
        topic.describe_as(other);
        let compact_by = other.topic.compact_by.as_deref();
        topic.latest = compact_by.map(|field| Box::new(LatestTable::new(field, None)));
        self.topics_bytes = self.topics_bytes - before + topic.empty_bytes(name);
        Ok(())
    }

    /// Returns the topic that is being taken over under this epoch.
    fn importing(&self, name: &TopicName, epoch: Epoch) -> Result<&StoredTopic, StorageError> {
        let topic = self.topic(name)?;
        let is_it = topic.freeze == Some(Freeze::Importing) && epoch.may_be(topic.log.tail().epoch);
        if is_it { Ok(topic) } else { Err(StorageError::TopicExists) }
    }

    pub(in crate::storage::memory) fn import_messages(
        &mut self,
        name: &TopicName,
        epoch: Epoch,
        after: MessageId,
        messages: &[StoredMessage],
    ) -> Result<(), StorageError> {
        let last = self.importing(name, epoch)?.log.last_given();
        if last != after || !follow_each_other(after, messages) {
            return Err(StorageError::NotLast(last));
        }
        check_goes_on(messages.last().map_or(last, |message| message.id))?;
        let bodies: Vec<usize> = messages.iter().map(|message| message.body.len_bytes()).collect();
        if let Some(bytes) = bodies.iter().find(|bytes| **bytes > BODY_BYTES_MAX) {
            return Err(StorageError::Full(Shortage::Body(*bytes).into()));
        }
        let latest: usize = messages.iter().map(|message| self.latest_growth(name, &message.body)).sum();
        let growth =
            |all: &Self| all.topics.get(name).map_or(0, |topic| topic.log.growth_of(&bodies, &ALL)) + latest;
        self.make_room(growth, Log::bytes_of(&bodies) + latest)?;
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let (bytes, length, empty) = (topic.log.bytes(), topic.log.length(), topic.empty_bytes(name));
        for message in messages {
            topic.log.take_over(message, &ALL);
            if let Some(latest) = &mut topic.latest {
                latest.note(message);
            }
        }
        self.messages = self.messages - length + topic.log.length();
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        self.topics_bytes = self.topics_bytes - empty + topic.empty_bytes(name);
        Ok(())
    }

    fn latest_growth(&self, name: &TopicName, body: &Body) -> usize {
        self.topics.get(name).map_or(0, |topic| topic.latest_growth(body))
    }

    pub(in crate::storage::memory) fn import_forgotten(
        &mut self,
        name: &TopicName,
        epoch: Epoch,
        messages: &[MessageId],
    ) -> Result<(), StorageError> {
        self.importing(name, epoch)?;
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        for id in messages {
            let (_, freed) = topic.forget_latest(*id);
            self.topics_bytes -= freed;
        }
        Ok(())
    }

    pub(in crate::storage::memory) fn import_group(
        &mut self,
        name: &TopicName,
        copied: &CopiedGroup,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.importing(name, Epoch::Unmarked)?;
        self.with_groups(name, 0, |groups, log, _| {
            let group = Group::taken_over(copied, &Kept { topic: name, log, now }, now);
            groups.insert(copied.group.clone(), group);
        })
    }

    pub(in crate::storage::memory) fn import_pending(
        &mut self,
        of: Of<'_>,
        pending: &[CopiedPending],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.with_imported(of, pending.len() * (PENDING_BYTES + KEYED_BYTES), now, |group, kept| {
            for one in pending {
                group.take_over(one, kept, now);
            }
        })
    }

    pub(in crate::storage::memory) fn import_dead(
        &mut self,
        of: Of<'_>,
        dead: &[CopiedDead],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        self.with_imported(of, dead.len() * PENDING_BYTES, now, |group, _| {
            for one in dead {
                group.take_over_dead(one);
            }
        })
    }

    pub(in crate::storage::memory) fn import_unique(
        &mut self,
        of: Of<'_>,
        unique: &[CopiedUnique],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let needed = unique.iter().map(|(key, ..)| UNIQUE_BYTES + key.len()).sum();
        self.with_imported(of, needed, now, |group, kept| {
            for one in unique {
                group.take_over_unique(one, kept);
            }
        })
    }

    /// Gives a group that is being taken over what takes so many bytes.
    fn with_imported(
        &mut self,
        (name, group): Of<'_>,
        needed: usize,
        now: Timestamp,
        work: impl FnOnce(&mut Group, &Kept<'_>),
    ) -> Result<(), StorageError> {
        self.importing(name, Epoch::Unmarked)?;
        self.with_groups(name, needed, |groups, log, _| {
            let found = groups.get_mut(group).ok_or(StorageError::NoGroup)?;
            work(found, &Kept { topic: name, log, now });
            Ok(())
        })?
    }

    pub(in crate::storage::memory) fn import_waiting(
        &mut self,
        name: &TopicName,
        first: bool,
        waiting: &[WaitingMessage],
        recurring: &[StoredRecurring],
    ) -> Result<(), StorageError> {
        self.importing(name, Epoch::Unmarked)?;
        if first {
            self.drop_schedules(name);
        }
        let bodies = waiting.iter().map(|one| &one.body).chain(recurring.iter().map(|one| &one.body));
        let needed: usize = bodies.map(|body| Schedules::growth(None, body)).sum();
        self.make_room(|_| needed, needed)?;
        for WaitingMessage { id, due, body, ttl } in waiting {
            let number = number_of(id).unwrap_or_else(|| self.last_schedule.next().unwrap_or(MessageId::MAX));
            self.last_schedule = self.last_schedule.max(number);
            self.change_schedules(name, |schedules| schedules.add(number, *due, body, *ttl));
        }
        for one in recurring {
            self.change_schedules(name, |schedules| schedules.take_over_again(one));
        }
        Ok(())
    }

    pub(in crate::storage::memory) fn finish_import(
        &mut self,
        other: &CopiedTopic,
        deletions: &[MessageId],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let name = &other.topic.topic_name;
        let found = self.topic(name)?;
        if found.freeze != Some(Freeze::Importing) && found.log.tail().epoch == other.epoch {
            return Ok(());
        }
        check_goes_on(other.last)?;
        let last = self.importing(name, other.epoch)?.log.last_given();
        if last > other.last {
            return Err(StorageError::NotLast(last));
        }
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let (bytes, length, empty) = (topic.log.bytes(), topic.log.length(), topic.empty_bytes(name));
        match other.topic.compact_by.as_deref() {
            None => topic.latest = None,
            // From all that has come: what the log keeps no more goes then.
            Some(field) => {
                if let Some(latest) = topic.latest_by(field) {
                    topic.latest = Some(latest);
                }
            }
        }
        if let Some(latest) = &mut topic.latest {
            for id in deletions {
                latest.forget(*id);
            }
            let CopiedUntold { newest, keyless } = other.untold.unwrap_or_default();
            latest.set_untold(Untold { newest, keyless });
        }
        topic.log.finish(other, deletions);
        topic.freeze = None;
        topic.ended = other.ended.clone().map(Box::new);
        topic.describe_as(other);
        topic.touched_at = now;
        self.messages = self.messages - length + topic.log.length();
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        self.topics_bytes = self.topics_bytes - empty + topic.empty_bytes(name);
        Ok(())
    }
}

impl StoredTopic {
    /// Gives it the description of another one, but for what is found in its messages.
    fn describe_as(&mut self, other: &CopiedTopic) {
        let topic = &other.topic;
        self.owner = topic.owner_id.as_deref().map(Into::into);
        self.created_at = topic.created_at.unwrap_or(self.created_at);
        self.description = topic.description.as_deref().map(Into::into);
        self.retention_seconds = topic.retention_seconds;
        self.max_messages = topic.max_messages;
        self.max_bytes = topic.max_bytes;
        self.when_full = topic.when_full;
        self.keep_until_acked = topic.keep_until_acked;
        self.idle_seconds = topic.idle_seconds;
    }
}
