//! One topic of a reader: where it stands, and its way from history into the ring.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{Gap, GapReason, MessageId, TopicName};
use tokio::time::sleep;

use super::feed::{Feed, Mark};
use super::feeds::Feeds;
use super::history::{Asked, Outcome, Page};
use super::item::{Budget, Item, Taken};
use super::outlet::Outlet;
use super::parking::{Park, Parking, Waker};
use super::ring::{Place, Slot};
use super::round::{Found, Rounds};
use super::subscribers::{Membership, Subscriber};
use crate::storage::{Reader, StorageError};

/// Messages that a reader behind the ring takes from storage at once.
const CATCH_UP_MESSAGES: usize = 200;

/// One topic of a reader.
#[derive(Debug)]
pub(super) struct Subscription<O> {
    feed: Arc<Feed>,
    pub(super) waker: Arc<Waker<Parked<O>>>,
    membership: Membership,
    cursor: Option<MessageId>,
    pub(super) standing: Standing,
    /// Whether storage has told that the topic is gone, and nothing has come since: then the feed's word
    /// is no news.
    told_deleted: bool,
    /// Where the ring has gone on without it before it had a cursor: the message up to which there were
    /// some. It has got none of them yet.
    passed_over: Option<MessageId>,
    /// How often the feed had found the topic gone when the reader's place was last looked up.
    found_gone: u64,
    /// How many losses of the backend the reader knows of: those from before it came, and what it was told.
    losses: u64,
}

/// Where a reader of a topic stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// In the ring, in front of the slot of this number; what follows has greater ids than the cursor.
    Ring(u64),
    /// The same, but the cursor is storage's, and the feed has not come to it. If it goes on without coming
    /// to it, the topic may be another one.
    Apart(u64),
    /// Behind the ring: storage has to be read. `seen` if the cursor's message is one that the reader
    /// has seen; `confirmed` is the ring's count of resets before storage last knew the cursor.
    Behind { seen: bool, confirmed: Option<u64> },
}

impl Standing {
    const fn in_ring(from: u64, apart: bool) -> Self {
        if apart { Self::Apart(from) } else { Self::Ring(from) }
    }
}

/// A read of storage for one subscription.
pub(super) struct Reading<O> {
    waker: Arc<Waker<Parked<O>>>,
    /// How far the feed had come before the read: what lies before it storage has, or it is gone, and what
    /// is reset after it is not confirmed.
    before: Mark,
    state: State,
}

enum State {
    UnderWay(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    Known(Outcome),
}

/// What a reader parks.
pub(super) struct Parked<O> {
    pub(super) subscriptions: Vec<Subscription<O>>,
    pub(super) outlet: O,
}

impl<O: Outlet> Park for Parked<O> {
    fn is_pending(&self) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.waker.is_pending())
    }

    fn deliver(&mut self, waker: &Waker<Self>, rounds: &mut Rounds<'_>) -> bool {
        let of_waker = |it: &&mut Subscription<O>| std::ptr::eq(Arc::as_ptr(&it.waker), waker);
        let subscription = self.subscriptions.iter_mut().find(of_waker);
        subscription.is_some_and(|subscription| subscription.deliver(rounds, &mut self.outlet))
    }
}

impl<O: Outlet> Subscription<O> {
    /// Subscribes to a feed, in front of what follows the cursor. `seen` if the cursor's message is one
    /// that the reader has seen, or there was none before it; `tail_of` is how far the feed had come just
    /// before the cursor was the topic's tail, if it was.
    pub(super) fn begin(
        feed: Arc<Feed>,
        parking: Arc<Parking<Parked<O>>>,
        cursor: Option<MessageId>,
        seen: bool,
        tail_of: Option<Mark>,
    ) -> Self {
        let waker = Arc::new(Waker::new(parking));
        let membership = feed.subscribers().add(waker.clone());
        let Mark { found_gone, losses, .. } = tail_of.unwrap_or_else(|| feed.mark());
        let standing = Standing::Behind { seen, confirmed: tail_of.map(|mark| mark.resets) };
        Self {
            feed,
            waker,
            membership,
            cursor,
            standing,
            told_deleted: false,
            passed_over: None,
            found_gone,
            losses,
        }
    }

    pub(super) fn topic(&self) -> &TopicName {
        self.feed.topic()
    }

    pub(super) const fn cursor(&self) -> Option<MessageId> {
        self.cursor
    }

    /// Whether it lies in the ring: nothing has to be read for it but that.
    pub(super) const fn is_in_ring(&self) -> bool {
        matches!(self.standing, Standing::Ring(_) | Standing::Apart(_))
    }

    /// Writes to `outlet` what there is in the ring. Returns whether that is done: else the reader has
    /// to see to it.
    pub(super) fn deliver(&mut self, rounds: &mut Rounds<'_>, outlet: &mut O) -> bool {
        loop {
            let Standing::Ring(from) = self.standing else { return false };
            let round = match rounds.at(from) {
                Found::Nothing => return true,
                Found::Elsewhere => return false,
                Found::Round(round) => round,
            };
            if !outlet.is_free() || round.len_bytes() > outlet.bytes_max() {
                return false;
            }
            debug_assert!(
                matches!(round.items(), [Item::Message(first), ..] if Some(first.id()) > self.cursor),
                "what follows a place in the ring comes after the cursor"
            );
            outlet.deliver(round);
            self.cursor = Some(round.last());
            self.standing = Standing::Ring(round.end());
            self.told_deleted = false;
            if !outlet.is_free() {
                return false;
            }
        }
    }

    pub(super) fn end(self, feeds: &Arc<Feeds>) {
        let subscriber: Arc<dyn Subscriber> = self.waker;
        self.feed.subscribers().remove(&self.membership, &subscriber);
        feeds.leave(self.feed.topic());
    }

    /// Takes from the ring. Returns whether the subscription is done for this turn: at the end of the ring, or
    /// the turn is full; not done if the ring has gone on without it.
    pub(super) fn take_from_ring(&mut self, mut from: u64, taken: &mut Taken) -> bool {
        let ring = self.feed.ring().read();
        let mut apart = matches!(self.standing, Standing::Apart(_));
        if self.losses < ring.losses() && ring.is_behind_losses(from) && !taken.is_full() {
            // It was behind the ring meanwhile, and has read what is left: storage cannot know what it missed.
            taken.push(Item::Gap(Arc::new(self.feed.lost(self.cursor.unwrap_or(MessageId::MIN)))));
            self.losses = ring.losses();
        }
        loop {
            let room = taken.budget.items.saturating_sub(taken.items.len());
            if room == 0 || taken.is_full() {
                self.standing = Standing::in_ring(from, apart);
                self.waker.keep_pending();
                return true;
            }
            let Some(slots) = ring.read(from, room.min(64)) else {
                self.standing = Standing::Behind { seen: true, confirmed: None };
                // Who was in the ring without a cursor was there before the first message.
                // A gap that it knows of already does not count.
                let from = from + u64::from(self.told_deleted);
                if self.cursor <= Some(MessageId::MIN) && ring.first() > from {
                    let by = ring.passed_over(from);
                    drop(ring);
                    match by {
                        Some(_) => self.passed_over = by,
                        // Not all of one topic: what it was passed over by first is gone with its own.
                        None => self.tell_deleted_unseen(taken),
                    }
                }
                return false;
            };
            if slots.is_empty() {
                if apart && self.feed.found_gone() != self.found_gone {
                    // The feed, which has nothing to tell, has found the topic gone.
                    self.standing = Standing::Behind { seen: true, confirmed: None };
                    return false;
                }
                self.standing = Standing::in_ring(from, apart);
                return true;
            }
            for slot in slots {
                if taken.is_full() {
                    break;
                }
                from += 1;
                match slot {
                    Slot::Message(message) if Some(message.id()) <= self.cursor => {
                        apart = apart && Some(message.id()) < self.cursor;
                    }
                    Slot::Message(_) if apart => {
                        // The feed has not come to the reader's cursor; storage knows why.
                        self.standing = Standing::Behind { seen: true, confirmed: None };
                        return false;
                    }
                    Slot::Message(message) => {
                        self.cursor = Some(message.id());
                        self.told_deleted = false;
                        taken.push(Item::Message(message));
                    }
                    Slot::Gap(gap, resume) => {
                        if self.has_other(&gap, resume, apart) {
                            // It has got or been told what the feed has missed, or a part; storage knows the
                            // rest.
                            self.standing = Standing::Behind { seen: true, confirmed: None };
                            return false;
                        }
                        if !self.knows(&gap, resume) {
                            self.cursor = resume;
                            self.losses += u64::from(gap.reason == GapReason::Reset);
                            taken.push(Item::Gap(gap));
                        }
                        apart = apart && resume < self.cursor;
                    }
                }
            }
        }
    }

    /// Whether storage has already told this reader what the feed tells with a gap.
    fn knows(&self, gap: &Gap, resume: Option<MessageId>) -> bool {
        match gap.reason {
            GapReason::Trimmed => self.knows_past(gap, resume),
            GapReason::Deleted => self.told_deleted || self.knows_past(gap, resume),
            GapReason::Reset => false,
        }
    }

    /// Whether the reader came from storage, and a gap of the feed does not tell what it is to this
    /// reader: it stands within what was trimmed; or the topic was gone when the feed looked, and the
    /// reader's message is of that topic or of the next one; or it was told so, and the next one has lost
    /// messages already; or ids have started anew, and the cursor is of the one time or the other.
    fn has_other(&self, gap: &Gap, resume: Option<MessageId>, apart: bool) -> bool {
        let is_beyond = self.cursor > Some(gap.from);
        match gap.reason {
            GapReason::Trimmed => is_beyond && self.cursor < resume,
            GapReason::Deleted if resume.is_none() => is_beyond,
            GapReason::Deleted => self.told_deleted && !self.knows_past(gap, resume),
            GapReason::Reset => apart,
        }
    }

    fn knows_past(&self, gap: &Gap, resume: Option<MessageId>) -> bool {
        self.cursor > Some(gap.from) && resume.is_some() && resume <= self.cursor
    }

    /// Enters the ring if the cursor lies in it.
    pub(super) fn join_ring(&mut self, confirmed: Option<u64>) -> bool {
        let ring = self.feed.ring().read();
        let standing = if confirmed == Some(ring.resets()) {
            match ring.place_of(self.cursor) {
                Place::At(number) => Some(Standing::Ring(number)),
                Place::Beyond(number) => Some(Standing::Apart(number)),
                Place::Elsewhere => None,
            }
        } else {
            self.cursor.and_then(|cursor| ring.place_behind(cursor)).map(Standing::Ring)
        };
        if let Some(standing) = standing {
            self.standing = standing;
        }
        standing.is_some()
    }

    /// Begins to read the next page behind the cursor from storage.
    pub(super) fn read(&self, feeds: &Feeds, seen: bool, budget: Budget, retry: Duration) -> Reading<O> {
        // Before the read.
        let before = self.feed.mark();
        let topic = self.feed.topic().clone();
        let reader = match self.passed_over {
            Some(by) => Reader::PassedOver(by),
            None if seen => Reader::Seen,
            None => Reader::Anywhere,
        };
        let read = feeds.history().read(Asked {
            topic: topic.clone(),
            after: self.cursor.or(seen.then_some(MessageId::MIN)),
            reader,
            limit: CATCH_UP_MESSAGES.min(budget.items),
            bytes_max: budget.bytes,
        });
        let read = async move {
            let outcome = read.await;
            if let Err(error) = &outcome
                && !is_gone(error)
            {
                note_failure(&topic, error);
                sleep(retry).await;
            }
            outcome
        };
        Reading { waker: self.waker.clone(), before, state: State::UnderWay(Box::pin(read)) }
    }

    /// Takes what storage has given. Returns whether it has: else it is to be asked again.
    pub(super) fn take_read(&mut self, reading: &Reading<O>, taken: &mut Taken) -> bool {
        match &reading.state {
            State::Known(Ok(page)) => self.take_page(page, reading.before, taken),
            State::Known(Err(error)) if is_gone(error) => self.tell_deleted(reading.before, taken),
            State::Known(Err(_)) | State::UnderWay(_) => return false,
        }
        true
    }

    fn take_page(&mut self, page: &Page, before: Mark, taken: &mut Taken) {
        self.found_gone = before.found_gone;
        // Storage tells what became of it.
        self.passed_over = None;
        if page.gap.is_some() || page.reached.is_some() {
            self.told_deleted = false;
        }
        if let Some(gap) = &page.gap {
            self.cursor = gap.to.previous();
            if gap.reason == GapReason::Reset {
                // The feed still stands beyond what is left, or has counted the loss.
                self.losses = before.losses + u64::from(before.tail >= Some(gap.to));
            }
            taken.push(Item::Gap(gap.clone()));
        }
        for message in &page.messages {
            taken.push(Item::Message(message.clone()));
        }
        self.standing = if let Some(reached) = page.reached {
            self.cursor = Some(reached);
            Standing::Behind { seen: true, confirmed: Some(before.resets) }
        } else {
            // Storage has nothing behind the cursor: what the ring had before the read is the reader's
            // already, or trimmed.
            self.cursor = self.cursor.max(page.passed);
            let start = |cursor: Option<MessageId>| cursor.filter(|id| *id > MessageId::MIN);
            Standing::in_ring(before.end, start(self.cursor) != start(before.tail))
        };
    }

    /// Tells a reader behind the ring that its topic is gone; it waits for it to be made again.
    fn tell_deleted(&mut self, before: Mark, taken: &mut Taken) {
        // Who was there before the first message has seen none of the topic.
        if let Some(from) = self.cursor.filter(|cursor| *cursor > MessageId::MIN) {
            taken.push(Item::Gap(Arc::new(self.feed.deleted(from))));
        }
        if self.passed_over.take().is_some() {
            self.tell_deleted_unseen(taken);
        }
        self.cursor = None;
        self.told_deleted = true;
        self.losses = before.losses;
        self.standing = if self.feed.ring().read().end() == before.end {
            Standing::Ring(before.end)
        } else {
            // What the feed has read meanwhile may be of the next topic already; storage knows.
            Standing::Behind { seen: true, confirmed: None }
        };
        self.feed.look();
    }

    /// Tells a reader that has got nothing of a topic that there were messages, and that they are gone with
    /// it.
    fn tell_deleted_unseen(&self, taken: &mut Taken) {
        taken.push(Item::Gap(Arc::new(self.feed.deleted(MessageId::MIN))));
    }
}

impl<O> Reading<O> {
    /// Returns whether it is for the subscription of this waker.
    pub(super) fn is_for(&self, waker: &Arc<Waker<Parked<O>>>) -> bool {
        Arc::ptr_eq(&self.waker, waker)
    }

    pub(super) const fn is_finished(&self) -> bool {
        matches!(self.state, State::Known(_))
    }

    /// Waits for the storage.
    ///
    /// # Cancel safety
    /// Cancel-safe: the read goes on when this is called again.
    pub(super) async fn finish(&mut self) {
        if let State::UnderWay(read) = &mut self.state {
            self.state = State::Known(read.await);
        }
    }
}

fn is_gone(error: &StorageError) -> bool {
    matches!(error, StorageError::NoTopic | StorageError::NotATopic)
}

fn note_failure(topic: &TopicName, error: &StorageError) {
    let error = error as &dyn std::error::Error;
    tracing::debug!(%topic, error, "a reader cannot read, trying on");
}

#[cfg(test)]
mod tests;
