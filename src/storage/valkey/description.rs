//! The hash that describes a topic: what its fields are.

use bytes::Bytes;
use glide::ValkeyValue;
use tidemill_proto::topics::{Topic, TopicUpdate, WhenFull};
use tidemill_proto::{Timestamp, TopicName};

use super::control::{bytes_of, pairs};
use super::new_topic::described;
use crate::storage::{Part, TopicChange};

/// The field of a description that names who owns the topic.
pub(super) const OWNER: &str = "owner";

/// Returns the fields of a description that a change names, as they are kept; nothing clears one.
pub(super) fn parts_of(change: &TopicChange) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let TopicChange {
        description,
        retention_seconds,
        max_messages,
        max_bytes,
        when_full,
        keep_until_acked,
        idle_seconds,
        compact_by,
    } = change;
    let number = |part: &Part<u64>| match part {
        Part::Kept => None,
        Part::Set(number) => Some(number.map(|number| number.to_string())),
    };
    let text = |part: &Part<String>| match part {
        Part::Kept => None,
        Part::Set(text) => Some(text.clone()),
    };
    // What a topic is without a word is not written.
    let when_full = match when_full {
        Part::Kept => None,
        Part::Set(what) => {
            Some(what.filter(|what| *what != WhenFull::DropOld).map(|what| what.as_str().to_owned()))
        }
    };
    let keep_until_acked = match keep_until_acked {
        Part::Kept => None,
        Part::Set(is) => Some(is.filter(|is| *is).map(|_| "1".to_owned())),
    };
    let parts = [
        ("description", text(description)),
        ("retention", number(retention_seconds)),
        ("max_messages", number(max_messages)),
        ("max_bytes", number(max_bytes)),
        ("when_full", when_full),
        ("keep_until_acked", keep_until_acked),
        ("idle", number(idle_seconds)),
        ("compact_by", text(compact_by)),
    ];
    parts.into_iter().filter_map(|(field, value)| Some((field, value?)))
}

/// Reads the fields of a hash.
fn pairs_of(reply: ValkeyValue) -> Vec<(Bytes, Bytes)> {
    pairs(reply).into_iter().filter_map(|(name, value)| Some((bytes_of(name)?, bytes_of(value)?))).collect()
}

/// Returns a field of a description.
pub(super) fn field_of(description: &ValkeyValue, name: &str) -> Option<Bytes> {
    let mut pairs = pairs_of(description.clone()).into_iter();
    pairs.find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
}

/// Reads a description; what is missing or not in our form is left out.
pub(super) fn read_description(topic: &TopicName, reply: ValkeyValue) -> Topic {
    describe(topic, &pairs_of(reply))
}

/// Describes a topic by the fields of its description.
pub(super) fn describe(topic: &TopicName, pairs: &[(Bytes, Bytes)]) -> Topic {
    let field = |name: &str| {
        let (_, value) = pairs.iter().find(|(field, _)| field == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    };
    let update = TopicUpdate {
        description: field("description").map(str::to_owned),
        retention_seconds: field("retention").and_then(|seconds| seconds.parse().ok()),
        max_messages: field("max_messages").and_then(|count| count.parse().ok()),
        max_bytes: field("max_bytes").and_then(|bytes| bytes.parse().ok()),
        when_full: field("when_full").and_then(WhenFull::named),
        keep_until_acked: field("keep_until_acked").map(|is| is == "1"),
        idle_seconds: field("idle").and_then(|seconds| seconds.parse().ok()),
        compact_by: field("compact_by").map(str::to_owned),
    };
    let mut described =
        described(topic, field("created_at").and_then(|at| Timestamp::parse(at).ok()), &update);
    described.owner_id = field(OWNER).map(str::to_owned);
    described
}
