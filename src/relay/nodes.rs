//! Nodes that share the storage: this one says that it is there, and whoever administers the relay is told of all.

use std::time::Duration;

use tidemill_proto::NodeId;
use tidemill_proto::nodes::NodeInfo;

use super::{Failure, Gate, Relay};

/// How often a node says that it is there, at least.
pub const ANNOUNCED_EVERY: Duration = Duration::from_secs(10);
/// How long it is listed when it does not say so any more.
const LISTED_FOR: Duration = Duration::from_secs(30);

impl Relay {
    /// Says to all nodes that this one is there. Returns whether it is listed; too many others may be.
    ///
    /// # Errors
    /// The storage does not take it.
    pub async fn announce(&self, about: &NodeInfo) -> Result<bool, Failure> {
        let document = serde_json::json!(about).to_string();
        let listed = self.0.storage.nodes.announce(about.node, document.into(), LISTED_FOR).await;
        listed.map_err(Failure::changed)
    }

    /// Says that the node is there no more.
    ///
    /// # Errors
    /// The storage does not take it; the node is forgotten in a while all the same.
    pub async fn retire(&self, node: NodeId) -> Result<(), Failure> {
        self.0.storage.nodes.retire(node).await.map_err(Failure::changed)
    }
}

impl Gate {
    /// Returns the nodes that share the storage, those that were started first before the others.
    ///
    /// # Errors
    /// The caller may not administer the relay, or the storage does not tell.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, Failure> {
        self.check_admin()?;
        let listed = self.relay().storage.nodes.nodes().await.map_err(|error| Failure::read(error, None))?;
        // What another version of the relay says, and this one does not understand, is left out.
        let mut nodes: Vec<NodeInfo> =
            listed.iter().filter_map(|(_, document)| serde_json::from_slice(document).ok()).collect();
        nodes.sort_by_key(|about| (about.since, about.node));
        Ok(nodes)
    }
}
