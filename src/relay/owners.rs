//! Who owns which topic, for users of whom no rule says what they may do with it.
//!
//! Who publishes to a topic of its own does not ask the storage for each message: that it owns the topic is remembered
//! for a second, unless the topic is deleted here. For all else, and where it does not, the storage is asked. Who reads
//! live because it owns a topic does so for as long as it owns it.
//! It must not know what an owner may do.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::access::Session;
use crate::storage::{Storage, StorageError};

/// How long an owner may publish without another question: a topic can be deleted, and made again by somebody else, on
/// another node.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Owners that are remembered.
const KEPT_MAX: usize = 10_000;

/// How often it is looked at whether those who read because they own a topic still do: it may be deleted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Owners who have published a moment ago, and who reads live because it owns a topic.
#[derive(Debug, Default)]
pub(super) struct Owners {
    kept: Mutex<HashMap<TopicName, (Box<str>, Instant)>>,
    readers: Mutex<HashMap<(Box<str>, TopicName), Readers>>,
}

/// What ends the sessions of a user that read a topic because it owns it, by their numbers.
type Readers = HashMap<u64, CancellationToken>;

/// Whether a user owns a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owned {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// There is no such topic.
    NoTopic,
}

impl Owners {
    /// Finds out whether this user owns a topic now; nobody owns nothing.
    ///
    /// # Errors
    /// The storage did not answer.
    pub(super) async fn ask(
        storage: &Storage,
        user: Option<&str>,
        topic: &TopicName,
    ) -> Result<Owned, Failure> {
        let Some(user) = user else { return Ok(Owned::No) };
        match storage.topics.describe(topic).await {
            Ok(state) if state.topic.owner_id.as_deref() == Some(user) => Ok(Owned::Yes),
            Ok(_) | Err(StorageError::NotATopic) => Ok(Owned::No),
            Err(StorageError::NoTopic) => Ok(Owned::NoTopic),
            // Which topic it was about is nobody's business who may not have it.
            Err(error) => Err(Failure::read(error, None)),
        }
    }

    /// Finds out whether this user, who publishes to a topic, owns it, or did a moment ago.
    ///
    /// # Errors
    /// The storage did not answer.
    pub(super) async fn ask_for_publish(
        &self,
        storage: &Storage,
        user: Option<&str>,
        topic: &TopicName,
    ) -> Result<Owned, Failure> {
        let now = Instant::now();
        if let Some((owner, at)) = self.kept.lock().get(topic)
            && now.duration_since(*at) < KEPT_FOR
            && Some(&**owner) == user
        {
            return Ok(Owned::Yes);
        }
        let answer = Self::ask(storage, user, topic).await?;
        if let (Owned::Yes, Some(user)) = (answer, user) {
            let mut kept = self.kept.lock();
            if kept.len() >= KEPT_MAX {
                kept.retain(|_, (_, at)| now.duration_since(*at) < KEPT_FOR);
            }
            if kept.len() < KEPT_MAX {
                kept.insert(topic.clone(), (user.into(), now));
            }
        }
        Ok(answer)
    }

    /// Forgets who owns a topic, which is deleted.
    pub(super) fn forget(&self, topic: &TopicName) {
        self.kept.lock().remove(topic);
    }

    /// Notes that a session reads a topic because this user owns it.
    pub(super) fn note_reader(&self, user: &str, topic: &TopicName, session: &Session) {
        let (number, over) = session.ender();
        let key = (user.into(), topic.clone());
        self.readers.lock().entry(key).or_default().insert(number, over);
    }

    /// Ends, until it is dropped, the sessions that read a topic because of an owner who is that no longer.
    pub(super) async fn end_readers(&self, storage: &Storage) {
        loop {
            sleep(LOOK_EVERY).await;
            let read: Vec<_> = {
                let mut readers = self.readers.lock();
                readers.retain(|_, sessions| {
                    sessions.retain(|_, over| !over.is_cancelled());
                    !sessions.is_empty()
                });
                readers.keys().cloned().collect()
            };
            for key in read {
                // What is not told now is told soon.
                if let Ok(Owned::No | Owned::NoTopic) = Self::ask(storage, Some(&key.0), &key.1).await {
                    let sessions = self.readers.lock().remove(&key).unwrap_or_default();
                    sessions.values().for_each(CancellationToken::cancel);
                }
            }
        }
    }
}
