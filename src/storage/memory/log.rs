//! The log of a topic: segments from old to new.
//!
//! It owns the order of ids, seeking, pages and trimming. It must not know other topics, limits on
//! all of them together, or idempotency keys.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use tidemill_proto::page::Order;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use self::page::Page;
pub(super) use self::taken_over::check_goes_on;
use super::segment::{SEGMENT_ENTRIES_MAX, Segment};
use crate::storage::history::{Facts, Forgotten, Hole, Untold};
use crate::storage::{
    Batch, Body, DELETED_MAX, Epoch, GapCheck, HELD_TIMES, NewMessage, Range, StoredMessage, Tail, TakenOut,
    TopicPolicy, Trim,
};

mod known;
mod page;
mod taken_over;
mod walk;

/// Expired messages that one read steps over before it returns to say how far it came: enough for
/// any page that a sweep keeps tidy, and well under a millisecond.
pub(super) const EXPIRED_PER_READ_MAX: usize = 10_000;
/// Bytes of a deleted message of which that is remembered: its id, in a tree whose nodes are half full at worst.
const DELETED_BYTES: usize = 2 * size_of::<MessageId>() + 32;
/// Fewest messages in a full segment, whatever a topic may keep.
const SEGMENT_ENTRIES_MIN: usize = 16;

/// The messages of one topic.
#[derive(Debug)]
pub(super) struct Log {
    /// Old to new; only the newest may be open. None is without messages.
    segments: VecDeque<Segment>,
    /// Entries at the start of the first segment that are trimmed but still in memory.
    trimmed: usize,
    length: usize,
    /// The last id given.
    last: MessageId,
    /// The id before the first that this log can give.
    made_after: MessageId,
    /// The newest message that was removed.
    last_removed: Option<MessageId>,
    /// Which of the topics that have had its name.
    epoch: Epoch,
    /// How many messages were ever given.
    given: u64,
    /// Messages that were deleted by request, of which that is remembered.
    deleted: BTreeSet<MessageId>,
    /// Those that were older than these.
    forgotten: Forgotten,
    /// Where another storage had lost messages that it had confirmed, of which this one is a copy. Here nothing is lost.
    holes: Box<[Hole]>,
    /// Bytes of the segments.
    segments_bytes: usize,
}

/// A place between messages: a segment, and an entry in it before which the place lies.
#[derive(Clone, Copy)]
struct LogPosition {
    segment: usize,
    entry: usize,
}

/// Returns how many entries a segment has at most. What is removed from the front goes segment by segment:
/// with an eighth of a topic in each, at most an eighth more than the topic may keep is in memory.
fn entries_max(policy: &TopicPolicy) -> usize {
    let eighth = usize::try_from(policy.number / 8).unwrap_or(usize::MAX);
    eighth.clamp(SEGMENT_ENTRIES_MIN, SEGMENT_ENTRIES_MAX)
}

impl Log {
    /// Returns an empty log that gives ids after `last`, and none of a millisecond before now.
    pub(super) fn new(last: MessageId, epoch: Epoch, now: Timestamp) -> Self {
        // One id is left out: a reader that stands there knows that this is another topic than the one
        // that may have given `last`.
        let last = last.next().unwrap_or(last);
        let last = MessageId::new(now.as_millis(), 0).previous().map_or(last, |before| last.max(before));
        Self {
            segments: VecDeque::new(),
            trimmed: 0,
            length: 0,
            last,
            made_after: last,
            last_removed: None,
            epoch,
            given: 0,
            deleted: BTreeSet::new(),
            forgotten: Forgotten::NONE,
            holes: Box::default(),
            segments_bytes: 0,
        }
    }

    pub(super) fn given(&self) -> u64 {
        self.given
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Returns the last id given; its message need not be kept.
    pub(super) fn last_given(&self) -> MessageId {
        self.last
    }

    /// Returns the newest end: the last id given in this log, and how many were given.
    pub(super) fn tail(&self) -> Tail {
        Tail {
            first: self.first_id(),
            last: (self.given > 0).then_some(self.last),
            given: Some(self.given),
            epoch: self.epoch,
            born: self.made_after.next(),
            // Nobody else gives ids.
            late: None,
            // The topic tells.
            ended: None,
        }
    }

    pub(super) fn first_id(&self) -> Option<MessageId> {
        self.segments.front().and_then(|segment| segment.entries().get(self.trimmed)).map(|entry| entry.id)
    }

    pub(super) fn last_id(&self) -> Option<MessageId> {
        self.segments.back().and_then(Segment::last_id)
    }

    /// Returns the bytes that the messages hold, and what is remembered of deleted ones; 0 if there are none.
    pub(super) fn bytes(&self) -> usize {
        self.segments_bytes
            + self.segments.capacity() * size_of::<Segment>()
            + self.deleted.len() * DELETED_BYTES
            + size_of_val(&*self.holes)
    }

    /// Returns the bytes that one message in an empty log holds.
    pub(super) const fn bytes_of_one(body_bytes: usize) -> usize {
        Segment::bytes_of_one(body_bytes) + size_of::<Segment>()
    }

    /// Returns by how much [`bytes`](Self::bytes) grows at most when a message is appended under a policy.
    pub(super) fn growth(&self, body_bytes: usize, policy: &TopicPolicy) -> usize {
        let open = self.segments.back().and_then(|segment| segment.growth(body_bytes, entries_max(policy)));
        open.unwrap_or_else(|| {
            let slots = self.slots_for_one_more() - self.segments.capacity();
            Segment::bytes_of_one(body_bytes) + slots * size_of::<Segment>()
        })
    }

    /// Returns by how much [`bytes`](Self::bytes) grows at most when messages with these bodies are appended, whatever is
    /// removed before.
    pub(super) fn growth_of(&self, bodies: &[usize], policy: &TopicPolicy) -> usize {
        match bodies {
            [] => 0,
            [body_bytes] => self.growth(*body_bytes, policy),
            bodies => {
                let open = self.segments.back().map_or(0, Segment::bytes);
                let slots = self.segments.capacity() / 4 * size_of::<Segment>();
                Self::bytes_of(bodies) + open / 4 + slots
            }
        }
    }

    /// Returns the bytes that messages with these bodies hold at most in an empty log.
    pub(super) fn bytes_of(bodies: &[usize]) -> usize {
        match bodies {
            [] => 0,
            [body_bytes] => Self::bytes_of_one(*body_bytes),
            bodies => {
                let alone: usize = bodies.iter().map(|body_bytes| Self::bytes_of_one(*body_bytes)).sum();
                // Capacity grows by a quarter, and by four slots at the least.
                alone + alone / 4 + 4 * Self::bytes_of_one(0)
            }
        }
    }

    /// Appends a message, and returns its id: the time, or where that is not later, the next id. Then
    /// removes what its policy does not keep; the message itself stays.
    pub(super) fn append(
        &mut self,
        now: Timestamp,
        message: &NewMessage,
        policy: &TopicPolicy,
        held_from: Option<MessageId>,
    ) -> MessageId {
        let NewMessage { timestamp, expires_at, body, .. } = message;
        let id = if now.as_millis() > self.last.ms {
            MessageId::new(now.as_millis(), 0)
        } else {
            self.last.next().expect("times end long before 64 bits do")
        };
        self.push(id, *timestamp, *expires_at, body, policy);
        self.keep(policy, held_from, now);
        id
    }

    /// Adds a message behind all others.
    fn push(
        &mut self,
        id: MessageId,
        timestamp: Timestamp,
        expires_at: Option<Timestamp>,
        body: &Body,
        policy: &TopicPolicy,
    ) {
        let body_bytes = body.len_bytes();
        let entries_max = entries_max(policy);
        if self.segments.back().and_then(|open| open.growth(body_bytes, entries_max)).is_none() {
            self.open_segment(body_bytes);
        }
        if let Some(open) = self.segments.back_mut() {
            self.segments_bytes -= open.bytes();
            open.push(id, timestamp, expires_at, body, entries_max);
            self.segments_bytes += open.bytes();
        }
        self.last = id;
        self.length += 1;
        self.given += 1;
    }

    /// Removes what a policy does not keep, and groups do not hold: they hold from an id on, up to a bound. Memory goes
    /// back with whole segments.
    pub(super) fn keep(&mut self, policy: &TopicPolicy, held_from: Option<MessageId>, now: Timestamp) {
        let [times, times_bytes, _] = HELD_TIMES;
        let over = |number: u64| self.length.saturating_sub(usize::try_from(number).unwrap_or(usize::MAX));
        let count = match held_from {
            None => over(policy.number),
            Some(from) => {
                let free = over(policy.number).min(self.count_before(from));
                free.max(over(policy.number.saturating_mul(times)))
            }
        };
        self.remove_oldest(count);
        if let Some(age) = policy.age {
            self.remove_oldest(self.count_older(age, held_from, now));
        }
        let Some(bytes) = policy.bytes else { return };
        let most = usize::try_from(bytes.saturating_mul(times_bytes)).unwrap_or(usize::MAX);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        while let Some(first) = self.segments.front()
            && self.segments.len() > 1
        {
            let left = self.segments_bytes - first.bytes();
            let is_held = held_from.is_some_and(|from| first.last_id().is_some_and(|last| last >= from));
            if left < if is_held { most } else { bytes } {
                break;
            }
            let count = first.entries().len() - self.trimmed;
            self.remove_oldest(count);
        }
    }

    /// Returns how many messages are older than that, and not held, or older than they may be held.
    pub(super) fn count_older(&self, age: Duration, held_from: Option<MessageId>, now: Timestamp) -> usize {
        let [.., times] = HELD_TIMES;
        let before = |age| MessageId::new(now.saturating_sub(age).as_millis(), 0);
        let oldest = before(age);
        let most = before(age.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX)));
        self.count_before(held_from.map_or(oldest, |from| oldest.min(from.max(most))))
    }

    fn open_segment(&mut self, body_bytes: usize) {
        if let Some(full) = self.segments.back_mut() {
            self.segments_bytes -= full.bytes();
            full.seal();
            self.segments_bytes += full.bytes();
        }
        let slots = self.slots_for_one_more();
        self.segments.reserve_exact(slots - self.segments.len());
        let segment = Segment::open(body_bytes);
        self.segments_bytes += segment.bytes();
        self.segments.push_back(segment);
    }

    fn slots_for_one_more(&self) -> usize {
        let slots = self.segments.capacity();
        if self.segments.len() < slots { slots } else { slots + (slots / 4).max(1) }
    }

    /// Removes the `count` oldest messages. Memory goes back with whole segments.
    pub(super) fn remove_oldest(&mut self, count: usize) {
        let mut left = count.min(self.length);
        self.length -= left;
        while left > 0
            && let Some(first) = self.segments.front()
        {
            let kept = first.entries().len() - self.trimmed;
            let going = left.min(kept);
            self.last_removed = first.entries().get(self.trimmed + going - 1).map(|entry| entry.id);
            if left < kept {
                self.trimmed += left;
                break;
            }
            left -= kept;
            self.trimmed = 0;
            self.segments_bytes -= first.bytes();
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }

    /// Removes what a trim names, gives the memory back, and returns how many messages that were.
    pub(super) fn trim(&mut self, trim: Trim) -> usize {
        let count = match trim {
            Trim::Keep(keep) => self.length.saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX)),
            Trim::Before(id) => self.count_before(id),
        };
        if count > 0 {
            self.remove_oldest(count);
            self.compact();
        }
        count
    }

    /// Deletes the message with this id, and returns whether there was one.
    pub(super) fn remove(&mut self, id: MessageId) -> bool {
        if !self.keeps(id) {
            return false;
        }
        self.compact();
        let place = self.position_before(|entry| entry < id);
        let segment = &mut self.segments[place.segment];
        self.segments_bytes -= segment.bytes();
        if segment.entries().len() == 1 {
            self.segments.remove(place.segment);
        } else {
            segment.remove(place.entry);
            self.segments_bytes += segment.bytes();
        }
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
        self.length -= 1;
        self.deleted.insert(id);
        if self.deleted.len() > DELETED_MAX {
            self.deleted.pop_first();
        }
        true
    }

    /// Forgets which of the messages that are older than all were deleted by request, where others were removed
    /// with them, but not how many.
    pub(super) fn forget_deleted(&mut self) {
        if self.facts(MessageId::MIN).removed != Some(0)
            && let Some(first) = self.first_id()
        {
            let rest = self.deleted.split_off(&first);
            let gone = std::mem::replace(&mut self.deleted, rest);
            if let (Some(&oldest), Some(&to)) = (gone.first(), gone.last()) {
                let Forgotten { count, from, .. } = self.forgotten;
                let from = if count == 0 { oldest } else { from };
                self.forgotten = Forgotten { count: count + gone.len() as u64, from, to };
            }
        }
    }

    /// Removes a part of the oldest messages, so that memory comes free, and returns how many: a segment, or half of the
    /// last one, of these what lies before the id from which they are held. Where nothing is held, at least one.
    pub(super) fn evict(&mut self, held_from: Option<MessageId>) -> usize {
        let count = match self.segments.front() {
            Some(first) if self.segments.len() > 1 => first.entries().len() - self.trimmed,
            _ => self.length.div_ceil(2),
        };
        let count = held_from.map_or(count, |from| count.min(self.count_before(from)));
        self.remove_oldest(count);
        self.compact();
        count
    }

    /// Gives back the memory of messages that are removed already.
    pub(super) fn compact(&mut self) {
        if let Some(first) = self.segments.front_mut()
            && self.trimmed > 0
        {
            self.segments_bytes -= first.bytes();
            first.drop_first(self.trimmed);
            self.segments_bytes += first.bytes();
            self.trimmed = 0;
        }
        if self.segments.len() < self.segments.capacity() / 2 {
            self.segments.shrink_to_fit();
        }
    }

    pub(super) fn count_before(&self, id: MessageId) -> usize {
        let place = self.position_before(|entry| entry < id);
        let whole: usize =
            self.segments.iter().take(place.segment).map(|segment| segment.entries().len()).sum();
        whole + place.entry - self.trimmed
    }

    /// Returns the place after all kept ids that are `before`, which must be the smaller ones.
    fn position_before(&self, before: impl Fn(MessageId) -> bool) -> LogPosition {
        let segment = self.segments.partition_point(|segment| segment.last_id().is_some_and(&before));
        let entry = self.segments.get(segment).map_or(0, |found| {
            let entry = found.entries().partition_point(|entry| before(entry.id));
            if segment == 0 { entry.max(self.trimmed) } else { entry }
        });
        LogPosition { segment, entry }
    }

    /// Returns the message with this id, unless it has expired.
    pub(super) fn get(&self, id: MessageId, now: Timestamp) -> Option<StoredMessage> {
        let place = self.position_before(|entry| entry < id);
        let segment = self.segments.get(place.segment)?;
        let entry = segment.entries().get(place.entry)?;
        if entry.id != id || entry.is_expired(now) {
            return None;
        }
        let mut found = Vec::with_capacity(1);
        segment.collect(&[entry], &mut found);
        found.pop()
    }

    /// Returns the messages of a range that have not expired, and what the range has missed.
    pub(super) fn read(
        &self,
        topic: &TopicName,
        mut range: Range,
        untold: Option<Untold>,
        now: Timestamp,
    ) -> Batch {
        let cursor = range.after;
        let verdict = match (cursor, range.gap_check) {
            (Some(cursor), GapCheck::Seen | GapCheck::Follows { .. }) => {
                Facts { untold, ..self.facts(cursor) }.judge(
                    topic,
                    cursor,
                    range.gap_check,
                    self.behind(cursor),
                )
            }
            _ => None,
        };
        let gap = verdict.map(|verdict| {
            range.after = verdict.resume;
            verdict.gap
        });
        let mut page = Page::new(range, self.holes_in(range), now);
        let flow = match range.order {
            Order::Asc => self.read_ascending(range.after, &mut page),
            Order::Desc => self.read_descending(range.after, &mut page),
        };
        let mut batch = page.into_batch(gap, flow.is_continue());
        if range.gap_check != GapCheck::None {
            batch.epoch = Some(self.epoch);
            batch.taken_out =
                TakenOut { newest: self.deleted.last().copied(), by_request: self.deleted.len() as u64 };
        }
        if let (GapCheck::Follows { .. }, Some(reached)) = (range.gap_check, batch.reached)
            && range.after == cursor
        {
            let after = cursor.map_or(Bound::Unbounded, Bound::Excluded);
            batch.looked_at += self.deleted.range((after, Bound::Included(reached))).count() as u64;
        }
        batch
    }

    /// Returns the holes that a read of this range can come to.
    fn holes_in(&self, range: Range) -> &[Hole] {
        if range.order == Order::Asc { &self.holes } else { &[] }
    }

    fn read_ascending(&self, after: Option<MessageId>, page: &mut Page) -> ControlFlow<()> {
        let start = self.position_before(|entry| after.is_some_and(|after| entry <= after));
        let mut first = start.entry;
        for segment in self.segments.iter().skip(start.segment) {
            page.take(segment, segment.entries()[first..].iter())?;
            first = 0;
        }
        ControlFlow::Continue(())
    }

    fn read_descending(&self, after: Option<MessageId>, page: &mut Page) -> ControlFlow<()> {
        let end = self.position_before(|entry| after.is_none_or(|after| entry < after));
        for (at, segment) in self.segments.iter().enumerate().take(end.segment + 1).rev() {
            let entries = segment.entries();
            let first = if at == 0 { self.trimmed } else { 0 };
            let last = if at == end.segment { end.entry } else { entries.len() };
            page.take(segment, entries[first..last].iter().rev())?;
        }
        ControlFlow::Continue(())
    }
}
