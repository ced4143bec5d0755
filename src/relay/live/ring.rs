//! The ring of a feed: the newest messages of a topic, numbered in the order in which they came.
//!
//! Numbers are the ring's own, because ids are not enough: when a topic is made again behind the
//! relay's back, its ids may start anew. Where that happens, or the topic is gone, or the backend has lost
//! messages, the ring has a cut: who comes to it asks storage what that means for its own cursor. Between two
//! cuts all messages are of one topic, and ids only grow.
//!
//! A ring may lose what it holds at any time, from its front on: its readers go to storage then.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use tidemill_proto::topics::Closed;
use tidemill_proto::{Gap, MessageId, Timestamp};

use super::bookmark::Bookmark;
use super::message::{COPIES, LiveMessage};
use super::ring_bytes::{RingBytes, RingShare};
use crate::storage::Epoch;

/// Messages that have a time, of which may be remembered what the ring has lost.
const EXPIRING_MIN: usize = 64;
/// What a hole or a cut weighs, about.
const MARK_BYTES: usize = 128;

/// What a ring holds in one place.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// A message.
    Message(Arc<LiveMessage>),
    /// A hole where messages were removed, with the cursor from which the feed went on behind it.
    Gap(Arc<Gap>, Option<MessageId>),
    /// A cut: the topic in front of it had this epoch, and the feed went on from this cursor. Where the backend
    /// has lost messages of the topic, which loss it is: the cursor is behind what is left of what the ring had.
    Cut(Epoch, Option<MessageId>, Option<u64>),
    /// That a topic of several has ended. Only in the ring of a pattern.
    Closed(Arc<Closed>),
    /// Where a reader of a pattern can go on. Only in the ring of one, which has no cuts.
    Bookmark(Arc<Bookmark>),
}

/// The newest messages of a topic, or of those that a pattern covers.
#[derive(Debug)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// When the messages in it are over that have a time, with their numbers; also some that it has lost.
    expiring: BinaryHeap<Reverse<(Timestamp, u64)>>,
    bounds: Bounds,
    /// The number of the first slot.
    first: u64,
    /// The cursor in front of the first slot.
    before: Option<MessageId>,
    /// The cursor at the end.
    tail: Option<MessageId>,
    /// The number of the slot behind the last cut.
    starts: u64,
    /// How many cuts there were.
    cuts: u64,
    /// Which topic the tail lies in.
    epoch: Epoch,
    /// That this topic has ended, and the ring comes up to its end.
    ended: Option<Arc<Closed>>,
    /// The number of the slot after the last loss of the backend.
    lost_from: u64,
    /// How often the backend had lost messages that the feed had seen.
    losses: u64,
    bytes: usize,
    share: RingShare,
    /// The end when it was last asked whether anybody adds to the ring.
    eased_at: u64,
}

/// How much a ring keeps.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    items: usize,
    /// The newest is kept whatever it weighs, where all rings together have room for it.
    bytes: usize,
}

/// Of a topic.
const TOPIC: Bounds = Bounds { items: 1_024, bytes: 1024 * 1024 };
/// Of a pattern: who falls out of this one has to come back by every topic.
const PATTERN: Bounds = Bounds { items: 8 * 1_024, bytes: 4 * 1024 * 1024 };

/// Where a cursor lies, as a ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingPosition {
    /// Before what the ring knows, or between what it knows: the reader must read from storage.
    Elsewhere,
    /// In the ring, in front of the slot of this number.
    At(u64),
    /// Beyond what the feed has read; the next slot will get this number.
    Beyond(u64),
}

impl Ring {
    /// Returns an empty ring whose feed will read on from `tail`, in a topic of this epoch; what it holds is
    /// counted with `all`.
    pub(super) fn new(tail: Option<MessageId>, epoch: Epoch, all: &RingBytes) -> Self {
        Self { before: tail, tail, epoch, ..Self::empty(TOPIC, all) }
    }

    /// Returns an empty ring for the messages of several topics. Their ids tell no place in it.
    pub(super) fn of_pattern(all: &RingBytes) -> Self {
        Self::empty(PATTERN, all)
    }

    fn empty(bounds: Bounds, all: &RingBytes) -> Self {
        Self {
            slots: VecDeque::new(),
            expiring: BinaryHeap::new(),
            bounds,
            first: 0,
            before: None,
            tail: None,
            starts: 0,
            cuts: 0,
            epoch: Epoch::Unmarked,
            ended: None,
            lost_from: 0,
            losses: 0,
            bytes: 0,
            share: all.share(),
            eased_at: 0,
        }
    }

    /// Returns the number that the next slot will get.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Returns how many cuts there were: a cursor lies among the ring's ids if storage has known it since the
    /// last one.
    pub(super) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Returns which topic the tail lies in.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Notes the epoch of the topic, which had none.
    pub(super) fn mark(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Returns that the topic has ended, once the ring comes up to its end.
    pub(super) fn ended(&self) -> Option<&Arc<Closed>> {
        self.ended.as_ref()
    }

    /// Notes that the topic has ended: nothing comes behind the tail any more, but for another topic.
    pub(super) fn set_ended(&mut self, closed: Closed) {
        self.ended = Some(Arc::new(closed));
    }

    /// Returns what a reader in front of the slot of this number, which the ring has lost, was passed over by:
    /// a message of its topic. Behind a cut nobody knows which; there was one.
    pub(super) fn passed_over(&self, from: u64) -> MessageId {
        self.before.filter(|_| self.starts <= from).unwrap_or(MessageId::MIN)
    }

    /// Whether all slots from this number on are of one topic.
    pub(super) fn is_uncut_from(&self, number: u64) -> bool {
        self.starts <= number
    }

    /// Returns how often the backend had lost messages that the feed had seen, as after a failover.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// Whether a place lies behind all losses.
    pub(super) fn is_behind_losses(&self, number: u64) -> bool {
        self.lost_from <= number
    }

    /// Returns the number of the first slot.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn tail(&self) -> Option<MessageId> {
        self.tail
    }

    pub(super) fn push_message(&mut self, message: Arc<LiveMessage>) {
        self.tail = Some(message.id());
        if let Some(at) = message.stored().expires_at {
            self.expiring.push(Reverse((at, self.end())));
        }
        self.push(Slot::Message(message));
        if self.expiring.len() > 2 * self.slots.len().max(EXPIRING_MIN) {
            let first = self.first;
            self.expiring.retain(|Reverse((_, number))| *number >= first);
        }
    }

    /// Returns when there may be something to [expire](Self::expire).
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiring.peek().map(|Reverse((at, _))| *at)
    }

    /// Lets go of messages whose time is over, and of all in front of them: who has not got them asks storage, which shows
    /// those that are left.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let mut over = None;
        while let Some(Reverse((at, number))) = self.expiring.peek().copied()
            && at <= now
        {
            over = over.max(Some(number));
            self.expiring.pop();
        }
        while over.is_some_and(|number| self.first <= number) && !self.slots.is_empty() {
            self.drop_first();
        }
    }

    /// Adds a hole, behind which the feed goes on from `resume`.
    pub(super) fn push_gap(&mut self, gap: Gap, resume: Option<MessageId>) {
        self.tail = resume;
        self.push(Slot::Gap(Arc::new(gap), resume));
    }

    /// Adds a hole in one of several topics.
    pub(super) fn push_shared_gap(&mut self, gap: Arc<Gap>) {
        self.push(Slot::Gap(gap, None));
    }

    /// Adds that one of several topics has ended.
    pub(super) fn push_closed(&mut self, closed: Arc<Closed>) {
        self.push(Slot::Closed(closed));
    }

    /// Adds where a reader of a pattern can go on.
    pub(super) fn push_bookmark(&mut self, bookmark: Arc<Bookmark>) {
        self.push(Slot::Bookmark(bookmark));
    }

    /// Forgets all messages: some of them may have been taken out of the topic. Who has not got them asks
    /// storage.
    pub(super) fn forget(&mut self) {
        self.first = self.end();
        self.slots = VecDeque::new();
        self.expiring = BinaryHeap::new();
        self.bytes = 0;
        self.share.clear();
        self.before = self.tail;
    }

    /// Adds a cut, behind which the feed goes on from `resume`, in a topic of this epoch. `is_loss` where the
    /// backend has lost messages that the feed had seen.
    pub(super) fn cut(&mut self, epoch: Epoch, resume: Option<MessageId>, is_loss: bool) {
        let before = std::mem::replace(&mut self.epoch, epoch);
        self.tail = resume;
        self.ended = None;
        self.cuts += 1;
        self.starts = self.end() + 1;
        if is_loss {
            self.losses += 1;
            self.lost_from = self.starts;
        }
        let loss = is_loss.then_some(self.losses);
        self.push(Slot::Cut(before, resume, loss));
    }

    /// Whether nothing has come since the backend was found to have lost messages.
    pub(super) fn ends_with_loss(&self) -> bool {
        matches!(self.slots.back(), Some(Slot::Cut(_, _, Some(_))))
    }

    fn push(&mut self, slot: Slot) {
        let bytes = slot.len_bytes();
        self.bytes += bytes;
        self.share.add(bytes as u64 * COPIES);
        self.slots.push_back(slot);
        let Bounds { items, bytes } = self.bounds;
        while self.slots.len() > items || (self.bytes > bytes && self.slots.len() > 1) {
            self.drop_first();
        }
        while self.share.all().is_over() && !self.slots.is_empty() {
            self.drop_first();
        }
    }

    /// Lets go of everything where all rings hold much, and nobody has added to this one since it was last asked
    /// to.
    pub(super) fn ease(&mut self) {
        let end = self.end();
        if std::mem::replace(&mut self.eased_at, end) == end && self.share.all().is_tight() {
            self.forget();
        }
    }

    /// Moves the tail over messages that have expired and are not shown.
    pub(super) fn skip_to(&mut self, tail: Option<MessageId>) {
        if self.slots.is_empty() {
            self.before = tail;
        }
        self.tail = tail;
    }

    fn drop_first(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        let bytes = slot.len_bytes();
        self.bytes -= bytes;
        self.share.take(bytes as u64 * COPIES);
        if !matches!(slot, Slot::Bookmark(_) | Slot::Closed(_)) {
            self.before = slot.end_cursor();
        }
        self.first += 1;
        if self.slots.is_empty() {
            // The room for many is some 40 KiB.
            self.slots = VecDeque::new();
        }
    }

    /// Returns the cursors since the last cut, in their order: what the topic has of these its readers have got.
    pub(super) fn cursors(&self) -> Vec<MessageId> {
        let from = usize::try_from(self.starts.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let front = if from == 0 { self.before } else { self.front_after(from) };
        front.into_iter().chain(self.slots.iter().skip(from).filter_map(Slot::end_cursor)).collect()
    }

    /// Returns the number of the slot behind the message of this id, if the ring has it: a cursor that
    /// needs no confirmation.
    pub(super) fn place_behind(&self, cursor: MessageId) -> Option<u64> {
        let from = self.starts.max(self.first);
        if self.before == Some(cursor) && from == self.first {
            return Some(self.first);
        }
        let skip = usize::try_from(from - self.first).ok()?;
        let is_it = |slot: &Slot| matches!(slot, Slot::Message(message) if message.id() == cursor);
        let at = self.slots.iter().skip(skip).position(is_it)?;
        Some(from + at as u64 + 1)
    }

    /// Returns where a reader's cursor lies that storage has confirmed.
    pub(super) fn position_of(&self, cursor: Option<MessageId>) -> RingPosition {
        // Across a cut, ids say nothing about the order.
        let from = self.starts.saturating_sub(self.first).min(self.slots.len() as u64);
        let from = usize::try_from(from).unwrap_or(self.slots.len());
        let front = if from == 0 { self.before } else { self.front_after(from) };
        if cursor < front {
            return RingPosition::Elsewhere;
        }
        let passed = self.slots.iter().skip(from).take_while(|slot| slot.end_cursor() <= cursor).count();
        let number = self.first + (from + passed) as u64;
        let reached = if passed == 0 { front } else { self.front_after(from + passed) };
        let is_start = reached.is_none() && cursor <= Some(MessageId::MIN);
        if reached == cursor || is_start {
            RingPosition::At(number)
        } else if number == self.end() && self.tail <= cursor {
            if self.tail == cursor { RingPosition::At(number) } else { RingPosition::Beyond(number) }
        } else {
            // The feed has gone on over the reader's cursor: that message is not there any more, perhaps
            // with its topic, and others may be gone that the reader has not seen.
            RingPosition::Elsewhere
        }
    }

    fn front_after(&self, from: usize) -> Option<MessageId> {
        self.slots.get(from - 1).and_then(Slot::end_cursor)
    }

    /// Returns up to `count` slots from a number on; `None` where the ring has lost the first of them.
    pub(super) fn read(&self, from: u64, count: usize) -> Option<Vec<Slot>> {
        let skip = usize::try_from(from.checked_sub(self.first)?).ok()?;
        Some(self.slots.iter().skip(skip).take(count).cloned().collect())
    }
}

impl Slot {
    /// Returns what it weighs in one form.
    fn len_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.len_bytes(),
            Self::Gap(..) | Self::Cut(..) => MARK_BYTES,
            Self::Closed(closed) => MARK_BYTES + closed.reason.as_ref().map_or(0, String::len),
            Self::Bookmark(bookmark) => MARK_BYTES + bookmark.len_bytes(),
        }
    }

    /// Returns the cursor of a reader that has got this slot.
    pub(super) fn end_cursor(&self) -> Option<MessageId> {
        match self {
            Self::Message(message) => Some(message.id()),
            Self::Gap(_, resume) | Self::Cut(_, resume, _) => *resume,
            Self::Closed(_) | Self::Bookmark(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
