//! How a message stands in a stream entry, and how entries of other producers are read.
//!
//! Fields in this order, so that a stream's node stores their names once: `payload`, `timestamp`,
//! then only if present `metadata`, `content_type`, `expires_at` (Unix milliseconds), `order_key`.
//!
//! An entry is ours if it has each of these fields at most once and `payload` for certain, if its
//! payload is JSON that every reader can read or has a content type of something else, and if its metadata is
//! a JSON object and its order key one. `message_id`,
//! which pulsar-relay writes, is allowed and ignored. Of any other entry all fields become the
//! payload, as a JSON object in the entry's order: what is not UTF-8 as `{"base64":"…"}`, a name that is not as
//! `base64:…`, a repeated field as an array at the place of its first value.
//!
//! What is read is copied out of the reply, each message for itself. A part of the reply would cost less to
//! make (of a page of 100 that takes the relay 85 µs, all that is allocated and freed takes 7), but would
//! keep all of the buffer that it came in: a feed's ring holds messages for as long as its topic is quiet,
//! and one of 100 bytes would hold up to a page's 8 MiB.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::IgnoredAny;
use tidemill_proto::limits::CONTENT_TYPE_BYTES_MAX;
use tidemill_proto::locks::{Fence, Guarded};
use tidemill_proto::{MessageId, OrderKey, Timestamp, content_type, json};

use super::keys::{Keys, fences};
use super::resp::{Arguments, Command, Item, Reply, Request, Walk};
use super::scripts::{APPEND_BOUNDED, APPEND_FENCED};
use crate::storage::{
    Body, FENCE_KEPT, HELD_TIMES, Idempotency, NewMessage, StoredMessage, TopicPolicy, Unique,
};

/// What stands before the name of a field that is told in base64.
const NAME_MARK: &str = "base64:";

/// Adds the command that appends a message.
///
/// `NOMKSTREAM` makes the server answer nil where the topic does not exist, so that topics are made
/// in one place, with their description and under their limit.
pub(super) fn append(request: &mut Request, keys: Keys, message: &NewMessage) {
    let mut command = request.begin(2 + arguments_behind_key(message));
    command.arg(b"XADD").joined(&keys.stream_parts(&message.topic));
    behind_key(&mut command, message);
}

/// Adds the command that appends a message under its idempotency key, by the digest of its script.
pub(super) fn append_once(
    request: &mut Request,
    keys: Keys,
    message: &NewMessage,
    once: &Idempotency,
    (digest, window_ms): (&[u8], u64),
) {
    let mut command = request.begin(8 + arguments_behind_key(message));
    command.arg(b"EVALSHA").arg(digest).arg(b"2").joined(&keys.stream_parts(&message.topic));
    command.arg(keys.idempotency(&message.topic, &once.key).as_bytes());
    command.arg(&digits(once.fingerprint)).number(window_ms);
    timestamp(&mut command, message.timestamp);
    behind_key(&mut command, message);
}

/// Adds the command that appends a message behind a certain one, under its idempotency key if it has one, by the
/// digest of its script.
pub(super) fn append_if(
    request: &mut Request,
    keys: Keys,
    message: &NewMessage,
    last: MessageId,
    (digest, window_ms): (&[u8], u64),
) {
    let once = message.idempotency.as_ref();
    let names = 1 + usize::from(once.is_some());
    let mut command = request.begin(7 + names + arguments_behind_key(message));
    command.arg(b"EVALSHA").arg(digest).number(names as u64).joined(&keys.stream_parts(&message.topic));
    match once {
        Some(once) => {
            command.arg(keys.idempotency(&message.topic, &once.key).as_bytes());
            command.arg(&digits(once.fingerprint)).number(window_ms);
        }
        None => _ = command.arg(b"").arg(b""),
    }
    timestamp(&mut command, message.timestamp);
    command.arg(last.text().as_bytes());
    behind_key(&mut command, message);
}

/// Adds the command that appends a message where its topic has room, behind a certain one and under its idempotency key
/// if it has these.
pub(super) fn append_bounded(request: &mut Request, keys: Keys, message: &NewMessage, window_ms: u64) {
    let names = 2 + usize::from(message.idempotency.is_some());
    let mut command = request.begin(11 + names + arguments_behind_key(message));
    command.arg(b"EVALSHA").arg(APPEND_BOUNDED.digest().as_bytes()).number(names as u64);
    command.joined(&keys.stream_parts(&message.topic));
    command.arg(keys.description(&message.topic).as_bytes());
    conditions(&mut command, keys, message, window_ms);
    kept(&mut command, &message.policy);
    behind_key(&mut command, message);
}

/// Adds the command that appends a message by who holds a lock, with all that [`append_bounded`] says.
pub(super) fn append_fenced(
    request: &mut Request,
    keys: Keys,
    message: &NewMessage,
    fence: &Fence,
    window_ms: u64,
) {
    let names = 4 + usize::from(message.idempotency.is_some());
    let mut command = request.begin(14 + names + arguments_behind_key(message));
    command.arg(b"EVALSHA").arg(APPEND_FENCED.digest().as_bytes()).number(names as u64);
    command.joined(&keys.stream_parts(&message.topic));
    command.arg(keys.description(&message.topic).as_bytes());
    for key in fences(Guarded::Topic(message.topic.clone()), &fence.lock) {
        command.arg(key.as_bytes());
    }
    conditions(&mut command, keys, message, window_ms);
    kept(&mut command, &message.policy);
    command.arg(fence.lock.as_str().as_bytes()).arg(fence.fence.text().as_bytes());
    command.number(u64::try_from(FENCE_KEPT.as_millis()).unwrap_or(u64::MAX));
    behind_key(&mut command, message);
}

/// Adds the remembered key, if there is an idempotency key, with what is remembered; the timestamp; and the id behind
/// which alone the message is kept, empty where that is any.
fn conditions(command: &mut Command<'_>, keys: Keys, message: &NewMessage, window_ms: u64) {
    match &message.idempotency {
        Some(once) => {
            command.arg(keys.idempotency(&message.topic, &once.key).as_bytes());
            command.arg(&digits(once.fingerprint)).number(window_ms);
        }
        None => _ = command.arg(b"").arg(b""),
    }
    timestamp(command, message.timestamp);
    match message.expected_last {
        Some(last) => command.arg(last.text().as_bytes()),
        None => command.arg(b""),
    };
}

/// Adds what a topic keeps that says nothing itself, and how many times as much groups may hold.
pub(super) fn kept(command: &mut Command<'_>, policy: &TopicPolicy) {
    command.number(policy.number);
    match policy.bytes {
        Some(bytes) => command.number(bytes),
        None => command.arg(b""),
    };
    let [times, times_bytes, _] = HELD_TIMES;
    command.number(times).number(times_bytes);
}

/// Adds the command that appends a message under a unique key, with all that it says else, by the digest of its script.
pub(super) fn append_unique(
    request: &mut Request,
    keys: Keys,
    message: &NewMessage,
    unique: &Unique,
    (digest, window_ms): (&[u8], u64),
) {
    let names = 5 + usize::from(message.idempotency.is_some());
    let mut command = request.begin(13 + names + arguments_behind_key(message));
    command.arg(b"EVALSHA").arg(digest).number(names as u64).joined(&keys.stream_parts(&message.topic));
    for key in keys.uniqueness(&message.topic, &unique.group) {
        command.arg(key.as_bytes());
    }
    command.arg(keys.description(&message.topic).as_bytes());
    conditions(&mut command, keys, message, window_ms);
    command.arg(unique.group.as_str().as_bytes()).arg(unique.key.as_bytes());
    kept(&mut command, &message.policy);
    behind_key(&mut command, message);
}

/// Returns the bytes that the command for a message takes at the most, or a little less: a guess for
/// the size of a buffer.
pub(super) fn append_bytes(message: &NewMessage) -> usize {
    /// Of a command without its topic, its body, and what an idempotency key adds.
    const FIXED: usize = 192;
    const ONCE: usize = 320;
    const UNIQUE: usize = 1_536;
    const FENCED: usize = 1_024;
    let once = message.idempotency.as_ref().map_or(0, |once| ONCE + once.key.len());
    let conditional = message.expected_last.map_or(0, |_| MessageId::TEXT_BYTES_MAX + 64);
    let unique = message.unique.as_ref().map_or(0, |unique| UNIQUE + unique.key.len());
    let fenced = message.fence.as_ref().map_or(0, |fence| FENCED + 2 * fence.lock.as_str().len());
    FIXED + conditional + unique + fenced + 2 * message.topic.as_str().len() + message.body.len_bytes() + once
}

fn arguments_behind_key(message: &NewMessage) -> usize {
    let optional = usize::from(message.body.metadata.is_some())
        + usize::from(message.body.content_type.is_some())
        + usize::from(message.expires_at.is_some())
        + usize::from(message.body.order_key.is_some());
    6 + 2 * optional
}

/// Adds a message that has an id, as scripts take it over: the id, how many arguments follow, and these.
pub(super) fn import(arguments: &mut Arguments, message: &StoredMessage) {
    let StoredMessage { id, timestamp, expires_at, body } = message;
    let Body { payload, metadata, content_type, order_key } = body;
    let optional = usize::from(metadata.is_some())
        + usize::from(content_type.is_some())
        + usize::from(expires_at.is_some())
        + usize::from(order_key.is_some());
    let count: &[u8] = [b"4", b"6", b"8", &b"10"[..], b"12"][optional];
    arguments.add(id.text().as_bytes()).add(count);
    arguments.add(b"payload").add(payload).add(b"timestamp").add(timestamp.text().as_bytes());
    if let Some(metadata) = metadata {
        arguments.add(b"metadata").add(metadata);
    }
    if let Some(content_type) = content_type {
        arguments.add(b"content_type").add(content_type.as_bytes());
    }
    if let Some(expires_at) = expires_at {
        arguments.add(b"expires_at").add(expires_at.as_millis().to_string().as_bytes());
    }
    if let Some(key) = order_key {
        arguments.add(b"order_key").add(key.as_str().as_bytes());
    }
}

/// Adds what follows the key in an `XADD`: id and fields.
fn behind_key(command: &mut Command<'_>, message: &NewMessage) {
    command.arg(b"NOMKSTREAM").arg(b"*");
    command.arg(b"payload").arg(&message.body.payload).arg(b"timestamp");
    timestamp(command, message.timestamp);
    if let Some(metadata) = &message.body.metadata {
        command.arg(b"metadata").arg(metadata);
    }
    if let Some(content_type) = &message.body.content_type {
        command.arg(b"content_type").arg(content_type.as_bytes());
    }
    if let Some(expires_at) = message.expires_at {
        command.arg(b"expires_at").number(expires_at.as_millis());
    }
    if let Some(key) = &message.body.order_key {
        command.arg(b"order_key").arg(key.as_str().as_bytes());
    }
}

fn timestamp(command: &mut Command<'_>, timestamp: Timestamp) {
    command.arg(timestamp.text().as_bytes());
}

pub(super) fn digits(bytes: [u8; 16]) -> [u8; 32] {
    let mut digits = [0; 32];
    hex::encode_to_slice(bytes, &mut digits).expect("a byte has two digits");
    digits
}

/// Decodes the reply to `XRANGE` or `XREVRANGE`; `None` if it has another form.
pub(super) fn read_all(reply: Reply<'_>) -> Option<Vec<StoredMessage>> {
    let Reply::Array(parts) = reply else { return None };
    let count = parts.left();
    let mut walk = parts.walk();
    let mut entries = Vec::with_capacity(count);
    let mut pairs = Vec::with_capacity(4);
    for _ in 0..count {
        entries.push(read(&mut walk, &mut pairs)?);
    }
    Some(entries)
}

/// A field and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// Decodes the next entry. `pairs` is room for its fields.
fn read<'a>(walk: &mut Walk<'a>, pairs: &mut Vec<Pair<'a>>) -> Option<StoredMessage> {
    let Item::Elements(2) = walk.step()? else { return None };
    let id = read_id(walk.bytes()?)?;
    let Item::Elements(fields) = walk.step()? else { return None };
    pairs.clear();
    for _ in 0..fields / 2 {
        pairs.push((walk.bytes()?, walk.bytes()?));
    }
    if fields % 2 != 0 {
        return None;
    }
    Some(ours(id, pairs).unwrap_or_else(|| foreign(id, pairs)))
}

/// Reads an entry id.
pub(super) fn read_id(text: &[u8]) -> Option<MessageId> {
    MessageId::parse(std::str::from_utf8(text).ok()?).ok()
}

fn ours(id: MessageId, pairs: &[Pair<'_>]) -> Option<StoredMessage> {
    let (mut payload, mut timestamp, mut metadata, mut content_type, mut expires_at) =
        (None, None, None, None, None);
    let (mut order_key, mut foreign_id) = (None, None);
    for &(name, value) in pairs {
        let place = match name {
            b"payload" => &mut payload,
            b"timestamp" => &mut timestamp,
            b"metadata" => &mut metadata,
            b"content_type" => &mut content_type,
            b"expires_at" => &mut expires_at,
            b"order_key" => &mut order_key,
            b"message_id" => &mut foreign_id,
            _ => return None,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    let payload = payload?;
    let content_type = match content_type {
        Some(value) => Some(read_content_type(value)?),
        None => None,
    };
    if content_type.as_deref().is_none_or(content_type::is_json) && !is_json(payload) {
        return None;
    }
    if metadata.is_some_and(|metadata| !is_json_object(metadata)) {
        return None;
    }
    let timestamp = match timestamp {
        Some(text) => Timestamp::parse(std::str::from_utf8(text).ok()?).ok()?,
        None => Timestamp::from_millis(id.ms),
    };
    let expires_at = match expires_at {
        Some(text) => Some(Timestamp::from_millis(std::str::from_utf8(text).ok()?.parse().ok()?)),
        None => None,
    };
    let order_key = match order_key {
        Some(bytes) => Some(OrderKey::parse_bytes(bytes).ok()?),
        None => None,
    };
    let payload = Bytes::copy_from_slice(payload);
    let content_type = content_type.filter(|kind| !content_type::is_plain_json(kind));
    let body = Body { payload, content_type, metadata: metadata.map(Bytes::copy_from_slice), order_key };
    Some(StoredMessage { id, timestamp, expires_at, body })
}

fn read_content_type(value: &[u8]) -> Option<Box<str>> {
    let readable = !value.is_empty()
        && value.len() <= CONTENT_TYPE_BYTES_MAX
        && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if readable { std::str::from_utf8(value).ok().map(Box::from) } else { None }
}

/// Whether every reader can read the text as JSON: what is not, is served as a string.
fn is_json(text: &[u8]) -> bool {
    json::check_readable(text).is_ok()
        && serde_json::from_slice::<IgnoredAny>(text).is_ok()
        && std::str::from_utf8(text).is_ok()
}

fn is_json_object(text: &[u8]) -> bool {
    text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') && is_json(text)
}

fn foreign(id: MessageId, pairs: &[Pair<'_>]) -> StoredMessage {
    let mut fields: Vec<(&[u8], Vec<&[u8]>)> = Vec::with_capacity(pairs.len());
    let mut places = std::collections::HashMap::with_capacity(pairs.len());
    for &(name, value) in pairs {
        let place = *places.entry(name).or_insert_with(|| {
            fields.push((name, Vec::with_capacity(1)));
            fields.len() - 1
        });
        fields[place].1.push(value);
    }
    let mut json = vec![b'{'];
    for (at, (name, values)) in fields.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        write_name(&mut json, name);
        json.push(b':');
        if let [value] = values[..] {
            write_value(&mut json, value);
        } else {
            json.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                write_value(&mut json, value);
            }
            json.push(b']');
        }
    }
    json.push(b'}');
    let body = Body { payload: Bytes::from(json), content_type: None, metadata: None, order_key: None };
    StoredMessage { id, timestamp: Timestamp::from_millis(id.ms), expires_at: None, body }
}

/// Writes the name of a field. What is not UTF-8 is told in base64 behind [`NAME_MARK`], and so is a name that
/// begins with that itself: no two names are told alike.
fn write_name(json: &mut Vec<u8>, name: &[u8]) {
    match std::str::from_utf8(name) {
        Ok(text) if !text.starts_with(NAME_MARK) => write_text(json, text),
        _ => write_text(json, &format!("{NAME_MARK}{}", BASE64.encode(name))),
    }
}

fn write_value(json: &mut Vec<u8>, value: &[u8]) {
    if let Ok(text) = std::str::from_utf8(value) {
        write_text(json, text);
    } else {
        json.extend_from_slice(br#"{"base64":""#);
        json.extend_from_slice(BASE64.encode(value).as_bytes());
        json.extend_from_slice(br#""}"#);
    }
}

fn write_text(json: &mut Vec<u8>, text: &str) {
    // Writing a string into a vector cannot fail.
    let _ = serde_json::to_writer(json, text);
}
