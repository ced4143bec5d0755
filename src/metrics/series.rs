//! Series of measurements.

use std::fmt;

use super::registry::Registry;

const POINTS: &str = "tidemill_series_points_total";

/// The counts of series.
pub struct Series {
    registry: Registry,
}

impl Series {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(POINTS, &["result"], "Points of series: `added`, or `refused`");
        Self { registry: registry.clone() }
    }

    /// Counts a point.
    pub fn point(&self, is_added: bool) {
        let result = if is_added { "added" } else { "refused" };
        self.registry.counter(POINTS, &[("result", result)]).increment(1);
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").finish_non_exhaustive()
    }
}
