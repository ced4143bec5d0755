//! Runs: topics that come to an end, and take no messages from then on.

use std::fmt;

use async_trait::async_trait;
use tidemill_proto::TopicName;

use super::error::StorageError;

pub use tidemill_proto::topics::RunEnd;

/// How a topic is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnding<'a> {
    /// It has come to its end.
    Close,
    /// It is called off, for this reason.
    Cancel(&'a str),
}

/// Topics that end.
#[async_trait]
pub trait RunStore: fmt::Debug + Send + Sync {
    /// Ends a topic: from then on no message is appended to it, by whichever node, and each append is answered with
    /// `Closed` or `Cancelled`. What it has stays. It is one step: what was appended before is there, and nothing
    /// comes after; what waits in it for later is dropped, and nothing more may wait. Whoever listens is told of it, here and on the other nodes that watch the topic.
    ///
    /// A topic that has ended so already is left as it is, with its first reason. One that was cancelled can be
    /// closed. Deleting the topic ends that: the next one of its name takes messages.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`; `Closed` where one is to be cancelled that is
    /// closed.
    async fn end_run(&self, topic: &TopicName, ending: RunEnding<'_>) -> Result<RunEnd, StorageError>;
}
