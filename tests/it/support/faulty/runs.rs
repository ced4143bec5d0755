//! Topics that end, and fail by the seed.

use async_trait::async_trait;
use tidemill::proto::TopicName;
use tidemill::storage::{RunEnd, RunEnding, RunStore, StorageError};

use super::Faulty;
use super::fate::Call;

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl RunStore for Faulty {
    async fn end_run(&self, topic: &TopicName, ending: RunEnding<'_>) -> Result<RunEnd, StorageError> {
        let fate = self.fate(Call::EndRun, &format!("{topic} {ending:?}"));
        let (runs, topic) = (self.inner.runs.clone(), topic.clone());
        let reason = match ending {
            RunEnding::Close => None,
            RunEnding::Cancel(reason) => Some(reason.to_owned()),
        };
        let effect = async move {
            let ending = reason.as_deref().map_or(RunEnding::Close, RunEnding::Cancel);
            runs.end_run(&topic, ending).await
        };
        self.change_topic(fate, None, effect).await
    }
}
