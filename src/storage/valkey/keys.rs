//! The names of everything in Valkey. No other file spells a key.
//!
//! | what | plain | braces |
//! |---|---|---|
//! | a topic's stream | `stream:topic:orders` | `stream:topic:{orders}` |
//! | its description | `meta:topic:orders` | `meta:topic:{orders}` |
//! | its last id, once it was deleted | `last:topic:orders` | `last:topic:{orders}` |
//! | locks that guard a topic: `held`, `queue`, `last` | `lock:{orders}:held:nightly` | the same |
//! | locks that guard a bucket, and those that guard nothing | `lock:{keys/flows}:held:nightly`, `lock:{locks/7}:held:nightly` | the same |
//! | what is beside it: `deleted`, `idem`, `group`, `groups`, `schedule` | `kind:{orders}:rest` | the same |
//! | of a topic that is compacted the latest messages (see `scripts::latest`) | `latest:{orders}:facts`, `latest:{orders}:order`, `latest:{orders}:gone` | the same |
//! | an index: `topics`, `schedules`, `buckets`, `expiring`, `series` | `tidemill:topics` | its parts: `tidemill:topics:{0ajvz}` to `tidemill:topics:{felp}` |
//! | the log of a bucket | `stream:topic:keys/flows` | `stream:topic:{keys/flows}` |
//! | what is beside that: `bucket`, `idem` | `kind:{keys/flows}:rest` | the same |
//!
//! Topic names hold no brace and nothing else that could leave its place in a key (see `TopicName`), so
//! the name of a topic ends where it seems to end, whatever stands behind it: no two things share a
//! key. Every key starts with a prefix, so none can be read as an option of a command. In a cluster, what
//! stands in the first braces decides where a key lives; with braces, a topic's keys live together.

use tidemill_proto::locks::Guarded;
use tidemill_proto::work::{ClaimId, ConsumerName, GroupName};
use tidemill_proto::{BucketName, LimitName, LockName, MessageId, SeriesName, TopicName};

use super::options::KeyForm;
use super::slots::{SLOTS, tag_of_slot};
use crate::storage::{LeaseSecret, LockId, QuotaId};

/// What every stream's key starts with.
const STREAM_PREFIX: &str = "stream:topic:";

/// What an index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexName {
    /// Topics, in order.
    Topics,
    /// Topics in which something waits for later, by when the next is due.
    Schedules,
    /// Buckets, in order.
    Buckets,
    /// Buckets in which a key has a time, by when the first is over.
    Expiring,
    /// Series, in order.
    Series,
    /// Topics that are being taken over, in order.
    Importing,
    /// Buckets that are being taken over, in order.
    Begun,
}

/// What stands in braces in the keys of the parts of an index, so that these are spread over a cluster as what they name
/// is: that of each part lives in the middle of its range of slots.
const PART_TAGS: [&str; 16] = [
    "0ajvz", "1aiui", "2aeid", "3afjw", "4mgx", "5fir", "6bpd", "7awv", "8nex", "9ekr", "abcyk", "bbkik",
    "cblww", "dbrt", "eeyk", "felp",
];

/// Slots whose topics one part of an index names.
const PART_SLOTS: u16 = SLOTS / 16;

/// Hash of the documents on who may do what, and their revision.
pub(super) const ACCESS: &str = "tidemill:access";

/// Hash of the records of who is let in, and their revision; and what the last changes have changed of them. In a
/// cluster one server has both.
pub(super) const RECORDS: &str = "tidemill:{records}";
pub(super) const RECORD_CHANGES: &str = "tidemill:{records}:changes";

/// Sorted set of the ids of all tickets, by when they are over. What stands in braces keeps tickets together in a
/// cluster.
pub(super) const TICKETS: &str = "tidemill:{ticket}:all";

/// Hash of the nodes that share the storage.
pub(super) const NODES: &str = "tidemill:nodes";

/// Returns the key of the hash of a ticket.
pub(super) fn ticket(id: &str) -> String {
    format!("tidemill:{{ticket}}:id:{id}")
}

/// Returns the key of the sorted set of the ids of a maker's tickets.
pub(super) fn tickets_of(maker: [u8; 16]) -> String {
    format!("tidemill:{{ticket}}:of:{:032x}", u128::from_be_bytes(maker))
}

/// Returns the key of the hash of the grants of a quota.
pub(super) fn quota(id: QuotaId) -> String {
    format!("tidemill:limit:{:032x}", u128::from_be_bytes(id))
}

/// Returns the key of the hash of what nodes hold of a quota.
pub(super) fn places(id: QuotaId) -> String {
    format!("tidemill:open:{:032x}", u128::from_be_bytes(id))
}

/// Returns the key of what is owed of a limit of an application.
pub(super) fn taken(name: &LimitName) -> String {
    format!("tidemill:taken:{name}")
}

/// Returns the key of the hash of a series of measurements.
pub(super) fn series(name: &SeriesName) -> String {
    format!("tidemill:series:{name}")
}

/// Returns the key of the hash of a lease. Nothing else has a key that begins so.
pub(super) fn lease(secret: LeaseSecret) -> String {
    format!("tidemill:lease:{:032x}", u128::from_be_bytes(secret))
}

/// Held by the node that swept last, until the next sweep is due.
pub(super) const SWEEP_LOCK: &str = "tidemill:sweep";

/// What the last sweep has found, for nodes that did not make it.
pub(super) const SWEPT: &str = "tidemill:swept";

/// Returns the key of what a server has for itself: in a cluster, in a slot of its own.
pub(super) fn of_server(key: &str, slot: Option<u16>) -> String {
    slot.map_or_else(|| key.to_owned(), |slot| format!("{key}:{{{}}}", tag_of_slot(slot)))
}

/// Returns the key of what topics keep, as it was found last, for nodes that ask for the same: by the digest of that.
pub(super) fn kept(digest: [u8; 16]) -> String {
    format!("tidemill:kept:{:032x}", u128::from_be_bytes(digest))
}

/// Returns the keys by which a topic or a bucket knows fences: who holds the lock of this name that guards it, and the
/// greatest fences that it has seen of locks that do not.
pub(super) fn fences(written: Guarded, name: &LockName) -> [String; 2] {
    let seen = match &written {
        Guarded::Topic(topic) => format!("lock:{{{topic}}}:seen"),
        Guarded::Bucket(bucket) => format!("lock:{{{}}}:seen", TopicName::log_of(bucket)),
    };
    let [held, ..] = lock(&LockId { name: name.clone(), guards: Some(written) });
    [held, seen]
}

/// Written by every look at the publishing connection, to learn whether the server takes writes.
pub(super) const LOOK: &str = "tidemill:look";

/// The layout of what is kept (see `layout`).
pub(super) const LAYOUT: &str = "tidemill:layout";

/// Written in front of every wait for the disk or for replicas, which is then one for all that was written before.
pub(super) const WAIT: &str = "tidemill:wait";

/// The field of a topic's description that says when it was noticed that its ids do not follow the clock. The
/// scripts spell it, too.
pub(super) const LATE: &str = "late";

/// The field of a topic's description that says why it was cancelled. The scripts spell it, too.
pub(super) const REASON: &str = "reason";

/// The channel on which nodes give each other notice of changes.
pub(super) const DOORBELL: &str = "tidemill:doorbell";

/// Into how many parts the locks are divided that guard nothing: each has a last fence of its own, and in a cluster a
/// place of its own.
const LOCK_PARTS: u8 = 16;

/// Returns the keys of a lock: who holds it, who waits, and the last fence of all locks beside it. What stands in braces
/// is that of what it guards. Nothing else has a key that begins so, and `/` is in no name of a topic.
pub(super) fn lock(lock: &LockId) -> [String; 3] {
    let name = &lock.name;
    let of = match &lock.guards {
        Some(Guarded::Topic(topic)) => topic.to_string(),
        Some(Guarded::Bucket(bucket)) => TopicName::log_of(bucket).to_string(),
        None => {
            // A number that is the same on every node.
            let sum = name.as_str().bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
            format!("locks/{}", sum % LOCK_PARTS)
        }
    };
    [
        format!("lock:{{{of}}}:held:{name}"),
        format!("lock:{{{of}}}:queue:{name}"),
        format!("lock:{{{of}}}:last"),
    ]
}

/// A pattern of `SCAN` that the first of the keys of all locks match. Others may match it, too.
pub(super) const HELD: &str = "lock:{*}:held:*";

/// Returns the lock whose first key this is, if it is one.
pub(super) fn lock_of(key: &[u8]) -> Option<LockId> {
    let key = std::str::from_utf8(key).ok()?;
    let (of, name) = key.strip_prefix("lock:{")?.split_once("}:held:")?;
    let guards = TopicName::parse_kept(of).map(|of| of.bucket().map_or(Guarded::Topic(of), Guarded::Bucket));
    let found = LockId { name: LockName::parse(name).ok()?, guards };
    let [held, ..] = lock(&found);
    (held == key).then_some(found)
}

/// What is known of a group, each under a key of its own: behind the group's name, which has no colon.
const OF_GROUP: [&str; 10] =
    ["settings", "due", "leases", "facts", "dying", "dead", "minutes", "holders", "behind", "unique"];

/// Makes the keys of topics, in the form that the node was set to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    form: KeyForm,
}

impl Keys {
    pub(super) const fn new(form: KeyForm) -> Self {
        Self { form }
    }

    /// Returns the maker of keys of the form that this node does not use.
    pub(super) const fn other(self) -> Self {
        Self::new(match self.form {
            KeyForm::Plain => KeyForm::Braces,
            KeyForm::Braces => KeyForm::Plain,
        })
    }

    /// Returns into how many parts an index is divided.
    pub(super) const fn parts(self) -> usize {
        match self.form {
            KeyForm::Plain => 1,
            KeyForm::Braces => PART_TAGS.len(),
        }
    }

    /// Returns which part of an index names what lives in a slot.
    pub(super) fn part_of(self, slot: u16) -> usize {
        match self.form {
            KeyForm::Plain => 0,
            KeyForm::Braces => usize::from(slot / PART_SLOTS),
        }
    }

    /// Returns the key of a part of an index: a sorted set of names. Those of an index in order all have the score 0; else
    /// the score is a time (ms). It is a hint and can lag behind what it names, which is the truth: a sweep mends it.
    pub(super) fn index(self, name: IndexName, part: usize) -> String {
        let name = match name {
            IndexName::Topics => "topics",
            IndexName::Schedules => "schedules",
            IndexName::Buckets => "buckets",
            IndexName::Expiring => "expiring",
            IndexName::Series => "series",
            IndexName::Importing => "importing",
            IndexName::Begun => "importing-buckets",
        };
        match self.form {
            KeyForm::Plain => format!("tidemill:{name}"),
            KeyForm::Braces => format!("tidemill:{name}:{{{}}}", PART_TAGS[part]),
        }
    }

    /// Returns the key that is there while no more topics are to be made of those that a part of their index has.
    pub(super) fn closed(self, part: usize) -> String {
        match self.form {
            KeyForm::Plain => "tidemill:no-new-topics".to_owned(),
            KeyForm::Braces => format!("tidemill:no-new-topics:{{{}}}", PART_TAGS[part]),
        }
    }

    /// Returns what stands around a topic's name.
    const fn around(self) -> [&'static str; 2] {
        match self.form {
            KeyForm::Plain => ["", ""],
            KeyForm::Braces => ["{", "}"],
        }
    }

    fn named(self, kind: &'static str, topic: &TopicName) -> String {
        let [open, close] = self.around();
        format!("{kind}:topic:{open}{topic}{close}")
    }

    /// Returns the key of a topic's stream.
    pub(super) fn stream(self, topic: &TopicName) -> String {
        self.named("stream", topic)
    }

    /// Returns the parts of the key of a topic's stream, for whoever writes it straight into a request.
    pub(super) fn stream_parts(self, topic: &TopicName) -> [&[u8]; 4] {
        let [open, close] = self.around();
        [STREAM_PREFIX.as_bytes(), open.as_bytes(), topic.as_str().as_bytes(), close.as_bytes()]
    }

    /// Returns a pattern of `SCAN` that the keys of all streams match. Others may match it, too.
    pub(super) fn streams(self) -> String {
        let [open, close] = self.around();
        format!("{STREAM_PREFIX}{open}*{close}")
    }

    /// Returns the topic whose stream has this key, if it is one, or the log of a bucket.
    pub(super) fn topic_of_stream(self, key: &[u8]) -> Option<TopicName> {
        let [open, close] = self.around();
        let name = std::str::from_utf8(key).ok()?.strip_prefix(STREAM_PREFIX)?;
        TopicName::parse_kept(name.strip_prefix(open)?.strip_suffix(close)?)
    }

    /// Returns what would be the name of a topic whose stream has this key, if none may have that name.
    pub(super) fn odd_topic_of_stream(self, key: &[u8]) -> Option<String> {
        if self.topic_of_stream(key).is_some() || self.other().topic_of_stream(key).is_some() {
            return None;
        }
        let [open, close] = self.around();
        let name = String::from_utf8_lossy(key);
        let name = name.strip_prefix(STREAM_PREFIX)?.strip_prefix(open)?.strip_suffix(close)?;
        Some(name.to_owned())
    }

    /// Returns the channel on which the server tells of changes of a topic's stream, if it does.
    pub(super) fn changes(self, topic: &TopicName, database: u32) -> String {
        format!("__keyspace@{database}__:{}", self.stream(topic))
    }

    /// Returns the topic whose changes a channel tells, if it is one of these.
    pub(super) fn topic_of_change(self, channel: &[u8], database: u32) -> Option<TopicName> {
        let prefix = format!("__keyspace@{database}__:");
        self.topic_of_stream(channel.strip_prefix(prefix.as_bytes())?)
    }

    /// Returns the key of the hash that describes a topic. Sweeps remember in it how they have seen the topic, also
    /// of one that another producer has made.
    pub(super) fn description(self, topic: &TopicName) -> String {
        self.named("meta", topic)
    }

    /// Returns the key that keeps the last id of a topic that was deleted, for a while.
    pub(super) fn last_id(self, topic: &TopicName) -> String {
        self.named("last", topic)
    }

    /// Returns the key that remembers which messages were deleted by request: a sorted set of [`sortable`] ids,
    /// whose score says from which stream.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn deleted(self, topic: &TopicName) -> String {
        beside("deleted", topic, "ids")
    }

    /// Returns the keys of what is known of a group, in the order in which the scripts take them behind the stream.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn group(self, topic: &TopicName, group: &GroupName) -> [String; 10] {
        OF_GROUP.map(|part| beside("group", topic, &format!("{group}:{part}")))
    }

    /// Returns the keys of what a publish under a unique key needs of a group: its settings, what is dying, and the keys.
    pub(super) fn uniqueness(self, topic: &TopicName, group: &GroupName) -> [String; 3] {
        let [settings, _, _, _, dying, .., unique] = self.group(topic, group);
        [settings, dying, unique]
    }

    /// Returns what the keys of all groups of a topic begin with, and how they end behind the name of the group and a
    /// colon.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn of_groups(self, topic: &TopicName) -> (String, [&'static str; 10]) {
        (beside("group", topic, ""), OF_GROUP)
    }

    /// Returns the key of the set of the groups that a topic has, or had.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn groups(self, topic: &TopicName) -> String {
        beside("groups", topic, "all")
    }

    /// Returns the key that remembers what a claim got.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn claim(
        self,
        topic: &TopicName,
        group: &GroupName,
        consumer: &ConsumerName,
        id: &ClaimId,
    ) -> String {
        beside("group", topic, &format!("{group}:claim:{consumer}:{id}"))
    }

    /// Returns what the keys of results begin with; the id of the message follows.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn results(self, topic: &TopicName, group: &GroupName) -> String {
        beside("group", topic, &format!("{group}:result:"))
    }

    /// Returns the keys of what waits for later: a sorted set of ids of schedules and names of recurring messages, by when
    /// they are due; a hash of what they publish; and a hash of the rules of recurring ones.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn schedules(self, topic: &TopicName) -> [String; 3] {
        ["due", "bodies", "recurring"].map(|rest| beside("schedule", topic, rest))
    }

    /// Returns the key of what is known of the latest messages of a topic that is compacted. The scripts spell it, too.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn latest(self, topic: &TopicName) -> String {
        beside("latest", topic, "facts")
    }

    /// Returns the keys of a bucket, in the order in which the scripts take them: its log, facts, values, names, what is
    /// due, what is past, what is owned, what is being filled, and how often keys are read.
    pub(super) fn bucket(self, bucket: &BucketName) -> [String; 9] {
        let log = TopicName::log_of(bucket);
        let [facts, values, names, due, past, owned, fills, reads] =
            ["facts", "values", "names", "due", "past", "owned", "fills", "reads"]
                .map(|rest| beside("bucket", &log, rest));
        [self.stream(&log), facts, values, names, due, past, owned, fills, reads]
    }

    /// Returns the key that remembers a publisher's idempotency key.
    #[expect(clippy::unused_self, reason = "every key is made by the maker, also where both forms agree")]
    pub(super) fn idempotency(self, topic: &TopicName, key: &str) -> String {
        beside("idem", topic, key)
    }
}

/// Returns an id as text whose order is that of ids.
pub(super) fn sortable(id: MessageId) -> String {
    format!("{:020}-{:020}", id.ms, id.seq)
}

/// Returns the key of something that stands beside a topic's stream.
fn beside(kind: &'static str, topic: &TopicName, rest: &str) -> String {
    [kind, ":{", topic.as_str(), "}:", rest].concat()
}

#[cfg(test)]
mod tests;
