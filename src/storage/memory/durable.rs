//! Durability in memory: there is none beyond what is confirmed.

use async_trait::async_trait;
use tidemill_proto::{Durability, TopicName};

use super::Memory;
use crate::storage::{DurableStore, Pledge, StorageError};

#[async_trait]
impl DurableStore for Memory {
    async fn pledge(&self, _: &TopicName, _: Durability) -> Result<Pledge, StorageError> {
        let why = "it keeps messages in memory alone; a relay on Valkey can (setting `STORAGE_BACKEND`)";
        Err(StorageError::Undurable(why.into()))
    }

    async fn reach(&self, pledges: &[Pledge]) -> Vec<Durability> {
        vec![Durability::ACCEPTED; pledges.len()]
    }
}
