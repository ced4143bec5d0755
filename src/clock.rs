//! The clock: the only place that asks the operating system for the time of day.
//!
//! It must not know what the time is used for. Deadlines and intervals are `tokio::time`'s; this is
//! the time that stands in timestamps and, in the memory backend, in message ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tidemill_proto::Timestamp;

/// Tells the time of day. Cloning is cheap; clones of a manual clock share its hands.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Returns the clock of the operating system.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock that stands at `start` until it is [`set`](Self::set), for tests of what
    /// happens when time jumps.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(start.as_millis()))))
    }

    /// Moves the hands of a manual clock, forwards or backwards. Does nothing to the system's clock.
    pub fn set(&self, now: Timestamp) {
        if let Source::Manual(hands) = &self.0 {
            hands.store(now.as_millis(), Ordering::SeqCst);
        }
    }

    /// Returns the time of day. It can go backwards.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this file is where the time of day comes from")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual(hands) => Timestamp::from_millis(hands.load(Ordering::SeqCst)),
        }
    }
}
