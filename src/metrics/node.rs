//! The node and what it stands on, as it is when somebody asks.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Label};
use tidemill_proto::Timestamp;
use tidemill_proto::health::BackendHealth;

use super::registry::Registry;

const PING: &str = "tidemill_backend_ping_seconds";
const USED: &str = "tidemill_backend_memory_used_bytes";
const LIMIT: &str = "tidemill_backend_memory_limit_bytes";
const SERVER_UP: &str = "tidemill_server_up";
const SERVER_WRITES: &str = "tidemill_server_accepts_writes";
const SERVER_SLOTS: &str = "tidemill_server_slots";
const SERVER_USED: &str = "tidemill_server_memory_used_bytes";
const TOPICS: &str = "tidemill_topics";
const WAITING: &str = "tidemill_work_waiting";
const PENDING: &str = "tidemill_work_pending";
const DEAD: &str = "tidemill_work_dead";
const OLDEST: &str = "tidemill_work_oldest_seconds";
const UNATTENDED: &str = "tidemill_work_unattended_groups";
const CERTIFICATE: &str = "tidemill_tls_certificate_expires_timestamp_seconds";
const REPLICA_PAGES: &str = "tidemill_backend_replica_pages_total";
const RELOADS: &str = "tidemill_settings_reloads_total";
const RECONNECTS: &str = "tidemill_backend_reconnects_total";

/// What the groups of all topics have.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkSwept {
    /// Messages that were not given out yet.
    pub waiting: u64,
    /// Messages that were given out and are not done with.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest message that a group is not done with.
    pub oldest: Duration,
    /// Groups that are not done, and of which nobody asks for messages.
    pub unattended: u64,
}

/// What is known of the node and its backend.
pub struct Node {
    registry: Registry,
    ready: Gauge,
    draining: Gauge,
    up: Gauge,
    accepts_writes: Gauge,
    read_only: Gauge,
    live_topics: Gauge,
    live_patterns: Gauge,
    replicas: Gauge,
    replica_pages: Counter,
    reconnects: Counter,
}

impl Node {
    pub(super) fn new(registry: Registry) -> Self {
        registry.describe_counter(RECONNECTS, &[], "Connections to the backend that were lost");
        registry.describe_counter(
            RELOADS,
            &["result"],
            "How often the settings were read again: `done`, or `refused` where they were wrong",
        );
        registry.describe_counter(REPLICA_PAGES, &[], "Pages of history that were read from replicas");
        registry.describe_gauge(PING, &[], "What the last ping of the backend took");
        registry.describe_gauge(USED, &[], "Memory that the backend uses");
        registry.describe_gauge(
            SERVER_UP,
            &["server"],
            "1 where this primary of a cluster, or this one of several servers, can be reached, else 0",
        );
        registry.describe_gauge(SERVER_WRITES, &["server"], "1 where this one takes messages, else 0");
        registry.describe_gauge(SERVER_SLOTS, &["server"], "Slots of the cluster that this primary has");
        registry.describe_gauge(SERVER_USED, &["server"], "Memory that this one uses");
        registry.describe_gauge(
            LIMIT,
            &[],
            "Memory that the backend may use; absent where there is no limit",
        );
        registry.describe_gauge(CERTIFICATE, &[], "When the certificate that clients are shown expires, in seconds since the beginning of 1970; absent without TLS");
        registry.describe_gauge(
            TOPICS,
            &[],
            "Topics that the last sweep has found, whichever node has made it; absent until one is known",
        );
        for (name, text) in [
            (WAITING, "Messages that all groups together have not given out yet, likewise"),
            (PENDING, "Messages that all groups together have given out and are not done with, likewise"),
            (DEAD, "Dead letters of all groups, likewise"),
            (OLDEST, "Age of the oldest message that a group is not done with, likewise"),
            (
                UNATTENDED,
                "Groups that are not done, and of which nobody has asked for messages for a minute, likewise",
            ),
        ] {
            registry.describe_gauge(name, &[], text);
        }
        let gauge = |name, text| registry.gauge(name, text);
        Self {
            ready: gauge("tidemill_ready", "1 where `/ready` answers 200, else 0"),
            draining: gauge("tidemill_draining", "1 once the node was told to drain, or to stop, else 0"),
            up: gauge("tidemill_backend_up", "1 where the backend can be reached, else 0"),
            accepts_writes: gauge(
                "tidemill_backend_accepts_writes",
                "1 where the backend takes messages, else 0",
            ),
            read_only: gauge(
                "tidemill_backend_read_only",
                "1 where the backend was made read-only as a whole by `tidemill freeze`, else 0",
            ),
            live_topics: gauge("tidemill_live_topics", "Topics that are read live on this node"),
            live_patterns: gauge("tidemill_live_patterns", "Patterns that are read live on this node"),
            replicas: gauge("tidemill_backend_replicas", "Replicas that pages of history are read from"),
            replica_pages: registry.counter(REPLICA_PAGES, &[]),
            reconnects: registry.counter(RECONNECTS, &[]),
            registry,
        }
    }

    /// Tells whether the node was told to drain, or to stop.
    pub fn draining(&self, is_told: bool) {
        self.draining.set(f64::from(u8::from(is_told)));
    }

    /// Tells how the node and its backend are now.
    pub fn tell(&self, ready: bool, backend: &BackendHealth, live_topics: usize, live_patterns: usize) {
        let flag = |is: bool| f64::from(u8::from(is));
        self.ready.set(flag(ready));
        self.up.set(flag(backend.connected));
        self.accepts_writes.set(flag(backend.accepts_writes));
        self.read_only.set(flag(backend.read_only));
        self.live_topics.set(u32::try_from(live_topics).unwrap_or(u32::MAX));
        self.live_patterns.set(u32::try_from(live_patterns).unwrap_or(u32::MAX));
        self.replicas.set(u32::try_from(backend.replicas.len()).unwrap_or(u32::MAX));
        self.replica_pages.absolute(backend.replica_pages);
        self.reconnects.absolute(backend.reconnects);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 bytes are enough")]
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        self.set(PING, backend.ping_ms.map(|ms| ms / 1e3));
        self.set(USED, bytes(backend.memory_used_bytes));
        self.set(LIMIT, bytes(backend.memory_limit_bytes));
        for server in &backend.servers {
            let label = Label::new("server", server.address.clone());
            let of = |name| self.registry.gauge_of(name, vec![label.clone()]);
            of(SERVER_UP).set(flag(server.connected));
            of(SERVER_WRITES).set(flag(server.accepts_writes));
            if let Some(slots) = server.slots {
                of(SERVER_SLOTS).set(f64::from(slots));
            }
            if let Some(bytes) = bytes(server.memory_used_bytes) {
                of(SERVER_USED).set(bytes);
            }
        }
    }

    /// Tells how many topics a sweep has found, and what their groups have.
    pub fn swept(&self, topics: u64, groups: &WorkSwept) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 are enough")]
        let count = |count: u64| count as f64;
        for (name, value) in [
            (TOPICS, count(topics)),
            (WAITING, count(groups.waiting)),
            (PENDING, count(groups.pending)),
            (DEAD, count(groups.dead)),
            (OLDEST, groups.oldest.as_secs_f64()),
            (UNATTENDED, count(groups.unattended)),
        ] {
            self.set(name, Some(value));
        }
    }

    /// Tells when the certificate that clients are shown expires.
    pub fn certificate(&self, expires: Timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 seconds are enough")]
        let seconds = (expires.as_millis() / 1_000) as f64;
        self.set(CERTIFICATE, Some(seconds));
    }

    /// Tells that the settings were read again, and whether they were taken over.
    pub fn reloaded(&self, is_done: bool) {
        let result = if is_done { "done" } else { "refused" };
        self.registry.counter(RELOADS, &[("result", result)]).increment(1);
    }

    /// Sets what may not be known: it is absent for as long as it was never known.
    fn set(&self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.registry.labelled_gauge(name, &[]).set(value);
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}
