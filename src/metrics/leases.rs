//! Leases.

use std::fmt;

use metrics::Counter;

use super::registry::Registry;

const LEASES: &str = "tidemill_leases_total";
const LOST: &str = "tidemill_leases_lost_total";

/// The counts of leases.
pub struct Leases {
    created: Counter,
    renewed: Counter,
    ended: Counter,
    lost: Counter,
}

impl Leases {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(LEASES, &["what"], "Leases that this node has `created`, `renewed` and `ended`; those that are not renewed in time are not counted");
        let what = |what| registry.counter(LEASES, &[("what", what)]);
        let [created, renewed, ended] = ["created", "renewed", "ended"].map(what);
        registry.describe_counter(
            LOST,
            &[],
            "Locks, keys and members that renewals of leases have found to be kept no more",
        );
        Self { created, renewed, ended, lost: registry.counter(LOST, &[]) }
    }

    /// Counts a lease that was created.
    pub fn created(&self) {
        self.created.increment(1);
    }

    /// Counts a renewal, and what it has found to be lost.
    pub fn renewed(&self, lost: usize) {
        self.renewed.increment(1);
        self.lost.increment(lost as u64);
    }

    /// Counts a lease that was ended.
    pub fn ended(&self) {
        self.ended.increment(1);
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}
