//! The storage contract: what every backend promises, in prose. `tests/it/conformance.rs` holds each
//! promise as a named test and runs it on every backend; what is not tested there is not promised.
//!
//! The contract knows `tidemill-proto` and the clock, and nothing of HTTP or of a particular backend.
//!
//! # Promises of every backend
//! - Ids are strictly increasing within a topic, in the order of appends, also when the clock goes
//!   back and after trims that empty the topic.
//! - An `Ok` from [`MessageStore::append`] means that the backend has confirmed the message.
//! - All readers of a topic see the same messages in the same order.
//! - Payload, metadata and content type come back byte for byte.
//! - A topic that is deleted and made again gives no id of its predecessor, and knows none of its
//!   idempotency keys.
//! - An expired message is never returned. It still counts in a topic's length until retention
//!   removes it.
//! - A reader whose cursor may have missed messages (trimmed away, gone with a deleted topic, or lost
//!   by the backend) is told so by every read that goes on from it, and never where it is proved that
//!   nothing is missing.
//! - A read never creates a topic, and reading a topic that does not exist is
//!   [`StorageError::NoTopic`].
//! - Whoever listens is told of what this node changes before the change is answered, and whether or not
//!   anybody still waits for the answer.
//! - A topic keeps what the [`TopicPolicy`] of its appends says, and messages older than its retention
//!   are removed by the next sweep.
//! - A message that is deleted by request is missed by nobody.
//! - How many bytes topics keep is told about as it was within the last interval of sweeps: what is published counts,
//!   and what is removed does no longer.
//! - Documents on who may do what change all together, and only for who knows what is there now.
//! - A ticket opens one thing, is good for nothing but that from then on, and one holds it at a time.
//! - Of what is limited no more is granted than the rate allows, and no more is held at one time than may be,
//!   however many nodes ask.
//!
//! What is told of everything that can happen to a topic stands as a table in `storage::reading`.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_proto::health::{BackendHealth, HealthStatus};
use tidemill_proto::topics::{Topic, TopicUpdate, TopicsStats};
use tidemill_proto::{MessageId, Timestamp, TopicName, TopicSelector};

pub use access::{AccessDocuments, AccessEdit, AccessStore};
pub use backend::{Backend, Opened, Storage, Unfit};
pub use hints::{Hint, HintListener};
pub use limits::{BucketId, Draw, Drawn, LimitStore, Places, Rate, Unspent};
pub use listing::{LISTED_NAMES_MAX, Selection};
pub use reading::{Batch, Epoch, GapCheck, Range, Tail, TakenOut, end_of};
pub use records::{Expected, RECORD_CHANGES_KEPT, RecordChanges, RecordEdit, RecordStore};
pub use tickets::{NewTicket, TicketClaim};

mod access;
mod backend;
mod hints;
mod history;
pub(crate) mod limits;
mod listing;
pub mod memory;
mod reading;
mod records;
pub(crate) mod tickets;
#[cfg(feature = "valkey")]
pub mod valkey;

/// A cause to be logged, never shown to a client.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

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
    /// Certainly no effect: the idempotency key was used for another message.
    #[error("idempotency key belongs to another message")]
    KeyReused,
}

/// Messages of a topic that were deleted one by one of which a backend remembers that: 64 bytes each, and
/// a reader that is behind one that was forgotten is told that messages are missing.
pub const DELETED_MAX: usize = 10_000;

/// The bounds that every backend keeps.
#[derive(Clone, Copy, Debug)]
pub struct StorageLimits {
    /// Age at which a sweep removes messages; `None` keeps them. A topic's own retention wins.
    pub retention: Option<Duration>,
    /// Topics there may be; an append or a create past it is [`StorageError::TopicsLimit`].
    pub topics_max: u64,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
}

/// What a topic keeps. It travels with each append, which removes from the old end what its own policy
/// does not keep; other topics, and a topic without appends, are left to trims and sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    /// Messages that the topic keeps at least, once it has had as many; at least 1. A backend removes older
    /// ones soon: it may be late by as many as it removes at a time.
    pub number: u64,
    /// Bytes that the topic's newest messages weigh at the least before older ones are removed, as the
    /// backend weighs them. `None` is without bound, and a backend that cannot weigh a topic cheaply keeps
    /// what the others keep.
    pub bytes: Option<u64>,
    /// Age from which on a message is removed, by the clock that makes ids. Exact: with the append, none
    /// older is left. `None` is without bound.
    pub age: Option<Duration>,
}

impl TopicPolicy {
    /// Returns the policy that keeps at least so many messages, and knows no other bound.
    #[must_use]
    pub const fn newest(number: u64) -> Self {
        Self { number, bytes: None, age: None }
    }
}

/// The part of a message that comes back byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// JSON text, with the white space around it, if `content_type` is `None` or names JSON; else any bytes.
    pub payload: Bytes,
    /// The content type, at most 255 bytes of visible ASCII and spaces; `None` for JSON that has no other.
    pub content_type: Option<Box<str>>,
    /// A JSON object.
    pub metadata: Option<Bytes>,
}

impl Body {
    /// Returns the bytes that count against budgets.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.payload.len()
            + self.metadata.as_ref().map_or(0, Bytes::len)
            + self.content_type.as_ref().map_or(0, |text| text.len())
    }
}

/// An idempotency key with what tells its message from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key: 1 to 300 bytes of visible ASCII. It is the publisher's own within the topic.
    pub key: Box<str>,
    /// A digest of everything the publisher sent.
    pub fingerprint: [u8; 16],
}

/// A message to append.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The topic.
    pub topic: TopicName,
    /// What comes back byte for byte.
    pub body: Body,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// From when on it is no longer returned.
    pub expires_at: Option<Timestamp>,
    /// Makes repeats within the window return the first answer.
    pub idempotency: Option<Idempotency>,
    /// Whether to create the topic when it does not exist.
    pub create_topic: bool,
    /// Who owns the topic if this message creates it.
    pub owner: Option<Box<str>>,
    /// What its topic keeps from now on.
    pub policy: TopicPolicy,
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The id of the message.
    pub id: MessageId,
    /// The timestamp of the message; of the first append, if this is a replay.
    pub timestamp: Timestamp,
    /// Whether the idempotency key had been used, so that nothing was appended now.
    pub replayed: bool,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// The id.
    pub id: MessageId,
    /// When the relay accepted it; the time of the id, if a foreign producer gave none.
    pub timestamp: Timestamp,
    /// What was published.
    pub body: Body,
}

/// What a trim removes. Trims are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// All but the newest so many messages.
    Keep(u64),
    /// All messages with a smaller id.
    Before(MessageId),
}

/// A page of the topic list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicList {
    /// Topics in the order of their names (by byte).
    pub topics: Vec<Topic>,
    /// The name after which the next page starts; `None` if this one is the last.
    pub next: Option<TopicName>,
}

/// A topic with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// The description.
    pub topic: Topic,
    /// Messages kept, expired ones included.
    pub length: u64,
    /// The oldest kept message.
    pub first_id: Option<MessageId>,
    /// The newest kept message.
    pub last_id: Option<MessageId>,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Topics looked at; 0 where another node swept lately.
    pub topics: u64,
    /// Messages removed.
    pub removed: u64,
}

/// Messages of topics.
#[async_trait]
pub trait MessageStore: fmt::Debug + Send + Sync {
    /// Appends messages and returns a result for each, in the order given.
    ///
    /// Messages of one topic are appended in the order given; messages of concurrent calls may come
    /// between them. Of calls whose futures are first polled one after the other, the messages of the
    /// earlier come first: nobody has to wait for an answer for the sake of order. Each message succeeds or fails alone. With an idempotency key, appending and
    /// remembering the key are one step: no crash leaves two copies, or a key without its message.
    ///
    /// # Errors
    /// Per message: `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `KeysFull` (only under a key),
    /// `NoTopic` (only without `create_topic`), `NotATopic`, `TopicsLimit`, `KeyReused`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, any of the messages may have been appended.
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>>;

    /// Returns the messages of a range.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError>;

    /// Returns the message with this id, or `None` if the topic does not (or no longer) have it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError>;

    /// Removes messages from the old end of a topic and returns how many were removed.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError>;

    /// Deletes the message with this id, and returns whether there was one. It is gone on purpose: no reader
    /// is told of it, for as long as that is remembered, which is of the newest [`DELETED_MAX`] of a topic.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError>;
}

/// A topic that is read live, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The topic.
    pub topic: TopicName,
    /// The cursor up to which it was read.
    pub seen: Option<MessageId>,
    /// Whether it existed when it was last looked at.
    pub exists: bool,
    /// Which topic it was.
    pub epoch: Epoch,
    /// How many messages it had been given with the cursor's, if that is counted.
    pub given: Option<u64>,
}

/// What became of topics that were asked about: their places in the question, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those with messages after the cursor, and those that are not what they were.
    pub changed: Vec<usize>,
    /// Those that existed and do not any more.
    pub gone: Vec<usize>,
}

/// What live readers need.
#[async_trait]
pub trait LiveStore: fmt::Debug + Send + Sync {
    /// Returns the newest end of a topic.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError>;

    /// Tells what became of topics since they were looked at. Asks cheaply for many topics at once,
    /// and may name one too many.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError>;

    /// Has `listener` told of changes, in place of whoever was told before: of what this node itself
    /// creates, publishes and deletes, in every topic, before that is answered, and whether or not anybody
    /// still waits for the answer; of what others do in topics that are watched; and of topics of others
    /// that its sweep finds to be new.
    ///
    /// Hints can be lost; whoever relies on them alone loses time, never a message.
    fn listen(&self, listener: Weak<dyn HintListener>);

    /// Begins or ends watching a topic: hints of what others do there come only between the two. A
    /// backend that has others tells with [`Hint::Watched`] that it has begun.
    fn watch(&self, topic: &TopicName, watch: bool);

    /// Begins or ends watching all topics: between the two, hints come of every topic, also of those that
    /// are not watched by name, that any node of the relay creates, publishes to or deletes, or whose
    /// sweep finds it to be new. What other producers do in topics that are known is hinted at only of those
    /// watched by name.
    ///
    /// It is a switch and counts nothing: the last call holds. A backend that has others tells with
    /// [`Hint::WatchedAll`] that it has begun, once after each call that switches it on, and whenever it begins
    /// anew because hints were lost ([`Hint::Everything`]).
    fn watch_all(&self, watch: bool);
}

/// Topics and their descriptions.
#[async_trait]
pub trait TopicStore: fmt::Debug + Send + Sync {
    /// Creates a topic without messages, which this user owns, if one does. Of concurrent calls for one name, one succeeds. Whoever listens is
    /// told of it, here and on the other nodes that watch it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `TopicExists`, `NotATopic`, `TopicsLimit`.
    async fn create(
        &self,
        topic: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
    ) -> Result<Topic, StorageError>;

    /// Returns up to `limit` topics, which is at least 1, whose names come after `after`, and are in the
    /// selection. A topic that a foreign producer made is listed after the next sweep at the
    /// latest.
    ///
    /// A page with a `next` has `limit` topics, unless [`LISTED_NAMES_MAX`] names were looked at for it; then
    /// it may have none. Names that do not begin with the prefix of the selection are not looked at.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError>;

    /// Returns up to `limit` names of topics that begin with a prefix and come after `after`, in their order.
    /// Fewer than `limit` are all that there are. Nothing is looked up beside the names: one may be of a topic
    /// that is gone, until the next sweep at the latest. One that a foreign producer made is among them after
    /// the next sweep at the latest.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError>;

    /// Returns a topic with what it holds.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError>;

    /// Replaces the description of a topic.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`.
    async fn update(&self, topic: &TopicName, description: TopicUpdate) -> Result<Topic, StorageError>;

    /// Deletes a topic with its messages and its description.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn delete(&self, topic: &TopicName) -> Result<(), StorageError>;

    /// Counts topics and messages.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn stats(&self) -> Result<TopicsStats, StorageError>;
}

/// How a backend is.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Whether it can do its work: it can be reached, it takes messages, and it keeps those that it has
    /// taken, by what it is set to.
    pub status: HealthStatus,
    /// What is known of it.
    pub backend: BackendHealth,
}

/// What an operator asks of a backend.
#[async_trait]
pub trait Upkeep: fmt::Debug + Send + Sync {
    /// Tells how the backend is. Answers within a second, also when the backend does not.
    async fn health(&self) -> Condition;

    /// Returns whether the backend can be reached, without asking it. One that is reached and takes no
    /// messages now (its memory is full, its disk fails) says so in its health: no other node would
    /// fare better with it.
    fn is_ready(&self) -> bool;

    /// Returns the time by the clock that makes ids, without asking the backend. Ages are measured by
    /// it.
    fn now(&self) -> Timestamp;

    /// Removes messages older than their retention from every topic. Of several nodes that share a
    /// backend, one does the work.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn sweep(&self) -> Result<Swept, StorageError>;

    /// Returns about how many bytes the topics keep that each of these selectors has, in their order, as it was within
    /// the last interval of sweeps. Of several nodes that share a backend and ask for the same, one does the work, and
    /// the others are told what it has found; `None` until then.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn kept(&self, topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError>;

    /// Sweeps one topic now: if another producer has made it, it gets its [`Epoch`].
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn sweep_one(&self, topic: &TopicName) -> Result<(), StorageError>;
}

/// Returns a storage with nothing in it, for tests of those who know no backend.
#[cfg(test)]
pub(crate) fn test_storage() -> Storage {
    let limits =
        StorageLimits { retention: None, topics_max: 1_000, idempotency_window: Duration::from_mins(10) };
    let clock = crate::clock::Clock::manual(Timestamp::from_millis(1));
    let when_full = memory::WhenFull::TrimLargest;
    let options =
        memory::MemoryOptions { limits, bytes_max: 1 << 20, keys_bytes_max: 1 << 20, when_full, clock };
    Storage::new(std::sync::Arc::new(memory::Memory::new(options)))
}
