//! What limits refuse, and whether the storage tells what they have left.

use std::fmt;

use metrics::{Counter, Gauge, Label};

use super::registry::Registry;

const REFUSED: &str = "tidemill_limits_refused_total";
const DRAWS: &str = "tidemill_limits_draws_total";
const KEPT: &str = "tidemill_kept_bytes";
const KEPT_MAX: &str = "tidemill_kept_bytes_max";

/// The counts of limits.
pub struct Limits {
    registry: Registry,
    draws: Counter,
    failed: Counter,
    alone: Gauge,
    quotas: Gauge,
}

impl Limits {
    pub(super) fn new(registry: Registry) -> Self {
        registry.describe_counter(REFUSED, &["limit"], "What was refused at a limit: `log-ins`, `anonymous-requests`, `principal-requests`, `principal-messages`, `topics`, `connections`, `address-requests`, `address-messages`, `kept-bytes`");
        registry.describe_counter(
            DRAWS,
            &["outcome"],
            "Allowances asked of the storage: `told`, or `failed`",
        );
        registry.describe_gauge(KEPT, &["topics"], "Bytes that the topics of a bound keep, about");
        registry.describe_gauge(KEPT_MAX, &["topics"], "Bytes that the topics of a bound may keep");
        Self {
            draws: registry.counter(DRAWS, &[("outcome", "told")]),
            failed: registry.counter(DRAWS, &[("outcome", "failed")]),
            alone: registry.gauge(
                "tidemill_limits_alone",
                "1 where the storage does not tell what limits have left, else 0",
            ),
            quotas: registry.gauge("tidemill_limits_quotas", "Callers and addresses that this node counts"),
            registry,
        }
    }

    /// Counts what was refused at this limit, which is one of a few.
    pub fn refused(&self, limit: &'static str) {
        self.registry.counter(REFUSED, &[("limit", limit)]).increment(1);
    }

    /// Counts an allowance that was asked for, and whether the storage told.
    pub fn drawn(&self, is_told: bool) {
        let counted = if is_told { &self.draws } else { &self.failed };
        counted.increment(1);
        self.alone.set(f64::from(u8::from(!is_told)));
    }

    /// Tells how many bytes the topics of a bound keep; operators have set the bounds, and they are few.
    pub fn kept(&self, topics: &str, bytes: u64) {
        self.of_topics(KEPT, topics).set(bytes_of(bytes));
    }

    /// Tells nothing more of the topics of a bound, which there is no longer.
    pub fn kept_no_more(&self, topics: &str) {
        for name in [KEPT, KEPT_MAX] {
            self.registry.tell(name, ("topics", topics), false);
        }
    }

    /// Tells how many bytes they may keep.
    pub fn kept_max(&self, topics: &str, bytes: u64) {
        for name in [KEPT, KEPT_MAX] {
            self.registry.tell(name, ("topics", topics), true);
        }
        self.of_topics(KEPT_MAX, topics).set(bytes_of(bytes));
    }

    fn of_topics(&self, name: &'static str, topics: &str) -> Gauge {
        self.registry.gauge_of(name, vec![Label::new("topics", topics.to_owned())])
    }

    /// Tells how many quotas are known now.
    pub fn quotas(&self, known: usize) {
        self.quotas.set(u32::try_from(known).unwrap_or(u32::MAX));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is as fine as a float is")]
const fn bytes_of(bytes: u64) -> f64 {
    bytes as f64
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}
