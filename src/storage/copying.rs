//! Copying: a topic is told to another storage with all that its readers know of it, and is taken over from there.
//!
//! A copy has the ids, the epoch and the counts of what it is a copy of: a cursor of the one goes on in the other without
//! a gap that is none, and a gap of the one is told by the other.
//!
//! A topic that is *frozen* takes no message, and nothing that waits in it is published: while it is taken over, or since it
//! is read-only. It is read as any other. Freezing is one step with the appends, on whichever node: an append was there
//! before, or is refused.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, TopicName, TopicSelector};

use super::error::StorageError;
use super::message::StoredMessage;
use super::reading::Epoch;
use super::schedules::{StoredRecurring, WaitingMessage};

mod buckets;

pub use buckets::{BucketCopyStore, CopiedBucket, CopiedKey, CopiedKeys, KeysPart};
pub use tidemill_proto::copy::{
    CopiedDead, CopiedGroup, CopiedHole, CopiedPending, CopiedPlace, CopiedTopic, CopiedUnique, CopiedUntold,
    Freeze, UniquePage,
};

/// Messages that are taken over in one step at most.
pub const IMPORTED_MAX: usize = 1_000;

/// Whether ids increase strictly from an id on.
pub(super) fn follow_each_other(after: MessageId, messages: &[StoredMessage]) -> bool {
    let mut last = after;
    messages.iter().all(|message| std::mem::replace(&mut last, message.id) < message.id)
}

/// What is kept and that no list names, as other programs have made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// Topics, and the logs of buckets.
    pub names: Vec<TopicName>,
    /// What would be topics, with names that none may have.
    pub odd: OddNames,
}

/// Names that Tidemill does not allow: the first, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OddNames {
    /// The first, as they come by.
    pub first: Vec<String>,
    /// How many there are.
    pub count: u64,
}

impl OddNames {
    /// How many are named.
    pub const FIRST_MAX: usize = 10;

    /// Adds one.
    pub fn add(&mut self, name: impl Into<String>) {
        self.count += 1;
        if self.first.len() < Self::FIRST_MAX {
            self.first.push(name.into());
        }
    }

    /// Adds others.
    pub fn add_all(&mut self, others: Self) {
        self.count += others.count;
        self.first.extend(others.first);
        self.first.truncate(Self::FIRST_MAX);
    }
}

/// Topics that are copied.
#[async_trait]
pub trait CopyStore: fmt::Debug + Send + Sync {
    /// Returns what tells the servers of this storage from all others, or those on which a topic, or topics that a pattern
    /// matches, may live, there or not: a text for each, the same for whoever asks, until the server starts anew. There is none
    /// of a server that does not say who it is. Others are not asked, and may be away.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn identity(&self, topics: Option<&TopicSelector>) -> Result<Vec<String>, StorageError>;

    /// Returns within which time messages are removed of topics that say nothing of it, if they are, as this node is set.
    fn retention(&self) -> Option<Duration>;

    /// Returns topics, and the logs of buckets, that are kept and that no list names, as they come by: other programs have made
    /// them, and nobody has swept since; and what would be topics, with names that none may have. Where nothing is kept beside
    /// the lists there are none.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn unlisted(&self) -> Result<Unlisted, StorageError>;

    /// Returns the groups of a topic whose names none may have, as other programs have made them.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn odd_groups(&self, topic: &TopicName) -> Result<OddNames, StorageError>;

    /// Has one copy alone, by its token, take over for a while what a topic has beside its messages, or what the bucket has
    /// whose log it is: of two that write parts of it, neither would know. Done again, the while begins anew. Returns whether
    /// that is so; else another copy has it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`, `ForeignKey`; `TopicExists` where it is not being taken
    /// over.
    async fn claim_import(&self, topic: &TopicName, token: u64) -> Result<bool, StorageError>;

    /// Has lists name a topic that is there, or the bucket whose log it is, and what is due in it be found.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn list_copied(&self, topic: &TopicName) -> Result<(), StorageError>;

    /// Returns a topic without its messages. Where it is frozen, `last` is the last that it has given.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `ForeignKey`.
    async fn copied(&self, topic: &TopicName) -> Result<CopiedTopic, StorageError>;

    /// Returns messages behind an id in their order, those that have expired among them, up to so many and about so many
    /// bytes. None are none, or no topic.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NotATopic`.
    async fn copied_messages(
        &self,
        topic: &TopicName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError>;

    /// Returns which messages of a topic were deleted by request, as far as that is remembered, in their order.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `ForeignKey`.
    async fn copied_deletions(&self, topic: &TopicName) -> Result<Vec<MessageId>, StorageError>;

    /// Makes a topic read-only, or has it take messages again. One that has ended stays as it is.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`; `ReadOnly` where it is being taken over.
    async fn freeze(&self, topic: &TopicName, frozen: bool) -> Result<(), StorageError>;

    /// Has no more topics made by any node from a moment on, or has them made again: an append that would make one, and
    /// every other call that would, is `ReadOnly`. What a node was about to make comes within the time that it allows for
    /// a call.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn refuse_new_topics(&self, refused: bool) -> Result<(), StorageError>;

    /// Returns whether no more topics are made.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn refuses_new_topics(&self) -> Result<bool, StorageError>;

    /// Makes a topic that is to be taken over, with the epoch and the description of the other one; it has no messages yet,
    /// and is frozen. Lists name it before it is there: whenever this is broken off, none lacks it. Where the other has no epoch, it gets one. The limit of topics is heeded.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `TopicExists`, `NotATopic`, `TopicsLimit`, `ForeignKey`; `ReadOnly` where no
    /// more topics are made; `IdsUsedUp` where this backend could give none behind its ids, here and in what follows.
    async fn begin_import(&self, other: &CopiedTopic) -> Result<(), StorageError>;

    /// Takes over up to [`IMPORTED_MAX`] messages with their ids, which increase strictly, behind the last that was: all of
    /// them, or none. Of a topic that is compacted the latest messages that its log has no more come before those of its log.
    /// Made again when its outcome was not known, it is `NotLast` where it was done.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`; `TopicExists` where a topic of that name is not being
    /// taken over, or another one is; `NotLast` where the last is not `after`, or ids do not increase.
    async fn import_messages(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        after: MessageId,
        messages: &[StoredMessage],
    ) -> Result<(), StorageError>;

    /// Has messages of a topic that is being taken over, and is compacted, be none of the latest of their keys: the other one
    /// has none of these keys. Its messages have come before.
    ///
    /// # Errors
    /// As for messages, but for `NotLast`.
    async fn import_forgotten(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        messages: &[MessageId],
    ) -> Result<(), StorageError>;

    /// Returns a group of a topic, without what it knows of messages.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NoGroup`.
    async fn copied_group(&self, topic: &TopicName, group: &GroupName) -> Result<CopiedGroup, StorageError>;

    /// Returns messages behind one, in their order, that a group has given out and that are not done: up to so many.
    ///
    /// # Errors
    /// As for the group.
    async fn copied_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedPending>, StorageError>;

    /// Returns dead letters of a group whose messages are behind one, in the order of these, up to so many.
    ///
    /// # Errors
    /// As for the group.
    async fn copied_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedDead>, StorageError>;

    /// Returns keys of which one message at a time may be in a group, from the `next` of the page before on: up to about so
    /// many. A key that is there as long as it is asked for is told at least once.
    ///
    /// # Errors
    /// As for the group.
    async fn copied_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<UniquePage, StorageError>;

    /// Gives a topic that is being taken over a group, in place of one of that name and of all that this knows; its messages
    /// have come before.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`; `TopicExists` where the topic is not being taken over.
    async fn import_group(&self, topic: &TopicName, group: &CopiedGroup) -> Result<(), StorageError>;

    /// Gives a group of a topic that is being taken over messages that are not done. Those that hold their order keys come
    /// before those that stand behind. What it knows already stays as it is, and what is gone from the topic counts as gone.
    ///
    /// # Errors
    /// As [`import_group`](Self::import_group); `NoGroup`.
    async fn import_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        pending: &[CopiedPending],
    ) -> Result<(), StorageError>;

    /// Gives a group of a topic that is being taken over dead letters.
    ///
    /// # Errors
    /// As for messages.
    async fn import_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        dead: &[CopiedDead],
    ) -> Result<(), StorageError>;

    /// Gives a group of a topic that is being taken over keys of which one message at a time may be there. Their messages have
    /// come before, also to the group.
    ///
    /// # Errors
    /// As for messages.
    async fn import_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        unique: &[CopiedUnique],
    ) -> Result<(), StorageError>;

    /// Gives a topic that is being taken over what is to wait in it for later: all of it, where `first` says so, or more.
    /// What waits keeps its id where that is one that this backend gives.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`, `ForeignKey`; `TopicExists` where the topic is not
    /// being taken over.
    async fn import_waiting(
        &self,
        topic: &TopicName,
        first: bool,
        waiting: &[WaitingMessage],
        recurring: &[StoredRecurring],
    ) -> Result<(), StorageError>;

    /// Ends taking over: gives the topic the description, the counts, the last id, the marks of what was lost and the end of
    /// the other one, removes what that does not keep any more, and has it take messages, unless it has ended. A topic with
    /// that epoch that is not being taken over any more stays as it is. Lists name it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`, `ForeignKey`; `TopicExists` as for messages; `NotLast`
    /// where a message was taken over that the other one has not given.
    async fn finish_import(&self, other: &CopiedTopic, deletions: &[MessageId]) -> Result<(), StorageError>;
}
