//! Messages of topics, as a backend keeps them.

use std::fmt;

use async_trait::async_trait;
use tidemill_proto::{MessageId, TopicName};

use super::error::StorageError;
use super::latest::LatestRange;
use super::message::{Appended, NewMessage, StoredMessage};
use super::reading::{Batch, Range};

/// Messages of a topic that were deleted one by one of which a backend remembers that: 64 bytes each, and
/// a reader that is behind one that was forgotten is told that messages are missing.
pub const DELETED_MAX: usize = 10_000;

/// How many times as many messages a topic keeps as it would, how many times as many bytes, and for how many times as
/// long, at the most, where groups have not acknowledged them.
pub const HELD_TIMES: [u64; 3] = [10, 2, 2];

/// What a trim removes. Trims are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// All but the newest so many messages.
    Keep(u64),
    /// All messages with a smaller id.
    Before(MessageId),
}

/// Messages of topics.
#[async_trait]
pub trait MessageStore: fmt::Debug + Send + Sync {
    /// Appends messages and returns a result for each, in the order given.
    ///
    /// Messages of one topic are appended in the order given; messages of concurrent calls may come
    /// between them. Of calls whose futures are first polled one after the other, the messages of the
    /// earlier come first: nobody has to wait for an answer for the sake of order. Each message succeeds or fails alone. With an idempotency key, appending and
    /// remembering the key are one step: no crash leaves two copies, or a key without its message. So are
    /// looking at the last id and appending, and looking whether a message of a unique key waits or is worked on; of messages
    /// of one call each sees those before it.
    ///
    /// # Errors
    /// Per message: `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `KeysFull` (only under a key),
    /// `NoTopic` (only without `create_topic`), `NotATopic`, `TopicsLimit`, `KeyReused`, `NotLast` (only with
    /// `expected_last`), `Fenced` (only with `fence`), `NoGroup` (only with `unique`, also where there is no such topic), `Closed`, `Cancelled`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, any of the messages may have been appended.
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>>;

    /// Returns the messages of a range.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError>;

    /// Returns the latest message of each key of a topic, in the order of their ids, as far as the range goes. Of a key that
    /// is written meanwhile it is the one or the other, and who reads on behind what it has got comes to the newer one.
    /// `next` and `reached` of the batch are those of a [`read`](Self::read) of a topic without the others: at the end
    /// `reached` is the last id that the topic has given.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`, `NotCompacted`.
    async fn latest(&self, topic: &TopicName, range: LatestRange) -> Result<Batch, StorageError>;

    /// Returns the message with this id, or `None` if the topic does not (or no longer) have it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError>;

    /// Removes messages from the old end of a topic, and what is as old of the latest of its keys, and returns how many
    /// were removed.
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
