//! Ending a topic when somebody asks for it.

use tidemill_proto::TopicName;
use tidemill_proto::topics::RunState;

use super::control::{bytes_of, checked, group_names};
use super::failure::{Effect, unexpected};
use super::topics::{script_answer, write_notices};
use super::{Shard, keys, runs, scripts};
use crate::storage::{RunEnd, RunEnding, StorageError};

impl Shard {
    /// Returns the error of what is to be published to a topic that gives no more ids: mostly it has ended.
    pub(super) async fn refusal_of(&self, topic: &TopicName) -> StorageError {
        let mut pipeline = glide::pipe();
        pipeline.cmd("XINFO").arg("GROUPS").arg(self.keys.stream(topic));
        pipeline.cmd("HGET").arg(self.keys.description(topic)).arg(keys::REASON);
        let replies = match self.change.run(&pipeline, Effect::Read).await {
            Ok(replies) => replies,
            Err(error) => return error,
        };
        let mut replies = replies.into_iter();
        let end = replies.next().and_then(|groups| runs::end_among(group_names(groups)));
        let reason = replies.next().and_then(bytes_of).unwrap_or_default();
        match end.map(|end| (end.freeze, end.state)) {
            Some((Some(freeze), _)) => StorageError::ReadOnly(freeze.into()),
            Some((None, RunState::Cancelled)) => {
                StorageError::Cancelled(String::from_utf8_lossy(&reason).into())
            }
            Some((None, RunState::Closed)) => StorageError::Closed,
            Some((None, RunState::Open)) | None => StorageError::IdsUsedUp,
        }
    }

    /// Ends a topic.
    pub(super) async fn end_run(
        &self,
        topic: &TopicName,
        ending: RunEnding<'_>,
    ) -> Result<RunEnd, StorageError> {
        let [due, bodies, recurring] = self.keys.schedules(topic);
        let keys = [self.keys.stream(topic), self.keys.description(topic), due, bodies, recurring];
        let (state, reason) = match ending {
            RunEnding::Close => (RunState::Closed, ""),
            RunEnding::Cancel(reason) => (RunState::Cancelled, reason),
        };
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::END_RUN).arg("5").arg(&keys[..]).arg(state.as_str()).arg(reason);
        pipeline.cmd("HGET").arg(&keys[1]).arg(keys::REASON);
        write_notices(&mut pipeline, &self.doorbell, std::iter::once(topic));
        let changing = self.doorbell.changing([topic]);
        let replies = self.change.run(&pipeline, Effect::Write).await;
        // Also where it is not known whether it has ended.
        changing.answered([topic]);
        let mut replies = replies?.into_iter();
        let mut next = || replies.next().ok_or_else(|| unexpected("EVAL", Effect::Write));
        match script_answer(&checked(next()?)?, &keys)? {
            0 => {
                let reason = bytes_of(next()?).map(|text| String::from_utf8_lossy(&text).into());
                Ok(RunEnd { state, reason })
            }
            1 => Err(StorageError::NoTopic),
            2 => Err(StorageError::NotATopic),
            _ => Err(StorageError::Closed),
        }
    }
}
