//! A pattern of a reader: its place in the ring of the pattern's feed, or that it reads the topics one by one.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_proto::{MessageId, TopicName, TopicPattern};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::begin::Begin;
use super::bookmark::Bookmark;
use super::item::{Item, Taken};
use super::outlet::Outlet;
use super::parking::{Park, Parking, Waker};
use super::pattern_feed::{CoveredTopic, PatternFeed};
use super::pattern_reader::PatternReader;
use super::pending::Pending;
use super::ring::Slot;
use super::shared_batch::{Found, SharedBatches};
use super::subscribers::{Membership, Subscriber};
use crate::storage::end_of;

/// A pattern of a reader.
#[derive(Debug)]
pub(super) struct Following<P: Park> {
    reader: PatternReader,
    waker: Arc<Waker<P>>,
    membership: Membership,
    pub(super) at: At,
    /// The newest that the reader has.
    pub(super) bookmark: Arc<Bookmark>,
    /// Topics of which the reader had more than the ring when it came to it: up to these.
    skips: HashMap<TopicName, MessageId>,
    /// How many topics had come and gone when the reader last took them over.
    pub(super) version: u64,
    /// When a bookmark was last given to a reader that reads the topics one by one.
    pub(super) marked_at: Instant,
}

/// Where a reader of a pattern stands.
#[derive(Debug)]
pub(super) enum At {
    /// In the ring, in front of the slot of this number.
    Ring(u64),
    /// Behind it: each topic has to be read by itself, from here.
    Behind(Origin),
    /// It reads each topic by itself, which takes room that is counted.
    ByTopic(#[expect(dead_code, reason = "it is held to be dropped")] OwnedSemaphorePermit),
}

/// Where to begin in topics that are read one by one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// At this cursor, of a reader that comes.
    Cursor(Option<MessageId>),
    /// At the bookmark.
    Bookmark,
}

impl<P: Park> Following<P> {
    /// Follows a pattern from here on, where `at` is found while nothing is added to the ring.
    pub(super) fn begin(reader: PatternReader, parking: Arc<Parking<P>>) -> Self {
        let waker = Arc::new(Waker::new(parking));
        let membership = reader.feed().subscribers().add(waker.clone());
        let (version, bookmark, end) = {
            let covered = reader.feed().covered().lock();
            (covered.version, covered.bookmark.clone(), reader.feed().ring().read().end())
        };
        let (skips, marked_at) = (HashMap::new(), Instant::now());
        Self { reader, waker, membership, at: At::Ring(end), bookmark, skips, version, marked_at }
    }

    /// Follows from somewhere else.
    pub(super) fn start_at(&mut self, origin: Origin, bookmark: Bookmark) {
        self.at = At::Behind(origin);
        self.bookmark = Arc::new(bookmark);
    }

    pub(super) fn feed(&self) -> &Arc<PatternFeed> {
        self.reader.feed()
    }

    pub(super) fn pattern(&self) -> &TopicPattern {
        self.feed().pattern()
    }

    pub(super) fn is_of(&self, waker: &Waker<P>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.waker), waker)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.waker.is_pending()
    }

    /// Leaves nothing pending. Whatever is notified from here on is looked at again.
    pub(super) fn clear_pending(&self) {
        self.waker.clear();
    }

    /// Whether there is nothing to be read for it but the ring, or what its topics are read by.
    pub(super) fn is_up_to_date(&self) -> bool {
        !matches!(self.at, At::Behind(_)) && !self.feed().has_ended()
    }

    /// Writes to `outlet` what there is in the ring. Returns whether that is done: else the reader has to
    /// see to it.
    pub(super) fn deliver(
        &mut self,
        batches: &mut SharedBatches<'_>,
        outlet: &mut impl Outlet,
        pending: &Pending,
    ) -> bool {
        if self.feed().has_ended() {
            return false;
        }
        loop {
            let from = match self.at {
                At::Ring(from) if self.skips.is_empty() => from,
                // It looks whether it can go on here.
                At::Ring(_) | At::Behind(_) | At::ByTopic(_) => return false,
            };
            let batch = match batches.at(from) {
                Found::Nothing | Found::Over => return true,
                Found::Elsewhere => return false,
                Found::Batch(batch) => batch,
            };
            if !outlet.takes(batch) || !batch.count(pending) {
                return false;
            }
            outlet.deliver(batch);
            batch.note_reader();
            self.at = At::Ring(batch.end());
            if !outlet.is_free() {
                return false;
            }
        }
    }

    /// Takes from the ring. Returns whether that is done for this turn; not if the ring has lost the place.
    pub(super) fn take_from_ring(&mut self, mut from: u64, taken: &mut Taken) -> bool {
        let feed = self.reader.feed().clone();
        let ring = feed.ring().read();
        loop {
            let room = taken.limit.items.saturating_sub(taken.items.len());
            if room == 0 || taken.is_full() {
                self.at = At::Ring(from);
                self.waker.keep_pending();
                return true;
            }
            let Some(slots) = ring.read(from, room.min(64)) else {
                self.skips.clear();
                self.at = At::Behind(Origin::Bookmark);
                return false;
            };
            if slots.is_empty() {
                self.at = At::Ring(from);
                return true;
            }
            for slot in slots {
                if taken.is_full() {
                    break;
                }
                from += 1;
                match slot {
                    Slot::Message(message) => {
                        if self.had(message.topic(), message.id()) {
                            continue;
                        }
                        let Some(message) = taken.admit(message) else {
                            from -= 1;
                            break;
                        };
                        taken.push(Item::Message(message));
                    }
                    Slot::Gap(gap, _) => {
                        let is_known = gap.reason.goes_on()
                            && gap.to.previous().is_some_and(|last| self.had(&gap.topic, last));
                        self.skips.remove(&gap.topic);
                        if !is_known {
                            taken.push(Item::Gap(gap));
                        }
                    }
                    Slot::Bookmark(bookmark) => {
                        taken.push(Item::Bookmark(feed.pattern().clone(), bookmark.to_cursor()));
                        self.bookmark = bookmark;
                    }
                    Slot::Closed(closed) => taken.push(Item::Closed(closed)),
                    // A ring of several topics is never cut.
                    Slot::Cut(..) => {}
                }
            }
        }
    }

    /// Whether the reader has had this already, when it came to the ring.
    fn had(&mut self, topic: &TopicName, id: MessageId) -> bool {
        match self.skips.get(topic) {
            Some(had) if id <= *had => true,
            Some(_) => {
                self.skips.remove(topic);
                false
            }
            None => false,
        }
    }

    /// Goes on in the ring, from its end. Of these topics the reader has had more, up to these.
    pub(super) fn enter_ring(&mut self, end: u64, skips: HashMap<TopicName, MessageId>) {
        self.at = At::Ring(end);
        self.skips = skips;
        self.waker.keep_pending();
    }

    /// Ends, and lets others have the place.
    pub(super) fn end(self) {
        let subscriber: Arc<dyn Subscriber> = self.waker;
        self.reader.feed().subscribers().remove(&self.membership, &subscriber);
    }
}

impl Origin {
    /// Returns where to begin in a topic.
    pub(super) fn begin_in(self, topic: &TopicName, covered: &CoveredTopic, bookmark: &Bookmark) -> Begin {
        match self {
            Self::Cursor(cursor) => Begin { cursor, seen: false, ..Begin::BEFORE_THE_FIRST },
            Self::Bookmark => {
                if let Some(cursor) = bookmark.place_of(topic) {
                    return Begin { cursor: Some(cursor), ..Begin::BEFORE_THE_FIRST };
                }
                let Some(before) =
                    bookmark.base_ms().checked_sub(1).filter(|_| covered.from_ms < bookmark.base_ms())
                else {
                    return Begin::BEFORE_THE_FIRST;
                };
                let base = end_of(before);
                match covered.position {
                    // It has given nothing since, so the reader has all that the ring has of it.
                    Some(place) if place.cursor <= Some(base) => {
                        Begin { cursor: place.cursor, ..Begin::BEFORE_THE_FIRST }
                    }
                    Some(_) => Begin { cursor: Some(base), ..Begin::BEFORE_THE_FIRST },
                    // Nobody can tell, so nobody can tell either what is missing.
                    None => Begin { cursor: Some(base), seen: false, ..Begin::BEFORE_THE_FIRST },
                }
            }
        }
    }
}
