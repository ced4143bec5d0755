//! A backend as the process around it sees it: it is opened, looked at, and closed.
//!
//! It must not know which backends there are: whoever wires a node together has the list.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    AccessStore, BucketCopyStore, BucketStore, CopyStore, DurableStore, LeaseStore, LimitStore, LiveStore,
    LockStore, MessageStore, NodeStore, RecordStore, RunStore, ScheduleStore, SeriesStore, TakeStore,
    TopicStore, Upkeep, WorkStore,
};

/// What the process around a backend asks of it, besides its concerns.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Waits until messages can be published and read, but not longer than `within`. Returns whether they
    /// can. A backend that was opened tries by itself until it is closed, so this may be asked again.
    async fn ready(&self, within: Duration) -> bool;

    /// Returns what an operator should know about what the backend will do with messages: sentences for
    /// the log, none where all is well. Asks the backend, so it should be ready.
    ///
    /// # Errors
    /// Only where `strict`: the backend can lose messages by itself, or could not be asked.
    async fn examine(&self, strict: bool) -> Result<Vec<String>, Unfit>;

    /// Waits until the backend finds that what it has was written in a way that this release cannot read, and returns why.
    /// Nothing is read or written then. Where that never comes, as mostly, it waits for ever.
    async fn unreadable(&self) -> Unfit;

    /// Ends everything that the backend has begun, and returns when that has ended. What waits to be sent
    /// is answered as certainly without effect, what was sent and has no answer as unknown; so is what
    /// is asked later. A second call does nothing.
    async fn close(&self);
}

/// The backend would not keep messages.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Unfit {
    /// Returns the error with the sentence that says why.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A backend, as the rest of the relay holds it.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Messages.
    pub messages: Arc<dyn MessageStore>,
    /// How durable messages are.
    pub durable: Arc<dyn DurableStore>,
    /// Messages for later.
    pub schedules: Arc<dyn ScheduleStore>,
    /// Live readers.
    pub live: Arc<dyn LiveStore>,
    /// Topics.
    pub topics: Arc<dyn TopicStore>,
    /// Topics that end.
    pub runs: Arc<dyn RunStore>,
    /// Topics that are copied.
    pub copies: Arc<dyn CopyStore>,
    /// Buckets that are copied.
    pub bucket_copies: Arc<dyn BucketCopyStore>,
    /// Documents on who may do what.
    pub access: Arc<dyn AccessStore>,
    /// Records of who is let in.
    pub records: Arc<dyn RecordStore>,
    /// Nodes that share the storage.
    pub nodes: Arc<dyn NodeStore>,
    /// Groups of consumers.
    pub work: Arc<dyn WorkStore>,
    /// Buckets of keys.
    pub buckets: Arc<dyn BucketStore>,
    /// Locks.
    pub locks: Arc<dyn LockStore>,
    /// Leases.
    pub leases: Arc<dyn LeaseStore>,
    /// Allowances.
    pub limits: Arc<dyn LimitStore>,
    /// Limits of applications.
    pub takes: Arc<dyn TakeStore>,
    /// Series of measurements.
    pub series: Arc<dyn SeriesStore>,
    /// Health and retention.
    pub upkeep: Arc<dyn Upkeep>,
}

impl Storage {
    /// Returns the storage whose concerns one backend serves.
    pub fn new<B>(backend: Arc<B>) -> Self
    where
        B: MessageStore
            + DurableStore
            + ScheduleStore
            + LiveStore
            + TopicStore
            + RunStore
            + CopyStore
            + BucketCopyStore
            + AccessStore
            + NodeStore
            + RecordStore
            + LimitStore
            + TakeStore
            + SeriesStore
            + LockStore
            + LeaseStore
            + WorkStore
            + BucketStore
            + Upkeep
            + 'static,
    {
        Self {
            messages: backend.clone(),
            durable: backend.clone(),
            schedules: backend.clone(),
            live: backend.clone(),
            topics: backend.clone(),
            runs: backend.clone(),
            copies: backend.clone(),
            bucket_copies: backend.clone(),
            access: backend.clone(),
            nodes: backend.clone(),
            records: backend.clone(),
            work: backend.clone(),
            buckets: backend.clone(),
            locks: backend.clone(),
            leases: backend.clone(),
            limits: backend.clone(),
            takes: backend.clone(),
            series: backend.clone(),
            upkeep: backend,
        }
    }
}

/// A backend that was opened, for the process and for the rest of the relay.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What the process asks.
    pub backend: Arc<dyn Backend>,
    /// What the relay asks.
    pub storage: Storage,
}

impl Opened {
    /// Returns both sides of a backend.
    pub fn new<B>(backend: Arc<B>) -> Self
    where
        B: Backend
            + MessageStore
            + DurableStore
            + ScheduleStore
            + LiveStore
            + TopicStore
            + RunStore
            + CopyStore
            + BucketCopyStore
            + AccessStore
            + NodeStore
            + RecordStore
            + LimitStore
            + TakeStore
            + SeriesStore
            + LockStore
            + LeaseStore
            + WorkStore
            + BucketStore
            + Upkeep
            + 'static,
    {
        Self { storage: Storage::new(backend.clone()), backend }
    }
}
