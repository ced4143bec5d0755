//! What is counted, and how Prometheus reads it.
//!
//! Labels are bounded: methods, route patterns, statuses and problem codes. No topic, no address and
//! no client-made text ever becomes a label.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;
use tidemill_proto::Code;

use crate::relay::Failure;

/// Upper ends of the buckets of durations, in seconds.
const DURATION_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

const DURATION: &str = "tidemill_http_request_duration_seconds";

const METADATA: Metadata<'static> = Metadata::new("tidemill", Level::INFO, None);

/// The counts of one node. Cloning is cheap.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    accepted: Counter,
    replayed: Counter,
    accepted_bytes: Counter,
    served: Counter,
    rejected: HashMap<Code, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    inflight_bytes: Gauge,
    /// Handles of the label sets seen so far: asking the registry for them allocates.
    requests: RwLock<HashMap<Box<str>, Vec<Seen>>>,
}

/// The handles of one label set of a route.
struct Seen {
    method: &'static str,
    status: StatusCode,
    count: Counter,
    duration: Histogram,
}

impl Metrics {
    /// Returns counts that start at zero.
    ///
    /// # Panics
    /// Never: the buckets are a constant that is not empty.
    #[must_use]
    pub fn new() -> Self {
        let builder =
            PrometheusBuilder::new().set_buckets(&DURATION_BUCKETS).expect("there is at least one bucket");
        let recorder = Arc::new(builder.build_recorder());
        describe(&recorder);
        let counter =
            |name, labels: Vec<Label>| recorder.register_counter(&Key::from_parts(name, labels), &METADATA);
        let gauge = |name| recorder.register_gauge(&Key::from_static_name(name), &METADATA);
        let published =
            |result| counter("tidemill_messages_published_total", vec![Label::new("result", result)]);
        let rejected = |code: &Code| {
            let labels = vec![Label::from_static_parts("code", code.as_str())];
            (*code, counter("tidemill_messages_rejected_total", labels))
        };
        let inner = Inner {
            accepted: published("accepted"),
            replayed: published("replayed"),
            accepted_bytes: counter("tidemill_messages_published_bytes_total", Vec::new()),
            served: counter("tidemill_messages_served_total", Vec::new()),
            rejected: Code::ALL.iter().map(rejected).collect(),
            connections: gauge("tidemill_http_connections"),
            connections_refused: counter("tidemill_http_connections_refused_total", Vec::new()),
            inflight_bytes: gauge("tidemill_http_inflight_body_bytes"),
            requests: RwLock::default(),
            handle: recorder.handle(),
            recorder,
        };
        Self(Arc::new(inner))
    }

    /// Returns the recorder, for libraries that count through the `metrics` macros.
    #[must_use]
    pub fn recorder(&self) -> Arc<PrometheusRecorder> {
        Arc::clone(&self.0.recorder)
    }

    /// Folds samples into their histograms; without it they pile up until somebody reads them.
    pub fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }

    /// Counts connections as they come and go.
    pub fn connections(&self, now: usize) {
        self.0.connections.set(u32::try_from(now).unwrap_or(u32::MAX));
    }

    /// Counts a connection that was refused.
    pub fn connection_refused(&self) {
        self.0.connections_refused.increment(1);
    }

    pub(super) fn render(&self, inflight_bytes: u64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 bytes are enough")]
        self.0.inflight_bytes.set(inflight_bytes as f64);
        self.0.handle.render()
    }

    pub(super) fn published(&self, bytes: usize, replayed: bool) {
        if replayed {
            self.0.replayed.increment(1);
        } else {
            self.0.accepted.increment(1);
            self.0.accepted_bytes.increment(bytes as u64);
        }
    }

    pub(super) fn rejected(&self, failure: &Failure) {
        if let Some(counter) = self.0.rejected.get(&failure.code()) {
            counter.increment(1);
        }
    }

    pub(super) fn served(&self, messages: usize) {
        self.0.served.increment(messages as u64);
    }

    pub(super) fn request(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let method = method_label(method);
        let count = |seen: &[Seen]| {
            let seen = seen.iter().find(|seen| seen.method == method && seen.status == status)?;
            seen.count.increment(1);
            seen.duration.record(elapsed);
            Some(())
        };
        let known = self.0.requests.read().get(route).and_then(|seen| count(seen));
        if known.is_none() {
            let mut requests = self.0.requests.write();
            let seen = requests.entry(route.into()).or_default();
            // Between the two locks another request may have been the first of its kind.
            if count(seen).is_none() {
                seen.push(self.seen(method, route, status));
                count(seen);
            }
        }
    }

    fn seen(&self, method: &'static str, route: &str, status: StatusCode) -> Seen {
        let labels =
            || vec![Label::from_static_parts("method", method), Label::new("route", route.to_owned())];
        let duration = Key::from_parts(DURATION, labels());
        let mut labels = labels();
        labels.push(Label::new("status", status.as_str().to_owned()));
        let count = Key::from_parts("tidemill_http_requests_total", labels);
        let recorder = &self.0.recorder;
        Seen {
            method,
            status,
            count: recorder.register_counter(&count, &METADATA),
            duration: recorder.register_histogram(&duration, &METADATA),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Returns the method as a label: clients may make up methods, labels must not follow.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn describe(recorder: &PrometheusRecorder) {
    let counter = |name: &'static str, unit, text| {
        recorder.describe_counter(name.into(), unit, SharedString::const_str(text));
    };
    counter("tidemill_messages_published_total", None, "Messages kept, and repeats answered from their key");
    counter(
        "tidemill_messages_published_bytes_total",
        Some(Unit::Bytes),
        "Bytes of payload and metadata kept",
    );
    counter("tidemill_messages_rejected_total", None, "Messages refused, by the code of the problem");
    counter("tidemill_messages_served_total", None, "Messages served in pages and one by one");
    counter("tidemill_http_requests_total", None, "Requests answered");
    counter("tidemill_http_connections_refused_total", None, "Connections refused at a cap");
    let gauge = |name: &'static str, unit, text| {
        recorder.describe_gauge(name.into(), unit, SharedString::const_str(text));
    };
    gauge("tidemill_http_connections", None, "Connections open now");
    gauge("tidemill_http_inflight_body_bytes", Some(Unit::Bytes), "Bytes of bodies held now");
    let text = SharedString::const_str("Time from the request's head to its answer");
    recorder.describe_histogram(DURATION.into(), Some(Unit::Seconds), text);
}
