//! Runs: topics are closed and cancelled, and take no messages from then on.

use tidemill_proto::limits::CANCEL_REASON_BYTES_MAX;
use tidemill_proto::page::Order;
use tidemill_proto::topics::{Closed, RunState};
use tidemill_proto::{MessageId, Problem, TopicName};

use super::{Failure, Gate};
use crate::access::Verb;
use crate::storage::{GapCheck, Range, RunEnding};

/// Checks why a topic is cancelled.
///
/// # Errors
/// It says nothing, or is too long.
pub fn parse_reason(text: &str) -> Result<&str, Failure> {
    if (1..=CANCEL_REASON_BYTES_MAX).contains(&text.len()) {
        return Ok(text);
    }
    let len = text.len();
    let rule = format_args!("has {len} bytes; a reason has 1 to {CANCEL_REASON_BYTES_MAX}");
    Err(Problem::field("reason", rule).into())
}

impl Gate {
    /// Closes a topic: it takes no messages any more, and its readers are told so behind the last one. One that is
    /// closed stays so.
    ///
    /// # Errors
    /// The caller may not, the topic does not exist, or the storage did not answer.
    pub async fn close_topic(&self, topic: &TopicName) -> Result<Closed, Failure> {
        self.end_run(topic, RunEnding::Close).await
    }

    /// Cancels a topic for a reason, with which publishes are answered from then on. One that is cancelled stays so,
    /// for its first reason.
    ///
    /// # Errors
    /// The caller may not, the topic does not exist or is closed, or the storage did not answer.
    pub async fn cancel_topic(&self, topic: &TopicName, reason: &str) -> Result<Closed, Failure> {
        self.end_run(topic, RunEnding::Cancel(reason)).await
    }

    async fn end_run(&self, topic: &TopicName, ending: RunEnding<'_>) -> Result<Closed, Failure> {
        self.check_topic(Verb::Manage, topic).await?;
        let ended = self.relay().storage.runs.end_run(topic, ending).await;
        let ended = ended.map_err(|error| Failure::change(error, topic))?;
        self.tell(ended.state.as_str(), topic);
        Ok(Closed { topic: topic.clone(), state: ended.state, reason: ended.reason.map(String::from) })
    }

    /// Returns whether a topic has ended and has nothing behind this cursor of a reader of it, not even that something
    /// is missing.
    ///
    /// # Errors
    /// The topic does not exist, or the storage did not answer.
    pub async fn is_over(&self, topic: &TopicName, cursor: MessageId) -> Result<bool, Failure> {
        let range = Range {
            order: Order::Asc,
            after: Some(cursor),
            gap_check: GapCheck::Seen,
            limit: 1,
            bytes_max: 1,
        };
        let found = self.relay().storage.messages.read(topic, range).await;
        let found = found.map_err(|error| Failure::read(error, Some(topic)))?;
        Ok(found.state != RunState::Open && found.gap.is_none() && found.messages.is_empty() && found.at_end)
    }
}
