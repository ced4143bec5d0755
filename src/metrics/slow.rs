//! What took long.

use std::fmt;

use metrics::Counter;
use tidemill_proto::slow::SlowKind;

use super::registry::Registry;

const OPERATIONS: &str = "tidemill_slow_operations_total";

/// The counts of what took long.
pub struct Slow([Counter; SlowKind::ALL.len()]);

impl Slow {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            OPERATIONS,
            &["kind"],
            "Operations that took longer than `TIDEMILL_SLOW_MS`, by what they were: `publish`, `read`, `command`",
        );
        Self(SlowKind::ALL.map(|kind| registry.counter(OPERATIONS, &[("kind", kind.as_str())])))
    }

    /// Tells how many there were of each kind, in the order of [`SlowKind::ALL`].
    pub fn tell(&self, counts: [u64; SlowKind::ALL.len()]) {
        for (counter, count) in self.0.iter().zip(counts) {
            counter.absolute(count);
        }
    }
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow").finish_non_exhaustive()
    }
}
