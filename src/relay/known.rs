//! Topics that were there a moment ago, so that what a caller may make is counted without asking the storage for
//! each message.
//!
//! It must not know what is counted.

use std::collections::HashSet;

use parking_lot::Mutex;
use tidemill_proto::TopicName;

use super::Failure;
use crate::storage::{Storage, StorageError};

/// Topics that are remembered; then it begins anew.
const KNOWN_MAX: usize = 10_000;

/// Topics that are there. One that is deleted and made again later is taken for the one that was.
#[derive(Debug, Default)]
pub(super) struct KnownTopics(Mutex<HashSet<TopicName>>);

impl KnownTopics {
    /// Returns whether a publish would make this topic.
    ///
    /// # Errors
    /// The storage did not answer.
    pub(super) async fn is_new(&self, storage: &Storage, topic: &TopicName) -> Result<bool, Failure> {
        if self.0.lock().contains(topic) {
            return Ok(false);
        }
        match storage.live.tail(topic).await {
            Ok(_) => {
                self.note(topic);
                Ok(false)
            }
            Err(StorageError::NoTopic) => Ok(true),
            // The publish is told what is there.
            Err(StorageError::NotATopic) => Ok(false),
            Err(error) => Err(Failure::read(error, Some(topic))),
        }
    }

    /// Notes that a topic is there, or is about to be.
    pub(super) fn note(&self, topic: &TopicName) {
        let mut known = self.0.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(topic.clone());
    }
}
