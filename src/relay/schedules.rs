//! Messages for later, and recurring ones: the rules, and the way to storage.

use std::time::Duration;

use tidemill_proto::limits::{CRON_BYTES_MAX, PAGE_BYTES_MAX, TIME_ZONE_BYTES_MAX};
use tidemill_proto::{Code, Delivery, MessageId, Problem, RecurringName, ScheduleId, Timestamp, TopicName};

use super::publish::Draft;
use super::recurrence::Cron;
use super::{Failure, Gate, Scheduled, StoredRecurring};
use crate::access::Verb;
use crate::features::Feature;
use crate::storage::{
    DuePlace, NewRecurring, NewSchedule, RecurringRule, StorageError, WaitingPage, WaitingRange,
};

/// Where a page of messages that wait goes on; a text to whoever reads pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCursor(DuePlace);

impl DueCursor {
    /// Parses a cursor, as the page before has told it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let read = || {
            let (due, id) = text.split_once('.')?;
            let digits = due.bytes().all(|byte| byte.is_ascii_digit());
            let due = due.parse().ok().filter(|_| digits)?;
            Some(DuePlace { due: Timestamp::from_millis(due), id: ScheduleId::parse(id).ok()? })
        };
        let rule = "is none of those that a page of this list has told";
        read().map(Self).ok_or_else(|| Problem::field("cursor", rule).into())
    }

    /// Returns the cursor behind a place.
    #[must_use]
    pub fn text_of(place: &DuePlace) -> String {
        format!("{}.{}", place.due.as_millis(), place.id)
    }
}

/// A recurring message as it was asked for: its parts are well-formed, the rules are not yet checked.
#[derive(Debug)]
pub struct RecurringDraft {
    /// The name within the topic.
    pub name: RecurringName,
    /// The cron pattern.
    pub cron: String,
    /// The name of the time zone; `UTC` if it is absent.
    pub timezone: Option<String>,
    /// What is published each time, with neither key nor delivery.
    pub draft: Draft,
}

/// Parses the id of a schedule.
///
/// # Errors
/// The text has another form.
pub fn parse_schedule_id(field: &str, text: &str) -> Result<ScheduleId, Failure> {
    ScheduleId::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// Parses the name of a recurring message.
///
/// # Errors
/// The text has another form.
pub fn parse_recurring_name(field: &str, text: &str) -> Result<RecurringName, Failure> {
    RecurringName::parse(text).map_err(|error| Problem::field(field, error).into())
}

fn no_schedule(detail: String) -> Failure {
    Problem::new(Code::ScheduleNotFound, detail).into()
}

impl Gate {
    /// Checks that messages may be published for later, and this one then.
    pub(super) fn check_delivery(&self, delivery: Delivery) -> Result<(), Failure> {
        let field = match delivery {
            Delivery::After(_) => "delay",
            Delivery::At(_) => "deliver_at",
        };
        if !self.relay().options.features.has(Feature::Delays) {
            let rule =
                "is switched off on this relay (setting `TIDEMILL_FEATURES`, which does not name `delays`)";
            return Err(Problem::field(field, rule).into());
        }
        Ok(delivery.check(self.relay().storage.upkeep.now())?)
    }

    /// Keeps messages for later.
    pub(super) async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>> {
        let topics: Vec<TopicName> = batch.iter().map(|new| new.message.topic.clone()).collect();
        let results = self.relay().storage.schedules.schedule(batch).await;
        for (topic, result) in topics.iter().zip(&results) {
            if let Ok(Scheduled { due_in, replayed: false, .. }) = result {
                self.relay().timers.note(topic, *due_in);
            }
        }
        results
    }

    /// Returns a page of the messages of a topic that wait.
    ///
    /// # Errors
    /// The caller may not read the topic, it does not exist, or the storage did not answer.
    pub async fn scheduled(
        &self,
        topic: &TopicName,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<WaitingPage, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let after = after.map(|DueCursor(place)| place);
        let range = WaitingRange { after, limit, bytes_max: PAGE_BYTES_MAX };
        let page = self.relay().storage.schedules.waiting(topic, range).await;
        page.map_err(|error| Failure::read(error, Some(topic)))
    }

    /// Takes a message out of those that wait.
    ///
    /// # Errors
    /// The caller may not manage the topic, no such message waits, or the storage did not answer.
    pub async fn cancel_scheduled(&self, topic: &TopicName, id: &ScheduleId) -> Result<(), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let cancelled = self.relay().storage.schedules.cancel(topic, id).await;
        if cancelled.map_err(|error| Failure::change(error, topic))? {
            self.tell("a scheduled message cancelled", topic);
            return Ok(());
        }
        Err(no_message_waits(topic, id))
    }

    /// Publishes a message that waits now, and returns its id.
    ///
    /// # Errors
    /// The caller may not manage the topic, no such message waits, or the storage refused it or did not answer.
    pub async fn publish_scheduled(&self, topic: &TopicName, id: &ScheduleId) -> Result<MessageId, Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let policy = self.relay().options.policy;
        let published = self.relay().storage.schedules.publish_now(topic, id, policy).await;
        match published.map_err(|error| Failure::change(error, topic))? {
            Some(message_id) => {
                self.tell("a scheduled message published at once", topic);
                Ok(message_id)
            }
            None => Err(no_message_waits(topic, id)),
        }
    }

    /// Keeps a recurring message in place of the one of its name.
    ///
    /// # Errors
    /// The caller may not manage the topic, or may not publish to it; a rule is broken: the problem names the field; or
    /// the storage refused it or did not answer.
    pub async fn put_recurring(&self, draft: RecurringDraft) -> Result<StoredRecurring, Failure> {
        let RecurringDraft { name, cron, timezone, draft } = draft;
        let topic = draft.topic.clone();
        self.check_topic(Verb::Manage, &topic).await?;
        let ttl = draft.ttl.map(super::TimeToLive::duration);
        let checked = self.check(draft).await?;
        let rule = check_rule(&cron, timezone.as_deref(), self.relay().storage.upkeep.now())?;
        let message = self.admit_recurring(checked).await?;
        let new = NewRecurring { name, rule, message, ttl };
        let stored = self.relay().storage.schedules.put_recurring(new, &Cron).await;
        let stored = stored.map_err(|error| Failure::change(error, &topic))?;
        if let Some(next) = stored.next {
            let now = self.relay().storage.upkeep.now();
            let due_in = Duration::from_millis(next.as_millis().saturating_sub(now.as_millis()));
            self.relay().timers.note(&topic, due_in);
        }
        self.tell("a recurring message set", &topic);
        Ok(stored)
    }

    /// Returns the recurring messages of a topic.
    ///
    /// # Errors
    /// The caller may not read the topic, it does not exist, or the storage did not answer.
    pub async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, Failure> {
        self.check_topic(Verb::Read, topic).await?;
        let all = self.relay().storage.schedules.recurring(topic).await;
        all.map_err(|error| Failure::read(error, Some(topic)))
    }

    /// Returns the recurring message of this name.
    ///
    /// # Errors
    /// As [`recurring`](Self::recurring), or there is none of this name.
    pub async fn one_recurring(
        &self,
        topic: &TopicName,
        name: &RecurringName,
    ) -> Result<StoredRecurring, Failure> {
        let all = self.recurring(topic).await?;
        all.into_iter().find(|one| one.name == *name).ok_or_else(|| no_recurring(topic, name))
    }

    /// Removes a recurring message.
    ///
    /// # Errors
    /// The caller may not manage the topic, there is none of this name, or the storage did not answer.
    pub async fn delete_recurring(&self, topic: &TopicName, name: &RecurringName) -> Result<(), Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let removed = self.relay().storage.schedules.remove_recurring(topic, name).await;
        if removed.map_err(|error| Failure::change(error, topic))? {
            self.tell("a recurring message removed", topic);
            return Ok(());
        }
        Err(no_recurring(topic, name))
    }
}

fn no_message_waits(topic: &TopicName, id: &ScheduleId) -> Failure {
    no_schedule(format!(
        "no message waits in topic `{topic}` under `{id}`; it was published, was cancelled, or was never there"
    ))
}

fn no_recurring(topic: &TopicName, name: &RecurringName) -> Failure {
    no_schedule(format!("topic `{topic}` has no recurring message `{name}`"))
}

/// Checks a rule, and returns it as it is kept.
fn check_rule(cron: &str, timezone: Option<&str>, now: Timestamp) -> Result<RecurringRule, Failure> {
    if cron.len() > CRON_BYTES_MAX {
        let rule = format_args!("has {} bytes; a pattern has at most {CRON_BYTES_MAX}", cron.len());
        return Err(Problem::field("cron", rule).into());
    }
    let timezone = timezone.unwrap_or("UTC");
    if timezone.len() > TIME_ZONE_BYTES_MAX {
        return Err(Problem::field("timezone", "is the name of no time zone").into());
    }
    // Blanks of any kind stand between its fields.
    let cron = cron.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    Cron::check(&cron, timezone, now)?;
    Ok(RecurringRule { cron: cron.into(), timezone: timezone.into() })
}
