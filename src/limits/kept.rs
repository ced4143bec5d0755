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

use arc_swap::ArcSwap;
use tidemill_proto::health::KeptHealth;
use tidemill_proto::{Code, Problem, TopicName, TopicSelector};
use tokio::sync::Notify;
use tokio::time::timeout;
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

/// The bounds of a node, and what is known of each. Cloning is cheap. `None` where there are none, nor can be.
#[derive(Clone, Debug)]
pub struct Kept(Option<Arc<Inner>>);

struct Inner {
    bounds: ArcSwap<Bounds>,
    /// Told when there are other bounds.
    changed: Notify,
    is_any_reached: AtomicBool,
    upkeep: Arc<dyn Upkeep>,
    metrics: Metrics,
}

/// The bounds at one time.
struct Bounds {
    known: Box<[Known]>,
    topics: Box<[TopicSelector]>,
}

struct Known {
    bound: KeptBound,
    /// [`UNKNOWN`] until it was told for the first time.
    bytes: AtomicU64,
}

impl Bounds {
    /// Returns these bounds, with what was known of each before.
    fn new(bounds: &[KeptBound], before: &[Known]) -> Self {
        let known = |bound: &KeptBound| {
            let before = before.iter().find(|known| known.bound.topics == bound.topics);
            let bytes = before.map_or(UNKNOWN, |known| known.bytes.load(Ordering::Relaxed));
            Known { bound: bound.clone(), bytes: AtomicU64::new(bytes) }
        };
        Self {
            known: bounds.iter().map(known).collect(),
            topics: bounds.iter().map(|bound| bound.topics.clone()).collect(),
        }
    }

    fn is_any_reached(&self) -> bool {
        self.known.iter().any(Known::is_reached)
    }
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
        f.debug_struct("Inner").field("topics", &self.bounds.load().topics).finish_non_exhaustive()
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
        let inner = Arc::new(Inner {
            bounds: ArcSwap::from_pointee(Bounds::new(bounds, &[])),
            changed: Notify::new(),
            is_any_reached: AtomicBool::new(false),
            upkeep,
            metrics,
        });
        inner.tell_bounds(bounds);
        let watch = inner.clone().watch(sweep_interval / LOOKS_PER_SWEEP);
        tracker.spawn(stop.clone().run_until_cancelled_owned(watch));
        Self(Some(inner))
    }

    /// Bounds from now on what these say, and no more. What was known of each holds until the storage is asked, at once.
    pub fn change(&self, bounds: &[KeptBound]) {
        let Some(inner) = &self.0 else { return };
        let before = inner.bounds.load_full();
        let now = Bounds::new(bounds, &before.known);
        for gone in before.topics.iter().filter(|topics| !now.topics.contains(topics)) {
            inner.metrics.limits().kept_no_more(&gone.to_string());
        }
        let is_any_reached = now.is_any_reached();
        inner.bounds.store(Arc::new(now));
        inner.is_any_reached.store(is_any_reached, Ordering::Relaxed);
        inner.tell_bounds(bounds);
        inner.changed.notify_one();
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
        let Some(inner) = &self.0 else { return Vec::new() };
        let told = |known: &Known| KeptHealth {
            topics: known.bound.topics.clone(),
            bytes: known.bytes(),
            bytes_max: known.bound.bytes_max,
            is_reached: known.is_reached(),
        };
        inner.bounds.load().known.iter().map(told).collect()
    }
}

impl Inner {
    fn check(&self, topic: &TopicName) -> Result<(), Box<Problem>> {
        let bounds = self.bounds.load();
        let reached =
            bounds.known.iter().find(|known| known.is_reached() && known.bound.topics.matches(topic));
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
            let bounds = self.bounds.load_full();
            if bounds.topics.is_empty() {
                self.changed.notified().await;
                continue;
            }
            match self.upkeep.kept(&bounds.topics).await {
                Ok(Some(kept)) => {
                    self.note(&bounds, &kept);
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
            // It is over, or there are other bounds.
            let _ = timeout(jittered(every), self.changed.notified()).await;
        }
    }

    /// Tells how many bytes topics may keep.
    fn tell_bounds(&self, bounds: &[KeptBound]) {
        for bound in bounds {
            self.metrics.limits().kept_max(&bound.topics.to_string(), bound.bytes_max);
        }
    }

    fn note(&self, bounds: &Bounds, kept: &[u64]) {
        for (known, bytes) in bounds.known.iter().zip(kept) {
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
        let is_any_reached = self.bounds.load().is_any_reached();
        self.is_any_reached.store(is_any_reached, Ordering::Relaxed);
    }
}
