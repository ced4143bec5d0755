//! Who on this node is told of hints: a backend knows one listener, and here are several.
//!
//! It must not know what any of them does with a hint.

use std::sync::{Arc, Weak};

use super::live::Feeds;
use super::locks::LockWaiters;
use super::work::Stations;
use crate::storage::{Hint, HintListener};

/// Who is told of hints.
#[derive(Debug)]
pub(super) struct Ears {
    feeds: Arc<Feeds>,
    stations: Arc<Stations>,
    locks: Arc<LockWaiters>,
}

impl Ears {
    pub(super) fn of(feeds: &Arc<Feeds>, stations: &Arc<Stations>, locks: &Arc<LockWaiters>) -> Arc<Self> {
        Arc::new(Self { feeds: feeds.clone(), stations: stations.clone(), locks: locks.clone() })
    }

    pub(super) fn weak(self: &Arc<Self>) -> Weak<dyn HintListener> {
        let listener: Arc<dyn HintListener> = self.clone();
        Arc::downgrade(&listener)
    }
}

impl HintListener for Ears {
    fn hear(&self, hint: Hint) {
        match &hint {
            Hint::Topic(topic) => self.stations.hear(topic),
            Hint::Watched(topics) => topics.iter().for_each(|topic| self.stations.hear(topic)),
            Hint::Lock(secret) => return self.locks.hear(secret),
            Hint::WatchedLocks => return self.locks.hear_everything(),
            Hint::Everything => {
                self.stations.hear_everything();
                self.locks.hear_everything();
            }
            Hint::WatchedAll => {}
        }
        self.feeds.hear(hint);
    }
}
