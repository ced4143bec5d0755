//! What live readers ask: where a topic ends, what has changed, and hints.

use std::fmt;
use std::sync::Weak;

use async_trait::async_trait;
use tidemill_proto::topics::RunState;
use tidemill_proto::{MessageId, TopicName};

use super::error::StorageError;
use super::hints::HintListener;
use super::reading::{Epoch, Tail};

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
    /// Whether it took messages.
    pub state: RunState,
}

/// What became of topics that were asked about: their places in the question, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those with messages after the cursor, and those that are not what they were: other ones, or ended.
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
    /// backend that has others tells with [`Hint::Watched`](super::Hint::Watched) that it has begun.
    fn watch(&self, topic: &TopicName, watch: bool);

    /// Begins or ends watching all topics: between the two, hints come of every topic, also of those that
    /// are not watched by name, that any node of the relay creates, publishes to or deletes, or whose
    /// sweep finds it to be new. What other producers do in topics that are known is hinted at only of those
    /// watched by name.
    ///
    /// It is a switch and counts nothing: the last call holds. A backend that has others tells with
    /// [`Hint::WatchedAll`](super::Hint::WatchedAll) that it has begun, once after each call that switches it on, and whenever it begins
    /// anew because hints were lost ([`Hint::Everything`](super::Hint::Everything)).
    fn watch_all(&self, watch: bool);
}
