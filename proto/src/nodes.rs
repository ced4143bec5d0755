//! Nodes: which relays share a storage, as those who administer them see it.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp};

/// One node, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeInfo {
    /// Which node.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: NodeId,
    /// The version of its program.
    pub version: String,
    /// The name of its machine.
    pub host: String,
    /// Where it listens.
    pub listening: Vec<String>,
    /// When it was started.
    pub since: Timestamp,
    /// Whether it was told to drain, or to stop.
    pub stopping: bool,
    /// How many sessions were open on it when it said so.
    pub sessions: u64,
    /// When it said all this, by its own clock.
    pub told_at: Timestamp,
}

/// The answer of `GET /api/v1/admin/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeList {
    /// The node that answers.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: NodeId,
    /// The nodes that have said within the last 30 seconds that they are there, those that were started first before the
    /// others.
    pub nodes: Vec<NodeInfo>,
}
