//! What waits for later in all topics: how it gets there, and becomes messages.

use std::time::Duration;

use tidemill_proto::limits::RECURRING_MAX;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::{Delivery, MessageId, RecurringName, ScheduleId, Timestamp, TopicName};

use super::super::schedules::{Member, Schedules, id_of, number_of};
use super::{BODY_BYTES_MAX, PURGED_PER_APPEND_MAX, Shortage, Topics, bytes_of_empty};
use crate::storage::{
    Appended, Body, NewMessage, NewRecurring, NewSchedule, Promoted, Recurrence, Scheduled, StorageError,
    StoredRecurring, TopicPolicy, WaitingPage, WaitingRange,
};

/// Messages that are published before others have the lock.
const PROMOTED_PER_LOCK_MAX: usize = 256;

impl Topics {
    /// Returns how many messages of a topic wait for later, recurring ones apart.
    pub(in crate::storage::memory) fn scheduled(&self, topic: &TopicName) -> u64 {
        let schedules = self.topics.get(topic).and_then(|topic| topic.schedules.as_ref());
        schedules.map_or(0, |schedules| schedules.count_once())
    }

    pub(in crate::storage::memory) fn schedule(
        &mut self,
        new: &NewSchedule,
        now: Timestamp,
    ) -> Result<Scheduled, StorageError> {
        let NewSchedule { message, delivery, ttl } = new;
        if let Some(topic) = self.topics.get_mut(&message.topic) {
            let (_, freed) = topic.purge_keys(now, PURGED_PER_APPEND_MAX);
            self.keys_bytes -= freed;
            if let (Some(key), Some(keys)) = (&message.idempotency, &topic.keys)
                && let Some((id, timestamp)) = keys.find(key, now)?
            {
                let due_in = Duration::ZERO;
                return Ok(Scheduled { id: id_of(id), due: timestamp, due_in, replayed: true });
            }
        }
        self.check_topic_for(message)?;
        self.check_schedules_limit(&message.topic)?;
        if let Some(key) = &message.idempotency {
            self.check_room_for_key(&message.topic, key, now)?;
        }
        let growth = Schedules::growth(self.schedules_of(&message.topic), &message.body);
        self.make_room_for_schedule(message, growth)?;
        self.make_topic_for(message, now);
        let due = match *delivery {
            Delivery::After(delay) => now.saturating_add(delay),
            Delivery::At(at) => at.max(now),
        };
        // Behind those of a topic of this name that is gone, too.
        let behind = self.last_schedule.next().expect("times end long before 64 bits do");
        let number = MessageId::new(now.as_millis(), 0).max(behind);
        self.last_schedule = number;
        self.change_schedules(&message.topic, |schedules| {
            schedules.add(number, due, &message.body, *ttl);
        });
        if let Some(key) = &message.idempotency {
            let first = Appended { id: number, timestamp: due, replayed: false };
            self.remember(&message.topic, key, first, now);
        }
        let due_in = Duration::from_millis(due.as_millis() - now.as_millis());
        Ok(Scheduled { id: id_of(number), due, due_in, replayed: false })
    }

    pub(in crate::storage::memory) fn waiting(
        &self,
        topic: &TopicName,
        range: &WaitingRange,
    ) -> Result<WaitingPage, StorageError> {
        let schedules = self.topic(topic)?.schedules.as_deref();
        Ok(schedules.map_or_else(WaitingPage::default, |schedules| schedules.page(range)))
    }

    pub(in crate::storage::memory) fn cancel(
        &mut self,
        topic: &TopicName,
        id: &ScheduleId,
    ) -> Result<bool, StorageError> {
        self.topic(topic)?;
        let Some(number) = number_of(id).filter(|_| self.schedules_of(topic).is_some()) else {
            return Ok(false);
        };
        Ok(self.change_schedules(topic, |schedules| schedules.take(number)).is_some())
    }

    pub(in crate::storage::memory) fn publish_now(
        &mut self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
        now: Timestamp,
    ) -> Result<Option<MessageId>, StorageError> {
        self.topic(topic)?;
        match number_of(id) {
            Some(number) => self.publish_waiting(topic, number, policy, now),
            None => Ok(None),
        }
    }

    /// Publishes what is due in a topic.
    pub(in crate::storage::memory) fn promote(
        &mut self,
        topic: &TopicName,
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
        now: Timestamp,
    ) -> Result<Promoted, StorageError> {
        let mut promoted = Promoted::default();
        while promoted.late.len() < PROMOTED_PER_LOCK_MAX
            && let Some((due, member)) =
                self.schedules_of(topic).and_then(|schedules| schedules.first_due(now))
        {
            let published = match member {
                Member::Once(number) => self.publish_waiting(topic, number, policy, now).map(drop),
                Member::Again(name) => self.publish_again(topic, &name, policy, recurrence, now),
            };
            match published {
                Ok(()) => {}
                Err(error) if promoted.late.is_empty() => return Err(error),
                // It is told when it is met first.
                Err(_) => break,
            }
            promoted.late.push(Duration::from_millis(now.as_millis() - due.as_millis()));
        }
        let next = self.schedules_of(topic).and_then(Schedules::next_due);
        promoted.next_in =
            next.map(|due| Duration::from_millis(due.as_millis().saturating_sub(now.as_millis())));
        Ok(promoted)
    }

    pub(in crate::storage::memory) fn due_within(
        &self,
        within: Duration,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(TopicName, Duration)> {
        let end = now.saturating_add(within);
        let due = self.due.iter().take_while(|(due, _)| *due <= end).take(limit);
        due.map(|(due, topic)| {
            (topic.clone(), Duration::from_millis(due.as_millis().saturating_sub(now.as_millis())))
        })
        .collect()
    }

    pub(in crate::storage::memory) const fn count_waiting(&self) -> u64 {
        self.waiting
    }

    pub(in crate::storage::memory) fn put_recurring(
        &mut self,
        new: &NewRecurring,
        recurrence: &dyn Recurrence,
        now: Timestamp,
    ) -> Result<StoredRecurring, StorageError> {
        let NewRecurring { name, rule, message, ttl } = new;
        self.check_topic_for(message)?;
        let schedules = self.schedules_of(&message.topic);
        if schedules.is_some_and(|schedules| schedules.others(name) >= RECURRING_MAX) {
            return Err(StorageError::SchedulesLimit);
        }
        self.check_schedules_limit(&message.topic)?;
        let schedules = self.schedules_of(&message.topic);
        let kept = schedules.and_then(|schedules| schedules.next_of(name, rule));
        let growth = Schedules::growth_again(schedules, new);
        self.make_room_for_schedule(message, growth)?;
        self.make_topic_for(message, now);
        let next = kept.or_else(|| recurrence.next(rule, now));
        self.change_schedules(&message.topic, |schedules| schedules.put_again(new, next));
        let body = message.body.clone();
        Ok(StoredRecurring { name: name.clone(), rule: rule.clone(), body, ttl: *ttl, next })
    }

    pub(in crate::storage::memory) fn recurring(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<StoredRecurring>, StorageError> {
        let schedules = self.topic(topic)?.schedules.as_deref();
        Ok(schedules.map_or_else(Vec::new, Schedules::all_again))
    }

    pub(in crate::storage::memory) fn remove_recurring(
        &mut self,
        topic: &TopicName,
        name: &RecurringName,
    ) -> Result<bool, StorageError> {
        self.topic(topic)?;
        if self.schedules_of(topic).is_none() {
            return Ok(false);
        }
        Ok(self.change_schedules(topic, |schedules| schedules.remove_again(name)))
    }

    fn schedules_of(&self, topic: &TopicName) -> Option<&Schedules> {
        self.topics.get(topic)?.schedules.as_deref()
    }

    /// Checks that a topic is there, or may be made.
    fn check_topic_for(&self, message: &NewMessage) -> Result<(), StorageError> {
        if let Some(topic) = self.topics.get(&message.topic) {
            return topic.check_open();
        }
        if message.create_topic { self.check_may_make() } else { Err(StorageError::NoTopic) }
    }

    fn make_topic_for(&mut self, message: &NewMessage, now: Timestamp) {
        if !self.topics.contains_key(&message.topic) {
            self.put(&message.topic, TopicUpdate::default(), message.owner.as_deref(), now);
        }
    }

    fn check_schedules_limit(&self, topic: &TopicName) -> Result<(), StorageError> {
        let limits = &self.options.limits;
        let of_topic = self.schedules_of(topic).map_or(0, Schedules::count);
        let there_are_less = self.waiting < limits.schedules_max && of_topic < limits.topic_schedules_max;
        if there_are_less { Ok(()) } else { Err(StorageError::SchedulesLimit) }
    }

    fn make_room_for_schedule(&mut self, message: &NewMessage, growth: usize) -> Result<(), StorageError> {
        let body_bytes = message.body.len_bytes();
        if body_bytes > BODY_BYTES_MAX {
            return Err(StorageError::Full(Shortage::Body(body_bytes).into()));
        }
        let topic = match self.topics.get(&message.topic) {
            Some(_) => 0,
            None => bytes_of_empty(&message.topic, None, message.owner.as_deref()),
        };
        self.make_room(|_| growth + topic, growth + topic)
    }

    /// Changes what waits in a topic that is there, and keeps the books.
    /// Drops everything that waits in a topic.
    pub(super) fn drop_schedules(&mut self, topic: &TopicName) {
        if self.schedules_of(topic).is_some() {
            self.change_schedules(topic, |schedules| *schedules = Schedules::default());
            self.topics.get_mut(topic).expect("the topic was found").schedules = None;
        }
    }

    pub(super) fn change_schedules<T>(
        &mut self,
        topic: &TopicName,
        change: impl FnOnce(&mut Schedules) -> T,
    ) -> T {
        let stored = self.topics.get_mut(topic).expect("the topic was found or made");
        let before = stored.schedules.as_deref();
        let (bytes, count, due) = before
            .map_or((0, 0, None), |schedules| (schedules.bytes(), schedules.count(), schedules.next_due()));
        let schedules = stored.schedules.get_or_insert_default();
        let changed = change(schedules);
        self.schedules_bytes = self.schedules_bytes - bytes + schedules.bytes();
        self.waiting = self.waiting - count + schedules.count();
        let next = schedules.next_due();
        if next != due {
            if let Some(due) = due {
                self.due.remove(&(due, topic.clone()));
            }
            self.due.extend(next.map(|due| (due, topic.clone())));
        }
        changed
    }

    /// Publishes a recurring message, and plants it anew.
    fn publish_again(
        &mut self,
        topic: &TopicName,
        name: &RecurringName,
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let found = self.schedules_of(topic).and_then(|schedules| schedules.again(name));
        let Some((body, ttl, rule)) = found else { return Ok(()) };
        self.append(&message_of(topic, body, ttl, policy, now), now)?;
        let next = recurrence.next(&rule, now);
        self.change_schedules(topic, |schedules| schedules.plant(name, next));
        Ok(())
    }

    /// Publishes a message that waits, which goes on waiting where that fails.
    fn publish_waiting(
        &mut self,
        topic: &TopicName,
        number: MessageId,
        policy: TopicPolicy,
        now: Timestamp,
    ) -> Result<Option<MessageId>, StorageError> {
        let Some(due) = self.schedules_of(topic).and_then(|schedules| schedules.due_of(number)) else {
            return Ok(None);
        };
        // First, so that its bytes make room for the message.
        let taken = self.change_schedules(topic, |schedules| schedules.take(number));
        let Some((body, ttl)) = taken else { return Ok(None) };
        match self.append(&message_of(topic, body.clone(), ttl, policy, now), now) {
            Ok(appended) => Ok(Some(appended.id)),
            Err(error) => {
                self.change_schedules(topic, |schedules| schedules.put_back(number, due, body, ttl));
                Err(error)
            }
        }
    }
}

/// Returns a message that waited, as it is published now.
fn message_of(
    topic: &TopicName,
    body: Body,
    ttl: Option<Duration>,
    policy: TopicPolicy,
    now: Timestamp,
) -> NewMessage {
    NewMessage {
        topic: topic.clone(),
        body,
        timestamp: now,
        expires_at: ttl.map(|ttl| now.saturating_add(ttl)),
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: false,
        owner: None,
        policy,
    }
}
