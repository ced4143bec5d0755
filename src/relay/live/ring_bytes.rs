//! What the rings of a node hold, counted in bytes over all of them.
//!
//! There may be very many topics, so a bound for each ring is none for the node. A ring that finds too much
//! held keeps less, down to nothing: its readers read storage meanwhile. It must not know what rings hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all rings hold. Clones are the same count.
#[derive(Clone, Debug)]
pub(super) struct RingBytes(Arc<Count>);

#[derive(Debug)]
struct Count {
    held: AtomicU64,
    max: u64,
}

/// What one ring holds of it, given back when dropped.
#[derive(Debug)]
pub(super) struct RingShare {
    all: RingBytes,
    bytes: u64,
}

impl RingBytes {
    /// Returns a count of nothing yet, of so many bytes at most.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Count { held: AtomicU64::new(0), max: bytes_max as u64 }))
    }

    /// Returns how many bytes all rings hold.
    pub(super) fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether more is held than may be.
    pub(super) fn is_over(&self) -> bool {
        self.held() > self.0.max
    }

    /// Whether rings that nobody adds to are to make room.
    pub(super) fn is_tight(&self) -> bool {
        self.held() > self.0.max / 2
    }

    /// Returns the share of a ring that holds nothing.
    pub(super) fn share(&self) -> RingShare {
        RingShare { all: self.clone(), bytes: 0 }
    }
}

impl RingShare {
    pub(super) fn all(&self) -> &RingBytes {
        &self.all
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.all.0.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.all.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Gives all of it back.
    pub(super) fn clear(&mut self) {
        self.take(self.bytes);
    }
}

impl Drop for RingShare {
    fn drop(&mut self) {
        self.clear();
    }
}
