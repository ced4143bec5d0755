//! Copies on the wire: what a relay is asked of its topics and buckets, and what it is given of others, with all that their
//! readers and workers know of them.
//!
//! Who copies reads the one side and writes the other, step by step: `storage::copying` of the relay has the rules.

use serde::{Deserialize, Serialize};

use crate::work::GroupName;
use crate::{BucketName, KeyName, MessageId, TopicName, TopicSelector};

mod bucket;
mod group;
mod message;
mod topic;

pub use bucket::{ChangedKey, CopiedBucket, CopiedEnd, CopiedKey, CopiedRevision, KeysPart, Sha256};
pub use group::{CopiedDead, CopiedGroup, CopiedPending, CopiedPlace, CopiedUnique, UniquePage};
pub use message::{
    CopiedBody, CopiedBodyError, CopiedMessage, CopiedRecurring, CopiedWaiting, DueAfter, raw_json,
};
pub use topic::{CopiedHole, CopiedTopic, CopiedUntold, Epoch, Freeze};

/// The form in which copies are read and written. Another one is refused.
pub const COPY_VERSION: u32 = 1;

/// The body of `POST /api/v1/admin/copy/read`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyReadRequest {
    /// The form: 1.
    pub version: u32,
    /// What is asked.
    pub read: CopyRead,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyReadAnswer {
    /// The form: 1.
    pub version: u32,
    /// What is there.
    pub told: CopyTold,
}

/// The body of `POST /api/v1/admin/copy/write`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyWriteRequest {
    /// The form: 1.
    pub version: u32,
    /// What is done.
    pub write: CopyWrite,
}

/// What a side of a copy is asked. Pages have up to a thousand items, and about a mebibyte; the next one begins behind the
/// last item, and an empty one is the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CopyRead {
    /// What tells the servers on which it keeps everything, or on which some topics may be, from all others: `identity`, which
    /// has none of a server that does not say who it is. Sides that have one in common keep things in one place.
    Identity {
        /// Which topic, there or not, or a pattern in its place; all, if null.
        topic: Option<TopicSelector>,
    },
    /// Names of topics that begin so: `topic_names`.
    TopicNames {
        /// How they begin.
        prefix: String,
        /// Behind which; from the first on, if null.
        after: Option<TopicName>,
    },
    /// Names of buckets: `bucket_names`.
    BucketNames {
        /// Behind which; from the first on, if null.
        after: Option<BucketName>,
    },
    /// Whether no more topics are made: `flag`.
    RefusesNew,
    /// Within which time messages are removed of topics that say nothing of it: `seconds`.
    Retention,
    /// A topic without its messages: `topic`.
    Topic {
        /// Which.
        topic: TopicName,
    },
    /// Messages of its log, those that have expired among them: `messages`.
    Messages {
        /// Of which topic.
        topic: TopicName,
        /// Behind which.
        after: MessageId,
    },
    /// The latest messages of its keys, where it is compacted: `messages`.
    Latest {
        /// Of which topic.
        topic: TopicName,
        /// Behind which.
        after: MessageId,
    },
    /// Which messages were deleted by request, as far as that is remembered: `ids`.
    Deletions {
        /// Of which topic.
        topic: TopicName,
    },
    /// The names of its groups: `groups`.
    Groups {
        /// Of which topic.
        topic: TopicName,
    },
    /// A group: `group`.
    Group {
        /// Of which topic.
        topic: TopicName,
        /// Which.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
    },
    /// Messages that a group has given out and that are not done, in their order: `pending`.
    Pending {
        /// Of which topic.
        topic: TopicName,
        /// Of which group.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
        /// Behind which; from the first on, if null.
        after: Option<MessageId>,
    },
    /// Dead letters of a group, in the order of their messages: `dead`.
    Dead {
        /// Of which topic.
        topic: TopicName,
        /// Of which group.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
        /// Behind which; from the first on, if null.
        after: Option<MessageId>,
    },
    /// Keys of which one message at a time may be in a group: `unique`.
    Unique {
        /// Of which topic.
        topic: TopicName,
        /// Of which group.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
        /// The `next` of the page before; from the first on, if null.
        after: Option<String>,
    },
    /// What waits for later: `waiting`.
    Waiting {
        /// In which topic.
        topic: TopicName,
        /// Behind which; from the first on, if null.
        after: Option<DueAfter>,
    },
    /// What comes again and again: `recurring`.
    Recurring {
        /// In which topic.
        topic: TopicName,
    },
    /// A bucket without its keys: `bucket`.
    Bucket {
        /// Which.
        bucket: BucketName,
    },
    /// Keys, those whose time is over among them: `keys`.
    Keys {
        /// Of which bucket.
        bucket: BucketName,
        /// Behind which; from the first on, if null.
        after: Option<KeyName>,
    },
    /// These keys, up to about a mebibyte: `some_keys`, of which there may be fewer than were asked for, and at least one.
    SomeKeys {
        /// Of which bucket.
        bucket: BucketName,
        /// Which.
        keys: Vec<KeyName>,
    },
    /// When keys are over: `ends`.
    Ends {
        /// Of which bucket.
        bucket: BucketName,
        /// Behind which; from the first on, if null.
        after: Option<KeyName>,
    },
    /// Changes of its log: `messages`.
    Changes {
        /// Of which bucket.
        bucket: BucketName,
        /// Behind which.
        after: MessageId,
    },
}

/// What a side of a copy has told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CopyTold {
    /// Texts, each of one server.
    Identity(Vec<String>),
    /// Names of topics, in their order.
    TopicNames(Vec<TopicName>),
    /// Names of buckets, in their order.
    BucketNames(Vec<BucketName>),
    /// Whether it is so.
    Flag(bool),
    /// A time; null where there is none.
    Seconds(Option<u64>),
    /// A topic.
    Topic(Box<CopiedTopic>),
    /// Messages, in their order.
    Messages(Vec<CopiedMessage>),
    /// Ids, in their order.
    Ids(Vec<MessageId>),
    /// Names of groups.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    Groups(Vec<GroupName>),
    /// A group.
    Group(Box<CopiedGroup>),
    /// Messages that are not done.
    Pending(Vec<CopiedPending>),
    /// Dead letters.
    Dead(Vec<CopiedDead>),
    /// Keys of which one message at a time may be there.
    Unique(UniquePage),
    /// What waits for later, what is due first in front.
    Waiting(WaitingPage),
    /// What comes again and again.
    Recurring(Vec<CopiedRecurring>),
    /// A bucket.
    Bucket(Box<CopiedBucket>),
    /// Keys, in their order.
    Keys(KeysPage),
    /// Keys as they were asked for; null for one that is not there.
    SomeKeys(Vec<Option<CopiedKey>>),
    /// When keys are over.
    Ends(Vec<CopiedEnd>),
}

/// A page of what waits for later.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingPage {
    /// The messages.
    pub messages: Vec<CopiedWaiting>,
    /// Behind which the next page begins; null where this one is the last.
    pub next: Option<DueAfter>,
}

/// A page of keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeysPage {
    /// The keys.
    pub keys: Vec<CopiedKey>,
    /// Behind which the next page begins; null where this one is the last.
    pub next: Option<KeyName>,
}

/// What a side of a copy is to do. A source is made read-only; all else is what becomes of a target. Of what is taken over
/// there are up to a thousand items in a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CopyWrite {
    /// To give a topic an epoch that has none.
    Mark {
        /// Which.
        topic: TopicName,
    },
    /// To make no more topics from now on, or to make them again.
    RefuseNew {
        /// Which of both.
        refused: bool,
    },
    /// To have a topic take no messages, or take them again.
    Freeze {
        /// Which.
        topic: TopicName,
        /// Which of both.
        frozen: bool,
    },
    /// To have nothing be changed in a bucket, or be changed again.
    FreezeBucket {
        /// Which.
        bucket: BucketName,
        /// Which of both.
        frozen: bool,
    },
    /// To delete a topic.
    Delete {
        /// Which.
        topic: TopicName,
    },
    /// To delete a bucket.
    DeleteBucket {
        /// Which.
        bucket: BucketName,
    },
    /// To make a topic that is then taken over; it is frozen until all has come.
    Begin(Box<CopiedTopic>),
    /// To take over messages behind the last that was.
    Messages {
        /// Of which topic.
        topic: TopicName,
        /// Of which epoch.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        epoch: Epoch,
        /// Which was the last.
        after: MessageId,
        /// The messages.
        messages: Vec<CopiedMessage>,
    },
    /// To have messages be none of the latest of their keys: the source has none of these keys.
    Forget {
        /// Of which topic.
        topic: TopicName,
        /// Of which epoch.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        epoch: Epoch,
        /// Their ids.
        ids: Vec<MessageId>,
    },
    /// To take over a group, in place of one of that name and of all that this knows.
    Group {
        /// Of which topic.
        topic: TopicName,
        /// The group.
        group: Box<CopiedGroup>,
    },
    /// To take over messages that are not done; those that hold their order keys come before those that stand behind.
    Pending {
        /// Of which topic.
        topic: TopicName,
        /// Of which group.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
        /// The messages.
        pending: Vec<CopiedPending>,
    },
    /// To take over dead letters.
    Dead {
        /// Of which topic.
        topic: TopicName,
        /// Of which group.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
        /// The dead letters.
        dead: Vec<CopiedDead>,
    },
    /// To take over keys of which one message at a time may be there, whose messages were taken over before.
    Unique {
        /// Of which topic.
        topic: TopicName,
        /// Of which group.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        group: GroupName,
        /// The keys.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<Vec<String>>))]
        unique: Vec<CopiedUnique>,
    },
    /// To take over what waits for later.
    Waiting {
        /// In which topic.
        topic: TopicName,
        /// Whether it comes in place of all that waits there.
        first: bool,
        /// Messages that come once.
        waiting: Vec<CopiedWaiting>,
        /// Messages that come again and again.
        recurring: Vec<CopiedRecurring>,
    },
    /// To end taking over a topic, which takes messages then.
    Finish {
        /// As it is at the source.
        topic: Box<CopiedTopic>,
        /// Which messages were deleted by request.
        deletions: Vec<MessageId>,
    },
    /// To make a bucket that is then taken over.
    BeginBucket(Box<CopiedBucket>),
    /// To take over keys.
    Keys {
        /// Of which bucket.
        bucket: BucketName,
        /// Of which epoch.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        epoch: Epoch,
        /// The keys.
        keys: KeysPart,
    },
    /// To take over when keys are over.
    Ends {
        /// Of which bucket.
        bucket: BucketName,
        /// Of which epoch.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        epoch: Epoch,
        /// When each is.
        ends: Vec<CopiedEnd>,
    },
    /// To take over changes of the log behind the last that was.
    Changes {
        /// Of which bucket.
        bucket: BucketName,
        /// Of which epoch.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        epoch: Epoch,
        /// Which was the last.
        after: MessageId,
        /// The changes.
        changes: Vec<CopiedMessage>,
    },
    /// To end taking over a bucket, which can be changed then.
    FinishBucket(Box<CopiedBucket>),
}
