//! Messages for later.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::registry::Registry;

const SCHEDULED: &str = "tidemill_messages_scheduled_total";
const PROMOTED: &str = "tidemill_schedules_promoted_total";
const FAILED: &str = "tidemill_schedules_failed_total";
const LATE: &str = "tidemill_schedules_late_seconds";

/// The counts of messages for later.
pub struct Schedules {
    accepted: Counter,
    replayed: Counter,
    promoted: Counter,
    failed: Counter,
    late: Histogram,
    waiting: Gauge,
}

impl Schedules {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            SCHEDULED,
            &["result"],
            "Messages kept for later, `accepted`, and `replayed` from their key",
        );
        registry.describe_counter(PROMOTED, &[], "Messages that this node has published when they were due");
        registry.describe_counter(FAILED, &[], "Looks at what is due that have failed");
        registry.describe_seconds(
            LATE,
            &[],
            "Time from when a message was due to when this node has published it",
        );
        let scheduled = |result| registry.counter(SCHEDULED, &[("result", result)]);
        Self {
            accepted: scheduled("accepted"),
            replayed: scheduled("replayed"),
            promoted: registry.counter(PROMOTED, &[]),
            failed: registry.counter(FAILED, &[]),
            late: registry.labelled_histogram(LATE, Vec::new()),
            waiting: registry.gauge("tidemill_schedules_waiting", "Messages that wait for later in all topics, recurring ones among them, as they were counted last"),
        }
    }

    /// Counts a message that was kept for later, or whose first answer was given again.
    pub fn scheduled(&self, replayed: bool) {
        let counted = if replayed { &self.replayed } else { &self.accepted };
        counted.increment(1);
    }

    /// Counts messages that were published so late.
    pub fn promoted(&self, late: &[Duration]) {
        self.promoted.increment(late.len() as u64);
        for late in late {
            self.late.record(late.as_secs_f64());
        }
    }

    /// Counts looks that have failed.
    pub fn failed(&self, looks: usize) {
        self.failed.increment(looks as u64);
    }

    /// Tells how many wait.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is as fine as a float is")]
    pub fn waiting(&self, count: u64) {
        self.waiting.set(count as f64);
    }
}

impl fmt::Debug for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}
