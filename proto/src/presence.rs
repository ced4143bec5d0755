//! Who is present in rooms.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{MemberName, RoomName, Timestamp};

/// A member of a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// Its name within the room.
    pub member: MemberName,
    /// Since when it is there.
    pub since: Timestamp,
    /// When it leaves, unless it says again that it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub expires_at: Option<Timestamp>,
    /// The node to which it is connected, if it is a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub node: Option<String>,
    /// The connection, which no other is called, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub connection: Option<String>,
    /// The address that it has connected from, if it is a connection and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub address: Option<String>,
    /// Tells which members one lease keeps, if one keeps it: it is made of the lease, and not its id, which is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub lease: Option<String>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, nullable = false))]
    pub data: Option<Box<RawValue>>,
}

/// What a room keeps of a member: a [`Member`] without what is known beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptMember {
    /// Since when it is there.
    pub since: Timestamp,
    /// The node to which it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The connection, which no other is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// The address that it has connected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Tells which members one lease keeps, if one keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// A room in which somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Room {
    /// The room.
    pub room: RoomName,
    /// How many members it has.
    pub count: u64,
}

/// The members of a room, or a page of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Members {
    /// The room.
    pub room: RoomName,
    /// How many members it has in all.
    pub count: u64,
    /// The members, in the order of their names.
    pub members: Vec<Member>,
}
