//! Which topics this node wants hints of: a backend knows of each whether it is watched, and here are several who watch.
//!
//! It must not know who they are.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_proto::TopicName;

use crate::storage::Storage;

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
