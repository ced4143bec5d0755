//! How far a copy has come, for who looks at it meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How far a copy has come, for who looks at it meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) topics: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) expected: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) passes: AtomicU64,
    pub(super) failing: Mutex<Option<String>>,
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
    /// How often it has come to the end of all topics.
    pub passes: u64,
    /// What fails at this time.
    pub failing: Option<String>,
}

impl Progress {
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
            passes: of(&self.passes),
            failing: self.failing.lock().clone(),
        }
    }
}
