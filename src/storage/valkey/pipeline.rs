//! What lanes ask of whoever takes their messages, and what comes back.
//!
//! It knows neither lanes nor how anything is sent, so that each can be tested without the other.

use std::fmt;

use tidemill_proto::TopicName;

use super::failure::Failure;
use crate::storage::{Appended, NewMessage, StorageError};

/// The result of one append.
pub(super) type Outcome = Result<Appended, StorageError>;

/// What came of sending messages once.
#[derive(Debug, Default)]
pub(super) struct PipelineResult {
    /// An outcome for each, in their order, but for those of `again` and `elsewhere`.
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// Those whose topic does not exist, with their places.
    pub(super) again: Vec<(usize, NewMessage)>,
    /// Those whose topic lives on another server, or comes to live there, with their places.
    pub(super) elsewhere: Vec<(usize, NewMessage)>,
    /// The topics that took some.
    pub(super) appended: Vec<TopicName>,
}

impl PipelineResult {
    /// Returns one in which nothing is decided yet of so many messages.
    pub(super) fn open(messages: usize) -> Self {
        Self { outcomes: (0..messages).map(|_| None).collect(), ..Self::default() }
    }

    /// Returns what went wrong with the server, if something did.
    pub(super) fn failure(&self) -> Option<&'static str> {
        self.outcomes.iter().flatten().find_map(|outcome| match outcome {
            Err(StorageError::Unavailable(_)) => Some("unavailable"),
            Err(StorageError::Indeterminate(_)) => Some("outcome_unknown"),
            _ => None,
        })
    }

    /// Whether every message has its outcome.
    pub(super) fn is_whole(&self) -> bool {
        self.again.is_empty() && self.elsewhere.is_empty()
    }
}

/// Sends batches of messages and answers each.
///
/// Batches go out in the order in which their futures are first polled, and may be under way beside each
/// other.
pub(super) trait Pipeline: fmt::Debug + Send + Sync + 'static {
    /// Returns whether anything can be sent now. What is under way ends when this becomes false.
    fn is_up(&self) -> bool;

    /// Returns the failure of what cannot be sent while it is down.
    fn down(&self) -> Failure;

    /// Sends messages once.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, any of the messages may have been appended.
    fn send(&self, messages: Vec<NewMessage>) -> impl Future<Output = PipelineResult> + Send;

    /// Makes the topics of messages that found none, sends these again, and returns an outcome for each.
    /// Only called while nothing else is under way. Ends also when topics can no longer be made.
    ///
    /// # Cancel safety
    /// Not cancel-safe, like [`send`](Self::send).
    fn send_again(&self, messages: Vec<NewMessage>) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Hands messages on whose topics live elsewhere: they have their order at once, in front of whatever comes later
    /// for their topics. The future returns an outcome for each.
    fn hand_on(&self, messages: Vec<NewMessage>) -> impl Future<Output = Vec<Outcome>> + Send + 'static;
}
