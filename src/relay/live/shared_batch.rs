//! Shared batches: what a feed has for its readers, encoded once for all that stand in the same place.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use tidemill_proto::MessageId;

use super::delivered::begin_delivered;
use super::item::Item;
use super::pending::{Held, Pending};
use super::primitives::RwLock;
use super::ring::{Ring, Slot};
use crate::budget::FREE_BYTES;
use crate::traces::Span;

/// Most messages of a batch.
const BATCH_ITEMS_MAX: usize = 256;
/// Bytes after which a batch ends; it has one message whatever that weighs.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Batches that are kept for the next reader: nearly all readers stand where the ring ended a moment ago.
const KEPT_MAX: usize = 4;

/// Messages of one topic, without a hole, as they follow each other.
#[derive(Debug)]
pub struct SharedBatch {
    from: u64,
    items: Vec<Item>,
    last: MessageId,
    bytes: usize,
    encoded: RefCell<Vec<(&'static str, Bytes)>>,
    /// What keeps it counted, where it is.
    held: RefCell<Option<Held>>,
    /// How many readers got it, and the span of that.
    readers: Cell<usize>,
    span: Span,
}

impl SharedBatch {
    /// Returns the messages, of which there is at least one.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the messages as the encoding of this name has them; `encode` is asked once.
    pub fn encoded(&self, name: &'static str, encode: impl FnOnce(&[Item]) -> Bytes) -> Bytes {
        let mut encoded = self.encoded.borrow_mut();
        if let Some((_, bytes)) = encoded.iter().find(|(other, _)| *other == name) {
            return bytes.clone();
        }
        let bytes = encode(&self.items);
        encoded.push((name, bytes.clone()));
        bytes
    }

    /// Returns about how many bytes any encoding has.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Counts it, once for all that have it pending. Returns whether that is done: else it may be given to
    /// nobody who does not take it at once.
    pub(super) fn count(&self, pending: &Pending) -> bool {
        let mut held = self.held.borrow_mut();
        if self.bytes > FREE_BYTES && held.is_none() {
            *held = pending.share(self.bytes);
            return held.is_some();
        }
        true
    }

    /// Counts a reader that it was written to.
    pub(super) fn note_reader(&self) {
        self.readers.set(self.readers.get() + 1);
    }

    /// Returns what has to be kept until it is written; `None` if it is small.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.held.borrow().clone()
    }

    pub(super) fn last(&self) -> MessageId {
        self.last
    }

    /// Returns the number of the slot behind it.
    pub(super) fn end(&self) -> u64 {
        self.from + self.items.len() as u64
    }

    fn read(ring: &RwLock<Ring>, from: u64) -> Next {
        let Some(slots) = ring.read().read(from, BATCH_ITEMS_MAX) else { return Next::Elsewhere };
        let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
        for slot in slots {
            let Slot::Message(message) = slot else {
                // A gap is told by the reader itself, who may know of it; and a cut is for it to see.
                if items.is_empty() {
                    return Next::Elsewhere;
                }
                break;
            };
            bytes += message.len_bytes();
            if !items.is_empty() && bytes > BATCH_BYTES_MAX {
                bytes -= message.len_bytes();
                break;
            }
            last = Some(message.id());
            items.push(Item::Message(message));
        }
        let span = begin_delivered(&items);
        match last {
            Some(last) => Next::Batch(Self {
                from,
                items,
                last,
                bytes,
                encoded: RefCell::default(),
                held: RefCell::default(),
                readers: Cell::default(),
                span,
            }),
            None => Next::Nothing,
        }
    }
}

impl Drop for SharedBatch {
    fn drop(&mut self) {
        if let Some(notes) = self.span.notes() {
            notes.number("tidemill.readers", self.readers.get());
        }
    }
}

/// What follows a place in the ring.
enum Next {
    Batch(SharedBatch),
    Nothing,
    /// What only the reader can find.
    Elsewhere,
}

/// What a reader in the ring gets next.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// Messages.
    Batch(&'a SharedBatch),
    /// Nothing: it has got everything.
    Nothing,
    /// The same, and the topic has ended.
    Over,
    /// What only the reader can find: a gap, or what the ring has lost.
    Elsewhere,
}

/// The batches of a ring, for the readers that are served one after the other. The ring stays as it is
/// meanwhile.
#[derive(Debug)]
pub(super) struct SharedBatches<'a> {
    ring: &'a RwLock<Ring>,
    kept: Vec<SharedBatch>,
    /// The ring's end, once a reader has come to it, and whether its topic has ended.
    end: Option<(u64, bool)>,
}

impl<'a> SharedBatches<'a> {
    pub(super) const fn new(ring: &'a RwLock<Ring>) -> Self {
        Self { ring, kept: Vec::new(), end: None }
    }

    /// Returns what a reader in front of this slot gets next.
    pub(super) fn at(&mut self, from: u64) -> Found<'_> {
        if let Some(at) = self.kept.iter().position(|batch| batch.from == from) {
            return Found::Batch(&self.kept[at]);
        }
        if let Some((end, is_over)) = self.end
            && end == from
        {
            return if is_over { Found::Over } else { Found::Nothing };
        }
        match SharedBatch::read(self.ring, from) {
            Next::Nothing => {
                let is_over = self.ring.read().ended().is_some();
                self.end = Some((from, is_over));
                if is_over { Found::Over } else { Found::Nothing }
            }
            Next::Elsewhere => Found::Elsewhere,
            Next::Batch(batch) => {
                if self.kept.len() == KEPT_MAX {
                    self.kept.remove(0);
                }
                let at = self.kept.len();
                self.kept.push(batch);
                Found::Batch(&self.kept[at])
            }
        }
    }
}
