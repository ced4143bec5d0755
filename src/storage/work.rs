//! Work: groups of consumers that share the messages of a topic.
//!
//! A group gives each message of its topic to one consumer at a time, in the order of the topic, until one settles it.
//! What it knows of a message lies beside the message, which is never published again.
//!
//! # What becomes of a message in a group
//! | state | it is there | it leaves it |
//! |---|---|---|
//! | waiting | published behind the group's start; given back; its time of backoff is over; its consumer's time is over | by a claim |
//! | in flight | claimed: until its *deadline* it is with one consumer | by an ack, a nack, a rejection, a release, or when its deadline passes |
//! | backoff | after a nack | when the time of that is over |
//! | dying | it has failed as often as it may, or was rejected | once its dead letter is kept ([`WorkStore::bury`]) |
//! | dead | its dead letter is kept | revived, or forgotten |
//! | done | acknowledged | never, but by a seek |
//!
//! Where a group's settings say so ([`Ordering::ByKey`]), one message of an order key is in flight, in backoff, or can be
//! claimed: it *holds* its key. Those behind it wait, and follow in the order of their ids once it is done, dying or gone.
//! One that is revived while another holds its key joins those that stand behind.
//!
//! Deliveries are counted, and tell one from another. Failures are counted apart: a nack is one, and so is the loss of
//! a consumer, but of a claim whose deadline passes only one message is charged with that: those on which the consumer
//! had begun (it has extended them) if there are any, else the oldest that was not settled.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_proto::duration::Seconds;
use tidemill_proto::work::{
    ClaimId, ConsumerName, GroupDetail, GroupName, GroupSettings, MessageStateName, Ordering,
};
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::error::StorageError;
use super::message::StoredMessage;
use super::upkeep::GroupsSwept;

/// Groups that a topic may have: what is asked of a stream's groups in one step is asked of all of them.
pub const GROUPS_MAX: usize = 64;
/// Messages that one claim gets at most.
pub const CLAIM_MESSAGES_MAX: usize = 1_000;
/// Messages that are settled, revived or looked at in one step at most.
pub const STEP_MESSAGES_MAX: usize = 100;
/// Losses of its consumer after which a message is a dead letter, however many failures it may have.
pub const CRASHES_MAX: u32 = 3;
/// Messages of a group that may stand behind others of their order keys. Beyond it, the group does not look at new
/// messages until there is room.
pub const BEHIND_MAX: usize = 10_000;
/// Most bytes of an error or a reason; what is longer is cut.
pub const ERROR_BYTES_MAX: usize = 1_024;

/// Returns the settings of a group of which nothing else was said: also of one that another program has made.
#[must_use]
pub fn group_defaults(topic: &TopicName, group: &GroupName) -> GroupSettings {
    let seconds = |seconds: u64| Seconds(Duration::from_secs(seconds));
    let dead_letter = TopicName::parse(&format!("{topic}.{group}.dead"));
    GroupSettings {
        ack_wait: seconds(30),
        max_deliveries: 5,
        max_run: None,
        backoff: [1, 2, 4, 8, 16, 32, 60].map(seconds).to_vec(),
        max_in_flight: None,
        per_consumer_max: None,
        // A name that is too long for that is cut: `put` asks for another one then.
        dead_letter: dead_letter.unwrap_or_else(|_| topic.clone()),
        paused: false,
        result_ttl: seconds(3_600),
        ordering: Ordering::None,
    }
}

/// Where a group begins, or goes on after a seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStart {
    /// With the oldest message that is kept.
    Earliest,
    /// With the next message.
    Latest,
    /// Behind this id.
    After(MessageId),
}

/// A claim of messages for a consumer.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    pub group: GroupName,
    /// Who claims.
    pub consumer: ConsumerName,
    /// Most messages: 1 to [`CLAIM_MESSAGES_MAX`].
    pub max: usize,
    /// Payload and metadata bytes after which no more are taken; what was asked for in one step with the last one may
    /// come as well.
    pub bytes_max: usize,
    /// By which the claim can be repeated: while its consumer has any of them, it returns those that it has.
    pub claim_id: Option<ClaimId>,
}

impl Claim {
    /// Whether both this and another ask for one message of the same group, whichever that is.
    #[must_use]
    pub fn is_of_one(&self, other: &Self) -> bool {
        let asks_for_one = |claim: &Self| claim.max == 1 && claim.claim_id.is_none();
        asks_for_one(self) && asks_for_one(other) && self.topic == other.topic && self.group == other.group
    }
}

/// What a claim got.
#[expect(clippy::struct_excessive_bools, reason = "each tells of another thing")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Which of the groups of that name this is, and since which seek.
    pub epoch: u64,
    /// The messages, in the order in which they are given out.
    pub deliveries: Vec<Delivery>,
    /// Whether they are those of an earlier claim with the same id.
    pub replayed: bool,
    /// Whether the group gives out nothing now.
    pub paused: bool,
    /// Whether the claim got fewer than it asked for, or another would, since no more may be held, or messages stand behind
    /// others of their order keys.
    pub limited: bool,
    /// When a message of the group that waits for a time can be claimed next, if one does.
    pub next_due: Option<Timestamp>,
    /// Why the topic was cancelled, if it was and there are messages.
    pub cancelled: Option<Box<str>>,
    /// Messages that were found to be gone: before the group had got them, or before it got them again.
    pub gone: u64,
    /// Whether nothing was left that can be claimed, where that is known.
    pub drained: bool,
}

/// A message as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: StoredMessage,
    /// Which delivery to the group it is, from 1 on.
    pub delivery: u64,
    /// Until when the consumer has it.
    pub deadline: Timestamp,
}

/// What a consumer says of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The epoch of the group in which it was delivered.
    pub epoch: u64,
    /// The message.
    pub id: MessageId,
    /// Which delivery.
    pub delivery: u64,
    /// What the consumer says.
    pub verdict: Verdict,
}

/// What a consumer says of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done, with this result, which is JSON.
    Ack(Option<Bytes>),
    /// It has failed, for this reason, and is to come again after this time; by the group's backoff, if `None`.
    Nack(Option<Duration>, Option<Box<str>>),
    /// The consumer needs it for so long from now on; for the group's time, if `None`. It has begun.
    Extend(Option<Duration>),
    /// It is a dead letter, for this reason.
    Reject(Box<str>),
    /// The consumer has not got it, or gives it back unused: it can be claimed at once, and has not failed.
    Release,
    /// The consumer is lost: as if its time were over now, so that it can still say what became of it until another one
    /// has got it.
    Lost {
        /// Whether the loss is charged to this message.
        charged: bool,
    },
}

/// What came of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it was said.
    Settled {
        /// Whether the consumer's time was over; nobody else had got the message.
        late: bool,
        /// When it comes again (after a nack), or until when the consumer has it (extended).
        until: Option<Timestamp>,
        /// Whether it is dying now.
        dying: bool,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a settlement was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The group was made anew, or was set to another place.
    Void,
    /// The message was delivered again since.
    DeliveredAgain,
    /// This delivery was settled already, or the message is done or dead.
    SettledBefore,
    /// The consumer has had it for as long as it may.
    MaxRun,
}

/// What was done for a group, and what comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Messages whose deadline had passed.
    pub lapsed: u64,
    /// Whether messages can be claimed that were delivered before.
    pub ready: bool,
    /// When that, or a deadline, is next.
    pub next: Option<Timestamp>,
    /// Whether messages are dying.
    pub dying: bool,
}

/// A message that is to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dying {
    /// Its id.
    pub id: MessageId,
    /// The epoch of the group.
    pub epoch: u64,
    /// The message; `None` if it is gone.
    pub message: Option<StoredMessage>,
    /// How often it was delivered.
    pub deliveries: u64,
    /// How often it was said that it has failed.
    pub failures: u32,
    /// How often a consumer was lost that had begun it.
    pub crashes: u32,
    /// Why it dies: `failed`, `crashed`, or what a rejection says.
    pub reason: Box<str>,
    /// The last error that a consumer told.
    pub error: Option<Box<str>>,
}

/// A dead letter, as the group remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The id of the message in the topic of the group.
    pub id: MessageId,
    /// The id of its dead letter; `None` where the message was gone before there was one.
    pub letter: Option<MessageId>,
}

/// What came of reviving a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revived {
    /// The message waits again.
    Waits,
    /// It is no dead letter any more, and gone from the topic: only its letter is left.
    Gone,
    /// It was no dead letter of the group, and is not dying.
    Unknown,
}

/// What is known of a message in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Its state.
    pub state: MessageStateName,
    /// How often it was delivered, while that is known.
    pub deliveries: Option<u64>,
    /// How often it has failed, where that is known and not 0.
    pub failures: Option<u32>,
    /// How many consumers were lost with it, where that is known and not 0.
    pub crashes: Option<u32>,
    /// The message that holds its order key, while it waits for that.
    pub behind: Option<MessageId>,
    /// Who has it.
    pub consumer: Option<Box<str>>,
    /// When that consumer got it.
    pub since: Option<Timestamp>,
    /// Until when it has it, or when it comes again.
    pub until: Option<Timestamp>,
    /// The last error, or why it died.
    pub error: Option<Box<str>>,
    /// The result, while it is kept.
    pub result: Option<Bytes>,
}

impl Fate {
    /// Returns that of a message of which nothing is known but its state.
    #[must_use]
    pub const fn of(state: MessageStateName) -> Self {
        Self {
            state,
            deliveries: None,
            failures: None,
            crashes: None,
            behind: None,
            consumer: None,
            since: None,
            until: None,
            error: None,
            result: None,
        }
    }
}

/// What is to be done with a group that is there already where one is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Its settings are replaced.
    Replace,
    /// It is left as it is.
    Keep,
}

/// A change of a group's settings: what they were, so that two changes do not undo each other, and what they are to be.
#[derive(Clone, Debug)]
pub struct GroupChange {
    /// The settings that are known; `None` where they do not matter.
    pub known: Option<GroupSettings>,
    /// The settings from now on.
    pub next: GroupSettings,
}

/// Consumers that a group tells of, with how many messages each has.
pub const HELD_BY_MAX: usize = 100;

/// Groups of consumers.
///
/// Every method but [`put_group`](Self::put_group) and [`grouped`](Self::grouped) is `NoTopic` where there is no such topic, and `NoGroup` where the
/// topic has no such group.
#[async_trait]
pub trait WorkStore: fmt::Debug + Send + Sync {
    /// Makes a group of a topic that exists, which begins there, or does with the one there is, which stays where it is,
    /// what is to be done with that. Returns whether it was made.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`, `GroupsLimit`, `GroupHolds`.
    async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settings: &GroupSettings,
        start: GroupStart,
        existing: Existing,
    ) -> Result<bool, StorageError>;

    /// Changes the settings of a group; returns whether they were those that were known.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`, `NoGroup`, `GroupHolds`.
    async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        change: &GroupChange,
    ) -> Result<bool, StorageError>;

    /// Returns the groups of a topic, in the order of their names, without their minutes and who has their messages.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, StorageError>;

    /// Returns what the groups of these topics have, as a sweep tells it of all: in the order of the topics given, and of the
    /// groups' names. Nothing is told of a topic without groups, and of one that is not there.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn grouped(
        &self,
        topics: &[TopicName],
    ) -> Result<Vec<(TopicName, GroupName, GroupsSwept)>, StorageError>;

    /// Returns a group.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, StorageError>;

    /// Deletes a group with all that it knows. The messages stay.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn delete_group(&self, topic: &TopicName, group: &GroupName) -> Result<(), StorageError>;

    /// Sets a group to another place: what is behind it is waiting, and all deliveries until now are void. What the
    /// group knew of messages is forgotten, dead letters included; its counts stay.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn seek(&self, topic: &TopicName, group: &GroupName, to: GroupStart) -> Result<(), StorageError>;

    /// Claims messages and returns a result for each claim, in the order given. None of them has a message that
    /// another one has. Expired messages are passed over, and count as gone.
    ///
    /// # Errors
    /// Per claim: `Unavailable`, `Indeterminate`, `Overloaded`, `NoTopic`, `NotATopic`, `NoGroup`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, messages may have been given out, and come back when their
    /// deadline has passed.
    async fn claim(&self, claims: Vec<Claim>) -> Vec<Result<Claimed, StorageError>>;

    /// Settles up to [`STEP_MESSAGES_MAX`] deliveries, in one step, and returns an outcome for each, in the order given.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `NoTopic`, `NotATopic`, `NoGroup`.
    ///
    /// # Cancel safety
    /// Not cancel-safe.
    async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Outcome>, StorageError>;

    /// Takes messages back whose deadline has passed, and tells what comes next. Does a bounded part at a time; where
    /// more is left, `next` is now. Any node may do it, at any time.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn tend(&self, topic: &TopicName, group: &GroupName) -> Result<Tended, StorageError>;

    /// Returns messages that are dying, the longest first, up to `limit`, which is at most [`STEP_MESSAGES_MAX`].
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn dying(
        &self,
        topic: &TopicName,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<Dying>, StorageError>;

    /// Notes that the dead letter of a message that was dying in this epoch is kept, under this id. Returns whether it was
    /// dying. A second call does nothing.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn bury(
        &self,
        topic: &TopicName,
        group: &GroupName,
        epoch: u64,
        dead: DeadLetter,
    ) -> Result<bool, StorageError>;

    /// Returns dead letters behind this id, in the order of their ids, up to `limit`, which is at most 1,000.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StorageError>;

    /// Has up to [`STEP_MESSAGES_MAX`] messages that are dead letters, or dying, wait again, with no failures, each for the time beside it, where `wait`, or
    /// only forgets them. Returns what came of each, in the order given.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn revive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        ids: &[(MessageId, Duration)],
        wait: bool,
    ) -> Result<Vec<Revived>, StorageError>;

    /// Returns what is known of a message; `None` for one that the group never gives out: it lies before its start, or
    /// is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
    ) -> Result<Option<Fate>, StorageError>;
}
