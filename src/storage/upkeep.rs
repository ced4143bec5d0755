//! What an operator asks of a backend: how it is, and what keeps it in order.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::health::{BackendHealth, HealthStatus};
use tidemill_proto::slow::SlowServer;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, Timestamp, TopicName, TopicSelector};

use super::error::StorageError;

/// The bounds that every backend keeps.
#[derive(Clone, Copy, Debug)]
pub struct StorageLimits {
    /// Age at which a sweep removes messages; `None` keeps them. A topic's own retention wins.
    pub retention: Option<Duration>,
    /// Topics there may be; an append or a create past it is [`StorageError::TopicsLimit`].
    pub topics_max: u64,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
    /// Messages that may wait for later in all topics together; about, where several nodes schedule at once.
    pub schedules_max: u64,
    /// Messages that may wait for later in one topic.
    pub topic_schedules_max: u64,
    /// Most buckets.
    pub buckets_max: u64,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Topics looked at; 0 where another node swept lately.
    pub topics: u64,
    /// Messages removed.
    pub removed: u64,
    /// What there is, as the last sweep has found it, whichever node has made that; `None` until one is known.
    pub found: Option<Found>,
    /// Groups in which messages are dying, up to [`Swept::DYING_MAX`]: the node that was to write their dead letters may
    /// be gone.
    pub dying: Vec<(TopicName, GroupName)>,
}

/// What a sweep has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Topics.
    pub topics: u64,
    /// What their groups have all together.
    pub groups: GroupsSwept,
}

impl Found {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Self) {
        self.topics += other.topics;
        self.groups.add(other.groups);
    }
}

/// What groups have all together, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupsSwept {
    /// Messages that were not given out yet.
    pub waiting: u64,
    /// Messages that were given out and are not done with: with a consumer, or to come again.
    pub pending: u64,
    /// Dead letters, and what is to become one.
    pub dead: u64,
    /// The oldest message that a group is not done with.
    pub oldest: Option<MessageId>,
    /// Groups that are not done, and of which no consumer has asked for messages for [`UNATTENDED_AFTER`](Self::UNATTENDED_AFTER).
    pub unattended: u64,
}

impl GroupsSwept {
    /// After which time without a claim a group is unattended.
    pub const UNATTENDED_AFTER: Duration = Duration::from_mins(1);

    /// Adds what others have.
    pub fn add(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.pending += other.pending;
        self.dead += other.dead;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
        self.unattended += other.unattended;
    }

    /// Returns what one group has, of which a consumer has asked for messages last then.
    pub(super) fn of_one(
        (waiting, pending, dead): (u64, u64, u64),
        oldest: Option<MessageId>,
        last_claim: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let is_done = waiting == 0 && pending == 0;
        let lately = |at: Timestamp| at.saturating_add(Self::UNATTENDED_AFTER) > now;
        let is_unattended = !is_done && !last_claim.is_some_and(lately);
        Self { waiting, pending, dead, oldest, unattended: u64::from(is_unattended) }
    }
}

impl Swept {
    /// Most groups that a sweep tells of; the next one tells of more.
    pub const DYING_MAX: usize = 100;
}

/// What is told of a storage that was made read-only as a whole.
pub const READ_ONLY: &str = "the storage is read-only, by `tidemill freeze`: no message is taken and no key changed, while reading and working go on";

/// How a backend is.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Whether it can do its work: it can be reached, it takes messages, and it keeps those that it has
    /// taken, by what it is set to.
    pub status: HealthStatus,
    /// What is known of it.
    pub backend: BackendHealth,
}

/// What an operator asks of a backend.
#[async_trait]
pub trait Upkeep: fmt::Debug + Send + Sync {
    /// Tells how the backend is. Answers within a second, also when the backend does not.
    async fn health(&self) -> Condition;

    /// Returns the addresses of those of several servers that cannot be reached, without asking them.
    fn away(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns what each of its servers has noted as slow by itself, at most so many commands, within some seconds.
    async fn slow_commands(&self, _limit: usize) -> Vec<SlowServer> {
        Vec::new()
    }

    /// Returns whether the backend can be reached, or one of its servers where it has several, without asking it. One that is reached and takes no
    /// messages now (its memory is full, its disk fails) says so in its health: no other node would
    /// fare better with it.
    fn is_ready(&self) -> bool;

    /// Returns the time by the clock that makes ids, without asking the backend. Ages are measured by
    /// it.
    fn now(&self) -> Timestamp;

    /// Removes messages older than their retention from every topic. Of several nodes that share a
    /// backend, one does the work.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn sweep(&self) -> Result<Swept, StorageError>;

    /// Returns about how many bytes the topics keep that each of these selectors has, in their order, as it was within
    /// the last interval of sweeps. Of several nodes that share a backend and ask for the same, one does the work, and
    /// the others are told what it has found; `None` until then.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn kept(&self, topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError>;

    /// Sweeps one topic now: if another producer has made it, it gets its [`Epoch`](super::Epoch).
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn sweep_one(&self, topic: &TopicName) -> Result<(), StorageError>;
}
