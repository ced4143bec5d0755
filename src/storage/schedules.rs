//! Messages for later: each waits in its topic until it is due, and is then published, once.
//!
//! A message that comes again and again is one that is planted anew, in the step that publishes it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::{Delivery, MessageId, RecurringName, ScheduleId, Timestamp, TopicName};

use super::error::StorageError;
use super::message::{Body, NewMessage, TopicPolicy};

/// A message to publish later.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// The message. Its `timestamp` and `expires_at` count for nothing: those that it gets when it is published do.
    pub message: NewMessage,
    /// When it is published.
    pub delivery: Delivery,
    /// How long after that it is returned.
    pub ttl: Option<Duration>,
}

/// The answer to a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The id of the schedule.
    pub id: ScheduleId,
    /// When it is due: the time that was asked for, or now where that has passed.
    pub due: Timestamp,
    /// In how long that is, by the clock of the backend.
    pub due_in: Duration,
    /// Whether the idempotency key had been used, so that nothing was scheduled now.
    pub replayed: bool,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingMessage {
    /// The id of the schedule.
    pub id: ScheduleId,
    /// When it is due.
    pub due: Timestamp,
    /// What was published.
    pub body: Body,
    /// How long it is returned after it is published.
    pub ttl: Option<Duration>,
}

/// A place in the order in which messages of a topic are due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuePlace {
    /// When it is due.
    pub due: Timestamp,
    /// The id: of those that are due at one time, the one that was scheduled first comes first.
    pub id: ScheduleId,
}

/// A page of messages that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingPage {
    /// The messages, those that are due first in front.
    pub messages: Vec<WaitingMessage>,
    /// Behind which the next page starts; `None` if this one is the last.
    pub next: Option<DuePlace>,
}

/// Which part of what waits is asked for.
#[derive(Clone, Debug)]
pub struct WaitingRange {
    /// Behind which to begin; `None` at the first.
    pub after: Option<DuePlace>,
    /// Most messages, at least 1.
    pub limit: usize,
    /// Bytes of bodies after which the page ends; the first message is always in it.
    pub bytes_max: usize,
}

/// What came of looking for what is due in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// How late each of the messages was published, in their order.
    pub late: Vec<Duration>,
    /// In how long the next is due, zero where more are due now; `None` where nothing waits.
    pub next_in: Option<Duration>,
}

/// When a recurring message comes, as its publisher has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecurringRule {
    /// The cron pattern.
    pub cron: Box<str>,
    /// The name of the time zone.
    pub timezone: Box<str>,
}

/// Tells when a recurring message comes next.
pub trait Recurrence: fmt::Debug + Send + Sync {
    /// Returns the first time after `after`; `None` where there is none, or the rule cannot be read.
    fn next(&self, rule: &RecurringRule, after: Timestamp) -> Option<Timestamp>;
}

/// A recurring message to keep. Its message is what is published each time.
#[derive(Clone, Debug)]
pub struct NewRecurring {
    /// The name within the topic.
    pub name: RecurringName,
    /// When it comes.
    pub rule: RecurringRule,
    /// The message, without an idempotency key.
    pub message: NewMessage,
    /// How long each is returned.
    pub ttl: Option<Duration>,
}

/// A recurring message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecurring {
    /// The name within the topic.
    pub name: RecurringName,
    /// When it comes.
    pub rule: RecurringRule,
    /// What is published.
    pub body: Body,
    /// How long each is returned.
    pub ttl: Option<Duration>,
    /// When it is due next; `None` where it never is again.
    pub next: Option<Timestamp>,
}

/// Messages for later.
#[async_trait]
pub trait ScheduleStore: fmt::Debug + Send + Sync {
    /// Keeps messages to be published later and returns a result for each, in the order given. Each succeeds or fails
    /// alone. With an idempotency key, keeping the message and remembering the key are one step, and the key is one of
    /// those of [`append`](super::MessageStore::append): a repeat returns the first answer, also once the message is
    /// published, for the window from when it was scheduled.
    ///
    /// # Errors
    /// Per message: those of an append, and `SchedulesLimit`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, any of the messages may be kept.
    async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>>;

    /// Returns the messages of a topic that wait, but for recurring ones.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `ForeignKey`.
    async fn waiting(&self, topic: &TopicName, range: WaitingRange) -> Result<WaitingPage, StorageError>;

    /// Takes a message out of those that wait, and returns whether it was there.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `ForeignKey`.
    async fn cancel(&self, topic: &TopicName, id: &ScheduleId) -> Result<bool, StorageError>;

    /// Publishes a message that waits now, and returns its id; `None` if it does not wait.
    ///
    /// # Errors
    /// As an append; the message then waits on, but for `Indeterminate`.
    async fn publish_now(
        &self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
    ) -> Result<Option<MessageId>, StorageError>;

    /// Publishes what is due in topics, in the order in which it is due, up to a bounded number in each, and returns a
    /// result for each topic. Publishing a message and taking it out of those that wait are one step: however many
    /// nodes do this at once, each is published once. A recurring message is planted anew in the same step, at its
    /// first time after now: what it has missed meanwhile is not made up for.
    ///
    /// # Errors
    /// Per topic, as an append; what is due waits on, but for `Indeterminate`. A topic that does not exist has nothing
    /// that waits.
    async fn promote(
        &self,
        topics: &[TopicName],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Promoted, StorageError>>;

    /// Returns topics in which something is due within this time, with the time until then, the first in front; at most
    /// `limit`. One may be named in which nothing is due. What another node has scheduled is told of after the next sweep
    /// at the latest, and almost always at once.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(TopicName, Duration)>, StorageError>;

    /// Counts what waits in all topics. It is a count of some moments, one after the other.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn count_waiting(&self) -> Result<u64, StorageError>;

    /// Keeps a recurring message in place of the one of its name, and returns it. Where that has the same rule, it comes
    /// next when that would have.
    ///
    /// # Errors
    /// As [`schedule`](Self::schedule).
    async fn put_recurring(
        &self,
        new: NewRecurring,
        recurrence: &dyn Recurrence,
    ) -> Result<StoredRecurring, StorageError>;

    /// Returns the recurring messages of a topic, by their names.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `ForeignKey`.
    async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, StorageError>;

    /// Removes a recurring message, and returns whether it was there.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `ForeignKey`.
    async fn remove_recurring(&self, topic: &TopicName, name: &RecurringName) -> Result<bool, StorageError>;
}
