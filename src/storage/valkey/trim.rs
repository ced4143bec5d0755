//! Trimming a topic when somebody asks for it. Appends trim by themselves, and sweeps by age.

use glide::ValkeyValue;
use tidemill_proto::TopicName;

use super::Shard;
use super::control::checked;
use super::failure::{Effect, unexpected};
use crate::storage::{StorageError, Trim};

impl Shard {
    /// Removes entries from the old end of a stream and returns how many were removed.
    pub(super) async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        let stream = self.keys.stream(topic);
        let mut pipeline = glide::pipe();
        pipeline.cmd("XTRIM").arg(&stream);
        match trim {
            // The server reads signed numbers.
            Trim::Keep(count) => {
                pipeline.arg("MAXLEN").arg("=").arg(count.min(i64::MAX.unsigned_abs()).to_string())
            }
            Trim::Before(id) => pipeline.arg("MINID").arg("=").arg(id.to_string()),
        };
        pipeline.cmd("EXISTS").arg(&stream);
        let replies = self.change.run(&pipeline, Effect::Write).await?;
        let [removed, exists] =
            <[ValkeyValue; 2]>::try_from(replies).map_err(|_| unexpected("XTRIM", Effect::Write))?;
        match (checked(removed)?, checked(exists)?) {
            (_, ValkeyValue::Int(0)) => Err(StorageError::NoTopic),
            (ValkeyValue::Int(removed), _) => Ok(u64::try_from(removed).unwrap_or(0)),
            _ => Err(unexpected("XTRIM", Effect::Write)),
        }
    }
}
