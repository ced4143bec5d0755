//! Spans, and what became of them.

use std::fmt;

use metrics::Counter;

use super::registry::Registry;

const SPANS: &str = "tidemill_trace_spans_total";

/// The counts of spans.
pub struct Traces {
    sent: Counter,
    dropped: Counter,
    failed: Counter,
}

impl Traces {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            SPANS,
            &["result"],
            "Spans of this process: `sent` to the collector, `dropped` where there was no room for them, or `failed` where it was away or has not taken them",
        );
        let counter = |result| registry.counter(SPANS, &[("result", result)]);
        Self { sent: counter("sent"), dropped: counter("dropped"), failed: counter("failed") }
    }

    /// Tells how many there were.
    pub fn tell(&self, sent: u64, dropped: u64, failed: u64) {
        self.sent.absolute(sent);
        self.dropped.absolute(dropped);
        self.failed.absolute(failed);
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}
