//! Durability, that fails by the seed.

use async_trait::async_trait;
use tidemill::proto::{Durability, TopicName};
use tidemill::storage::{DurableStore, Idempotency, Pledge, StorageError};

use super::Faulty;
use super::fate::Call;

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl DurableStore for Faulty {
    async fn pledge(
        &self,
        topic: &TopicName,
        asked: Durability,
        key: Option<&Idempotency>,
    ) -> Result<Pledge, StorageError> {
        let fate = self.fate(Call::Pledge, &format!("{topic} {asked}"));
        self.ask(fate, self.inner.durable.pledge(topic, asked, key)).await
    }

    async fn reach(&self, pledges: &[Pledge]) -> Vec<Durability> {
        let fate = self.fate(Call::Reach, &pledges.len().to_string());
        let reach = async { Ok(self.inner.durable.reach(pledges).await) };
        self.ask(fate, reach).await.unwrap_or_else(|_| vec![Durability::ACCEPTED; pledges.len()])
    }
}
