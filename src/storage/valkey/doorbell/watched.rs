//! What a node watches, what its connection listens to, and the echo by which that proves itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tokio::time::Instant;

/// The topics that a node watches.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) topics: HashSet<TopicName>,
    /// Those that came or went since the connection followed last: there may be very many topics, and most
    /// stay.
    pub(super) changed: HashSet<TopicName>,
    /// All topics, as far as nodes give notice of them.
    pub(super) all: Wish,
    /// Locks that are handed over.
    pub(super) locks: Wish,
}

/// Whether the node wants to hear of something.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) is_there: bool,
    /// Whether it is still to be told that it hears of it.
    pub(super) is_untold: bool,
}

impl Wish {
    /// Begins or ends it, and returns whether that is a change.
    pub(super) fn set(&mut self, is_there: bool) -> bool {
        let is_changed = self.is_there != is_there;
        if is_changed {
            *self = Self { is_there, is_untold: is_there };
        }
        is_changed
    }
}

/// What the connection listens to.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    /// The channels of all nodes: subscribed to as long as anything is watched.
    pub(super) doorbell: Vec<Arc<str>>,
    /// Topics of whose keys the server tells.
    pub(super) topics: HashSet<TopicName>,
}

/// The echo that is waited for, since when.
#[derive(Debug, Default)]
pub(super) struct Echo(Mutex<Option<(String, Instant)>>);

impl Echo {
    pub(super) fn expect(&self, text: &str) {
        *self.0.lock() = Some((text.to_owned(), Instant::now()));
    }

    pub(super) fn hear(&self, text: &str) {
        self.0.lock().take_if(|(expected, _)| expected == text);
    }

    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }

    pub(super) fn age(&self) -> Option<Duration> {
        self.0.lock().as_ref().map(|(_, since)| since.elapsed())
    }
}
