//! Whether a target has in the end what it was given: one that keeps messages for a shorter time than they are old, or has no
//! room for all, drops some without a word.
//!
//! What a topic drops by bounds of its own is no fault of the target: the source would drop it as well.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidemill_proto::{MessageId, TopicName};

use super::error::unless_gone;
use super::{AT_ONCE, Copy, CopyError, Side};
use crate::storage::{CopiedBucket, CopiedTopic, Epoch};

/// What the target was given of a topic, or a bucket, by the time at which it was whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    epoch: Epoch,
    last: MessageId,
    /// Messages that were to be kept, or keys.
    count: u64,
    /// How many messages were ever given, where that is counted.
    ever: Option<u64>,
}

impl Given {
    pub(super) fn of(whole: &CopiedTopic) -> Self {
        let topic = &whole.topic;
        let bounded =
            topic.retention_seconds.is_some() || topic.max_bytes.is_some() || topic.keep_until_acked;
        let max = if bounded { 0 } else { topic.max_messages.unwrap_or(u64::MAX) };
        let CopiedTopic { epoch, last, length, given, .. } = *whole;
        Self { epoch, last, count: length.min(max), ever: given }
    }

    pub(super) fn of_bucket(whole: &CopiedBucket) -> Self {
        Self { epoch: whole.epoch, last: whole.last, count: whole.state.keys, ever: None }
    }

    /// Returns about how many messages a target lacks of these; those that came since are behind them.
    fn lacking(self, target: &CopiedTopic) -> u64 {
        let came = match (self.ever, target.given) {
            _ if target.last <= self.last => 0,
            (Some(before), Some(now)) => now.saturating_sub(before),
            (None, _) | (_, None) => target.length.saturating_sub(self.count),
        };
        self.count.saturating_sub(target.length.saturating_sub(came))
    }
}

impl Copy {
    /// Checks that the target has what it was given.
    pub(super) async fn check_kept(&self) -> Result<(), CopyError> {
        if !self.to.tells_what_it_has() {
            return Ok(());
        }
        let given = self.given.lock().clone();
        let look = async |(topic, given): (TopicName, Given)| {
            let lacking = self.patiently(|| self.lacking_of(&topic, given)).await;
            // What is gone from the source meanwhile may be gone from the target.
            Ok::<_, CopyError>((topic, unless_gone(lacking, 0)?))
        };
        let all: Vec<(TopicName, u64)> =
            stream::iter(given).map(look).buffered(AT_ONCE).try_collect().await?;
        let lacking: Vec<(TopicName, u64)> = all.into_iter().filter(|(_, count)| *count > 0).collect();
        if lacking.is_empty() { Ok(()) } else { Err(CopyError::NotKept(lacking)) }
    }

    /// Returns how many messages the target lacks of a topic, or how many keys it has lost with a bucket.
    async fn lacking_of(&self, topic: &TopicName, given: Given) -> Result<u64, CopyError> {
        if let Some(bucket) = topic.bucket() {
            let found = self.look_at_bucket(Side::Target, &bucket).await?;
            let is_there = found.is_some_and(|found| found.epoch == given.epoch);
            return Ok(if is_there { 0 } else { given.count.max(1) });
        }
        let Some(target) = self.look(Side::Target, topic).await?.filter(|found| found.epoch == given.epoch)
        else {
            return Ok(given.count.max(1));
        };
        if given.lacking(&target) == 0 {
            return Ok(0);
        }
        // What the source has dropped since, nobody lacks.
        match self.look(Side::Source, topic).await? {
            Some(source) if source.epoch == given.epoch => {
                self.count_lacking(&CopiedTopic { last: given.last, ..source }).await
            }
            Some(_) | None => Ok(0),
        }
    }
}
