//! How durable messages are when their publisher is answered: more than that the backend has confirmed them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::limits::DURABILITY_WAIT_MS;
use tidemill_proto::{Durability, TopicName};

use super::error::StorageError;
use super::message::Idempotency;

/// Longest wait for what is asked for to be reached.
pub const DURABILITY_WAIT: Duration = Duration::from_millis(DURABILITY_WAIT_MS);

/// What is needed to tell later how durable something has become: given before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pledge {
    /// The topic.
    pub topic: TopicName,
    /// What is asked for.
    pub asked: Durability,
    /// Which history of what is written the backend was in: a server that takes the place of another begins a new one, and
    /// may lack what the other had confirmed.
    pub history: Arc<str>,
}

/// Durability beyond what the backend confirms.
#[async_trait]
pub trait DurableStore: fmt::Debug + Send + Sync {
    /// Returns what [`reach`](Self::reach) needs to know of messages of a topic that are appended from now on. Where a
    /// message was kept under `key`, that is given whatever can be reached now: it is found again.
    ///
    /// # Errors
    /// `Undurable`: as the backend is set, it will not be reached. `TooFewReplicas`: not with those that there are now.
    /// `Unavailable`.
    async fn pledge(
        &self,
        topic: &TopicName,
        asked: Durability,
        key: Option<&Idempotency>,
    ) -> Result<Pledge, StorageError>;

    /// Waits until what was done since each pledge, and was confirmed, is as durable as was asked, for
    /// [`DURABILITY_WAIT`] at the most; returns for each how durable it is. What cannot be known counts as not reached.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    async fn reach(&self, pledges: &[Pledge]) -> Vec<Durability>;
}
