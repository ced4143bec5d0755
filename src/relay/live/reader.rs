//! A live reader: what one connection reads, from any number of topics.
//!
//! It holds a cursor for each topic and nothing else. Its bell is rung when a feed has something; who
//! drives the reader takes what there is, as much as it can send now, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill_proto::page::Order;
use tidemill_proto::{Gap, GapReason, MessageId, Since, TopicName};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::feed::Feed;
use super::hub::{Absent, Hub};
use super::message::LiveMessage;
use super::ring::{Place, Slot};
use crate::relay::Failure;
use crate::storage::{Range, Reader, StorageError};

/// Messages that a reader behind the ring takes from storage at once.
const CATCH_UP_MESSAGES: usize = 200;
/// Wait before a failed read of storage is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// A message.
    Message(Arc<LiveMessage>),
    /// A hole.
    Gap(Arc<Gap>),
}

/// How much a reader takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Most items; at least 1.
    pub items: usize,
    /// Bytes after which to stop; one item is taken whatever it weighs.
    pub bytes: usize,
}

/// Rung when a topic of a reader may have something for it.
#[derive(Debug)]
pub(super) struct Bell {
    rung: AtomicBool,
    shared: Arc<Notify>,
}

impl Bell {
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.shared.notify_one();
        }
    }
}

/// One topic of a reader.
#[derive(Debug)]
struct Line {
    feed: Arc<Feed>,
    bell: Arc<Bell>,
    cursor: Option<MessageId>,
    standing: Standing,
    /// Whether storage has told that the topic is gone, and nothing has come since: then the feed's word
    /// is no news.
    told_deleted: bool,
}

/// Where a reader of a topic stands.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// In the ring, in front of the slot of this number.
    Ring(u64),
    /// Behind the ring: storage has to be read. `seen` if the cursor's message is one that the reader
    /// has seen; `confirmed` is the ring's count of resets before storage last knew the cursor.
    Behind { seen: bool, confirmed: Option<u64> },
}

/// What one connection reads.
#[derive(Debug)]
pub struct LiveReader {
    hub: Arc<Hub>,
    lines: Vec<Line>,
    notify: Arc<Notify>,
    /// The line to look at first, so that a busy topic does not starve the others.
    turn: usize,
    retry: Duration,
}

impl LiveReader {
    /// Returns a reader of nothing yet.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, lines: Vec::new(), notify: Arc::new(Notify::new()), turn: 0, retry: RETRY_FIRST }
    }

    /// Adds a topic, or moves the reader to another place in it, and returns the cursor where it
    /// starts.
    ///
    /// # Errors
    /// The topic does not exist, or the storage did not answer.
    pub async fn add(&mut self, topic: &TopicName, since: Since) -> Result<Option<MessageId>, Failure> {
        self.add_as(topic, since, Absent::Refuse).await
    }

    /// Adds a topic as [`add`](Self::add) does, also one that does not exist yet: its messages come
    /// once it is made, from the first one on.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn add_awaited(
        &mut self,
        topic: &TopicName,
        since: Since,
    ) -> Result<Option<MessageId>, Failure> {
        self.add_as(topic, since, Absent::Await).await
    }

    async fn add_as(
        &mut self,
        topic: &TopicName,
        since: Since,
        absent: Absent,
    ) -> Result<Option<MessageId>, Failure> {
        let (cursor, seen) = self.hub.resolve(topic, since, absent).await?;
        let latest = matches!(since, Since::Cursor(tidemill_proto::Cursor::Latest));
        let feed = self.hub.join(topic, absent).await?;
        self.remove(topic);
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), shared: self.notify.clone() });
        feed.add_bell(bell.clone());
        let resets = feed.ring().read().resets();
        let confirmed = latest.then_some(resets);
        let standing = Standing::Behind { seen, confirmed };
        self.lines.push(Line { feed, bell, cursor, standing, told_deleted: false });
        self.notify.notify_one();
        Ok(cursor)
    }

    /// Takes a topic away; returns whether it was there.
    pub fn remove(&mut self, topic: &TopicName) -> bool {
        let Some(at) = self.lines.iter().position(|line| line.feed.topic() == topic) else {
            return false;
        };
        let line = self.lines.swap_remove(at);
        line.feed.remove_bell(&line.bell);
        self.hub.leave(topic);
        true
    }

    /// Returns how many topics are read.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.lines.len()
    }

    /// Returns the cursor of each topic: that of the last item which was taken.
    #[must_use]
    pub fn cursors(&self) -> Vec<(TopicName, Option<MessageId>)> {
        self.lines.iter().map(|line| (line.feed.topic().clone(), line.cursor)).collect()
    }

    /// Returns a topic's cursor.
    #[must_use]
    pub fn cursor(&self, topic: &TopicName) -> Option<MessageId> {
        self.lines.iter().find(|line| line.feed.topic() == topic).and_then(|line| line.cursor)
    }

    /// Waits until there is something, and takes it. Waits for ever where nothing is read.
    ///
    /// While the storage cannot be read, it waits: the messages come when it is back.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken.
    pub async fn next(&mut self, budget: Budget) -> Vec<Item> {
        loop {
            let notified = self.notify.clone();
            let mut notified = std::pin::pin!(notified.notified());
            notified.as_mut().enable();
            let items = self.take(budget).await;
            if !items.is_empty() {
                return items;
            }
            notified.await;
        }
    }

    /// Takes what there is now, which may be nothing.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken.
    pub async fn take(&mut self, budget: Budget) -> Vec<Item> {
        let mut taken = Taken { items: Vec::new(), bytes: 0, budget };
        for _ in 0..self.lines.len() {
            self.turn = (self.turn + 1) % self.lines.len();
            if taken.is_full() {
                break;
            }
            if self.lines[self.turn].bell.rung.load(Ordering::Acquire) {
                self.take_from_line(self.turn, &mut taken).await;
            }
        }
        taken.items
    }

    async fn take_from_line(&mut self, at: usize, taken: &mut Taken) {
        // Whatever is rung from here on is looked at in the next turn.
        self.lines[at].bell.rung.store(false, Ordering::Release);
        loop {
            let line = &mut self.lines[at];
            match line.standing {
                Standing::Ring(from) => {
                    if line.take_from_ring(from, taken) {
                        return;
                    }
                }
                Standing::Behind { seen, confirmed } => {
                    if line.join_ring(confirmed) {
                        continue;
                    }
                    // A crowd of lines takes its turns; history is read with what is left of the budget.
                    if !taken.items.is_empty() {
                        line.bell.ring();
                        return;
                    }
                    // Should this future be dropped here, the line is looked at again.
                    line.bell.rung.store(true, Ordering::Release);
                    let outcome = line.take_from_storage(self.hub.clone(), seen, taken).await;
                    let line = &mut self.lines[at];
                    line.bell.ring();
                    match outcome {
                        Ok(()) if taken.items.is_empty() => {
                            self.retry = RETRY_FIRST;
                            line.bell.rung.store(false, Ordering::Release);
                        }
                        Ok(()) => {
                            self.retry = RETRY_FIRST;
                            return;
                        }
                        Err(failure) => {
                            tracing::debug!(topic = %line.feed.topic(), cause = %failure.chain(), "a reader cannot read, trying on");
                            sleep(self.retry).await;
                            self.retry = (self.retry * 2).min(RETRY_LAST);
                            // The bell is rung already, so it would wake nobody.
                            self.notify.notify_one();
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// What is taken in one turn.
struct Taken {
    items: Vec<Item>,
    bytes: usize,
    budget: Budget,
}

impl Taken {
    fn is_full(&self) -> bool {
        self.items.len() >= self.budget.items || self.bytes >= self.budget.bytes
    }

    fn push(&mut self, item: Item) {
        self.bytes += match &item {
            Item::Message(message) => message.len_bytes(),
            Item::Gap(_) => 200,
        };
        self.items.push(item);
    }
}

impl Line {
    /// Takes from the ring. Returns whether the line is done for this turn: at the end of the ring, or
    /// the turn is full; not done if the ring has gone on without it.
    fn take_from_ring(&mut self, mut from: u64, taken: &mut Taken) -> bool {
        let ring = self.feed.ring().read();
        loop {
            let room = taken.budget.items.saturating_sub(taken.items.len());
            if room == 0 || taken.is_full() {
                self.standing = Standing::Ring(from);
                drop(ring);
                self.bell.ring();
                return true;
            }
            let Some(slots) = ring.read(from, room.min(64)) else {
                self.standing =
                    Standing::Behind { seen: self.cursor.is_some(), confirmed: Some(ring.resets()) };
                return false;
            };
            if slots.is_empty() {
                self.standing = Standing::Ring(from);
                return true;
            }
            for slot in slots {
                if taken.is_full() {
                    break;
                }
                from += 1;
                match slot {
                    // A reader that came from storage can be ahead of the feed.
                    Slot::Message(message) if Some(message.id()) <= self.cursor => {}
                    Slot::Message(message) => {
                        self.cursor = Some(message.id());
                        self.told_deleted = false;
                        taken.push(Item::Message(message));
                    }
                    Slot::Gap(gap, resume) => {
                        if !self.knows(&gap, resume) {
                            self.cursor = resume;
                            taken.push(Item::Gap(gap));
                        }
                    }
                }
            }
        }
    }

    /// Whether storage has already told this reader what the feed tells with a gap.
    fn knows(&self, gap: &Gap, resume: Option<MessageId>) -> bool {
        let is_past = self.cursor > Some(gap.from) && resume.is_some() && resume <= self.cursor;
        match gap.reason {
            GapReason::Trimmed => is_past,
            GapReason::Deleted => is_past || self.told_deleted,
            GapReason::Reset => false,
        }
    }

    /// Enters the ring if the cursor lies in it.
    fn join_ring(&mut self, confirmed: Option<u64>) -> bool {
        let ring = self.feed.ring().read();
        let place = if confirmed == Some(ring.resets()) {
            match ring.place_of(self.cursor) {
                Place::At(number) => Some(number),
                Place::Before => None,
            }
        } else {
            self.cursor.and_then(|cursor| ring.place_behind(cursor))
        };
        if let Some(number) = place {
            self.standing = Standing::Ring(number);
        }
        place.is_some()
    }

    /// Reads the next page behind the cursor from storage.
    async fn take_from_storage(
        &mut self,
        hub: Arc<Hub>,
        seen: bool,
        taken: &mut Taken,
    ) -> Result<(), Failure> {
        // Before the read: what is reset meanwhile is not confirmed by it.
        let (resets, first) = {
            let ring = self.feed.ring().read();
            (ring.resets(), ring.first())
        };
        let topic = self.feed.topic().clone();
        let reader = if seen { Reader::Seen } else { Reader::Anywhere };
        let range = Range {
            order: Order::Asc,
            after: self.cursor,
            reader,
            limit: CATCH_UP_MESSAGES.min(taken.budget.items),
            bytes_max: taken.budget.bytes,
        };
        let batch = match hub.storage().messages.read(&topic, range).await {
            Ok(batch) => batch,
            Err(StorageError::NoTopic | StorageError::NotATopic) => {
                self.tell_deleted(&topic, taken);
                return Ok(());
            }
            Err(error) => return Err(Failure::read(error, Some(&topic))),
        };
        if let Some(gap) = batch.gap {
            self.cursor = gap.to.previous();
            taken.push(Item::Gap(Arc::new(gap)));
        }
        for stored in batch.messages {
            taken.push(Item::Message(Arc::new(LiveMessage::new(topic.clone(), stored))));
        }
        self.standing = if let Some(reached) = batch.reached {
            self.cursor = Some(reached);
            Standing::Behind { seen: true, confirmed: Some(resets) }
        } else {
            // Storage has nothing behind the cursor; should the ring have, it was there a moment before
            // and is still to be had from it.
            Standing::Ring(first)
        };
        Ok(())
    }

    /// Tells a reader behind the ring that its topic is gone; it waits for it to be made again.
    fn tell_deleted(&mut self, topic: &TopicName, taken: &mut Taken) {
        if let Some(from) = self.cursor {
            let to = from.next().unwrap_or(MessageId::MAX);
            let gap = Gap { topic: topic.clone(), from, to, reason: GapReason::Deleted, missed: None };
            taken.push(Item::Gap(Arc::new(gap)));
        }
        self.cursor = None;
        self.told_deleted = true;
        self.standing = Standing::Ring(self.feed.ring().read().end());
        self.feed.look();
    }
}

impl Drop for LiveReader {
    fn drop(&mut self) {
        for line in self.lines.drain(..) {
            line.feed.remove_bell(&line.bell);
            self.hub.leave(line.feed.topic());
        }
    }
}
