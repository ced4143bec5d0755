//! How many bytes topics keep together, by their names, and how many they may.
//!
//! The storage is asked now and then, so a bound is one about: what was published since nobody has weighed yet. Where
//! topics keep as many bytes as they may, or more, publishing to them is refused until trims and retention have made
//! room. Nothing is deleted for it.
//!
//! It must not know how a backend weighs a topic.
//!
//! **Invariant:** a publish pays one load for bounds, unless one of them is reached.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidemill_proto::health::KeptHealth;
use tidemill_proto::{Code, Problem, TopicName, TopicSelector};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chance::jittered;
use crate::metrics::Metrics;
use crate::storage::Upkeep;

/// Most bounds that there may be: each is a label in metrics, and a comparison for every topic that is weighed.
pub const KEPT_BOUNDS_MAX: usize = 32;

/// What it is called in metrics.
const LIMIT: &str = "kept-bytes";

/// Into how many parts the time between two sweeps is cut: a node learns what another has found that much later.
const LOOKS_PER_SWEEP: u32 = 4;

/// What stands for bytes of which nothing is known yet.
const UNKNOWN: u64 = u64::MAX;

/// How many bytes the topics may keep together that a selector has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBound {
    /// The topics: one, or those that a pattern matches.
    pub topics: TopicSelector,
    /// The bytes.
    pub bytes_max: u64,
}

/// The bounds of a node, and what is known of each. Cloning is cheap. `None` where there are none.
#[derive(Clone, Debug)]
pub struct Kept(Option<Arc<Inner>>);

struct Inner {
    bounds: Box<[Known]>,
    topics: Box<[TopicSelector]>,
    is_any_reached: AtomicBool,
    upkeep: Arc<dyn Upkeep>,
    metrics: Metrics,
}

struct Known {
    bound: KeptBound,
    /// [`UNKNOWN`] until it was told for the first time.
    bytes: AtomicU64,
}

impl Known {
    fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    fn is_reached(&self) -> bool {
        self.bytes().is_some_and(|bytes| bytes >= self.bound.bytes_max)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("topics", &self.topics).finish_non_exhaustive()
    }
}

impl Kept {
    /// Returns no bounds.
    #[must_use]
    pub const fn unbounded() -> Self {
        Self(None)
    }

    /// Starts to look what topics keep, several times within `sweep_interval`, on `tracker` until `stop` is cancelled.
    #[must_use]
    pub fn start(
        bounds: &[KeptBound],
        upkeep: Arc<dyn Upkeep>,
        metrics: Metrics,
        sweep_interval: Duration,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        if bounds.is_empty() {
            return Self::unbounded();
        }
        let known = |bound: &KeptBound| Known { bound: bound.clone(), bytes: AtomicU64::new(UNKNOWN) };
        let inner = Arc::new(Inner {
            bounds: bounds.iter().map(known).collect(),
            topics: bounds.iter().map(|bound| bound.topics.clone()).collect(),
            is_any_reached: AtomicBool::new(false),
            upkeep,
            metrics,
        });
        for bound in bounds {
            inner.metrics.limits().kept_max(&bound.topics.to_string(), bound.bytes_max);
        }
        let watch = inner.clone().watch(sweep_interval / LOOKS_PER_SWEEP);
        tracker.spawn(stop.clone().run_until_cancelled_owned(watch));
        Self(Some(inner))
    }

    /// Checks that one message more may be kept in a topic.
    ///
    /// # Errors
    /// Topics of a bound, this one among them, keep as many bytes as they may: `storage_full`.
    pub fn check(&self, topic: &TopicName) -> Result<(), Box<Problem>> {
        match &self.0 {
            Some(inner) if inner.is_any_reached.load(Ordering::Relaxed) => inner.check(topic),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns what is known of each bound, in the order in which they were set.
    #[must_use]
    pub fn now(&self) -> Vec<KeptHealth> {
        let bounds = self.0.iter().flat_map(|inner| &inner.bounds);
        let told = |known: &Known| KeptHealth {
            topics: known.bound.topics.clone(),
            bytes: known.bytes(),
            bytes_max: known.bound.bytes_max,
            is_reached: known.is_reached(),
        };
        bounds.map(told).collect()
    }
}

impl Inner {
    fn check(&self, topic: &TopicName) -> Result<(), Box<Problem>> {
        let reached =
            self.bounds.iter().find(|known| known.is_reached() && known.bound.topics.matches(topic));
        let Some(Known { bound: KeptBound { topics, bytes_max }, .. }) = reached else { return Ok(()) };
        self.metrics.limits().refused(LIMIT);
        let detail = format!(
            "the topics of `{topics}` keep the {bytes_max} bytes that they may (setting `TIDEMILL_LIMIT_KEPT_BYTES`); nothing was changed, trim topics, or wait until retention has made room"
        );
        Err(Box::new(Problem { field: Some("topic".to_owned()), ..Problem::new(Code::StorageFull, detail) }))
    }

    async fn watch(self: Arc<Self>, every: Duration) {
        let mut is_told = false;
        loop {
            match self.upkeep.kept(&self.topics).await {
                Ok(Some(kept)) => {
                    self.note(&kept);
                    is_told = false;
                }
                // Another node weighs now: what it finds is told soon.
                Ok(None) => {}
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "the storage does not tell how many bytes topics keep; what was known holds"
                        );
                    }
                }
            }
            sleep(jittered(every)).await;
        }
    }

    fn note(&self, kept: &[u64]) {
        for (known, bytes) in self.bounds.iter().zip(kept) {
            let was_reached = known.is_reached();
            known.bytes.store((*bytes).min(UNKNOWN - 1), Ordering::Relaxed);
            let KeptBound { topics, bytes_max } = &known.bound;
            self.metrics.limits().kept(&topics.to_string(), *bytes);
            match (was_reached, known.is_reached()) {
                (false, true) => {
                    tracing::warn!(%topics, bytes, bytes_max, "these topics keep as many bytes as they may: publishing to them is refused");
                }
                (true, false) => {
                    tracing::info!(%topics, bytes, bytes_max, "there is room again in these topics");
                }
                (false, false) | (true, true) => {}
            }
        }
        let is_any_reached = self.bounds.iter().any(Known::is_reached);
        self.is_any_reached.store(is_any_reached, Ordering::Relaxed);
    }
}
