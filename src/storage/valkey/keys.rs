//! The names of everything in Valkey. No other file spells a key.
//!
//! Topic names hold no character that could leave its place in a key (see `TopicName`), and every
//! key starts with a prefix, so no key can be read as an option of a command.

use tidemill_proto::TopicName;

/// What every stream's key starts with.
pub(super) const STREAM_PREFIX: &str = "stream:topic:";

/// Sorted set of topic names, all with score 0, so that it lists them in order. It can lag behind
/// the streams, which are the truth: a sweep mends it.
pub(super) const TOPIC_INDEX: &str = "tidemill:topics";

/// Held by the node that swept last, until the next sweep is due.
pub(super) const SWEEP_LOCK: &str = "tidemill:sweep";

/// Written by every look at the publishing role, to learn whether the server takes writes.
pub(super) const LOOK: &str = "tidemill:look";

/// The channel on which nodes ring for each other.
pub(super) const DOORBELL: &str = "tidemill:doorbell";

/// Returns the channel on which the server tells of changes of a topic's stream, if it does.
pub(super) fn changes(topic: &TopicName, database: u32) -> String {
    format!("__keyspace@{database}__:{STREAM_PREFIX}{topic}")
}

/// Returns the topic whose changes a channel tells, if it is one of these.
pub(super) fn topic_of_change(channel: &[u8], database: u32) -> Option<TopicName> {
    let prefix = format!("__keyspace@{database}__:");
    topic_of_stream(channel.strip_prefix(prefix.as_bytes())?)
}

/// Returns the key of a topic's stream.
pub(super) fn stream(topic: &TopicName) -> String {
    format!("{STREAM_PREFIX}{topic}")
}

/// Returns the parts of the key of a topic's stream, for whoever writes it straight into a request.
pub(super) fn stream_parts(topic: &TopicName) -> [&[u8]; 2] {
    [STREAM_PREFIX.as_bytes(), topic.as_str().as_bytes()]
}

/// Returns the key of the hash that describes a topic.
pub(super) fn description(topic: &TopicName) -> String {
    format!("meta:topic:{topic}")
}

/// Returns the key that keeps the last id of a topic that was deleted, for a while.
pub(super) fn last_id(topic: &TopicName) -> String {
    format!("last:topic:{topic}")
}

/// Returns the key that remembers a publisher's idempotency key.
pub(super) fn idempotency(topic: &TopicName, key: &str) -> String {
    format!("idem:topic:{topic}:{key}")
}

/// Returns the topic whose stream has this key, if it is one.
pub(super) fn topic_of_stream(key: &[u8]) -> Option<TopicName> {
    let name = std::str::from_utf8(key).ok()?.strip_prefix(STREAM_PREFIX)?;
    TopicName::parse(name).ok()
}
