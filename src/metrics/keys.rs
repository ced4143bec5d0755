//! Keys of buckets.

use std::collections::HashMap;
use std::fmt;

use metrics::Counter;
use tidemill_proto::Code;

use super::registry::Registry;

const CHANGES: &str = "tidemill_keys_changes_total";
const REFUSED: &str = "tidemill_keys_refused_total";
const READS: &str = "tidemill_keys_reads_total";
const FILLS: &str = "tidemill_keys_fills_total";
const EXPIRED: &str = "tidemill_keys_expired_total";
const FAILED: &str = "tidemill_keys_expiries_failed_total";

/// The counts of keys.
pub struct Keys {
    changed: Counter,
    replayed: Counter,
    refused: HashMap<Code, Counter>,
    hits: Counter,
    misses: Counter,
    stale: Counter,
    fills_granted: Counter,
    fills_filled: Counter,
    fills_lost: Counter,
    expired: Counter,
    failed: Counter,
}

impl Keys {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(
            CHANGES,
            &["result"],
            "Changes of keys, `accepted`, and `replayed` from their idempotency key",
        );
        registry.describe_counter(
            REFUSED,
            &["code"],
            "Requests to change keys refused, by the code of the problem",
        );
        registry.describe_counter(
            READS,
            &["result"],
            "Keys read one by one: `hit`, `stale` where the value was, and `miss` where there was none",
        );
        registry.describe_counter(
            FILLS,
            &["result"],
            "Fills of keys: tokens `granted`, keys `filled` under one, and puts whose token was `lost`",
        );
        registry.describe_counter(EXPIRED, &[], "Keys that this node has had expire");
        registry.describe_counter(FAILED, &[], "Looks at keys that are due that have failed");
        let changes = |result| registry.counter(CHANGES, &[("result", result)]);
        let reads = |result| registry.counter(READS, &[("result", result)]);
        let fills = |result| registry.counter(FILLS, &[("result", result)]);
        let refused = |code: &Code| (*code, registry.counter(REFUSED, &[("code", code.as_str())]));
        Self {
            changed: changes("accepted"),
            replayed: changes("replayed"),
            refused: Code::ALL.iter().map(refused).collect(),
            hits: reads("hit"),
            misses: reads("miss"),
            stale: reads("stale"),
            fills_granted: fills("granted"),
            fills_filled: fills("filled"),
            fills_lost: fills("lost"),
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

    /// Counts a read of a key that was there, whose value was stale.
    pub fn read_stale(&self) {
        self.stale.increment(1);
    }

    /// Counts a token that was given out to who is to fill a key.
    pub fn fill_granted(&self) {
        self.fills_granted.increment(1);
    }

    /// Counts a put under such a token, which counted still or not.
    pub fn filled(&self, was_its_own: bool) {
        let counted = if was_its_own { &self.fills_filled } else { &self.fills_lost };
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
