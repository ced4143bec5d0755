//! Draining: how a node lets go of its clients before it is stopped.

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// How far a node is with letting go of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DrainStage {
    /// It serves: nobody has told it to drain.
    Serving,
    /// It is not ready any more, and serves everything still, so that load balancers have looked before anybody is sent
    /// away.
    Notice,
    /// What is open is told to go on elsewhere, one after the other.
    Leaving,
    /// It waits for nothing more: what was under way has ended, or the time for it is over.
    Drained,
}

impl DrainStage {
    /// Returns it as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Notice => "notice",
            Self::Leaving => "leaving",
            Self::Drained => "drained",
        }
    }
}

/// The answer of `GET` and `POST /api/v1/admin/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drain {
    /// The node that answers.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{16}$"))]
    pub node: NodeId,
    /// How far it is.
    pub stage: DrainStage,
    /// WebSockets, streams and requests that wait, which are open still.
    pub sessions: u64,
    /// Other connections that were there before it began, and have not ended. Those that have come since, as of probes, are
    /// not counted.
    pub connections: u64,
    /// Milliseconds until it waits for nothing more, at the latest; absent before it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub ends_in_ms: Option<u64>,
}
