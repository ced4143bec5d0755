//! Keys of buckets.

use std::collections::HashMap;
use std::fmt;

use metrics::Counter;
use tidemill_proto::Code;

use super::registry::Registry;

const CHANGES: &str = "tidemill_keys_changes_total";
const REFUSED: &str = "tidemill_keys_refused_total";
const READS: &str = "tidemill_keys_reads_total";
const EXPIRED: &str = "tidemill_keys_expired_total";
const FAILED: &str = "tidemill_keys_expiries_failed_total";

/// The counts of keys.
pub struct Keys {
    changed: Counter,
    replayed: Counter,
    refused: HashMap<Code, Counter>,
    hits: Counter,
    misses: Counter,
    expired: Counter,
    failed: Counter,
}

impl Keys {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(CHANGES, None, "Changes of keys made, and repeats answered from their key");
        registry.describe_counter(
            REFUSED,
            None,
            "Requests to change keys refused, by the code of the problem",
        );
        registry.describe_counter(READS, None, "Keys read one by one: that were there, and that were not");
        registry.describe_counter(EXPIRED, None, "Keys that this node has had expire");
        registry.describe_counter(FAILED, None, "Looks at keys that are due that have failed");
        let changes = |result| registry.counter(CHANGES, &[("result", result)]);
        let reads = |result| registry.counter(READS, &[("result", result)]);
        let refused = |code: &Code| (*code, registry.counter(REFUSED, &[("code", code.as_str())]));
        Self {
            changed: changes("accepted"),
            replayed: changes("replayed"),
            refused: Code::ALL.iter().map(refused).collect(),
            hits: reads("hit"),
            misses: reads("miss"),
            expired: registry.counter(EXPIRED, &[]),
            failed: registry.counter(FAILED, &[]),
        }
    }

    /// Counts changes that were made with one request, or whose first answer was given again.
    pub fn changed(&self, changes: usize, replayed: bool) {
        let counted = if replayed { &self.replayed } else { &self.changed };
        counted.increment(changes as u64);
    }

    /// Counts a request to change keys that was refused.
    pub fn refused(&self, code: Code) {
        if let Some(counter) = self.refused.get(&code) {
            counter.increment(1);
        }
    }

    /// Counts a read of a key, which was there or not.
    pub fn read(&self, was_there: bool) {
        let counted = if was_there { &self.hits } else { &self.misses };
        counted.increment(1);
    }

    /// Counts keys that have expired.
    pub fn expired(&self, keys: usize) {
        self.expired.increment(keys as u64);
    }

    /// Counts looks that have failed.
    pub fn failed(&self, looks: usize) {
        self.failed.increment(looks as u64);
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
