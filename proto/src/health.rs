//! The answers of `/health` and `/ready`.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp, TopicSelector};

/// Whether the relay can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HealthStatus {
    /// Everything works.
    Healthy,
    /// The process lives, but the backend cannot be reached, cannot be trusted with messages, or refuses those that are to
    /// be more durable than it can make them.
    Degraded,
}

/// The answer of `GET /health`: always 200 while the process lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Whether the relay can do its work.
    pub status: HealthStatus,
    /// When this was asked.
    pub timestamp: Timestamp,
    /// The rest, for who may administer the relay; `None`, and nothing on the wire, for others.
    #[serde(flatten)]
    pub details: Option<HealthDetails>,
}

/// What `/health` tells those who may administer the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthDetails {
    /// Which node answers: another one where several stand behind one address, and after a restart.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{16}$"))]
    pub node: NodeId,
    /// The relay's version.
    pub version: String,
    /// Seconds since the relay started.
    pub uptime_seconds: u64,
    /// The backend.
    pub backend: BackendHealth,
    /// How limits are counted now.
    #[serde(default)]
    pub limits: LimitsHealth,
    /// What topics keep together, where it is bounded; absent where nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub kept: Vec<KeptHealth>,
}

/// How many bytes topics keep together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptHealth {
    /// The topics: a name, or a pattern.
    pub topics: TopicSelector,
    /// The bytes, about, as the backend weighs them; null until it has.
    pub bytes: Option<u64>,
    /// The bytes that they may keep.
    pub bytes_max: u64,
    /// Whether publishing to them is refused now.
    pub is_reached: bool,
}

/// How it is counted what callers and addresses may do in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LimitsHealth {
    /// Nothing is limited.
    #[default]
    None,
    /// Over all nodes together.
    Shared,
    /// The storage does not tell: by each node for itself, or what is limited is refused, as it is set.
    Alone,
}

/// What is known of the backend. What a backend does not have, or an unreachable server did not
/// tell, is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendHealth {
    /// `memory` or `valkey`.
    pub kind: String,
    /// Whether it can be used now.
    pub connected: bool,
    /// Whether it takes messages now. A server that does not can still be read.
    pub accepts_writes: bool,
    /// Whether it was made read-only as a whole, by `tidemill freeze`: it takes no messages then.
    #[serde(default)]
    pub read_only: bool,
    /// About how many topics and buckets are a part of a copy, and take no changes until they are whole: `tidemill copy` is
    /// bringing them, or was given up.
    #[serde(default)]
    pub taken_over: u64,
    /// The server's host name; null where there are several, which `servers` has.
    pub host: Option<String>,
    /// The server's port.
    pub port: Option<u16>,
    /// What the server calls itself: `valkey` or `redis`.
    pub server: Option<String>,
    /// The server's version.
    pub server_version: Option<String>,
    /// Bytes of memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Bytes of memory it may use; null where there is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// What the server does at its memory limit; anything but `noeviction` can delete messages.
    pub eviction_policy: Option<String>,
    /// Whether the server writes an append-only file.
    pub append_only: Option<bool>,
    /// Milliseconds that a ping took.
    pub ping_ms: Option<f64>,
    /// How often a connection to the server was lost since this node has started.
    #[serde(default)]
    pub reconnects: u64,
    /// The replicas that pages of history are read from; absent where there are none, or that is not set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub replicas: Vec<String>,
    /// Pages that were read from replicas since this node has started.
    #[serde(default)]
    pub replica_pages: u64,
    /// What is wrong, or will be, in sentences.
    pub warnings: Vec<String>,
    /// Each server that has topics, where these are several; absent where one server has them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub servers: Vec<ServerHealth>,
}

/// One of the servers of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerHealth {
    /// Its host name or address, and its port.
    pub address: String,
    /// Whether it can be used now.
    pub connected: bool,
    /// Whether it takes messages now.
    pub accepts_writes: bool,
    /// In a cluster, how many of its 16,384 slots it has: topics are spread over these by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub slots: Option<u16>,
    /// Where topics are placed on servers by their names, which this one has: names, or patterns. Absent of the one that has
    /// all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub topics: Vec<TopicSelector>,
    /// Bytes of memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Bytes of memory it may use; null where there is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Milliseconds that a ping took.
    pub ping_ms: Option<f64>,
}

/// The answer of `GET /ready`: 200 when ready, 503 when not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    /// Whether a load balancer should send requests here.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
    /// Of several servers those that do not serve now, for who may administer the relay: what lives there is refused, and
    /// all else is served. Absent where all do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub away: Vec<String>,
}
