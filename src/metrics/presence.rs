//! Members of rooms.

use std::fmt;

use metrics::{Counter, Gauge};

use super::registry::Registry;

const JOINS: &str = "tidemill_presence_joins_total";
const LEAVES: &str = "tidemill_presence_leaves_total";

/// The counts of members of rooms.
pub struct Presence {
    joined: Counter,
    stayed: Counter,
    left: Counter,
    connections: Gauge,
}

impl Presence {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            JOINS,
            &["result"],
            "Requests to be in a room: `joined`, and `stayed` where the member was there",
        );
        registry.describe_counter(LEAVES, &[], "Members that a request has had leave");
        Self {
            joined: registry.counter(JOINS, &[("result", "joined")]),
            stayed: registry.counter(JOINS, &[("result", "stayed")]),
            left: registry.counter(LEAVES, &[]),
            connections: registry
                .gauge("tidemill_presence_connections", "Connections of this node that are members of rooms"),
        }
    }

    /// Counts who is in a room now, and was or was not before.
    pub fn joined(&self, is_new: bool) {
        if is_new { &self.joined } else { &self.stayed }.increment(1);
    }

    /// Counts a member that was there and is no more.
    pub fn left(&self) {
        self.left.increment(1);
    }

    /// Tells how many connections are members of rooms.
    pub fn connections(&self, count: usize) {
        self.connections.set(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}
