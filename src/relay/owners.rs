//! Who owns which topic, for users of whom no rule says what they may do with it.
//!
//! What was found out is remembered for a second, so that a user who publishes to a topic of its own does not
//! ask the storage for each message. Who reads live because it owns a topic does so for as long as it owns it.
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

/// How long an answer holds: a topic can be deleted, and made again by somebody else.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Answers that are remembered.
const KEPT_MAX: usize = 10_000;

/// How often it is looked at whether those who read because they own a topic still do: it may be deleted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The owners of topics that were asked for a moment ago, and who reads live because of that.
#[derive(Debug, Default)]
pub(super) struct Owners {
    kept: Mutex<HashMap<TopicName, Answer>>,
    readers: Mutex<HashMap<(Box<str>, TopicName), Readers>>,
}

/// What ends the sessions of a user that read a topic because it owns it, by their numbers.
type Readers = HashMap<u64, CancellationToken>;

/// Who owns a topic, if somebody does, and when that was found out.
type Answer = (Option<Box<str>>, Instant);

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
    /// Finds out whether this user owns a topic; nobody owns nothing.
    ///
    /// # Errors
    /// The storage did not answer.
    pub(super) async fn ask(
        &self,
        storage: &Storage,
        user: Option<&str>,
        topic: &TopicName,
    ) -> Result<Owned, Failure> {
        let Some(user) = user else { return Ok(Owned::No) };
        let now = Instant::now();
        let of = |owner: Option<&str>| if owner == Some(user) { Owned::Yes } else { Owned::No };
        if let Some((owner, at)) = self.kept.lock().get(topic)
            && now.duration_since(*at) < KEPT_FOR
        {
            return Ok(of(owner.as_deref()));
        }
        let owner: Option<Box<str>> = match storage.topics.describe(topic).await {
            Ok(state) => state.topic.owner_id.map(Into::into),
            // It may be made in the next moment.
            Err(StorageError::NoTopic) => return Ok(Owned::NoTopic),
            Err(StorageError::NotATopic) => None,
            // Which topic it was about is nobody's business who may not have it.
            Err(error) => return Err(Failure::read(error, None)),
        };
        let answer = of(owner.as_deref());
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (_, at)| now.duration_since(*at) < KEPT_FOR);
        }
        if kept.len() < KEPT_MAX {
            kept.insert(topic.clone(), (owner, now));
        }
        Ok(answer)
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
                if let Ok(Owned::No | Owned::NoTopic) = self.ask(storage, Some(&key.0), &key.1).await {
                    let sessions = self.readers.lock().remove(&key).unwrap_or_default();
                    sessions.values().for_each(CancellationToken::cancel);
                }
            }
        }
    }
}
