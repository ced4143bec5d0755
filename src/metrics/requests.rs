//! HTTP requests, and the connections that they come on.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};
use parking_lot::RwLock;

use super::registry::Registry;

/// Upper ends of the buckets of durations, in seconds.
pub(super) const DURATION_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

const DURATION: &str = "tidemill_http_request_duration_seconds";
const REQUESTS: &str = "tidemill_http_requests_total";
const FAST_PATH: &str = "tidemill_http_fast_path_requests_total";
const REFUSED: &str = "tidemill_http_connections_refused_total";
const ACCEPTS_FAILED: &str = "tidemill_http_accepts_failed_total";
const HANDSHAKES_FAILED: &str = "tidemill_tls_handshakes_failed_total";

/// Methods that are labels. Clients may make up methods, labels must not follow.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// The counts of requests and connections.
pub struct Requests {
    registry: Registry,
    fast_path: Counter,
    connections: Gauge,
    connections_refused: Counter,
    accepts_failed: Counter,
    handshakes_failed: Counter,
    inflight_bytes: Gauge,
    pending_bytes: Gauge,
    live_bytes: Gauge,
    /// Handles of the label sets seen so far: asking the registry for them allocates.
    seen: RwLock<HashMap<Box<str>, Vec<Seen>>>,
}

/// The handles of one label set of a route.
struct Seen {
    method: &'static str,
    status: u16,
    count: Counter,
    duration: Histogram,
}

impl Requests {
    pub(super) fn new(registry: Registry) -> Self {
        registry.describe_counter(REQUESTS, &["method", "route", "status"], "Requests answered");
        registry.describe_counter(FAST_PATH, &[], "Requests answered on the fast path");
        registry.describe_counter(REFUSED, &[], "Connections refused at a cap");
        registry.describe_counter(ACCEPTS_FAILED, &[], "Times that no connection could be accepted, ten a second while that is so: most often as many files are open as may be. Clients wait meanwhile");
        registry.describe_counter(HANDSHAKES_FAILED, &[], "Connections that did not come to a TLS session");
        registry.describe_seconds(
            DURATION,
            &["method", "route"],
            "Time from the request's head to its answer",
        );
        Self {
            fast_path: registry.counter(FAST_PATH, &[]),
            connections: registry.gauge("tidemill_http_connections", "Connections open now, and requests under way over HTTP/2"),
            connections_refused: registry.counter(REFUSED, &[]),
            accepts_failed: registry.counter(ACCEPTS_FAILED, &[]),
            handshakes_failed: registry.counter(HANDSHAKES_FAILED, &[]),
            inflight_bytes: registry.gauge("tidemill_http_inflight_body_bytes", "Bytes held now of what clients send and are answered: bodies, pages, messages of WebSockets"),
            pending_bytes: registry.gauge("tidemill_live_pending_bytes", "Bytes held now for live readers that do not take them at once"),
            live_bytes: registry.gauge("tidemill_live_bytes", "Bytes held now of the newest messages of topics that are read live; at `TIDEMILL_LIVE_BYTES_MAX` readers read the backend"),
            seen: RwLock::default(),
            registry,
        }
    }

    /// Counts connections as they come and go.
    pub fn connections(&self, now: usize) {
        self.connections.set(u32::try_from(now).unwrap_or(u32::MAX));
    }

    /// Counts a connection that was refused.
    pub fn connection_refused(&self) {
        self.connections_refused.increment(1);
    }

    /// Counts that no connection could be accepted.
    pub fn accept_failed(&self) {
        self.accepts_failed.increment(1);
    }

    /// Counts a connection whose client and the relay did not come to terms.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.increment(1);
    }

    /// Tells how many bytes are held now of what clients send and are answered, for live readers that do not take
    /// them at once, and for all live readers.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 bytes are enough")]
    pub fn held_bytes(&self, inflight: u64, pending: u64, live: u64) {
        self.inflight_bytes.set(inflight as f64);
        self.pending_bytes.set(pending as f64);
        self.live_bytes.set(live as f64);
    }

    /// Counts a request that was answered on the fast path.
    pub fn fast_path(&self) {
        self.fast_path.increment(1);
    }

    /// Counts a request that was answered; `route` is the pattern of its path.
    pub fn answered(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let count = |seen: &[Seen]| {
            let seen = seen.iter().find(|seen| seen.method == method && seen.status == status)?;
            seen.count.increment(1);
            seen.duration.record(elapsed);
            Some(())
        };
        let known = self.seen.read().get(route).and_then(|seen| count(seen));
        if known.is_none() {
            let mut all = self.seen.write();
            let seen = all.entry(route.into()).or_default();
            // Between the two locks another request may have been the first of its kind.
            if count(seen).is_none() {
                seen.push(self.register(method, route, status));
                count(seen);
            }
        }
    }

    fn register(&self, method: &'static str, route: &str, status: u16) -> Seen {
        let labels =
            || vec![Label::from_static_parts("method", method), Label::new("route", route.to_owned())];
        let mut with_status = labels();
        with_status.push(Label::new("status", status.to_string()));
        Seen {
            method,
            status,
            count: self.registry.labelled_counter(REQUESTS, with_status),
            duration: self.registry.labelled_histogram(DURATION, labels()),
        }
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}
