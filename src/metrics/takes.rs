//! Limits of applications.

use std::fmt;

use super::registry::Registry;

const TAKES: &str = "tidemill_takes_total";

/// The counts of limits of applications.
pub struct Takes {
    registry: Registry,
}

impl Takes {
    pub(super) fn new(registry: Registry) -> Self {
        registry.describe_counter(TAKES, &["kind", "result", "decided_by"], "Takes of limits of applications, looks and refunds: `allowed` or `refused`, by the `storage`, or by the `node` where that could not be asked");
        Self { registry }
    }

    /// Counts one of a kind, of which there are few: whether it passed, and whether the node has decided by itself.
    pub fn answered(&self, kind: &'static str, allowed: bool, degraded: bool) {
        let result = if allowed { "allowed" } else { "refused" };
        let decided_by = if degraded { "node" } else { "storage" };
        let labels = [("kind", kind), ("result", result), ("decided_by", decided_by)];
        self.registry.counter(TAKES, &labels).increment(1);
    }
}

impl fmt::Debug for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takes").finish_non_exhaustive()
    }
}
