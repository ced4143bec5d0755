//! A live reader: what one connection reads, from any number of topics.
//!
//! It holds a cursor for each topic and nothing else. Its bell is rung when a feed has something; who
//! drives the reader takes what there is, as much as it can send now, and comes back, or sits down and
//! leaves the rest to the feeds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::page::Order;
use tidemill_proto::{Gap, GapReason, MessageId, Since, TopicName};
use tokio::time::sleep;

use super::crowd::Place as CrowdPlace;
use super::feed::Feed;
use super::hub::{Absent, Hub};
use super::message::LiveMessage;
use super::ring::{Place, Slot};
use super::round::{Found, Rounds};
use super::seat::{Bell, Listener, NoOutlet, Outlet, Seat, Sitting};
use crate::relay::Failure;
use crate::storage::{Batch, Range, Reader, StorageError};

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

/// One topic of a reader.
#[derive(Debug)]
pub(super) struct Line<O> {
    feed: Arc<Feed>,
    pub(super) bell: Arc<Bell<O>>,
    place: CrowdPlace,
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

/// A read of storage for one line.
struct Reading<O> {
    bell: Arc<Bell<O>>,
    /// The ring's count of resets and its first slot before the read: what is reset meanwhile is not
    /// confirmed by it.
    resets: u64,
    first: u64,
    outcome: Outcome,
}

enum Outcome {
    UnderWay(Pin<Box<dyn Future<Output = Result<Batch, StorageError>> + Send>>),
    Known(Result<Batch, StorageError>),
}

/// What one connection reads.
pub struct LiveReader<O: Outlet = NoOutlet> {
    hub: Arc<Hub>,
    /// Empty while it sits.
    lines: Vec<Line<O>>,
    seat: Arc<Seat<O>>,
    reading: Option<Reading<O>>,
    /// The line to look at first, so that a busy topic does not starve the others.
    turn: usize,
    retry: Duration,
}

impl<O: Outlet> fmt::Debug for LiveReader<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveReader").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl<O: Outlet> LiveReader<O> {
    /// Returns a reader of nothing yet.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, lines: Vec::new(), seat: Arc::default(), reading: None, turn: 0, retry: RETRY_FIRST }
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
        let bell = Arc::new(Bell::new(self.seat.clone()));
        let place = feed.crowd().enter(bell.clone());
        let resets = feed.ring().read().resets();
        let confirmed = latest.then_some(resets);
        let standing = Standing::Behind { seen, confirmed };
        self.lines.push(Line { feed, bell, place, cursor, standing, told_deleted: false });
        self.seat.call();
        Ok(cursor)
    }

    /// Takes a topic away; returns whether it was there.
    pub fn remove(&mut self, topic: &TopicName) -> bool {
        let Some(at) = self.lines.iter().position(|line| line.feed.topic() == topic) else {
            return false;
        };
        let line = self.lines.swap_remove(at);
        self.reading.take_if(|reading| Arc::ptr_eq(&reading.bell, &line.bell));
        line.leave(&self.hub);
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
    /// Cancel-safe: what is not returned is not taken, and a read of storage goes on.
    pub async fn next(&mut self, budget: Budget) -> Vec<Item> {
        loop {
            let items = self.take(budget);
            if !items.is_empty() {
                return items;
            }
            self.called().await;
        }
    }

    /// Takes what there is, which may be nothing; waits for storage where it has to be read, and for
    /// nothing else.
    ///
    /// # Cancel safety
    /// Cancel-safe: what is not returned is not taken, and a read of storage goes on.
    pub async fn catch_up(&mut self, budget: Budget) -> Vec<Item> {
        loop {
            let items = self.take(budget);
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
    /// Never: nobody else takes the outlet from the seat.
    ///
    /// # Cancel safety
    /// None: the outlet would be lost. Await it to its end.
    pub async fn idle<T>(&mut self, outlet: O, until: impl Future<Output = T>) -> (O, Option<T>) {
        let kept = self.sit(outlet).err();
        let until = tokio::select! {
            until = until => Some(until),
            () = self.called() => None,
        };
        let outlet = kept.or_else(|| self.rise()).expect("nobody else takes it from the seat");
        (outlet, until)
    }

    /// Waits until there may be something to take.
    async fn called(&mut self) {
        match &mut self.reading {
            None => self.seat.called().await,
            Some(reading) => tokio::select! {
                () = reading.finish() => {}
                () = self.seat.called() => {}
            },
        }
    }

    /// Sits down, or returns the outlet: there is something to take, or storage has to be read.
    fn sit(&mut self, outlet: O) -> Result<(), O> {
        let is_up_to_date = self.reading.is_none()
            && self.lines.iter().all(|line| matches!(line.standing, Standing::Ring(_)));
        if self.lines.is_empty() || !is_up_to_date {
            return Err(outlet);
        }
        let lines = std::mem::take(&mut self.lines);
        self.seat.sit(Sitting { lines, outlet }).map_err(|Sitting { lines, outlet }| {
            self.lines = lines;
            // For the bell that was rung.
            self.seat.call();
            outlet
        })
    }

    fn rise(&mut self) -> Option<O> {
        let Sitting { lines, outlet } = self.seat.rise()?;
        self.lines = lines;
        Some(outlet)
    }

    /// Takes what there is now, which may be nothing. Where storage has to be read it begins to.
    pub fn take(&mut self, budget: Budget) -> Vec<Item> {
        let mut taken = Taken { items: Vec::new(), bytes: 0, budget };
        if let Some(Reading { bell, resets, first, outcome: Outcome::Known(result) }) =
            self.reading.take_if(|reading| matches!(reading.outcome, Outcome::Known(_)))
            && let Some(line) = self.lines.iter_mut().find(|line| Arc::ptr_eq(&line.bell, &bell))
        {
            match result {
                Ok(batch) => {
                    self.retry = RETRY_FIRST;
                    line.take_batch(batch, resets, first, &mut taken);
                }
                Err(StorageError::NoTopic | StorageError::NotATopic) => {
                    self.retry = RETRY_FIRST;
                    line.tell_deleted(&mut taken);
                }
                // Its wait is over.
                Err(_) => self.retry = (self.retry * 2).min(RETRY_LAST),
            }
            line.bell.keep_rung();
        }
        for _ in 0..self.lines.len() {
            self.turn = (self.turn + 1) % self.lines.len();
            if taken.is_full() {
                break;
            }
            if self.lines[self.turn].bell.is_rung() {
                self.take_from_line(self.turn, &mut taken);
            }
        }
        taken.items
    }

    fn take_from_line(&mut self, at: usize, taken: &mut Taken) {
        let line = &mut self.lines[at];
        // Whatever is rung from here on is looked at in the next turn.
        line.bell.silence();
        loop {
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
                    if taken.items.is_empty() && self.reading.is_none() {
                        self.reading = Some(line.read(&self.hub, seen, taken.budget, self.retry));
                    } else {
                        line.bell.keep_rung();
                    }
                    return;
                }
            }
        }
    }
}

impl<O> Reading<O> {
    /// Waits for the storage.
    ///
    /// # Cancel safety
    /// Cancel-safe: the read goes on when this is called again.
    async fn finish(&mut self) {
        if let Outcome::UnderWay(read) = &mut self.outcome {
            self.outcome = Outcome::Known(read.await);
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

impl<O: Outlet> Line<O> {
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
            // A reader that came from storage can be ahead of the feed.
            let is_ahead = Some(round.first()) <= self.cursor;
            if is_ahead || !outlet.is_free() || round.len_bytes() > outlet.bytes_max() {
                return false;
            }
            outlet.deliver(round);
            self.cursor = Some(round.last());
            self.standing = Standing::Ring(round.end());
            self.told_deleted = false;
            if !outlet.is_free() {
                return false;
            }
        }
    }

    fn leave(self, hub: &Arc<Hub>) {
        let listener: Arc<dyn Listener> = self.bell;
        self.feed.crowd().leave(&self.place, &listener);
        hub.leave(self.feed.topic());
    }

    /// Takes from the ring. Returns whether the line is done for this turn: at the end of the ring, or
    /// the turn is full; not done if the ring has gone on without it.
    fn take_from_ring(&mut self, mut from: u64, taken: &mut Taken) -> bool {
        let ring = self.feed.ring().read();
        loop {
            let room = taken.budget.items.saturating_sub(taken.items.len());
            if room == 0 || taken.is_full() {
                self.standing = Standing::Ring(from);
                self.bell.keep_rung();
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

    /// Begins to read the next page behind the cursor from storage.
    fn read(&self, hub: &Hub, seen: bool, budget: Budget, retry: Duration) -> Reading<O> {
        // Before the read.
        let (resets, first) = {
            let ring = self.feed.ring().read();
            (ring.resets(), ring.first())
        };
        let topic = self.feed.topic().clone();
        let range = Range {
            order: Order::Asc,
            after: self.cursor,
            reader: if seen { Reader::Seen } else { Reader::Anywhere },
            limit: CATCH_UP_MESSAGES.min(budget.items),
            bytes_max: budget.bytes,
        };
        let storage = hub.storage().clone();
        let read = async move {
            let result = storage.messages.read(&topic, range).await;
            if let Err(error) = &result
                && !matches!(error, StorageError::NoTopic | StorageError::NotATopic)
            {
                note_failure(&topic, error);
                sleep(retry).await;
            }
            result
        };
        Reading { bell: self.bell.clone(), resets, first, outcome: Outcome::UnderWay(Box::pin(read)) }
    }

    /// Takes what storage has given.
    fn take_batch(&mut self, batch: Batch, resets: u64, first: u64, taken: &mut Taken) {
        let topic = self.feed.topic().clone();
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
    }

    /// Tells a reader behind the ring that its topic is gone; it waits for it to be made again.
    fn tell_deleted(&mut self, taken: &mut Taken) {
        let topic = self.feed.topic();
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

fn note_failure(topic: &TopicName, error: &StorageError) {
    let error = error as &dyn std::error::Error;
    tracing::debug!(%topic, error, "a reader cannot read, trying on");
}

impl<O: Outlet> Drop for LiveReader<O> {
    fn drop(&mut self) {
        let sitting = self.seat.rise().map(|sitting| sitting.lines);
        for line in self.lines.drain(..).chain(sitting.into_iter().flatten()) {
            line.leave(&self.hub);
        }
    }
}
