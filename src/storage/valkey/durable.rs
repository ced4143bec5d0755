//! Durability: pledges, and which rules of the settings a shard cannot keep.
//!
//! How the server is waited for is told by `waits`.

use std::sync::Arc;

use tidemill_proto::{Durability, TopicName};

use super::calls::Call;
use super::failure::Effect;
use super::{Shard, entry, scripts};
use crate::storage::{Idempotency, StorageError};

/// What the script answers where a key is new: it knows nothing of it, or there is no topic.
const NEW: [i64; 2] = [0, 3];

impl Shard {
    /// Returns the history in which a wait for messages of a topic has to end that are appended from now on.
    pub(super) async fn pledge(
        &self,
        topic: &TopicName,
        asked: Durability,
        key: Option<&Idempotency>,
    ) -> Result<Arc<str>, StorageError> {
        match self.waits.check(asked).await {
            Err(refusal @ (StorageError::Undurable(_) | StorageError::TooFewReplicas { .. })) => match key {
                Some(key) if self.is_used(topic, key).await? => {}
                Some(_) | None => return Err(refusal),
            },
            checked => checked?,
        }
        self.waits.history(asked).await
    }

    /// Whether an idempotency key was used in a topic.
    async fn is_used(&self, topic: &TopicName, key: &Idempotency) -> Result<bool, StorageError> {
        let keys = [self.keys.stream(topic), self.keys.idempotency(topic, &key.key)];
        let fingerprint = [entry::digits(key.fingerprint)];
        let call = Call::new(&scripts::KEY_ANSWER, Effect::Read, &keys, &fingerprint);
        self.calls.call(call, |reply| reply.integer()).await.map(|answer| !NEW.contains(&answer))
    }

    /// Returns sentences on what the settings ask for that messages of topics here cannot be: they are refused.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn undurable(&self) -> Result<Vec<String>, StorageError> {
        let others = self.others.as_ref();
        let rules = self.options.durabilities.iter();
        let is_here = |topics| others.is_none_or(|others| others.may_have(topics));
        let rules: Vec<_> = rules.filter(|rule| rule.topics.as_ref().is_none_or(is_here)).collect();
        self.waits.warnings(&rules).await
    }
}
