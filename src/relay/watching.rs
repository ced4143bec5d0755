//! Hints: who on this node is told of them, and which topics it wants them of.
//!
//! A backend knows one listener, and of each topic whether it is watched; here are several who watch, and each is told.
//! It must not know what any of them does with a hint.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tidemill_proto::TopicName;

use super::live::Feeds;
use super::work::Stations;
use crate::storage::{Hint, HintListener, Storage};

/// Topics that are watched, and by how many. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Watching(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    topics: Mutex<HashMap<TopicName, usize>>,
}

impl Watching {
    pub(super) fn new(storage: Storage) -> Self {
        Self(Arc::new(Inner { storage, topics: Mutex::default() }))
    }

    /// Begins to watch a topic.
    pub(super) fn begin(&self, topic: &TopicName) {
        // Held to the end, so that the backend is told in this order.
        let mut topics = self.0.topics.lock();
        let count = topics.entry(topic.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.0.storage.live.watch(topic, true);
        }
    }

    /// Ends what was begun.
    pub(super) fn end(&self, topic: &TopicName) {
        let mut topics = self.0.topics.lock();
        let Some(count) = topics.get_mut(topic) else { return };
        *count -= 1;
        if *count == 0 {
            topics.remove(topic);
            self.0.storage.live.watch(topic, false);
        }
    }
}

/// Who is told of hints.
#[derive(Debug)]
pub(super) struct Ears {
    feeds: Arc<Feeds>,
    stations: Arc<Stations>,
}

impl Ears {
    pub(super) fn of(feeds: &Arc<Feeds>, stations: &Arc<Stations>) -> Arc<Self> {
        Arc::new(Self { feeds: feeds.clone(), stations: stations.clone() })
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
            Hint::Everything => self.stations.hear_everything(),
            Hint::WatchedAll => {}
        }
        self.feeds.hear(hint);
    }
}
