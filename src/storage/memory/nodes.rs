//! Nodes, in this process.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidemill_proto::{NodeId, Timestamp};

use super::Memory;
use crate::storage::StorageError;
use crate::storage::nodes::{NODES_MAX, NodeStore};

/// The nodes of the backend, each with its document, and until when it is listed.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<BTreeMap<NodeId, (Bytes, Timestamp)>>);

impl Nodes {
    fn announce(&self, node: NodeId, document: &Bytes, until: Timestamp, now: Timestamp) -> bool {
        let mut nodes = self.0.lock();
        nodes.retain(|_, (_, until)| *until > now);
        if nodes.len() >= NODES_MAX && !nodes.contains_key(&node) {
            return false;
        }
        // A copy: the bytes may be a part of much more.
        nodes.insert(node, (Bytes::copy_from_slice(document), until));
        true
    }

    fn retire(&self, node: NodeId) {
        self.0.lock().remove(&node);
    }

    fn list(&self, now: Timestamp) -> Vec<(NodeId, Bytes)> {
        let nodes = self.0.lock();
        let listed = nodes.iter().filter(|(_, (_, until))| *until > now);
        listed.map(|(node, (document, _))| (*node, document.clone())).collect()
    }
}

#[async_trait]
impl NodeStore for Memory {
    async fn announce(
        &self,
        node: NodeId,
        document: Bytes,
        kept_for: Duration,
    ) -> Result<bool, StorageError> {
        let now = self.clock.now();
        Ok(self.nodes.announce(node, &document, now.saturating_add(kept_for), now))
    }

    async fn retire(&self, node: NodeId) -> Result<(), StorageError> {
        self.nodes.retire(node);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<(NodeId, Bytes)>, StorageError> {
        Ok(self.nodes.list(self.clock.now()))
    }
}
