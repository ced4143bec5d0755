//! The domain: what a publish, a read or a change of a topic must satisfy before storage sees it, and
//! what its failure means to the caller.
//!
//! It is the only room that talks to the storage contract. It must not know which backend stands
//! behind it, nor HTTP: callers hand over parts that are already cut out of a request, and get a
//! [`Failure`] whose [`Problem`](tidemill_proto::Problem) can go out over any transport.
//!
//! **Invariant:** every operation on topics passes the one gate: [`Relay::as_caller`] gives a [`Gate`],
//! and nothing else has a way to publish, read, change or delete.

mod buckets;
mod compact;
mod copies;
mod durability;
mod ears;
mod expiries;
mod failure;
mod fills;
mod fingerprint;
mod gate;
mod json;
mod keys;
mod known;
mod leases;
mod live;
mod locks;
mod log;
mod message;
mod nodes;
mod noted;
mod owners;
mod payload;
mod presence;
mod promotions;
mod publish;
mod read;
mod reads;
mod recurrence;
mod runs;
mod schedules;
mod series;
mod shown;
mod takes;
mod timers;
mod topics;
mod trace;
mod watch;
mod watching;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::slow::SlowServer;
use tidemill_proto::{BucketName, TopicName};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use buckets::BucketList;
pub(crate) use compact::{TAG_BYTES, Tag, read_varint, tag, write_varint};
pub use durability::Durabilities;
pub use expiries::{Expiries, ExpiriesReport};
pub use failure::Failure;
pub use fills::{FillDraft, KeyToFill, fill_token_text, parse_fill, parse_fill_token};
pub(crate) use fingerprint::TRACE;
pub use gate::Gate;
pub use json::JsonText;
pub use keys::{
    KeyChangeDraft, KeyDraft, KeysMade, digest_of, parse_bucket, parse_key, parse_key_ttl,
    parse_key_ttl_json, parse_prefix, parse_revision,
};
pub use leases::{LeaseHold, Lost};
pub use live::{
    Absent, Begun, Held, Item, LiveMessage, LiveReader, NoOutlet, Outlet, SharedBatch, StartAt, TakeLimit,
};
pub use locks::{GiveBackLock, HeldLock, LockDraft, LockList, parse_fence};
pub use log::{Failing, FailureLog};
pub use message::as_wire;
pub use nodes::ANNOUNCED_EVERY;
pub use payload::{ContentType, Payload};
pub use presence::{MembersPage, PresenceOptions, RoomsPage};
pub use promotions::{Promotions, PromotionsReport};
pub use publish::{
    Admitted, Answered, Checked, Draft, IdempotencyKey, TimeToLive, UniqueKey, parse_durability, parse_last,
    parse_order_key,
};
pub(crate) use publish::{begin_published, end_published};
pub use read::{PageRequest, Start, parse_id, parse_selector, parse_since, parse_topic};
pub use reads::READS_TOLD_EVERY;
pub use runs::parse_reason;
pub use schedules::{DueCursor, RecurringDraft, parse_recurring_name, parse_schedule_id};
pub use series::{PointDraft, SERIES_LAST, parse_series};
pub use takes::{TAKE_PER, TakeDraft, TakesAway, parse_limit};
pub use topics::{
    TrimTo, parse_compact_by, parse_description, parse_idle, parse_max_bytes, parse_max_messages,
    parse_retention, parse_when_full,
};
pub use trace::Trace;
pub(crate) use trace::end_refused;
pub use watch::{
    KeyWatch, SNAPSHOT_RETRY, SNAPSHOTS_MAX, SnapshotPart, StepPlace, TOO_FAST, WatchScope, change_of,
    told_of_entry,
};
pub use work::{
    Change, ClaimOrder, Claimant, Deliveries, DeliveriesOf, EXTENSION, GiveBack, GroupDraft, GroupList,
    GroupPlace, NACK_DELAY, SettledReceipt, Source, check_result, parse_group, parse_ordering, within,
};
pub(crate) use work::{begin_claimed, begin_settled};

pub use crate::storage::{
    AdaptiveTtl, Appended, Batch, BucketSettings, BucketState, CLAIM_MESSAGES_MAX, Condition, Delivery, Fate,
    FillToken, GroupStart, GroupsSwept, KeyChanged, KeyCondition, KeyEntry, KeyPage, KeyValue, Leased,
    LockHeld, LockId, LockKept, LockRenewal, LockSeen, LoggedKind, LoggedRef, Outcome, Part, Refusal,
    Scheduled, Settlement, StoredMessage, StoredRecurring, Swept, TakeKind, TopicChange, TopicList, Verdict,
    WaitingMessage,
};

use crate::access::{Caller, Sessions};
use crate::clock::Clock;
use crate::features::{Feature, Features};
use crate::limits::Kept;
use crate::slow::Slow;
use crate::storage::{Storage, TopicPolicy};
use ears::Ears;
use known::KnownTopics;
use live::{FeedOptions, Feeds, run_pattern};
use locks::LockWaiters;
use presence::Presences;
use timers::Timers;
use watch::Snapshots;
use watching::Watching;
use work::Stations;

/// What an operator may set about the domain.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Largest payload in bytes.
    pub payload_bytes_max: usize,
    /// Largest value of a key in bytes.
    pub value_bytes_max: usize,
    /// Bytes that may be pending for live readers at one time, all together: what is on its way to clients
    /// that do not take it at once.
    pub pending_bytes_max: usize,
    /// Bytes that the newest messages of all topics that are read live may take, held so that readers share
    /// them.
    pub live_bytes_max: usize,
    /// Most topics that are read live at one time, those that are waited for among them.
    pub live_topics_max: usize,
    /// Whether a publish creates its topic, and a put its bucket.
    pub topic_auto_create: bool,
    /// How durable messages are to be whose publishers say nothing of it.
    pub durability: Durabilities,
    /// What topics keep.
    pub policy: TopicPolicy,
    /// How long messages are kept where their topic says nothing; `None` for ever. The storage sees to it.
    pub retention: Option<Duration>,
    /// What the relay does beside publishing and reading.
    pub features: Features,
    /// Connections that are members of rooms.
    pub presence: PresenceOptions,
    /// What becomes of limits of applications while the storage cannot be asked.
    pub takes_away: TakesAway,
    /// Past which time an operation is noted as slow; zero for none.
    pub slow_after: Duration,
}

/// The relay: a storage with the rules in front of it. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    clock: Clock,
    options: RelayOptions,
    /// How many bytes topics keep together.
    kept: Kept,
    feeds: Arc<Feeds>,
    /// Where claims wait for work.
    stations: Arc<Stations>,
    /// Who waits for locks.
    locks: Arc<LockWaiters>,
    /// Told of hints as long as it is there.
    _ears: Arc<Ears>,
    sessions: Sessions,
    failure_log: FailureLog,
    slow: Slow,
    /// Topics that were there a moment ago, where it is counted who makes some.
    known: KnownTopics,
    /// When something is due that waits.
    timers: Timers<TopicName>,
    /// When keys of buckets expire.
    expiries: Timers<BucketName>,
    /// How often keys were read.
    reads: reads::Reads,
    /// Pages of keys on their way to who watches them.
    snapshots: Snapshots,
    /// What this node keeps in rooms.
    presences: Arc<Presences>,
    /// What this node counts of limits of applications by itself.
    takes: takes::Takes,
    copies: copies::Steps,
}

impl Relay {
    /// Returns a relay in front of `storage`, whose topics keep what `kept` allows, and whose live readers are
    /// `sessions`. Its feeds run on
    /// `tracker` until `token` is cancelled.
    #[must_use]
    pub fn start(
        storage: Storage,
        clock: Clock,
        options: RelayOptions,
        kept: Kept,
        sessions: Sessions,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        let watching = Watching::new(storage.clone());
        let feed_options = FeedOptions::of(&options);
        let feeds =
            Feeds::start(storage.clone(), watching.clone(), feed_options, run_pattern, tracker, token);
        let stations = Stations::new(storage.clone(), watching, &options, tracker, token);
        let locks = LockWaiters::new(storage.clone(), tracker, token);
        let ears = Ears::of(&feeds, &stations, &locks);
        storage.live.listen(ears.weak());
        let presences = Presences::new(options.presence);
        if options.features.has(Feature::Presence) {
            let keep = presences.clone().keep(storage.clone());
            tracker.spawn(token.clone().run_until_cancelled_owned(keep));
        }
        let (failure_log, known) = (FailureLog::default(), KnownTopics::default());
        let slow = Slow::new(options.slow_after);
        Self(Arc::new(Inner {
            storage,
            clock,
            options,
            kept,
            feeds,
            stations,
            locks,
            _ears: ears,
            sessions,
            failure_log,
            slow,
            known,
            timers: Timers::default(),
            expiries: Timers::default(),
            reads: reads::Reads::default(),
            snapshots: Snapshots::default(),
            presences,
            takes: takes::Takes::new(),
            copies: copies::Steps::new(),
        }))
    }

    /// Returns the gate as `caller` passes it: what this caller may do, and the only way to do it.
    ///
    /// The relay itself publishes and reads nothing:
    ///
    /// ```compile_fail,E0599
    /// # async fn read(relay: tidemill::relay::Relay, topic: tidemill::proto::TopicName) {
    /// relay.describe_topic(&topic).await;
    /// # }
    /// ```
    ///
    /// A caller does:
    ///
    /// ```
    /// # use tidemill::access::Caller;
    /// # async fn read(relay: tidemill::relay::Relay, topic: tidemill::proto::TopicName) {
    /// relay.as_caller(Caller::anyone()).describe_topic(&topic).await;
    /// # }
    /// ```
    #[must_use]
    pub fn as_caller(&self, caller: Caller) -> Gate {
        Gate::new(self.clone(), caller)
    }

    /// Returns what callers have open now.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Returns how many topics have live readers on this node, or had some a moment ago.
    #[must_use]
    pub fn feeds(&self) -> usize {
        self.0.feeds.count()
    }

    /// Returns how many patterns have live readers on this node, or had some a moment ago.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.0.feeds.patterns().count()
    }

    /// Returns how many bytes are pending for live readers.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.0.feeds.pending_bytes()
    }

    /// Returns how many bytes the newest messages take that are held for live readers.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.0.feeds.ring_bytes()
    }

    /// Returns how many messages claims over this node have found to be gone.
    #[must_use]
    pub fn work_gone(&self) -> u64 {
        self.0.stations.gone()
    }

    /// Returns how many dead letters this node has written.
    #[must_use]
    pub fn work_dead(&self) -> u64 {
        self.0.stations.letters().written()
    }

    /// Returns how many wait for locks on this node.
    #[must_use]
    pub fn lock_waiters(&self) -> usize {
        self.0.locks.count()
    }

    /// Returns how many connections of this node are members of rooms.
    #[must_use]
    pub fn present_connections(&self) -> usize {
        self.0.presences.connections()
    }

    /// Returns the time by the clock that makes ids.
    #[must_use]
    pub fn now(&self) -> tidemill_proto::Timestamp {
        self.0.storage.upkeep.now()
    }

    /// Returns what the relay was set to.
    #[must_use]
    pub fn options(&self) -> &RelayOptions {
        &self.0.options
    }

    /// Returns what decides which failures are logged, on whatever transport they are answered.
    #[must_use]
    pub fn failure_log(&self) -> &FailureLog {
        &self.0.failure_log
    }

    /// Returns what took long, and what is to be noted so.
    #[must_use]
    pub fn slow(&self) -> &Slow {
        &self.0.slow
    }

    /// Returns what each server of the storage has noted as slow by itself, at most so many commands.
    pub async fn slow_commands(&self, limit: usize) -> Vec<SlowServer> {
        self.0.storage.upkeep.slow_commands(limit).await
    }

    /// Returns how many bytes topics keep together, and how many they may.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.0.kept
    }

    /// Returns the relay's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns what publishes the messages that are due; one task of a node keeps asking it.
    #[must_use]
    pub fn promotions(&self) -> Promotions {
        Promotions::new(self.clone())
    }

    /// Returns what has keys expire; one task of a node keeps asking it.
    #[must_use]
    pub fn expiries(&self) -> Expiries {
        Expiries::new(self.clone())
    }

    /// Counts the messages that wait for later, and recurring ones.
    ///
    /// # Errors
    /// The backend could not be reached.
    pub async fn count_waiting(&self) -> Result<u64, Failure> {
        self.0.storage.schedules.count_waiting().await.map_err(|error| Failure::read(error, None))
    }

    /// Tells how the backend is, within about a second.
    pub async fn health(&self) -> Condition {
        self.0.storage.upkeep.health().await
    }

    /// Returns whether the backend can be reached, without asking it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.storage.upkeep.is_ready()
    }

    /// Returns the servers of the backend that cannot be reached, without asking them, where there are several.
    #[must_use]
    pub fn servers_away(&self) -> Vec<String> {
        self.0.storage.upkeep.away()
    }

    /// Removes messages older than their retention, and has dead letters written that the node left which was to do it.
    ///
    /// # Errors
    /// The backend could not be reached.
    pub async fn sweep(&self) -> Result<Swept, Failure> {
        let swept = self.0.storage.upkeep.sweep().await.map_err(|error| Failure::read(error, None))?;
        if self.0.options.features.has(Feature::Groups) {
            self.0.stations.write_letters(&swept.dying);
        }
        Ok(swept)
    }
}

/// Returns a JSON body, for tests of those who write messages out.
#[cfg(test)]
pub(crate) fn test_body(payload: &'static str) -> crate::storage::Body {
    crate::storage::Body {
        payload: bytes::Bytes::from_static(payload.as_bytes()),
        content_type: None,
        metadata: None,
        order_key: None,
    }
}

/// Returns a message as one is appended, for tests of those who need a topic with something in it.
#[cfg(test)]
pub(crate) fn test_message(topic: &tidemill_proto::TopicName) -> crate::storage::NewMessage {
    crate::storage::NewMessage {
        topic: topic.clone(),
        body: test_body("1"),
        timestamp: tidemill_proto::Timestamp::from_millis(1),
        expires_at: None,
        idempotency: None,
        expected_last: None,
        unique: None,
        fence: None,
        create_topic: true,
        owner: None,
        policy: test_policy(),
    }
}

/// Returns a policy that keeps what tests publish.
#[cfg(test)]
pub(crate) const fn test_policy() -> TopicPolicy {
    TopicPolicy::newest(1_000)
}
