//! Steps of copies, of which the node is a side.

use std::fmt;

use super::registry::Registry;

const STEPS: &str = "tidemill_copy_steps_total";

/// The counts of copies.
pub struct Copies {
    registry: Registry,
}

impl Copies {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            STEPS,
            &["kind", "result"],
            "Steps of copies of which the node is a side, `read` or `write`: `done`, or `refused`",
        );
        Self { registry: registry.clone() }
    }

    /// Counts a step that reads or writes.
    pub fn step(&self, kind: &'static str, is_done: bool) {
        let result = if is_done { "done" } else { "refused" };
        self.registry.counter(STEPS, &[("kind", kind), ("result", result)]).increment(1);
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").finish_non_exhaustive()
    }
}
