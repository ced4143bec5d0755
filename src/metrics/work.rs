//! Work: what consumers claim over this node, and what they say of it.

use std::fmt;

use metrics::Counter;
use tidemill_proto::work::SettledStatus;

use super::registry::Registry;

const CLAIMED: &str = "tidemill_work_claimed_total";
const SETTLED: &str = "tidemill_work_settled_total";
const GONE: &str = "tidemill_work_gone_total";
const DEAD: &str = "tidemill_work_dead_total";

/// How deliveries end, in the order of their counters.
const STATUSES: [(SettledStatus, &str); 6] = [
    (SettledStatus::Acked, "acked"),
    (SettledStatus::Nacked, "nacked"),
    (SettledStatus::Extended, "extended"),
    (SettledStatus::Rejected, "rejected"),
    (SettledStatus::Released, "released"),
    (SettledStatus::Refused, "refused"),
];

/// The counts of work.
pub struct Work {
    claimed: [Counter; 2],
    settled: [Counter; STATUSES.len()],
    dead: Counter,
    gone: Counter,
}

impl Work {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            CLAIMED,
            &["delivery"],
            "Messages given to consumers, the `first` time or `again`",
        );
        registry.describe_counter(
            SETTLED,
            &["status"],
            "Receipts given back: `acked`, `nacked`, `extended`, `rejected`, `released`, `refused`",
        );
        registry.describe_counter(DEAD, &[], "Dead letters that this node has written");
        registry.describe_counter(
            GONE,
            &[],
            "Messages that claims over this node have found to be gone before their group was done with them",
        );
        Self {
            claimed: ["first", "again"].map(|delivery| registry.counter(CLAIMED, &[("delivery", delivery)])),
            settled: STATUSES.map(|(_, status)| registry.counter(SETTLED, &[("status", status)])),
            dead: registry.counter(DEAD, &[]),
            gone: registry.counter(GONE, &[]),
        }
    }

    /// Counts a message that was given to a consumer, for the so-manieth time.
    pub fn claimed(&self, delivery: u64) {
        self.claimed[usize::from(delivery > 1)].increment(1);
    }

    /// Tells how many messages claims have found to be gone, and how many dead letters were written, ever.
    pub fn tell(&self, gone: u64, dead: u64) {
        self.gone.absolute(gone);
        self.dead.absolute(dead);
    }

    /// Counts a receipt that was given back.
    pub fn settled(&self, status: SettledStatus) {
        if let Some(at) = STATUSES.iter().position(|(known, _)| *known == status) {
            self.settled[at].increment(1);
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}
