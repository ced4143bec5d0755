//! Whether a target that is whole has all that the source has, or something has come to the source since.
//!
//! Once it is whole, the target takes messages of its own, which may be younger than what comes to the source: so the last
//! ids alone do not tell. What is looked for is the last message of the source itself.

use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, MessageId, TopicName};

use super::side::ask;
use super::{Copy, CopyError, Side};
use crate::storage::{CopiedBucket, CopiedTopic, StoredMessage};

impl Copy {
    /// Whether a topic of the target has the last message that it had at the source, or has had it: what the target has
    /// dropped by its own retention, it would have dropped of the source, too.
    pub(super) async fn has_last(
        &self,
        source: &CopiedTopic,
        target: &CopiedTopic,
    ) -> Result<bool, CopyError> {
        let topic = &source.topic.topic_name;
        let is_dropped = target.first.is_none_or(|first| first > source.last);
        if target.last < source.last || is_dropped {
            return Ok(target.last >= source.last);
        }
        let asked = |after| CopyRead::Messages { topic: topic.clone(), after };
        // What was deleted by request at the source is at neither.
        let lasts = (source.last, target.last);
        Ok(self.has(topic, &asked, lasts).await?
            || !self.holds(Side::Source, topic, &asked, source.last).await?)
    }

    /// The same of the last change of a bucket. Where the log of the target does not go back so far, nobody can tell, and it
    /// is as if something had come.
    pub(super) async fn has_last_change(
        &self,
        bucket: &BucketName,
        source: &CopiedBucket,
        target: &CopiedBucket,
    ) -> Result<bool, CopyError> {
        let asked = |after| CopyRead::Changes { bucket: bucket.clone(), after };
        self.has(&TopicName::log_of(bucket), &asked, (source.last, target.last)).await
    }

    /// Whether the target has what the source has last, by the last ids that both have given.
    async fn has(
        &self,
        log: &TopicName,
        asked: &(impl Fn(MessageId) -> CopyRead + Sync),
        (source, target): (MessageId, MessageId),
    ) -> Result<bool, CopyError> {
        if target <= source {
            return Ok(target == source);
        }
        Ok(source == MessageId::MIN || self.holds(Side::Target, log, asked, source).await?)
    }

    async fn holds(
        &self,
        side: Side,
        log: &TopicName,
        asked: &(impl Fn(MessageId) -> CopyRead + Sync),
        id: MessageId,
    ) -> Result<bool, CopyError> {
        let Some(before) = id.previous() else { return Ok(false) };
        let page: Vec<StoredMessage> = ask(self.side(side), asked(before)).await.map_err(side.failed(log))?;
        Ok(page.first().is_some_and(|message| message.id == id))
    }
}
