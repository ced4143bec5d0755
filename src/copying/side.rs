//! What a copy asks of its sides, and nothing else: whatever answers this can be a source and a target.
//!
//! What is asked is what stands on the wire; what is told and written has the bytes of messages as storages have them.

use std::fmt;

use async_trait::async_trait;
use tidemill_proto::copy::CopyRead;
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName};

use crate::storage::{
    Cause, CopiedBucket, CopiedDead, CopiedGroup, CopiedKey, CopiedKeys, CopiedPending, CopiedTopic,
    CopiedUnique, Epoch, KeysPart, OddNames, StorageError, StoredMessage, StoredRecurring, UniquePage,
    Unlisted, WaitingMessage, WaitingPage,
};

/// Bytes of a page, about.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;
/// Messages of a page of a storage, and their bytes, about: its clients wait behind each, for a fraction of a millisecond.
pub(super) const MESSAGES_AT_ONCE: usize = 200;
pub(super) const MESSAGES_BYTES: usize = 128 * 1024;
/// Messages for later of a page.
pub(super) const WAITING_AT_ONCE: usize = 200;

/// Returns how many bytes the bodies of messages have.
pub(super) fn len_bytes(messages: &[StoredMessage]) -> usize {
    messages.iter().map(|message| message.body.len_bytes()).sum()
}

/// Why a side did not do what a copy asked of it, told by what the copy may do next.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// There is no such topic, bucket or group.
    #[error("there is nothing of that name")]
    Missing,
    /// There is something of that name that is not being taken over, or another one is.
    #[error("there is something else of that name")]
    Exists,
    /// The last that was taken over is another one.
    #[error("another is the last that was taken over")]
    NotLast,
    /// It is read-only.
    #[error("it is read-only")]
    ReadOnly,
    /// Who asks may not, or is not known.
    #[error(transparent)]
    Denied(Cause),
    /// It may be done later.
    #[error(transparent)]
    Passing(Cause),
    /// It is not done later, either.
    #[error(transparent)]
    Refused(Cause),
}

impl From<StorageError> for SideError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NoTopic | StorageError::NoBucket | StorageError::NoGroup => Self::Missing,
            StorageError::TopicExists => Self::Exists,
            StorageError::NotLast(_) => Self::NotLast,
            StorageError::ReadOnly(_) => Self::ReadOnly,
            StorageError::Unavailable(_) | StorageError::Indeterminate(_) | StorageError::Overloaded => {
                Self::Passing(error.into())
            }
            StorageError::Full(_)
            | StorageError::KeysFull(_)
            | StorageError::NotATopic
            | StorageError::ForeignKey(_)
            | StorageError::IdsUsedUp
            | StorageError::TopicsLimit
            | StorageError::BucketsLimit
            | StorageError::PoliciesLimit
            | StorageError::GroupsLimit
            | StorageError::SchedulesLimit
            | StorageError::GroupHolds
            | StorageError::Fenced(_)
            | StorageError::NotCompacted
            | StorageError::Closed
            | StorageError::Cancelled(_)
            | StorageError::TopicFull
            | StorageError::Undurable(_)
            | StorageError::TooFewReplicas { .. }
            | StorageError::KeyReused => Self::Refused(error.into()),
        }
    }
}

impl SideError {
    /// Whether a storage has no room for it. Of a relay that is not known here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Refused(cause) => matches!(cause.downcast_ref(), Some(StorageError::Full(_))),
            _ => false,
        }
    }
}

/// A side of a copy.
#[async_trait]
pub trait CopySide: fmt::Debug + Send + Sync {
    /// Tells what is there.
    ///
    /// # Errors
    /// `Missing` where it is about what is not there, `Passing`, `Refused`.
    async fn read(&self, asked: &CopyRead) -> Result<Told, SideError>;

    /// Does something. What has failed as `Passing` may be done all the same; done again it does no harm, or is `Exists` or
    /// `NotLast`.
    ///
    /// # Errors
    /// Any.
    async fn write(&self, write: Write) -> Result<(), SideError>;

    /// Returns the side that this one stands in front of, and which is asked what this one has no answer to of its own.
    fn behind(&self) -> Option<&dyn CopySide>;

    /// Whether it tells afterwards what it was given. A file does so once it is whole.
    fn tells_what_it_has(&self) -> bool {
        self.behind().is_none_or(CopySide::tells_what_it_has)
    }

    /// Has this copy alone, by its token, take over for some seconds what a topic has beside its messages, or what the bucket
    /// has whose log it is. A side that cannot tell copies apart lets all do so: the steps of a relay say nothing of who takes
    /// them.
    ///
    /// # Errors
    /// `Passing` where another copy does so now; any.
    async fn claim(&self, topic: &TopicName, token: u64) -> Result<(), SideError> {
        match self.behind() {
            Some(side) => side.claim(topic, token).await,
            None => Ok(()),
        }
    }

    /// Returns topics, and logs of buckets, that are there and are not among the names that it tells: those of programs that
    /// are no relays; and those whose names none may have. There are none of a side that finds these by itself, as a relay does.
    ///
    /// # Errors
    /// `Passing`, `Refused`.
    async fn unlisted(&self) -> Result<Unlisted, SideError> {
        match self.behind() {
            Some(side) => side.unlisted().await,
            None => Ok(Unlisted::default()),
        }
    }

    /// Returns groups of a topic whose names none may have, as other programs have made them. A relay tells of none.
    ///
    /// # Errors
    /// `Missing`, `Passing`, `Refused`.
    async fn odd_groups(&self, topic: &TopicName) -> Result<OddNames, SideError> {
        match self.behind() {
            Some(side) => side.odd_groups(topic).await,
            None => Ok(OddNames::default()),
        }
    }

    /// Has a topic that is there, or the bucket whose log it is, be among the names that it tells, and what is due in it be
    /// found. A side that sees to that by itself, as a relay does, has nothing to do.
    ///
    /// # Errors
    /// `Passing`, `Refused`.
    async fn list(&self, topic: &TopicName) -> Result<(), SideError> {
        match self.behind() {
            Some(side) => side.list(topic).await,
            None => Ok(()),
        }
    }
}

/// Defines what a side tells, and how that is had as what it is.
macro_rules! told {
    ($($(#[$doc:meta])+ $name:ident($type:ty);)+) => {
        /// What a side has told.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Told {
            $($(#[$doc])+ $name($type),)+
        }

        $(
            impl Answer for $type {
                fn of(told: Told) -> Option<Self> {
                    if let Told::$name(it) = told { Some(it) } else { None }
                }
            }
        )+
    };
}

/// What a question is answered with.
pub(super) trait Answer: Sized {
    /// Returns what was told, if it is this.
    fn of(told: Told) -> Option<Self>;
}

told! {
    /// What tells servers from others.
    Identity(Vec<String>);
    /// Names of topics.
    TopicNames(Vec<TopicName>);
    /// Names of buckets.
    BucketNames(Vec<BucketName>);
    /// Whether it is so.
    Flag(bool);
    /// A time, if there is one.
    Seconds(Option<u64>);
    /// A topic.
    Topic(Box<CopiedTopic>);
    /// Messages, or changes.
    Messages(Vec<StoredMessage>);
    /// Ids of messages.
    Ids(Vec<MessageId>);
    /// Names of groups.
    Groups(Vec<GroupName>);
    /// A group.
    Group(Box<CopiedGroup>);
    /// Messages that a group is not done with.
    Pending(Vec<CopiedPending>);
    /// Dead letters.
    Dead(Vec<CopiedDead>);
    /// Keys of which one message at a time may be there.
    Unique(UniquePage);
    /// What waits for later.
    Waiting(WaitingPage);
    /// What comes again and again.
    Recurring(Vec<StoredRecurring>);
    /// A bucket.
    Bucket(Box<CopiedBucket>);
    /// Keys.
    Keys(CopiedKeys);
    /// Keys that were asked for.
    SomeKeys(Vec<Option<CopiedKey>>);
    /// When keys are over.
    Ends(Vec<(KeyName, Option<Timestamp>)>);
}

/// Asks a side.
pub(super) async fn ask<A: Answer>(side: &dyn CopySide, asked: CopyRead) -> Result<A, SideError> {
    let told = side.read(&asked).await?;
    A::of(told).ok_or_else(|| SideError::Refused("it answers something else than it was asked".into()))
}

/// Asks a side for what may not be there.
pub(super) async fn find<A: Answer>(side: &dyn CopySide, asked: CopyRead) -> Result<Option<A>, SideError> {
    match ask(side, asked).await {
        Ok(found) => Ok(Some(found)),
        Err(SideError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a side is to do, as [`CopyWrite`](tidemill_proto::copy::CopyWrite) has it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the wire has the same, and says what each is")]
pub enum Write {
    Mark { topic: TopicName },
    RefuseNew { refused: bool },
    Freeze { topic: TopicName, frozen: bool },
    FreezeBucket { bucket: BucketName, frozen: bool },
    Delete { topic: TopicName },
    DeleteBucket { bucket: BucketName },
    Begin(Box<CopiedTopic>),
    Messages { topic: TopicName, epoch: Epoch, after: MessageId, messages: Vec<StoredMessage> },
    Forget { topic: TopicName, epoch: Epoch, ids: Vec<MessageId> },
    Group { topic: TopicName, group: Box<CopiedGroup> },
    Pending { topic: TopicName, group: GroupName, pending: Vec<CopiedPending> },
    Dead { topic: TopicName, group: GroupName, dead: Vec<CopiedDead> },
    Unique { topic: TopicName, group: GroupName, unique: Vec<CopiedUnique> },
    Waiting { topic: TopicName, first: bool, waiting: Vec<WaitingMessage>, recurring: Vec<StoredRecurring> },
    Finish { topic: Box<CopiedTopic>, deletions: Vec<MessageId> },
    BeginBucket(Box<CopiedBucket>),
    Keys { bucket: BucketName, epoch: Epoch, keys: KeysPart },
    Ends { bucket: BucketName, epoch: Epoch, ends: Vec<(KeyName, Option<Timestamp>)> },
    Changes { bucket: BucketName, epoch: Epoch, after: MessageId, changes: Vec<StoredMessage> },
    FinishBucket(Box<CopiedBucket>),
}
