//! What took long: operations of a node, and commands that its servers have noted, as those who administer the relay see it.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp};

/// What an operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SlowKind {
    /// Messages were published.
    Publish,
    /// Something was read.
    Read,
    /// Anything else was asked for.
    Command,
}

impl SlowKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Read, Self::Command];

    /// Returns the word for it, as it stands in answers and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Command => "command",
        }
    }
}

/// An operation of the node that took long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowOperation {
    /// What it was.
    pub kind: SlowKind,
    /// The method and the pattern of the path; of a WebSocket the frame, as in `WebSocket publish`.
    pub operation: String,
    /// The topic; the first one of a batch of a WebSocket. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub topic: Option<String>,
    /// Who asked for it, as in `user "ann"`; absent where it is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub caller: Option<String>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub request_id: Option<String>,
    /// The status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub status: Option<u16>,
    /// When it began.
    pub at: Timestamp,
    /// How long it took on the whole, without what its client had it wait.
    pub total_ms: f64,
    /// How much of that it waited on the node for its turn to be sent to the server.
    pub queue_ms: f64,
    /// How much of that the server took, with the way there and back.
    pub server_ms: f64,
    /// How much of that the client took to accept the answer; absent where the answer went out at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub write_ms: Option<f64>,
}

/// A command that a server has noted as slow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowCommand {
    /// When it ran, to the second.
    pub at: Timestamp,
    /// How long the server took for it.
    pub took_ms: f64,
    /// Its name.
    pub command: String,
    /// The first of its keys, where it is one of a relay, cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub key: Option<String>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub address: Option<String>,
    /// What its client calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub client: Option<String>,
}

/// What a server has noted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowServer {
    /// The server.
    pub server: String,
    /// What it has noted, the newest first.
    pub commands: Vec<SlowCommand>,
    /// Why it does not tell; absent where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub refusal: Option<String>,
}

/// The answer of `GET /api/v1/admin/slow`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowList {
    /// The node whose operations these are: the one that answers.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub node: NodeId,
    /// Past how many milliseconds an operation is noted; 0 where none is.
    pub threshold_ms: u64,
    /// How many were noted since the node has started.
    pub count: u64,
    /// Those that are kept, the newest first.
    pub operations: Vec<SlowOperation>,
    /// What the servers have noted by themselves.
    pub servers: Vec<SlowServer>,
}
