//! Removing messages when somebody asks for it: trims, and single messages. Appends trim by themselves, and
//! sweeps by age.

use glide::ValkeyValue;
use tidemill_proto::{MessageId, TopicName};

use super::control::checked;
use super::failure::{Effect, unexpected};
use super::keys::sortable;
use super::marker::new_epoch;
use super::topics::{script_answer, write_notices};
use super::{Shard, scripts};
use crate::storage::{DELETED_MAX, StorageError, Trim};

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
        pipeline.cmd("EVAL").arg(scripts::FORGET_TRIMMED.text()).arg("2").arg(&stream);
        pipeline.arg(self.keys.description(topic));
        let replies = self.change.run(&pipeline, Effect::Write).await?;
        // A server that runs no scripts knows no latest messages.
        let [removed, exists, _] =
            <[ValkeyValue; 3]>::try_from(replies).map_err(|_| unexpected("XTRIM", Effect::Write))?;
        match (checked(removed)?, checked(exists)?) {
            (_, ValkeyValue::Int(0)) => Err(StorageError::NoTopic),
            (ValkeyValue::Int(removed), _) => Ok(u64::try_from(removed).unwrap_or(0)),
            _ => Err(unexpected("XTRIM", Effect::Write)),
        }
    }

    /// Deletes the message with this id, and returns whether there was one.
    pub(super) async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::DELETE_MESSAGE).arg("3");
        pipeline.arg(self.keys.stream(topic)).arg(self.keys.deleted(topic));
        pipeline.arg(self.keys.description(topic));
        pipeline.arg(id.to_string()).arg(sortable(id)).arg(DELETED_MAX.to_string());
        pipeline.arg(new_epoch());
        write_notices(&mut pipeline, &self.doorbell, std::iter::once(topic));
        let changing = self.doorbell.changing([topic]);
        let replies = self.change.run(&pipeline, Effect::Write).await;
        // Also where it is not known whether it is gone.
        changing.answered([topic]);
        let answer = replies?.into_iter().next().ok_or_else(|| unexpected("EVAL", Effect::Write))?;
        match script_answer(&checked(answer)?, &[self.keys.stream(topic), self.keys.deleted(topic)])? {
            0 => Ok(true),
            1 => Err(StorageError::NoTopic),
            2 => Err(StorageError::NotATopic),
            _ => Ok(false),
        }
    }
}
