//! Why a storage call failed, cut by what the caller may do next.

use tidemill_proto::MessageId;
use tidemill_proto::copy::Freeze;

/// A cause to be logged, never shown to a client.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a topic or a bucket takes no changes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyReadOnly {
    /// It is being taken over from elsewhere, and is not whole.
    #[error("it is being taken over, and is not whole")]
    Importing,
    /// Somebody has said so.
    #[error("it was made so")]
    Frozen,
    /// It is not there, and no more are made.
    #[error("no more are made")]
    NotMade,
}

impl From<Freeze> for WhyReadOnly {
    fn from(freeze: Freeze) -> Self {
        match freeze {
            Freeze::Importing => Self::Importing,
            Freeze::ReadOnly => Self::Frozen,
        }
    }
}

/// Why a storage call failed, told by what the caller may do next.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Certainly no effect: safe to retry.
    #[error("storage is unavailable")]
    Unavailable(#[source] Cause),
    /// The effect may have happened: retry only under an idempotency key.
    #[error("outcome of the storage call is unknown")]
    Indeterminate(#[source] Cause),
    /// Certainly no effect: more waits for the backend than may wait. Retry later.
    #[error("too much waits for the storage")]
    Overloaded,
    /// Certainly no effect: the backend has reached its memory limit.
    #[error("storage is full")]
    Full(#[source] Cause),
    /// Certainly no effect: as many idempotency keys are remembered as there may be.
    #[error("too many idempotency keys are remembered")]
    KeysFull(#[source] Cause),
    /// Certainly no effect: the topic does not exist (and was not to be created).
    #[error("topic does not exist")]
    NoTopic,
    /// Certainly no effect: the topic to be created exists.
    #[error("topic exists already")]
    TopicExists,
    /// Certainly no effect: the backend holds something else under the topic's key.
    #[error("name is taken by something that is not a topic")]
    NotATopic,
    /// Certainly no effect, now and later: another program keeps something under this key of the relay's.
    #[error("`{0}` holds something of another program")]
    ForeignKey(Box<str>),
    /// Certainly no effect, now and later: the topic has given the last id there is.
    #[error("topic has given its last id")]
    IdsUsedUp,
    /// Certainly no effect: there are as many topics as there may be.
    #[error("topic limit is reached")]
    TopicsLimit,
    /// Certainly no effect: there is no such bucket (and it was not to be made).
    #[error("the bucket does not exist")]
    NoBucket,
    /// Certainly no effect: there are as many buckets as there may be.
    #[error("bucket limit is reached")]
    BucketsLimit,
    /// Certainly no effect: the limit is counted by as many policies as it may.
    #[error("policy limit is reached")]
    PoliciesLimit,
    /// Certainly no effect: the topic has no such group.
    #[error("the topic has no such group")]
    NoGroup,
    /// Certainly no effect: the topic has as many groups as it may.
    #[error("group limit is reached")]
    GroupsLimit,
    /// Certainly no effect: as many messages wait for later as may, or as many recurring ones of a topic are kept.
    #[error("limit of schedules is reached")]
    SchedulesLimit,
    /// Certainly no effect: the ordering of a group changes only while none of its messages is in flight, waits again or
    /// dies.
    #[error("the group has messages that are not settled")]
    GroupHolds,
    /// Certainly no effect: this is the last id that the topic was given, and another was expected.
    /// [`MessageId::MIN`] where it was given none, or does not exist.
    #[error("the last message of the topic is {0}, and another was expected")]
    NotLast(MessageId),
    /// Certainly no effect: the fence is not that of who holds the lock. This one stands against it, if there is one.
    #[error("the fence is not that of who holds the lock")]
    Fenced(Option<MessageId>),
    /// Certainly no effect: the topic is not compacted, so it has no latest messages of keys.
    #[error("topic is not compacted")]
    NotCompacted,
    /// Certainly no effect, now and later: the topic was closed.
    #[error("topic is closed")]
    Closed,
    /// Certainly no effect, now and later: the topic was cancelled, for this reason.
    #[error("topic is cancelled: {0}")]
    Cancelled(Box<str>),
    /// Certainly no effect: the topic or bucket is frozen, or would be made while no more are.
    #[error("topic is read-only: {0}")]
    ReadOnly(WhyReadOnly),
    /// Certainly no effect: the topic keeps as much as it may, and refuses what comes then.
    #[error("topic is full")]
    TopicFull,
    /// Certainly no effect, and none until the backend is set otherwise: it cannot make messages as durable as was asked,
    /// for this reason, which is a part of a sentence that operators may read.
    #[error("messages cannot be as durable as was asked: {0}")]
    Undurable(Box<str>),
    /// Certainly no effect: fewer replicas are connected than messages are to reach.
    #[error("messages are to reach {asked} replicas, and {connected} are connected")]
    TooFewReplicas {
        /// How many they are to reach.
        asked: u8,
        /// How many there are.
        connected: u32,
    },
    /// Certainly no effect: the idempotency key was used for another message.
    #[error("idempotency key belongs to another message")]
    KeyReused,
}

impl StorageError {
    /// Returns the same for another who waited for the same call. Of a cause its text is left.
    #[must_use]
    pub fn again(&self) -> Self {
        let text = |cause: &Cause| cause.to_string().into();
        match self {
            Self::Unavailable(cause) => Self::Unavailable(text(cause)),
            Self::Indeterminate(cause) => Self::Indeterminate(text(cause)),
            Self::Full(cause) => Self::Full(text(cause)),
            Self::KeysFull(cause) => Self::KeysFull(text(cause)),
            Self::Overloaded => Self::Overloaded,
            Self::ReadOnly(why) => Self::ReadOnly(*why),
            Self::TopicFull => Self::TopicFull,
            Self::NoTopic => Self::NoTopic,
            Self::TopicExists => Self::TopicExists,
            Self::NotATopic => Self::NotATopic,
            Self::ForeignKey(key) => Self::ForeignKey(key.clone()),
            Self::IdsUsedUp => Self::IdsUsedUp,
            Self::TopicsLimit => Self::TopicsLimit,
            Self::NoBucket => Self::NoBucket,
            Self::BucketsLimit => Self::BucketsLimit,
            Self::PoliciesLimit => Self::PoliciesLimit,
            Self::NoGroup => Self::NoGroup,
            Self::GroupsLimit => Self::GroupsLimit,
            Self::GroupHolds => Self::GroupHolds,
            Self::SchedulesLimit => Self::SchedulesLimit,
            Self::NotLast(last) => Self::NotLast(*last),
            Self::Fenced(fence) => Self::Fenced(*fence),
            Self::NotCompacted => Self::NotCompacted,
            Self::Closed => Self::Closed,
            Self::Cancelled(reason) => Self::Cancelled(reason.clone()),
            Self::Undurable(why) => Self::Undurable(why.clone()),
            Self::TooFewReplicas { asked, connected } => {
                Self::TooFewReplicas { asked: *asked, connected: *connected }
            }
            Self::KeyReused => Self::KeyReused,
        }
    }
}
