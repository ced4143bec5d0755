//! The form in which the server keeps, and scripts take, what is copied of a topic.

use bytes::Bytes;
use tidemill_proto::topics::TopicUpdate;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use crate::storage::history::Hole;
use crate::storage::valkey::description::{OWNER, describe, parts_of};
use crate::storage::valkey::entry::read_id;
use crate::storage::valkey::marker::{End, Marker};
use crate::storage::valkey::resp::{Parts, Reply};
use crate::storage::valkey::{keys, runs};
use crate::storage::{CopiedHole, CopiedTopic, Epoch};

/// Returns the digits of an epoch, none where there is none.
pub(in crate::storage::valkey) fn digits(epoch: Epoch) -> String {
    match epoch {
        Epoch::Marked(epoch) => format!("{epoch:016x}"),
        Epoch::Unmarked => String::new(),
    }
}

/// Returns where messages were lost, as scripts take it.
pub(in crate::storage::valkey) fn lost(holes: &[CopiedHole]) -> String {
    let holes: Vec<String> = holes.iter().map(|hole| format!("{}:{}", hole.from, hole.to)).collect();
    holes.join(" ")
}

/// Reads a sorted id.
pub(super) fn unsorted(text: &str) -> Option<MessageId> {
    let (ms, seq) = text.split_once('-')?;
    Some(MessageId::new(ms.parse().ok()?, seq.parse().ok()?))
}

pub(super) fn read_copied(topic: &TopicName, parts: &mut Parts<'_>) -> Option<CopiedTopic> {
    let marker = Marker::read(parts.next()?.bytes()?);
    let end = End::read(parts.next()?.bytes()?);
    let first = read_id(parts.next()?.bytes()?);
    let last = read_id(parts.next()?.bytes()?)?;
    let length = u64::try_from(parts.next()?.integer()?).ok()?;
    let given = u64::try_from(parts.next()?.integer()?).ok();
    let taken_out = read_id(parts.next()?.bytes()?).filter(|id| *id != MessageId::MIN);
    let Reply::Array(names) = parts.next()? else { return None };
    let mut holes: Vec<Hole> = names.filter_map(|name| Hole::read(name.bytes()?)).collect();
    holes.sort_unstable_by_key(|hole| hole.to);
    let mut pairs = Vec::new();
    while let Some(field) = parts.next() {
        let value = parts.next()?;
        pairs.push((Bytes::copy_from_slice(field.bytes()?), Bytes::copy_from_slice(value.bytes()?)));
    }
    let field = |name: &str| {
        let (_, value) = pairs.iter().find(|(field, _)| field == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    };
    let late = field(keys::LATE).and_then(|text| {
        let (epoch, ms) = text.split_once(' ')?;
        let is_of_this = u64::from_str_radix(epoch, 16).ok()? == marker?.epoch;
        if is_of_this { ms.parse().ok().map(Timestamp::from_millis) } else { None }
    });
    let ended = end.and_then(|end| runs::ended(end.state, field(keys::REASON).map(str::as_bytes)));
    Some(CopiedTopic {
        epoch: marker.map_or(Epoch::Unmarked, |marker| Epoch::Marked(marker.epoch)),
        born: marker.and_then(|marker| marker.born),
        late,
        length,
        first,
        // A new stream has a last id in front of its first.
        last: if given == Some(0) { MessageId::MIN } else { last },
        given,
        taken_out,
        taken_out_by_others: None,
        untold: None,
        holes: holes.into_iter().map(|Hole { from, to }| CopiedHole { from, to }).collect(),
        ended,
        freeze: end.and_then(|end| end.freeze),
        topic: describe(topic, &pairs),
    })
}

/// Returns field and value pairs of the description of a topic.
pub(super) fn described(other: &CopiedTopic) -> Vec<String> {
    let topic = &other.topic;
    let update = TopicUpdate {
        description: topic.description.clone(),
        retention_seconds: topic.retention_seconds,
        max_messages: topic.max_messages,
        max_bytes: topic.max_bytes,
        when_full: Some(topic.when_full),
        keep_until_acked: Some(topic.keep_until_acked),
        idle_seconds: topic.idle_seconds,
        compact_by: topic.compact_by.clone(),
    };
    let mut pairs = vec!["imported".to_owned(), "1".to_owned()];
    let mut add = |field: &str, value: String| pairs.extend([field.to_owned(), value]);
    if let Some(created_at) = topic.created_at {
        add("created_at", created_at.to_string());
    }
    if let Some(owner) = &topic.owner_id {
        add(OWNER, owner.clone());
    }
    for (field, value) in parts_of(&update.into()) {
        if let Some(value) = value {
            add(field, value);
        }
    }
    if let Some(reason) = other.ended.as_ref().and_then(|ended| ended.reason.as_ref()) {
        add(keys::REASON, reason.to_string());
    }
    if let (Some(late), Epoch::Marked(epoch)) = (other.late, other.epoch) {
        add(keys::LATE, format!("{epoch:016x} {}", late.as_millis()));
    }
    pairs
}
