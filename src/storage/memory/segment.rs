//! A segment: a bounded run of messages of one topic, in two allocations.
//!
//! It owns how a message is laid out in memory and what that weighs. It must not know topics, ids'
//! meaning, or who reads.

use std::ops::Range;

use bytes::Bytes;
use tidemill_proto::limits::{CONTENT_TYPE_BYTES_MAX, ORDER_KEY_BYTES_MAX};
use tidemill_proto::{MessageId, OrderKey, Timestamp};

use crate::storage::{Body, StoredMessage};

/// Bytes of bodies in a segment, except that a larger message has one to itself. Small enough that
/// growing an open segment, or a reader that holds a page of it, costs little; large enough that what
/// a segment costs besides is nothing per message.
pub(super) const SEGMENT_BYTES_MAX: usize = 64 * 1024;
/// Messages in a segment.
pub(super) const SEGMENT_ENTRIES_MAX: usize = 512;
/// What a body may weigh, so that offsets fit into 32 bits with room for the two marks below.
pub(super) const BODY_BYTES_MAX: usize = 1 << 30;

/// What the allocator and the sharing of bytes add to a segment: the rounding of two allocations and
/// the reference count that `Bytes` makes at the first share.
const SEGMENT_EXTRA_BYTES: usize = 64;
/// Stands for an absent part where a length is expected.
const ABSENT: u32 = u32::MAX;
/// The same where the part is short.
const SHORT_ABSENT: u16 = u16::MAX;
/// Stands for "never" where a time is expected.
const NEVER: u64 = u64::MAX;

/// What is known of a message besides its bytes, which lie in the segment's bodies: payload, then
/// metadata, content type, order key.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: MessageId,
    timestamp: Timestamp,
    expires_at_ms: u64,
    start: u32,
    payload_len: u32,
    metadata_len: u32,
    content_type_len: u16,
    order_key_len: u16,
}

const _: () = assert!(size_of::<Record>() == 48);
const _: () = assert!(BODY_BYTES_MAX + SEGMENT_BYTES_MAX < ABSENT as usize);
const _: () = assert!(CONTENT_TYPE_BYTES_MAX < SHORT_ABSENT as usize);
const _: () = assert!(ORDER_KEY_BYTES_MAX < SHORT_ABSENT as usize);

impl Record {
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at_ms <= now.as_millis()
    }

    /// Returns from when on it is not returned.
    fn expires_at(&self) -> Option<Timestamp> {
        (self.expires_at_ms != NEVER).then(|| Timestamp::from_millis(self.expires_at_ms))
    }

    /// Returns how many bytes its body has.
    pub(super) fn body_bytes(&self) -> usize {
        let short = present_short(self.content_type_len) + present_short(self.order_key_len);
        (self.payload_len + present(self.metadata_len) + short) as usize
    }

    fn body_range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.body_bytes()
    }

    /// Returns the message, whose body lies in `shared` at `at`.
    fn to_message(&self, shared: &Bytes, at: usize) -> StoredMessage {
        let metadata_at = at + self.payload_len as usize;
        let content_type_at = metadata_at + present(self.metadata_len) as usize;
        let order_key_at = content_type_at + present_short(self.content_type_len) as usize;
        let part =
            |start: usize, len: u32| (len != ABSENT).then(|| shared.slice(start..start + len as usize));
        let short = |start: usize, len: u16| {
            let bytes = (len != SHORT_ABSENT).then(|| &shared[start..start + usize::from(len)]);
            bytes.map(String::from_utf8_lossy)
        };
        StoredMessage {
            id: self.id,
            timestamp: self.timestamp,
            expires_at: self.expires_at(),
            body: Body {
                payload: shared.slice(at..metadata_at),
                metadata: part(metadata_at, self.metadata_len),
                content_type: short(content_type_at, self.content_type_len).map(Into::into),
                order_key: short(order_key_at, self.order_key_len)
                    .and_then(|text| OrderKey::parse(&text).ok()),
            },
        }
    }
}

fn present(len: u32) -> u32 {
    if len == ABSENT { 0 } else { len }
}

fn present_short(len: u16) -> u32 {
    if len == SHORT_ABSENT { 0 } else { u32::from(len) }
}

/// A length of a short part as an entry holds it.
fn length_short(part: Option<&str>) -> u16 {
    part.map_or(SHORT_ABSENT, |text| u16::try_from(text.len()).expect("the wire has bounds for short parts"))
}

/// A length as an entry holds it. [`BODY_BYTES_MAX`] keeps every length below the mark.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("bodies are checked against BODY_BYTES_MAX")
}

/// The bytes of a segment. Only the newest segment of a topic is open.
#[derive(Debug)]
enum Bodies {
    /// Grows; pages get copies.
    Open(Vec<u8>),
    /// Has its final size; pages share it.
    Sealed(Bytes),
}

/// A run of messages. It has at least one.
#[derive(Debug)]
pub(super) struct Segment {
    entries: Vec<Record>,
    bodies: Bodies,
}

impl Segment {
    /// Returns an open segment for a first message with `body_bytes`.
    pub(super) fn open(body_bytes: usize) -> Self {
        Self { entries: Vec::with_capacity(1), bodies: Bodies::Open(Vec::with_capacity(body_bytes)) }
    }

    /// Returns the bytes that a new segment with one such message holds.
    pub(super) const fn bytes_of_one(body_bytes: usize) -> usize {
        size_of::<Record>() + body_bytes + SEGMENT_EXTRA_BYTES
    }

    pub(super) fn entries(&self) -> &[Record] {
        &self.entries
    }

    pub(super) fn last_id(&self) -> Option<MessageId> {
        self.entries.last().map(|entry| entry.id)
    }

    /// Returns the bytes that the segment holds, used or not.
    pub(super) fn bytes(&self) -> usize {
        let bodies = match &self.bodies {
            Bodies::Open(bodies) => bodies.capacity(),
            Bodies::Sealed(bodies) => bodies.len(),
        };
        self.entries.capacity() * size_of::<Record>() + bodies + SEGMENT_EXTRA_BYTES
    }

    /// Returns by how much [`bytes`](Self::bytes) grows when a message is pushed, or `None` if it has
    /// no place here.
    pub(super) fn growth(&self, body_bytes: usize, entries_max: usize) -> Option<usize> {
        let Bodies::Open(bodies) = &self.bodies else { return None };
        if self.entries.len() >= entries_max || bodies.len() + body_bytes > SEGMENT_BYTES_MAX {
            return None;
        }
        let entries = entries_capacity(&self.entries, entries_max) - self.entries.capacity();
        let bodies = bodies_capacity(bodies, body_bytes) - bodies.capacity();
        Some(entries * size_of::<Record>() + bodies)
    }

    /// Adds a message for which [`growth`](Self::growth) has found a place.
    pub(super) fn push(
        &mut self,
        id: MessageId,
        timestamp: Timestamp,
        expires_at: Option<Timestamp>,
        body: &Body,
        entries_max: usize,
    ) {
        let Bodies::Open(bodies) = &mut self.bodies else { unreachable!("a sealed segment has no place") };
        let entries_target = entries_capacity(&self.entries, entries_max);
        self.entries.reserve_exact(entries_target - self.entries.len());
        let bodies_target = bodies_capacity(bodies, body.len_bytes());
        bodies.reserve_exact(bodies_target - bodies.len());

        self.entries.push(Record {
            id,
            timestamp,
            expires_at_ms: expires_at.map_or(NEVER, Timestamp::as_millis),
            start: length(bodies.len()),
            payload_len: length(body.payload.len()),
            metadata_len: body.metadata.as_ref().map_or(ABSENT, |bytes| length(bytes.len())),
            content_type_len: length_short(body.content_type.as_deref()),
            order_key_len: length_short(body.order_key.as_ref().map(OrderKey::as_str)),
        });
        bodies.extend_from_slice(&body.payload);
        bodies.extend_from_slice(body.metadata.as_deref().unwrap_or_default());
        bodies.extend_from_slice(body.content_type.as_deref().unwrap_or_default().as_bytes());
        bodies.extend_from_slice(body.order_key.as_ref().map_or("", OrderKey::as_str).as_bytes());
    }

    /// Gives back what was reserved for more messages; from now on pages share the bytes.
    pub(super) fn seal(&mut self) {
        self.entries.shrink_to_fit();
        if let Bodies::Open(bodies) = &mut self.bodies {
            self.bodies = Bodies::Sealed(Bytes::from(std::mem::take(bodies).into_boxed_slice()));
        }
    }

    /// Forgets one of several messages and gives its memory back.
    pub(super) fn remove(&mut self, at: usize) {
        let gone = self.entries.remove(at).body_range();
        self.entries.shrink_to_fit();
        let len = length(gone.len());
        for entry in self.entries.iter_mut().filter(|entry| entry.start as usize > gone.start) {
            entry.start -= len;
        }
        match &mut self.bodies {
            Bodies::Open(bodies) => {
                bodies.drain(gone);
                bodies.shrink_to_fit();
            }
            Bodies::Sealed(bodies) => *bodies = [&bodies[..gone.start], &bodies[gone.end..]].concat().into(),
        }
    }

    /// Forgets the first `count` messages and gives their memory back.
    pub(super) fn drop_first(&mut self, count: usize) {
        let Some(first) = self.entries.get(count) else { return };
        let start = first.start;
        self.entries.drain(..count);
        self.entries.shrink_to_fit();
        for entry in &mut self.entries {
            entry.start -= start;
        }
        match &mut self.bodies {
            Bodies::Open(bodies) => {
                bodies.drain(..start as usize);
                bodies.shrink_to_fit();
            }
            Bodies::Sealed(bodies) => *bodies = Bytes::copy_from_slice(&bodies[start as usize..]),
        }
    }

    /// Appends the messages of `picked`, entries of this segment in either order, to `messages`.
    pub(super) fn collect(&self, picked: &[&Record], messages: &mut Vec<StoredMessage>) {
        let ranges = || picked.iter().map(|entry| entry.body_range());
        let start = ranges().map(|range| range.start).min().unwrap_or(0);
        let end = ranges().map(|range| range.end).max().unwrap_or(0);
        let shared = match &self.bodies {
            Bodies::Open(bodies) => Bytes::copy_from_slice(&bodies[start..end]),
            Bodies::Sealed(bodies) => bodies.slice(start..end),
        };
        messages.extend(picked.iter().map(|entry| entry.to_message(&shared, entry.start as usize - start)));
    }
}

/// Returns the capacity for one entry more: a quarter more at a time, so that the tail of a topic
/// wastes little, and pushing stays constant on average.
fn entries_capacity(entries: &Vec<Record>, entries_max: usize) -> usize {
    let capacity = entries.capacity();
    if entries.len() < capacity {
        return capacity;
    }
    (capacity + (capacity / 4).max(3)).min(entries_max.max(capacity + 1))
}

/// Returns the capacity for a body more, likewise.
fn bodies_capacity(bodies: &Vec<u8>, body_bytes: usize) -> usize {
    let needed = bodies.len() + body_bytes;
    if needed <= bodies.capacity() {
        return bodies.capacity();
    }
    (bodies.capacity() + bodies.capacity() / 4).min(SEGMENT_BYTES_MAX).max(needed)
}
