//! The storage contract: what every backend promises, in prose. `tests/it/conformance.rs` holds each
//! promise as a named test and runs it on every backend; what is not tested there is not promised.
//!
//! The contract knows `tidemill-proto` and the clock, and nothing of HTTP or of a particular backend.
//!
//! # Promises of every backend
//! - Ids are strictly increasing within a topic, in the order of appends, also when the clock goes
//!   back and after trims that empty the topic.
//! - An `Ok` from [`MessageStore::append`] means that the backend has confirmed the message.
//! - All readers of a topic see the same messages in the same order.
//! - What is told to be on the disk of the backend, or with replicas of it, is there ([`DurableStore`]).
//! - Payload, metadata and content type come back byte for byte.
//! - A message that is to follow a certain one is appended only where that is the last that the topic was given,
//!   however many publishers there are.
//! - While a message of a unique key waits or is worked on in its group, no other of that key is appended.
//! - A topic that is deleted and made again gives no id of its predecessor, and knows none of its
//!   idempotency keys.
//! - An expired message is never returned. It still counts in a topic's length until retention
//!   removes it.
//! - A reader whose cursor may have missed messages (trimmed away, gone with a deleted topic, or lost
//!   by the backend) is told so by every read that goes on from it, and never where it is proved that
//!   nothing is missing.
//! - A read never creates a topic, and reading a topic that does not exist is
//!   [`StorageError::NoTopic`].
//! - Whoever listens is told of what this node changes before the change is answered, and whether or not
//!   anybody still waits for the answer.
//! - A message for later is returned by no read before it is due. It is due by the backend's clock, and is published
//!   once, in the order of when it was due, or is cancelled; it goes with its topic.
//! - A recurring message comes once for each of its times, over any number of nodes, and what was missed is not made up
//!   for, but for the first.
//! - A topic keeps what its own description says, and where that says nothing, what the [`TopicPolicy`] of its appends
//!   does: no node removes by what it does not know any more. Messages older than its retention are removed by the next
//!   sweep. What a group has not acknowledged is kept beyond both, up to a bound ([`HELD_TIMES`]); what is removed
//!   all the same before the group was done with it, by whomever, is counted as gone.
//! - A topic that has ended takes no message, on whichever node, and its readers are told so behind the last that it
//!   has. What it has stays.
//! - A message that is deleted by request is missed by nobody.
//! - Of a topic that is compacted the latest message of each key is there, also where the log has none as old, up to as
//!   many keys and bytes as the topic keeps messages and bytes ([`MessageStore::latest`]).
//! - How many bytes topics keep is told about as it was within the last interval of sweeps: what is published counts,
//!   and what is removed does no longer.
//! - A group gives each message to one consumer at a time, until it is settled: from its start on, none is lost to it
//!   and none is with two. What it knows of one is in no other group's way, and the message is never published again.
//! - Changes of keys of a bucket are made all together or not at all, each by what is there then, and each has its place
//!   in the log of the bucket: who reads that has every change, once, in order, up to its old end.
//! - A key whose time is over is not there, and its expiry is a change: once, over any number of nodes.
//! - A lock has one holder at a time, by the clock of the backend; those who wait get it in the order in which they came,
//!   each in the step in which the one before gave it back or its time was found to be over. Each grant has a greater
//!   fence than every one before.
//! - Documents on who may do what change all together, and only for who knows what is there now.
//! - A ticket opens one thing, is good for nothing but that from then on, and one holds it at a time.
//! - Of what is limited no more is granted than the rate allows, and no more is held at one time than may be,
//!   however many nodes ask.
//! - A lease ends when it is ended, or not renewed in time, by the clock of the backend. That ends nothing that was put
//!   under it: each thing has a time of its own (`leases`).
//! - Of a limit of an application passes to the unit what the algorithm says, by the backend's clock, over any number of
//!   nodes; of several policies all are charged or none. It goes by itself once nothing of it is owed.
//! - Of a series every point that was added is in its minute, once, over any number of nodes, for a day; then it goes by
//!   itself.
//! - A topic that is frozen takes no message, on whichever node, and in a bucket that is nothing is changed. A copy of a topic
//!   or of a bucket has its ids, its epoch and its counts, and tells its readers what it would have told them.
//!
//! What is told of everything that can happen to a topic stands as a table in `storage::reading`.

pub use access::{AccessDocuments, AccessEdit, AccessStore};
pub use backend::{Backend, Opened, Storage, Unfit};
pub use buckets::{
    AdaptiveTtl, BucketSettings, BucketState, BucketStore, CHANGES_MAX, EXPIRED_MAX, FILL_MAX, FillAsked,
    FillToken, HISTORY_MAX, KeyChange, KeyChanged, KeyChanges, KeyCondition, KeyDigest, KeyEdit, KeyEntry,
    KeyFill, KeyPage, KeyRange, KeyRefusal, KeyValue, KeysChanged, KeysExpired, LOG_BYTES, LOG_CHANGES,
    Logged, LoggedKind, LoggedRef, READ_KEYS_MAX, READS_HALF_LIFE, ROOM_IDLE, changed_without_bucket,
};
pub(crate) use buckets::{cold, heat_of, reads_of};
pub use copying::{
    BucketCopyStore, CopiedBucket, CopiedDead, CopiedGroup, CopiedHole, CopiedKey, CopiedKeys, CopiedPending,
    CopiedPlace, CopiedTopic, CopiedUnique, CopiedUntold, CopyStore, Freeze, IMPORTED_MAX, KeysPart,
    OddNames, UniquePage, Unlisted,
};
pub use durable::{DURABILITY_WAIT, DurableStore, Pledge};
pub use error::{Cause, StorageError, WhyReadOnly};
pub use hints::{Hint, HintListener};
pub use latest::LatestRange;
pub(crate) use latest::key_of as latest_key;
pub use leases::{LEASED_MAX, LeaseFacts, LeaseSecret, LeaseSeen, LeaseStore, Leased, PutUnder};
pub use limits::{Draw, Drawn, LimitStore, Places, QuotaId, Rate, Unspent};
pub use listing::{LISTED_NAMES_MAX, Selection, TopicList};
pub use live::{Changes, Followed, LiveStore};
pub use locks::{
    FENCE_AHEAD_MAX, FENCE_KEPT, HANDED_KEPT, LINE_LOOKED_EVERY, LockAnswer, LockAsked, LockHeld, LockId,
    LockIds, LockKept, LockKey, LockRenewal, LockSecret, LockSeen, LockStore, PLACE_KEPT, is_made_up,
};
pub use message::{Appended, Body, Idempotency, NewMessage, StoredMessage, TopicPolicy, Unique};
pub use messages::{DELETED_MAX, HELD_TIMES, MessageStore, Trim};
pub use nodes::{NODES_MAX, NodeStore};
pub use reading::{Batch, Epoch, GapCheck, Range, Tail, TakenOut, end_of};
pub use records::{Expected, RECORD_CHANGES_KEPT, RecordChanges, RecordEdit, RecordStore};
pub use runs::{RunEnd, RunEnding, RunStore};
pub use schedules::{
    DuePlace, NewRecurring, NewSchedule, Promoted, Recurrence, RecurringRule, ScheduleStore, Scheduled,
    StoredRecurring, WaitingMessage, WaitingPage, WaitingRange,
};
pub use series::{Point, SeriesStore};
pub use takes::{BURST_TIME_MAX, LIMIT_POLICIES_MAX, LimitPolicy, Owed, Take, TakeKind, TakeStore, Taken};
pub use tickets::{NewTicket, TicketClaim};
pub use topics::{Part, TopicChange, TopicState, TopicStore};
pub use upkeep::{Condition, Found, GroupsSwept, READ_ONLY, StorageLimits, Swept, Upkeep};
pub use work::{
    BEHIND_MAX, CLAIM_MESSAGES_MAX, CRASHES_MAX, Claim, Claimed, DeadLetter, Delivery, Dying,
    ERROR_BYTES_MAX, Existing, Fate, GROUPS_MAX, GroupChange, GroupStart, HELD_BY_MAX, Outcome, Refusal,
    Revived, STEP_MESSAGES_MAX, Settlement, Tended, Verdict, WorkStore, group_defaults,
};

mod access;
mod backend;
mod buckets;
mod copying;
mod durable;
mod error;
mod hints;
mod history;
mod latest;
mod leases;
pub(crate) mod limits;
mod listing;
mod live;
mod locks;
pub mod memory;
mod message;
mod messages;
mod nodes;
mod reading;
mod records;
mod runs;
mod schedules;
pub(crate) mod series;
pub(crate) mod takes;
pub(crate) mod tickets;
mod topics;
mod upkeep;
#[cfg(feature = "valkey")]
pub mod valkey;
mod work;

/// Returns a storage with nothing in it, for tests of those who know no backend.
#[cfg(test)]
pub(crate) fn test_storage() -> Storage {
    let limits = StorageLimits {
        retention: None,
        topics_max: 1_000,
        idempotency_window: std::time::Duration::from_mins(10),
        schedules_max: 1_000,
        topic_schedules_max: 1_000,
        buckets_max: 1_000,
    };
    let clock = crate::clock::Clock::manual(tidemill_proto::Timestamp::from_millis(1));
    let when_full = memory::WhenFull::TrimLargest;
    let options =
        memory::MemoryOptions { limits, bytes_max: 1 << 20, keys_bytes_max: 1 << 20, when_full, clock };
    Storage::new(std::sync::Arc::new(memory::Memory::new(options)))
}
