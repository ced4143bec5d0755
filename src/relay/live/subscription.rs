//! One topic of a reader: where it stands, and its way from history into the ring.

use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::topics::Closed;
use tidemill_proto::{GapReason, MessageId, TopicName, TopicPattern};
use tokio::time::sleep;

use super::begin::Begin;
use super::feed::{Feed, Mark};
use super::feeds::Feeds;
use super::following::Following;
use super::history::{Page, ReadKey, View};
use super::item::{Item, TakeLimit, Taken};
use super::message::LiveMessage;
use super::outlet::Outlet;
use super::parking::{Park, Parking, Waker};
use super::pattern_feed::ReaderPosition;
use super::pending::Pending;
use super::ring::{RingPosition, Slot};
use super::shared_batch::{Found, SharedBatches};
use super::storage_read::{State, StorageRead, is_gone};
use super::subscribers::{Membership, Subscriber};
use crate::storage::{Epoch, GapCheck, StorageError, end_of};

/// Messages that a reader behind the ring takes from storage at once.
const CATCH_UP_MESSAGES: usize = 200;

/// One topic of a reader.
#[derive(Debug)]
pub(super) struct Subscription<O: Outlet> {
    pub(super) feed: Arc<Feed>,
    pub(super) waker: Arc<Waker<Parked<O>>>,
    membership: Membership,
    /// The pattern of the reader that covers the topic, where it is not named.
    pub(super) covered_by: Option<TopicPattern>,
    cursor: Option<MessageId>,
    /// Whether the cursor shows that there was a topic. One that was made from a time does not, until the topic
    /// is found.
    had_topic: bool,
    /// Which topic the cursor is of, where that is known.
    pub(super) epoch: Option<Epoch>,
    pub(super) standing: Standing,
    /// Of a reader that has got nothing: a message that its topic had.
    knows_of: Option<MessageId>,
    /// How many losses of the backend the reader knows of: those from before it came, and what it was told.
    losses: u64,
    /// Of what end of its topic the reader knows.
    knows_end: Option<Arc<Closed>>,
    /// Which messages the reader gets of those behind the ring.
    view: View,
}

/// Where a reader of a topic stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// In the ring, in front of the slot of this number; what follows has greater ids than the cursor.
    Ring(u64),
    /// The same, but the cursor is storage's, and the feed has not come to it. If it never does, that is lost.
    Ahead(u64),
    /// The reader has come to another topic than the feed, or to none, and waits for its next cut: there have
    /// been so many.
    Waiting { cuts: u64 },
    /// Behind the ring: storage has to be read. `seen` if the cursor's message is one that the reader
    /// has seen; `cuts` is how many there were in the ring before storage last knew the cursor.
    Behind { seen: bool, cuts: Option<u64> },
}

impl Standing {
    const fn in_ring(from: u64, is_ahead: bool) -> Self {
        if is_ahead { Self::Ahead(from) } else { Self::Ring(from) }
    }

    /// Behind the ring, with a cursor that storage has not known since the last cut.
    const UNKNOWN: Self = Self::Behind { seen: true, cuts: None };
}

/// What a reader parks.
pub(super) struct Parked<O: Outlet> {
    pub(super) subscriptions: Vec<Subscription<O>>,
    pub(super) following: Vec<Following<Self>>,
    pub(super) outlet: O,
    pub(super) pending: Pending,
}

impl<O: Outlet> Park for Parked<O> {
    fn is_pending(&self) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.waker.is_pending())
            || self.following.iter().any(Following::is_pending)
    }

    fn deliver(&mut self, waker: &Waker<Self>, batches: &mut SharedBatches<'_>) -> bool {
        let of_waker = |it: &&mut Subscription<O>| std::ptr::eq(Arc::as_ptr(&it.waker), waker);
        let subscription = self.subscriptions.iter_mut().find(of_waker);
        if let Some(subscription) = subscription {
            return subscription.deliver(batches, &mut self.outlet, &self.pending);
        }
        let following = self.following.iter_mut().find(|following| following.is_of(waker));
        following.is_some_and(|following| following.deliver(batches, &mut self.outlet, &self.pending))
    }
}

impl<O: Outlet> Subscription<O> {
    /// Subscribes to a feed, in front of what follows the cursor. `tail_of` is how far the feed had come just
    /// before the cursor was the topic's tail, if it was.
    pub(super) fn begin(
        feed: Arc<Feed>,
        parking: Arc<Parking<Parked<O>>>,
        begin: Begin,
        tail_of: Option<Mark>,
    ) -> Self {
        let Begin { cursor, seen, epoch, view } = begin;
        let losses = tail_of.unwrap_or_else(|| feed.mark()).losses;
        let standing = Standing::Behind { seen, cuts: tail_of.map(|mark| mark.cuts) };
        Self { had_topic: seen, epoch, view, ..Self::at(feed, parking, cursor, standing, losses) }
    }

    fn at(
        feed: Arc<Feed>,
        parking: Arc<Parking<Parked<O>>>,
        cursor: Option<MessageId>,
        standing: Standing,
        losses: u64,
    ) -> Self {
        let waker = Arc::new(Waker::new(parking));
        let membership = feed.subscribers().add(waker.clone());
        Self {
            feed,
            waker,
            membership,
            covered_by: None,
            cursor,
            had_topic: true,
            epoch: None,
            standing,
            knows_of: None,
            losses,
            knows_end: None,
            view: View::All,
        }
    }

    pub(super) fn topic(&self) -> &TopicName {
        self.feed.topic()
    }

    /// Returns a reader of everything that comes to a feed from now on.
    pub(super) fn from_now_on(feed: Arc<Feed>, parking: Arc<Parking<Parked<O>>>) -> Self {
        let (cursor, epoch, losses, standing) = {
            let ring = feed.ring().read();
            (ring.tail(), ring.epoch(), ring.losses(), Standing::Ring(ring.end()))
        };
        // What has ended before is no news.
        let knows_end = feed.ring().read().ended().cloned();
        Self { epoch: Some(epoch), knows_end, ..Self::at(feed, parking, cursor, standing, losses) }
    }

    /// Returns where it stands, if that lies behind the last cut of the feed.
    pub(super) fn position(&self) -> Option<ReaderPosition> {
        let ring = self.feed.ring().read();
        let is_there = match self.standing {
            Standing::Ring(from) => ring.is_uncut_from(from),
            Standing::Waiting { cuts } => ring.cuts() == cuts,
            // A place between two milliseconds is no message that the feed has to come to.
            Standing::Ahead(from) => {
                self.cursor.is_some_and(|cursor| cursor >= end_of(cursor.ms)) && ring.is_uncut_from(from)
            }
            Standing::Behind { .. } => false,
        };
        is_there.then_some(ReaderPosition { cursor: self.cursor, cuts: ring.cuts(), losses: self.losses })
    }

    /// Whether there was no such topic when the feed looked last.
    pub(super) fn is_absent(&self) -> bool {
        self.feed.is_gone()
    }

    pub(super) fn cursor(&self) -> Option<MessageId> {
        // Who was there before the first message is to get every one, also when it comes back.
        self.cursor.or(self.had_topic.then_some(MessageId::MIN))
    }

    /// Whether there is nothing to be read for it but the ring.
    pub(super) const fn is_up_to_date(&self) -> bool {
        !matches!(self.standing, Standing::Behind { .. })
    }

    /// Whether the feed has not yet come to another topic. If it has, storage tells what there is.
    pub(super) fn waits(&mut self, cuts: u64) -> bool {
        let waits = self.feed.ring().read().cuts() == cuts;
        if !waits {
            self.standing = Standing::UNKNOWN;
        }
        waits
    }

    /// Writes to `outlet` what there is in the ring. Returns whether that is done: else the reader has
    /// to see to it.
    pub(super) fn deliver(
        &mut self,
        batches: &mut SharedBatches<'_>,
        outlet: &mut O,
        pending: &Pending,
    ) -> bool {
        loop {
            let Standing::Ring(from) = self.standing else { return false };
            let batch = match batches.at(from) {
                Found::Nothing => return true,
                Found::Over => return self.has_been_told(),
                Found::Elsewhere => return false,
                Found::Batch(batch) => batch,
            };
            if !outlet.takes(batch) || !batch.count(pending) {
                return false;
            }
            debug_assert!(
                matches!(batch.items(), [Item::Message(first), ..] if Some(first.id()) > self.cursor),
                "what follows a place in the ring comes after the cursor"
            );
            outlet.deliver(batch);
            batch.note_reader();
            self.cursor = Some(batch.last());
            self.standing = Standing::Ring(batch.end());
            if !outlet.is_free() {
                return false;
            }
        }
    }

    /// Whether the reader knows how its topic has ended, if it has.
    fn has_been_told(&self) -> bool {
        let ring = self.feed.ring().read();
        ring.ended()
            .is_none_or(|ended| self.knows_end.as_ref().is_some_and(|known| Arc::ptr_eq(known, ended)))
    }

    pub(super) fn end(self, feeds: &Arc<Feeds>) {
        let subscriber: Arc<dyn Subscriber> = self.waker;
        self.feed.subscribers().remove(&self.membership, &subscriber);
        feeds.leave(self.feed.topic());
    }

    /// Takes from the ring. Returns whether the subscription is done for this turn: at the end of the ring, or
    /// the turn is full; not done if storage is to be asked.
    pub(super) fn take_from_ring(&mut self, mut from: u64, taken: &mut Taken) -> bool {
        let ring = self.feed.ring().read();
        let mut is_ahead = matches!(self.standing, Standing::Ahead(_));
        if self.losses < ring.losses() && ring.is_behind_losses(from) && !taken.is_full() {
            // It was behind the ring meanwhile, and has read what is left: storage cannot know what it missed.
            taken.push(Item::Gap(Arc::new(self.feed.lost(self.cursor, self.cursor))));
            self.losses = ring.losses();
        }
        loop {
            let room = taken.limit.items.saturating_sub(taken.items.len());
            if room == 0 || taken.is_full() {
                self.standing = Standing::in_ring(from, is_ahead);
                self.waker.keep_pending();
                return true;
            }
            let Some(slots) = ring.read(from, room.min(64)) else {
                self.standing = Standing::UNKNOWN;
                if ring.is_uncut_from(from) {
                    self.epoch = Some(ring.epoch());
                }
                // Who was in the ring without a cursor was there before the first message.
                if self.cursor <= Some(MessageId::MIN) && ring.first() > from {
                    self.knows_of = Some(ring.passed_over(from));
                }
                return false;
            };
            if slots.is_empty() {
                if let Some(ended) = ring.ended()
                    && !self.knows_end.as_ref().is_some_and(|known| Arc::ptr_eq(known, ended))
                {
                    // Nothing lies behind the ring, wherever the cursor is.
                    taken.push(Item::Closed(ended.clone()));
                    self.knows_end = Some(ended.clone());
                }
                self.standing = Standing::in_ring(from, is_ahead);
                return true;
            }
            for slot in slots {
                if taken.is_full() {
                    break;
                }
                from += 1;
                match slot {
                    Slot::Message(message) if Some(message.id()) <= self.cursor => {
                        is_ahead = is_ahead && Some(message.id()) < self.cursor;
                    }
                    Slot::Message(_) if is_ahead => {
                        // The feed has not come to the reader's cursor; storage knows why.
                        self.standing = Standing::UNKNOWN;
                        return false;
                    }
                    Slot::Message(message) => {
                        let Some(message) = taken.admit(message) else {
                            from -= 1;
                            break;
                        };
                        self.cursor = Some(message.id());
                        taken.push(Item::Message(message));
                    }
                    Slot::Gap(gap, resume) => {
                        let is_beyond = self.cursor > Some(gap.from);
                        if is_beyond && self.cursor < resume {
                            // It has got or been told a part of what the feed has missed.
                            self.standing = Standing::UNKNOWN;
                            return false;
                        }
                        if !is_beyond {
                            self.cursor = resume;
                            taken.push(Item::Gap(gap));
                        }
                        is_ahead = is_ahead && resume < self.cursor;
                    }
                    Slot::Bookmark(_) | Slot::Closed(_) => {}
                    Slot::Cut(_, resume, Some(loss)) if !is_ahead && self.losses < loss => {
                        // It has got everything in front of it, of which the feed knows what is left.
                        taken.push(Item::Gap(Arc::new(self.feed.lost(self.cursor, resume))));
                        (self.cursor, self.losses) = (resume, loss);
                    }
                    Slot::Cut(epoch, ..) => {
                        // What it means for this cursor, storage tells.
                        self.epoch = self.epoch.filter(|_| is_ahead).or(Some(epoch));
                        self.standing = Standing::UNKNOWN;
                        return false;
                    }
                }
            }
        }
    }

    /// Enters the ring if the cursor lies in it, or waits if the ring is of another topic.
    pub(super) fn join_ring(&mut self, cuts: Option<u64>) -> bool {
        let ring = self.feed.ring().read();
        let standing = if cuts == Some(ring.cuts()) {
            let is_other = self.epoch.is_some_and(|epoch| !ring.epoch().may_be(epoch));
            // Of who has found no topic: the feed may have come to one since.
            let found_none = self.epoch == Some(Epoch::Unmarked) && self.cursor <= Some(MessageId::MIN);
            match ring.position_of(self.cursor) {
                // Storage knows whether that is one which has gone meanwhile.
                _ if is_other && found_none => None,
                _ if is_other => Some(Standing::Waiting { cuts: ring.cuts() }),
                RingPosition::At(number) => Some(Standing::Ring(number)),
                RingPosition::Beyond(number) => Some(Standing::Ahead(number)),
                RingPosition::Elsewhere => None,
            }
        } else if self.epoch.is_none_or(|epoch| epoch == ring.epoch() && epoch != Epoch::Unmarked) {
            self.cursor.and_then(|cursor| ring.place_behind(cursor)).map(Standing::Ring)
        } else {
            // Another topic may have given the same id again.
            None
        };
        drop(ring);
        if let Some(standing) = standing {
            self.enter(standing);
        }
        standing.is_some()
    }

    /// Stands somewhere else than behind the ring.
    fn enter(&mut self, standing: Standing) {
        self.standing = standing;
        match standing {
            Standing::Ring(_) => self.knows_of = None,
            // The feed has something to look at, and may not have been told.
            Standing::Ahead(_) | Standing::Waiting { .. } => self.feed.look_for_reader_ahead(),
            Standing::Behind { .. } => {}
        }
    }

    /// Begins to read the next page behind the cursor from storage.
    pub(super) fn read(
        &self,
        feeds: &Feeds,
        seen: bool,
        limit: TakeLimit,
        retry: Duration,
    ) -> StorageRead<Waker<Parked<O>>> {
        // Before the read.
        let before = self.feed.mark();
        let topic = self.feed.topic().clone();
        let (epoch, knows_of) = (self.epoch.unwrap_or_default(), self.knows_of);
        let gap_check =
            if seen { GapCheck::Follows { epoch, given: None, knows_of } } else { GapCheck::Epoch };
        let read = feeds.history().read(ReadKey {
            topic: topic.clone(),
            after: self.cursor.or(seen.then_some(MessageId::MIN)),
            gap_check,
            limit: CATCH_UP_MESSAGES.min(limit.items),
            bytes_max: limit.bytes,
            view: self.view,
        });
        let read = async move {
            let outcome = read.await;
            if let Err(error) = &outcome
                && !is_gone(error)
            {
                tracing::debug!(%topic, error = &**error as &dyn std::error::Error, "a reader tries on");
                sleep(retry).await;
            }
            outcome
        };
        StorageRead { waker: self.waker.clone(), before, state: State::UnderWay(Box::pin(read)) }
    }

    /// Takes what storage has given, as far as there is room for it. Returns whether it has given something:
    /// else it is to be asked again.
    pub(super) fn take_read(&mut self, reading: &StorageRead<Waker<Parked<O>>>, taken: &mut Taken) -> bool {
        match &reading.state {
            State::Known(Ok(page)) => {
                if let Some(messages) = taken.admit_all(&page.messages) {
                    self.take_page(page, messages, reading.before, taken);
                }
            }
            State::Known(Err(error)) if is_gone(error) => self.tell_deleted(reading.before, taken),
            State::Known(Err(error)) if matches!(**error, StorageError::NotCompacted) => {
                self.view = View::All;
                return false;
            }
            State::Known(Err(_)) | State::UnderWay(_) => return false,
        }
        true
    }

    fn take_page(&mut self, page: &Page, messages: Vec<Arc<LiveMessage>>, before: Mark, taken: &mut Taken) {
        if let View::Latest { goes_on } = &mut self.view {
            *goes_on = true;
        }
        // Storage tells what became of it.
        (self.had_topic, self.knows_of) = (true, None);
        let known = self.epoch.filter(|epoch| *epoch != Epoch::Unmarked);
        self.epoch = page.epoch.or(self.epoch);
        if let Some(gap) = &page.gap {
            self.cursor = gap.to.previous();
            if gap.reason == GapReason::Reset && gap.is_ahead() {
                self.losses = before.losses_behind(self.cursor, self.losses);
            } else if gap.reason == GapReason::Reset {
                self.losses = if known.is_some() && known == page.epoch {
                    // The feed has counted this loss, or will.
                    before.losses.max(self.losses + 1)
                } else {
                    // The feed still stands beyond what is left, or has counted the loss.
                    before.losses + u64::from(before.tail >= Some(gap.to))
                };
            }
            taken.push(Item::Gap(gap.clone()));
        }
        for message in messages {
            taken.push(Item::Message(message));
        }
        if let Some(reached) = page.reached {
            self.cursor = Some(reached);
            self.standing = Standing::Behind { seen: true, cuts: Some(before.cuts) };
            return;
        }
        // Storage has nothing behind the cursor: what the ring had before the read is the reader's
        // already, or trimmed.
        self.cursor = self.cursor.max(page.passed);
        let ring = self.feed.ring().read();
        let start = |cursor: Option<MessageId>| cursor.filter(|id| *id > MessageId::MIN);
        let standing = if ring.cuts() != before.cuts {
            Standing::UNKNOWN
        } else if self.epoch.is_some_and(|epoch| !ring.epoch().may_be(epoch)) {
            Standing::Waiting { cuts: before.cuts }
        } else {
            Standing::in_ring(before.end, start(self.cursor) != start(before.tail))
        };
        drop(ring);
        self.enter(standing);
    }

    /// Tells a reader behind the ring that its topic is gone; it waits for it to be made again.
    fn tell_deleted(&mut self, before: Mark, taken: &mut Taken) {
        let got = self.cursor.filter(|cursor| self.had_topic && *cursor > MessageId::MIN);
        // Who was there before the first message has seen none of the topic.
        if let Some(from) = got.or(self.knows_of.map(|_| MessageId::MIN)) {
            taken.push(Item::Gap(Arc::new(self.feed.deleted(from))));
        }
        (self.cursor, self.had_topic, self.epoch, self.knows_of) = (None, true, None, None);
        self.losses = before.losses;
        let ring = self.feed.ring().read();
        let standing = if ring.cuts() != before.cuts || ring.end() != before.end {
            // What the feed has read meanwhile may be of the next topic already; storage knows.
            Standing::UNKNOWN
        } else if before.tail.is_some() {
            Standing::Waiting { cuts: before.cuts }
        } else {
            Standing::Ring(before.end)
        };
        drop(ring);
        self.enter(standing);
    }
}

#[cfg(test)]
mod tests;
