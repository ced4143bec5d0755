//! How far a copy has come, for who looks at it meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tokio::sync::watch;

/// How far a copy has come, for who looks at it meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) topics: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) expected: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) buckets: AtomicU64,
    pub(super) buckets_finished: AtomicU64,
    pub(super) keys: AtomicU64,
    /// How many of these came again.
    pub(super) keys_again: AtomicU64,
    pub(super) replaced_messages: AtomicU64,
    pub(super) replaced_keys: AtomicU64,
    pub(super) passes: AtomicU64,
    pub(super) caught_up: AtomicBool,
    pub(super) switching: AtomicBool,
    pub(super) source_read_only: watch::Sender<bool>,
    pub(super) failing: Mutex<Option<String>>,
    pub(super) gone: Mutex<BTreeSet<TopicName>>,
    pub(super) source_is_empty: AtomicBool,
}

/// How far a copy has come at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Topics that are copied.
    pub topics: u64,
    /// Topics that are whole, and take messages.
    pub finished: u64,
    /// Messages that there were to copy when it was looked last, and those that were.
    pub expected: u64,
    /// Messages that were copied.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Buckets that are copied.
    pub buckets: u64,
    /// Buckets that are whole, and can be changed.
    pub buckets_finished: u64,
    /// Keys that were copied; of a bucket that is not whole yet, each as often as it was.
    pub keys: u64,
    /// Messages that the target had of topics that were replaced there.
    pub replaced_messages: u64,
    /// Keys that it had of buckets that were.
    pub replaced_keys: u64,
    /// How often it has come to the end of all topics.
    pub passes: u64,
    /// Whether all that there was is copied, and it goes on with what comes.
    pub caught_up: bool,
    /// Whether this copy has begun to make the source read-only.
    pub switching: bool,
    /// Whether the source is read-only as a whole, or was made so by this copy.
    pub source_read_only: bool,
    /// What fails at this time.
    pub failing: Option<String>,
    /// Topics, and the logs of buckets, that were deleted at the source before they were whole; once it is done.
    pub gone: BTreeSet<TopicName>,
}

impl Progress {
    /// Waits until the source is read-only.
    pub async fn source_is_read_only(&self) {
        // The sender lives as long as this, so waiting cannot end without an answer.
        let _ = self.source_read_only.subscribe().wait_for(|is_so| *is_so).await;
    }

    /// Returns whether the source has nothing of what was to be copied any more, where something was deleted there.
    #[must_use]
    pub fn source_is_empty(&self) -> bool {
        self.source_is_empty.load(Ordering::Relaxed)
    }

    /// Returns how far it has come.
    #[must_use]
    pub fn reached(&self) -> Reached {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let messages = of(&self.messages);
        Reached {
            topics: of(&self.topics),
            finished: of(&self.finished),
            expected: of(&self.expected).max(messages),
            messages,
            bytes: of(&self.bytes),
            buckets: of(&self.buckets),
            buckets_finished: of(&self.buckets_finished),
            keys: of(&self.keys).saturating_sub(of(&self.keys_again)),
            replaced_messages: of(&self.replaced_messages),
            replaced_keys: of(&self.replaced_keys),
            passes: of(&self.passes),
            caught_up: self.caught_up.load(Ordering::Relaxed),
            switching: self.switching.load(Ordering::Relaxed),
            source_read_only: *self.source_read_only.borrow(),
            failing: self.failing.lock().clone(),
            gone: self.gone.lock().clone(),
        }
    }
}
