//! Nodes that fail by the seed.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill::proto::NodeId;
use tidemill::storage::{NodeStore, StorageError};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl NodeStore for Faulty {
    async fn announce(
        &self,
        node: NodeId,
        document: Bytes,
        kept_for: Duration,
    ) -> Result<bool, StorageError> {
        let fate = self.fate(Call::Announce, &node.to_string());
        let nodes = self.inner.nodes.clone();
        let effect: Effect<_> = Box::pin(async move { nodes.announce(node, document, kept_for).await });
        self.change(fate, effect).await?
    }

    async fn retire(&self, node: NodeId) -> Result<(), StorageError> {
        let fate = self.fate(Call::Retire, &node.to_string());
        let nodes = self.inner.nodes.clone();
        let effect: Effect<_> = Box::pin(async move { nodes.retire(node).await });
        self.change(fate, effect).await?
    }

    async fn nodes(&self) -> Result<Vec<(NodeId, Bytes)>, StorageError> {
        let fate = self.fate(Call::Nodes, "");
        self.ask(fate, self.inner.nodes.nodes()).await
    }
}
