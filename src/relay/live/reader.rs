//! A live reader: what one connection reads, from any number of topics.
//!
//! It holds a cursor for each topic and nothing else. It is notified when a feed has something; who drives
//! the reader takes what there is, as much as it can send now, and comes back, or parks it and leaves the
//! rest to the feeds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{MessageId, TopicName};

use super::delivered::begin_delivered;
use super::doubt::{Doubt, Owned};
use super::feeds::Feeds;
use super::following::Following;
use super::item::{End, Item, Lack, TakeLimit, Taken};
use super::message::FRAME_BYTES;
use super::outlet::{NoOutlet, Outlet};
use super::parking::{Parking, Waker};
use super::pending::{Held, Pending};
use super::storage_read::StorageRead;
use super::subscription::{Parked, Standing, Subscription};
use super::turn::Turn;
use crate::access::{Farewell, Session};
use crate::budget::{FREE_BYTES, Hold};

/// Wait before a failed read of storage is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// What a reader takes at once that finds no room for more: bytes of bodies, and messages, whose frames take
/// as much again at the most, so that together they are free.
const NARROW_BYTES: usize = FREE_BYTES / 2;
const NARROW_ITEMS: usize = NARROW_BYTES / FRAME_BYTES;
/// Topics that the log names of one reader.
const NOTED_TOPICS: usize = 5;

/// What one connection reads.
pub struct LiveReader<O: Outlet = NoOutlet> {
    pub(super) feeds: Arc<Feeds>,
    pub(super) session: Session,
    /// Empty while they are parked; those of topics of patterns among them, which are read one by one.
    pub(super) subscriptions: Vec<Subscription<O>>,
    /// The same of patterns.
    pub(super) following: Vec<Following<Parked<O>>>,
    /// Room to read the topics of a pattern one by one.
    pub(super) turn_by_topic: Turn,
    pub(super) parking: Arc<Parking<Parked<O>>>,
    reading: Option<StorageRead<Waker<Parked<O>>>>,
    /// Room for what it takes next, where it had to wait for that.
    room: Room,
    /// Whether the next read of history is to bring no more than a little.
    is_narrow: bool,
    /// The topics that it reads because its caller owns them, and which topics these were when that was asked last.
    pub(super) owned: Owned,
    /// What was taken of one of those that may be somebody else's by now, and not given out.
    pub(super) doubt: Option<Box<Doubt>>,
    /// What keeps counted what was taken last.
    held: Option<Held>,
    /// The subscription to look at first, so that a busy topic does not starve the others.
    turn: usize,
    retry: Duration,
}

/// The part of the budget that a reader has waited for.
enum Room {
    /// It may take; what it has waited for, if it has, is there.
    Granted(Hold),
    /// It takes nothing before there is room.
    Awaited(Pin<Box<dyn Future<Output = Hold> + Send>>),
}

impl<O: Outlet> fmt::Debug for LiveReader<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveReader").field("topics", &self.subscriptions.len()).finish_non_exhaustive()
    }
}

impl<O: Outlet> LiveReader<O> {
    /// Returns a reader of nothing yet.
    pub(in crate::relay) fn new(feeds: Arc<Feeds>, session: Session) -> Self {
        Self {
            feeds,
            session,
            subscriptions: Vec::new(),
            following: Vec::new(),
            turn_by_topic: Turn::None,
            owned: Owned::new(),
            doubt: None,
            parking: Arc::default(),
            reading: None,
            room: Room::Granted(Hold::default()),
            is_narrow: false,
            held: None,
            turn: 0,
            retry: RETRY_FIRST,
        }
    }

    /// Returns what is ready when the session of this reader is to end: where the node drains, once it is its turn.
    #[must_use]
    pub fn farewell(&self) -> Farewell {
        self.session.farewell()
    }

    /// Takes a topic away; returns whether it was there.
    pub fn remove(&mut self, topic: &TopicName) -> bool {
        let is_it = |it: &Subscription<O>| it.covered_by.is_none() && it.topic() == topic;
        let Some(at) = self.subscriptions.iter().position(is_it) else { return false };
        self.end_subscription(at);
        true
    }

    pub(super) fn end_subscription(&mut self, at: usize) {
        let subscription = self.subscriptions.swap_remove(at);
        if subscription.covered_by.is_none() {
            self.session.reads_less();
        }
        self.reading.take_if(|reading| reading.is_for(&subscription.waker));
        let topic = subscription.topic();
        if self.owned.contains_key(topic) && !self.subscriptions.iter().any(|it| it.topic() == topic) {
            self.owned.remove(topic);
        }
        subscription.end(&self.feeds);
    }

    /// Whether nothing is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.following.is_empty()
    }

    fn named(&self) -> impl Iterator<Item = &Subscription<O>> {
        self.subscriptions.iter().filter(|subscription| subscription.covered_by.is_none())
    }

    /// Returns the cursor of each topic: that of the last item which was taken.
    #[must_use]
    pub fn cursors(&self) -> Vec<(TopicName, MessageId)> {
        self.named().map(|subscription| (subscription.topic().clone(), cursor_of(subscription))).collect()
    }

    /// Returns those of the topics that did not exist when they were last looked at.
    #[must_use]
    pub fn absent(&self) -> Vec<TopicName> {
        let absent = self.named().filter(|subscription| subscription.is_absent());
        absent.map(|subscription| subscription.topic().clone()).collect()
    }

    /// Returns a topic's cursor.
    #[must_use]
    pub fn cursor(&self, topic: &TopicName) -> Option<MessageId> {
        self.named().find(|subscription| subscription.topic() == topic).map(cursor_of)
    }

    /// Tells the log that the client took nothing for so long that its connection was cut, and up to
    /// where messages were on their way to it: no last word can be written to such a client.
    pub fn note_cut(&self) {
        let standing: Vec<String> = self
            .subscriptions
            .iter()
            .take(NOTED_TOPICS)
            .map(|subscription| format!("{}={}", subscription.topic(), cursor_of(subscription)))
            .collect();
        tracing::info!(
            topics = self.subscriptions.len(),
            cursors = standing.join(" "),
            "a client that took nothing was cut; up to these cursors messages were on their way to it"
        );
    }

    /// Takes what there is, which may be nothing; waits for storage where it has to be read, and for
    /// nothing else.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken, and a read of storage goes on.
    pub async fn catch_up(&mut self, limit: TakeLimit) -> Vec<Item> {
        loop {
            let items = self.take_in(limit, None);
            match &mut self.reading {
                Some(reading) if items.is_empty() => reading.finish().await,
                _ => return items,
            }
        }
    }

    /// Waits for the next thing to do: until there may be something to take (`None`), or `until` is
    /// ready. Meanwhile, if the reader is up to date, the feeds write to `outlet`, which comes back
    /// with what its client has not taken.
    ///
    /// # Panics
    /// Never: nobody else takes the outlet that is parked.
    ///
    /// # Cancel safety
    /// None: the outlet would be lost. Await it to its end.
    pub async fn idle<T>(&mut self, outlet: O, until: impl Future<Output = T>) -> (O, Option<T>) {
        let kept = self.park(outlet).err();
        // In this order, and not by chance: a run can be had again, and whoever has read nothing is not
        // kept from it by what else is ready.
        let until = tokio::select! {
            biased;
            () = self.woken() => None,
            until = until => Some(until),
        };
        let outlet = kept.or_else(|| self.unpark()).expect("nobody else takes what is parked");
        (outlet, until)
    }

    /// Waits until there may be something to take.
    pub(super) async fn woken(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.settled(&self.session).await;
            return;
        }
        if let Room::Awaited(room) = &mut self.room {
            self.room = Room::Granted(room.await);
            return;
        }
        let reading = async {
            match &mut self.reading {
                None => std::future::pending().await,
                Some(reading) => reading.finish().await,
            }
        };
        let turn = async {
            match &mut self.turn_by_topic {
                Turn::None | Turn::Granted(_) => std::future::pending().await,
                Turn::Awaited(turn) => turn.await,
            }
        };
        tokio::select! {
            biased;
            () = reading => {}
            () = self.parking.woken() => {}
            turn = turn => self.turn_by_topic = turn.map_or(Turn::None, Turn::Granted),
        }
    }

    /// Parks, or returns the outlet: there is something to take, or storage has to be read.
    fn park(&mut self, outlet: O) -> Result<(), O> {
        let is_up_to_date = self.reading.is_none()
            && self.subscriptions.iter().all(Subscription::is_up_to_date)
            && self.following.iter().all(Following::is_up_to_date);
        let waits = matches!(self.room, Room::Awaited(_));
        let is_empty = self.subscriptions.is_empty() && self.following.is_empty();
        if is_up_to_date && !waits {
            self.session.has_all();
        }
        // Of what its caller owns, feeds would write to it what may be another's topic.
        if is_empty || !is_up_to_date || waits || !self.owned.is_empty() {
            return Err(outlet);
        }
        let subscriptions = std::mem::take(&mut self.subscriptions);
        let pending = self.feeds.pending().clone();
        let following = std::mem::take(&mut self.following);
        let parked = Parked { subscriptions, following, outlet, pending };
        self.parking.park(parked).map_err(|Parked { subscriptions, following, outlet, .. }| {
            (self.subscriptions, self.following) = (subscriptions, following);
            // For what is pending.
            self.parking.wake();
            outlet
        })
    }

    fn unpark(&mut self) -> Option<O> {
        let Parked { subscriptions, following, outlet, .. } = self.parking.unpark()?;
        (self.subscriptions, self.following) = (subscriptions, following);
        Some(outlet)
    }

    /// Takes what there is now, which may be nothing. Where storage has to be read it begins to. What is taken
    /// counts in the budget of what is pending for as long as [`held`](Self::held) is kept; where that is
    /// spent, there may be less, or nothing until there is room.
    pub fn take(&mut self, limit: TakeLimit) -> Vec<Item> {
        let pending = self.feeds.pending().clone();
        self.take_in(limit, Some(pending))
    }

    /// Returns what has to be kept until the items that were taken last are written; `None` where they are
    /// small.
    pub fn held(&mut self) -> Option<Held> {
        self.held.take()
    }

    /// Takes what there is now, for the feed of a pattern, whose ring is bounded.
    pub(super) fn take_uncounted(&mut self, limit: TakeLimit) -> Vec<Item> {
        self.take_in(limit, None)
    }

    /// Whether storage is being read.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Takes what there is now, counted as pending or not at all.
    pub(super) fn take_in(&mut self, mut limit: TakeLimit, pending: Option<Pending>) -> Vec<Item> {
        if let Some(doubt) = self.doubt.take() {
            return self.given_out(doubt);
        }
        let granted = match &mut self.room {
            Room::Awaited(_) => return Vec::new(),
            Room::Granted(hold) => std::mem::take(hold),
        };
        if self.is_narrow {
            limit.bytes = limit.bytes.min(NARROW_BYTES);
            limit.items = limit.items.min(NARROW_ITEMS);
        }
        let mut taken = Taken::new(limit, pending, granted);
        self.take_turns(&mut taken);
        let End { items, held, granted, lack } = taken.end();
        self.held = held;
        let is_little = lack == Lack::Little;
        self.room = match lack {
            Lack::Room(topic, bytes) => {
                drop(granted);
                Room::Awaited(Box::pin(self.feeds.pending().clone().room_for(topic, bytes)))
            }
            // What was waited for may be for what is being read.
            Lack::Nothing | Lack::Little if self.reading.is_some() => Room::Granted(granted),
            Lack::Nothing | Lack::Little => Room::Granted(Hold::default()),
        };
        if items.is_empty() && is_little {
            self.is_narrow = true;
            self.parking.wake();
        } else if !items.is_empty() {
            self.is_narrow = false;
        }
        let _span = begin_delivered(&items);
        if let Some(Item::Message(last)) = items.last() {
            self.session.has_up_to(last.id().ms);
        }
        self.withhold(items)
    }

    fn take_turns(&mut self, taken: &mut Taken) {
        if let Some(reading) = self.reading.take_if(|reading| reading.is_finished())
            && let Some(subscription) =
                self.subscriptions.iter_mut().find(|subscription| reading.is_for(&subscription.waker))
        {
            self.retry = if subscription.take_read(&reading, taken) {
                RETRY_FIRST
            } else {
                // It has waited so long already.
                (self.retry * 2).min(RETRY_LAST)
            };
            subscription.waker.keep_pending();
        }
        for _ in 0..self.subscriptions.len() {
            self.turn = (self.turn + 1) % self.subscriptions.len();
            if taken.is_full() {
                break;
            }
            if self.subscriptions[self.turn].waker.is_pending() {
                self.take_from_topic(self.turn, taken);
            }
        }
        for at in 0..self.following.len() {
            self.take_from_pattern(at, taken);
        }
    }

    fn take_from_topic(&mut self, at: usize, taken: &mut Taken) {
        let subscription = &mut self.subscriptions[at];
        // Whatever is notified from here on is looked at in the next turn.
        subscription.waker.clear();
        loop {
            match subscription.standing {
                Standing::Ring(from) | Standing::Ahead(from) => {
                    if subscription.take_from_ring(from, taken) {
                        return;
                    }
                }
                Standing::Waiting { cuts } => {
                    if subscription.waits(cuts) {
                        return;
                    }
                }
                Standing::Behind { seen, cuts } => {
                    if self.reading.as_ref().is_some_and(|reading| reading.is_for(&subscription.waker)) {
                        // What storage gives comes first.
                        subscription.waker.keep_pending();
                        return;
                    }
                    if subscription.join_ring(cuts) {
                        continue;
                    }
                    // Very many topics take their turns; history is read with what is left of the limit.
                    let is_next = taken.items.is_empty() && self.reading.is_none();
                    if is_next && !taken.waits_behind(subscription.topic()) {
                        self.reading = Some(subscription.read(&self.feeds, seen, taken.limit, self.retry));
                    } else {
                        subscription.waker.keep_pending();
                    }
                    return;
                }
            }
        }
    }
}

/// Returns the cursor with which a reader begins again in the same place.
fn cursor_of<O: Outlet>(subscription: &Subscription<O>) -> MessageId {
    subscription.cursor().unwrap_or(MessageId::MIN)
}

impl<O: Outlet> Drop for LiveReader<O> {
    fn drop(&mut self) {
        if let Some(Parked { subscriptions, following, .. }) = self.parking.unpark() {
            (self.subscriptions, self.following) = (subscriptions, following);
        }
        self.following.drain(..).for_each(Following::end);
        for subscription in self.subscriptions.drain(..) {
            subscription.end(&self.feeds);
        }
    }
}
