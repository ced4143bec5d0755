//! The node and what it stands on, as it is when somebody asks.

use std::fmt;

use metrics::{Counter, Gauge, Unit};
use tidemill_proto::Timestamp;
use tidemill_proto::health::BackendHealth;

use super::registry::Registry;

const PING: &str = "tidemill_backend_ping_seconds";
const USED: &str = "tidemill_backend_memory_used_bytes";
const LIMIT: &str = "tidemill_backend_memory_limit_bytes";
const TOPICS: &str = "tidemill_topics";
const CERTIFICATE: &str = "tidemill_tls_certificate_expires_timestamp_seconds";
const RECONNECTS: &str = "tidemill_backend_reconnects_total";

/// What is known of the node and its backend.
pub struct Node {
    registry: Registry,
    ready: Gauge,
    up: Gauge,
    accepts_writes: Gauge,
    live_topics: Gauge,
    live_patterns: Gauge,
    reconnects: Counter,
}

impl Node {
    pub(super) fn new(registry: Registry) -> Self {
        registry.describe_counter(RECONNECTS, None, "Connections to the backend that were lost");
        registry.describe_gauge(PING, Some(Unit::Seconds), "What a ping of the backend took");
        registry.describe_gauge(USED, Some(Unit::Bytes), "Memory that the backend uses");
        registry.describe_gauge(LIMIT, Some(Unit::Bytes), "Memory that the backend may use");
        let text =
            "When the certificate that clients are shown expires, in seconds since the beginning of 1970";
        registry.describe_gauge(CERTIFICATE, Some(Unit::Seconds), text);
        registry.describe_gauge(TOPICS, None, "Topics that the last sweep of this node has found");
        let gauge = |name, text| registry.gauge(name, None, text);
        Self {
            ready: gauge("tidemill_ready", "1 where `/ready` answers 200, else 0"),
            up: gauge("tidemill_backend_up", "1 where the backend can be reached, else 0"),
            accepts_writes: gauge("tidemill_backend_accepts_writes", "1 where the backend takes messages"),
            live_topics: gauge("tidemill_live_topics", "Topics that are read live on this node"),
            live_patterns: gauge("tidemill_live_patterns", "Patterns that are read live on this node"),
            reconnects: registry.counter(RECONNECTS, &[]),
            registry,
        }
    }

    /// Tells how the node and its backend are now.
    pub fn tell(&self, ready: bool, backend: &BackendHealth, live_topics: usize, live_patterns: usize) {
        let flag = |is: bool| f64::from(u8::from(is));
        self.ready.set(flag(ready));
        self.up.set(flag(backend.connected));
        self.accepts_writes.set(flag(backend.accepts_writes));
        self.live_topics.set(u32::try_from(live_topics).unwrap_or(u32::MAX));
        self.live_patterns.set(u32::try_from(live_patterns).unwrap_or(u32::MAX));
        self.reconnects.absolute(backend.reconnects);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 bytes are enough")]
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        self.set(PING, backend.ping_ms.map(|ms| ms / 1e3));
        self.set(USED, bytes(backend.memory_used_bytes));
        self.set(LIMIT, bytes(backend.memory_limit_bytes));
    }

    /// Tells how many topics a sweep has found.
    pub fn swept(&self, topics: u64) {
        self.set(TOPICS, u32::try_from(topics).ok().map(f64::from));
    }

    /// Tells when the certificate that clients are shown expires.
    pub fn certificate(&self, expires: Timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 seconds are enough")]
        let seconds = (expires.as_millis() / 1_000) as f64;
        self.set(CERTIFICATE, Some(seconds));
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
