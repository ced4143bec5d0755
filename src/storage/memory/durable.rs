//! Durability in memory: there is none beyond what is confirmed.

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_proto::{Durability, TopicName};

use super::Memory;
use crate::storage::{DurableStore, Idempotency, Pledge, StorageError};

#[async_trait]
impl DurableStore for Memory {
    async fn pledge(
        &self,
        topic: &TopicName,
        asked: Durability,
        key: Option<&Idempotency>,
    ) -> Result<Pledge, StorageError> {
        let now = self.clock.now();
        if key.is_some_and(|key| self.topics.read().is_used(topic, key, now)) {
            return Ok(Pledge { topic: topic.clone(), asked, history: Arc::default() });
        }
        let why = "it keeps messages in memory alone; a relay on Valkey can (setting `STORAGE_BACKEND`)";
        Err(StorageError::Undurable(why.into()))
    }

    async fn reach(&self, pledges: &[Pledge]) -> Vec<Durability> {
        vec![Durability::ACCEPTED; pledges.len()]
    }
}
