//! Hints: what a backend tells of topics that change, and to whom.

use std::fmt;
use std::sync::Weak;

use parking_lot::RwLock;
use tidemill_proto::TopicName;

use super::locks::LockSecret;

/// What a backend tells of topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// This topic may have changed. Of one that is new it can come before the topic is there, and comes again
    /// when it is.
    Topic(TopicName),
    /// From now on hints of these topics come. What others changed before was not hinted at.
    Watched(Vec<TopicName>),
    /// From now on hints of what relays do come of all topics. What they did before was not hinted at.
    WatchedAll,
    /// A lock was handed to who waits for it under this secret.
    Lock(LockSecret),
    /// From now on hints of locks come. What was handed before was not hinted at.
    WatchedLocks,
    /// Hints were lost: any topic may have changed, and any lock may have been handed over.
    Everything,
}

/// Who is told.
pub trait HintListener: fmt::Debug + Send + Sync {
    /// Takes a hint. It must not wait: publishes may wait behind it.
    fn hear(&self, hint: Hint);
}

/// The listener of a backend, if there is one.
#[derive(Debug, Default)]
pub(super) struct Hints(RwLock<Option<Weak<dyn HintListener>>>);

impl Hints {
    pub(super) fn listen(&self, listener: Weak<dyn HintListener>) {
        *self.0.write() = Some(listener);
    }

    /// Tells of topics, once for each run of the same.
    pub(super) fn tell_topics<'a>(&self, topics: impl IntoIterator<Item = &'a TopicName>) {
        let mut told = None;
        for topic in topics {
            if told.replace(topic) != Some(topic) {
                self.tell(Hint::Topic(topic.clone()));
            }
        }
    }

    pub(super) fn tell(&self, hint: Hint) {
        // Not within the lock: whoever listens may do anything.
        let listener = self.0.read().as_ref().and_then(Weak::upgrade);
        if let Some(listener) = listener {
            listener.hear(hint);
        }
    }
}
