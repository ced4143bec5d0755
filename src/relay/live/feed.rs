//! A feed: the one task that reads a topic forward for all its readers on this node.
//!
//! It looks when it is told to, reads until there is nothing more, and notifies its subscribers. What
//! it cannot read now it reads later: readers wait meanwhile, and miss nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_proto::page::Order;
use tidemill_proto::topics::{Closed, RunState};
use tidemill_proto::{Gap, GapReason, MessageId, Timestamp, TopicName};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::message::LiveMessage;
use super::primitives::{AtomicBool, RwLock};
use super::ring::Ring;
use super::ring_bytes::RingBytes;
use super::subscribers::{Subscribers, tell};
use crate::storage::{
    Batch, Epoch, Followed, GapCheck, Range, RunEnd, Storage, StorageError, Tail, TakenOut,
};

/// Messages that a feed reads at once.
const READ_MESSAGES: usize = 500;
/// Bytes that a feed reads at once.
const READ_BYTES: usize = 1024 * 1024;
/// First and longest wait before a failed read is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// The least and the longest time after which it is looked again for messages whose time is over.
const EXPIRY_LOOKED_AFTER: [Duration; 2] = [Duration::from_millis(1), Duration::from_mins(1)];
/// How often a topic is swept that has no epoch, at most.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The feed of a topic on this node.
#[derive(Debug)]
pub(super) struct Feed {
    topic: TopicName,
    storage: Storage,
    ring: RwLock<Ring>,
    subscribers: Subscribers,
    look: Notify,
    stopped: AtomicBool,
    /// Whether the topic was gone when it was last looked at.
    gone: AtomicBool,
    /// Whether a reader may have got more from storage than the feed has come to.
    has_reader_ahead: AtomicBool,
    /// How many messages the topic had been given with the ring's tail; [`UNCOUNTED`] where nobody knows.
    given: AtomicU64,
    /// Up to when the feed has everything, in milliseconds of the clock that makes ids.
    complete_ms: AtomicU64,
}

const UNCOUNTED: u64 = u64::MAX;

/// How far a feed had come at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// The ring's count of cuts.
    pub(super) cuts: u64,
    /// The ring's end.
    pub(super) end: u64,
    /// The cursor from which the feed reads on.
    pub(super) tail: Option<MessageId>,
    /// The ring's count of losses.
    pub(super) losses: u64,
}

impl Mark {
    /// Returns how many losses a reader knows of who knew of so many, and was told of a hole up to here. The feed is to come
    /// to it, has come to it and counted it, or has never seen it, as it began behind it.
    pub(super) fn losses_behind(self, hole: Option<MessageId>, known: u64) -> u64 {
        if self.tail >= hole { self.losses.min(known + 1) } else { known + 1 }
    }
}

/// What a feed knows of where it stands.
#[derive(Default)]
struct Position {
    /// Which message of the topic the tail is, counted from 1, where the backend counts.
    seen_as: Option<u64>,
    /// Whether the count was lost and is to be found again.
    lost_count: bool,
    /// What had been taken out of the topic when it was last looked at.
    taken_out: Option<TakenOut>,
    /// When the topic was swept last, because it had no epoch.
    swept_at: Option<Instant>,
    /// How the topic had ended when it was looked at last.
    state: RunState,
}

impl Feed {
    /// Returns a feed that will read on from a topic's tail; `gone` tells that there is no such topic now.
    /// It was asked for at `now`. Its ring is counted with all of these.
    pub(super) fn new(
        topic: TopicName,
        storage: Storage,
        tail: Tail,
        gone: bool,
        now: Timestamp,
        rings: &RingBytes,
    ) -> Self {
        let mut ring = Ring::new(tail.last, tail.epoch, rings);
        if let Some(ended) = tail.ended {
            ring.set_ended(closed(&topic, ended));
        }
        Self {
            complete_ms: AtomicU64::new(now.as_millis()),
            topic,
            storage,
            ring: RwLock::new(ring),
            subscribers: Subscribers::default(),
            look: Notify::new(),
            stopped: AtomicBool::new(false),
            gone: AtomicBool::new(gone),
            has_reader_ahead: AtomicBool::new(false),
            given: AtomicU64::new(tail.given.unwrap_or(UNCOUNTED)),
        }
    }

    pub(super) fn topic(&self) -> &TopicName {
        &self.topic
    }

    pub(super) fn ring(&self) -> &RwLock<Ring> {
        &self.ring
    }

    /// Lets go of what the ring holds, where room is needed and none of it is new.
    pub(super) fn ease(&self) {
        self.ring.write().ease();
    }

    /// Tells the feed that there may be something new.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// Returns the cursor from which the feed reads on.
    fn tail(&self) -> Option<MessageId> {
        self.ring.read().tail()
    }

    /// Whether the topic was gone when it was last looked at.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Returns what the feed knows of its topic, to ask for its changes.
    pub(super) fn followed(&self) -> Followed {
        let given = Some(self.given.load(Ordering::Relaxed)).filter(|given| *given != UNCOUNTED);
        let ring = self.ring.read();
        let (seen, epoch) = (ring.tail(), ring.epoch());
        let state = ring.ended().map_or(RunState::Open, |closed| closed.state);
        Followed { topic: self.topic.clone(), seen, exists: !self.is_gone(), epoch, given, state }
    }

    /// Whether the topic has ended, and the ring comes up to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ring.read().ended().is_some()
    }

    /// Returns up to when the feed has everything that the topic was given, in milliseconds of the clock that
    /// makes ids, as far as ids follow it.
    pub(super) fn complete_ms(&self) -> u64 {
        self.complete_ms.load(Ordering::Acquire)
    }

    /// Notes that the feed had everything at this time.
    pub(super) fn note_complete(&self, at: Timestamp) {
        self.complete_ms.fetch_max(at.as_millis(), Ordering::AcqRel);
    }

    /// Returns how far the feed has come.
    pub(super) fn mark(&self) -> Mark {
        let ring = self.ring.read();
        Mark { cuts: ring.cuts(), end: ring.end(), tail: ring.tail(), losses: ring.losses() }
    }

    /// Has the feed look: a reader has got more from storage than it has come to, or another topic.
    pub(super) fn look_for_reader_ahead(&self) {
        self.has_reader_ahead.store(true, Ordering::Release);
        self.look();
    }

    /// Returns who reads the topic on this node.
    pub(super) fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Tells all readers that there is something in the ring, and returns once they have been told.
    async fn tell(self: &Arc<Self>) {
        tell(self, |feed| (&feed.subscribers, &feed.ring)).await;
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.look.notify_one();
    }

    /// Reads the topic forward until the feed is stopped.
    pub(super) async fn run(self: Arc<Self>, tail: Tail) {
        let mut position = Position { seen_as: tail.given, ..Position::default() };
        let mut wait = RETRY_FIRST;
        if !self.is_gone() {
            self.see_to_epoch(tail.epoch, &mut position).await;
        }
        loop {
            tokio::select! {
                () = self.look.notified() => {}
                () = self.expire() => continue,
            }
            loop {
                if self.stopped.load(Ordering::Acquire) {
                    return;
                }
                // Publishers that have something now go first: their messages come along.
                yield_now().await;
                match self.read_on(&mut position).await {
                    Ok(true) => wait = RETRY_FIRST,
                    Ok(false) => break,
                    Err(error) => {
                        self.note_failure(&error);
                        sleep(wait).await;
                        wait = (wait * 2).min(RETRY_LAST);
                    }
                }
            }
        }
    }

    /// Waits until the time of a message in the ring may be over, and lets go of it.
    async fn expire(&self) {
        let next = self.ring.read().next_expiry();
        let Some(at) = next else { return std::future::pending().await };
        sleep(due_in(at, self.storage.upkeep.now())).await;
        self.ring.write().expire(self.storage.upkeep.now());
    }

    fn note_failure(&self, error: &StorageError) {
        let error = error as &dyn std::error::Error;
        tracing::debug!(topic = %self.topic, error, "a feed cannot read, trying on");
    }

    /// Has a topic that another producer has made get its epoch, so that whoever follows it from here on is told if it
    /// is replaced. The sweep tells the feed when that is done.
    async fn see_to_epoch(&self, epoch: Epoch, position: &mut Position) {
        let is_due = position.swept_at.is_none_or(|at| at.elapsed() >= SWEEP_EVERY);
        if epoch != Epoch::Unmarked || !is_due {
            return;
        }
        position.swept_at = Some(Instant::now());
        if let Err(error) = self.storage.upkeep.sweep_one(&self.topic).await {
            self.note_failure(&error);
        }
    }

    /// Counts anew after a gap of unknown size, so that later gaps are known exactly again. Where the topic has gone
    /// on meanwhile, the next look does.
    async fn recount(&self, position: &mut Position) {
        if let Ok(tail) = self.storage.live.tail(&self.topic).await
            // One that was set back has been given nothing since, wherever the feed stands.
            && (tail.last == self.tail() || tail.given == Some(0))
            && self.ring.read().epoch().may_be(tail.epoch)
        {
            position.seen_as = tail.given;
            position.lost_count = false;
        }
    }

    /// Reads what is new, once. Returns whether there may be more.
    async fn read_on(self: &Arc<Self>, position: &mut Position) -> Result<bool, StorageError> {
        let (tail, epoch) = {
            let ring = self.ring.read();
            (ring.tail(), ring.epoch())
        };
        let (after, gap_check) = match (tail, position.seen_as) {
            // There since the topic had no message: what is gone before the first look was missed too.
            (None, Some(0)) => (Some(MessageId::MIN), GapCheck::follows(epoch, Some(0))),
            (None, _) => (None, GapCheck::Epoch),
            (Some(_), count) => (tail, GapCheck::follows(epoch, count)),
        };
        let range =
            Range { order: Order::Asc, after, gap_check, limit: READ_MESSAGES, bytes_max: READ_BYTES };
        let asked_at = self.storage.upkeep.now();
        match self.storage.messages.read(&self.topic, range).await {
            Ok(batch) => {
                let batch = self.behind_what_is_left(batch, epoch).await?;
                self.gone.store(false, Ordering::Relaxed);
                let found = batch.epoch.unwrap_or(epoch);
                let state = batch.epoch.map(|_| batch.state);
                let taken = self.take(batch, position);
                if taken.is_some() {
                    self.tell().await;
                }
                self.see_to_epoch(found, position).await;
                let more = taken == Some(true) || self.note_state(state, taken.is_none(), position).await?;
                if !more && position.lost_count {
                    self.recount(position).await;
                }
                self.given.store(position.seen_as.unwrap_or(UNCOUNTED), Ordering::Relaxed);
                if !more {
                    self.note_complete(asked_at);
                }
                Ok(more)
            }
            Err(StorageError::NoTopic | StorageError::NotATopic) => {
                if self.find_gone() {
                    *position = Position { seen_as: Some(0), ..Position::default() };
                    self.given.store(0, Ordering::Relaxed);
                    self.tell().await;
                }
                self.note_complete(asked_at);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes how the topic is. Where it has ended, its readers are told, once there is nothing more in front of that: a
    /// look that began when it had ended already has found nothing. Returns whether there is to be another look.
    async fn note_state(
        self: &Arc<Self>,
        state: Option<RunState>,
        found_nothing: bool,
        position: &mut Position,
    ) -> Result<bool, StorageError> {
        let Some(state) = state else { return Ok(false) };
        let before = std::mem::replace(&mut position.state, state);
        let known = self.ring.read().ended().map_or(RunState::Open, |closed| closed.state);
        if state == RunState::Open || state == known {
            return Ok(false);
        }
        if before != state || !found_nothing {
            return Ok(true);
        }
        let tail = self.storage.live.tail(&self.topic).await?;
        let Some(ended) = tail.ended.filter(|_| tail.epoch == self.ring.read().epoch()) else {
            return Ok(true);
        };
        self.ring.write().set_ended(closed(&self.topic, ended));
        self.tell().await;
        Ok(false)
    }

    /// Where the backend has lost messages of the topic, or has other ones in their place: goes on behind the
    /// newest that is left of what the ring has given out, and from the first where none is. In front of that
    /// one stands nothing that its readers have not got.
    async fn behind_what_is_left(&self, batch: Batch, before: Epoch) -> Result<Batch, StorageError> {
        let Some(gap) = batch.gap.clone().filter(|gap| {
            let is_same = before != Epoch::Unmarked && batch.epoch == Some(before);
            // Storage knows where to go on behind a hole.
            gap.reason == GapReason::Reset && is_same && !gap.is_ahead()
        }) else {
            return Ok(batch);
        };
        let known = self.ring.read().cursors();
        let mut left = None;
        let mut after = known.first().and_then(|first| first.previous());
        while after.is_some() {
            let (order, gap_check) = (Order::Asc, GapCheck::None);
            let range = Range { order, after, gap_check, limit: READ_MESSAGES, bytes_max: READ_BYTES };
            let found = self.storage.messages.read(&self.topic, range).await?;
            let ids = found.messages.iter().map(|message| message.id);
            let count = ids.clone().take_while(|id| known.binary_search(id).is_ok()).count();
            left = ids.take(count).last().or(left);
            after = found.next.filter(|_| !found.at_end && count == found.messages.len());
        }
        Ok(match left {
            Some(left) => {
                let to = left.next().unwrap_or(MessageId::MAX);
                let Batch { epoch, taken_out, .. } = batch;
                Batch { gap: Some(Gap { to, ..gap }), epoch, taken_out, ..Batch::default() }
            }
            None => batch,
        })
    }

    /// Takes what was read into the ring. Returns whether there may be more; `None` if nothing was.
    fn take(&self, batch: Batch, position: &mut Position) -> Option<bool> {
        let Batch { gap, messages, next: _, reached, looked_at, at_end, epoch, state: _, taken_out, age: _ } =
            batch;
        if epoch.is_some()
            && let Some(before) = position.taken_out.replace(taken_out)
            && before != taken_out
        {
            self.ring.write().forget();
        }
        if gap.is_none() && reached.is_none() {
            // Nearly every look finds what it was, and holds up no reader.
            if let Some(epoch) = epoch.filter(|epoch| *epoch != self.ring.read().epoch()) {
                self.ring.write().mark(epoch);
            }
            return None;
        }
        let missed = gap.as_ref().map(|gap| gap.missed);
        position.seen_as = match missed {
            None => position.seen_as.map(|count| count + looked_at),
            Some(Some(missed)) => position.seen_as.map(|count| count + missed + looked_at),
            Some(None) => None,
        };
        position.lost_count |= missed == Some(None);
        let messages: Vec<_> = messages
            .into_iter()
            .map(|stored| Arc::new(LiveMessage::new(self.topic.clone(), stored)))
            .collect();
        let mut ring = self.ring.write();
        let before = ring.epoch();
        if let Some(gap) = gap {
            let resume =
                resume_after(&gap, messages.first().map(|message| message.id()), reached, ring.tail());
            match gap.reason {
                GapReason::Trimmed | GapReason::Compacted => ring.push_gap(gap, resume),
                GapReason::Deleted => ring.cut(epoch.unwrap_or_default(), resume, false),
                GapReason::Reset => {
                    // Of one topic: the backend has lost messages. Else it is another one.
                    let is_loss = before != Epoch::Unmarked && epoch == Some(before);
                    if is_loss && gap.is_ahead() && ring.ends_with_loss() {
                        // Readers were told that something is lost, and have got nothing since.
                        ring.skip_to(resume);
                    } else {
                        ring.cut(epoch.unwrap_or_default(), resume, is_loss);
                    }
                }
            }
        }
        if let Some(epoch) = epoch {
            ring.mark(epoch);
        }
        for message in messages {
            ring.push_message(message);
        }
        if reached > ring.tail() {
            ring.skip_to(reached);
        }
        Some(!at_end)
    }

    /// Returns the gap of a reader of this topic, which is gone, with this cursor.
    pub(super) fn deleted(&self, from: MessageId) -> Gap {
        let to = from.next().unwrap_or(MessageId::MAX);
        Gap { topic: self.topic.clone(), from, to, reason: GapReason::Deleted, missed: None }
    }

    /// Returns the gap of a reader with this cursor that goes on from another, behind what the backend has lost.
    pub(super) fn lost(&self, from: Option<MessageId>, resume: Option<MessageId>) -> Gap {
        let from = from.unwrap_or(MessageId::MIN);
        let to = resume.unwrap_or(MessageId::MIN).next().unwrap_or(MessageId::MAX);
        Gap { topic: self.topic.clone(), from, to, reason: GapReason::Reset, missed: None }
    }

    /// Notes that the topic is gone. Returns whether that is news: to the feed, or to a reader that had more of
    /// it than the feed.
    pub(super) fn find_gone(&self) -> bool {
        let was_there = !self.gone.swap(true, Ordering::Relaxed);
        let is_news = self.has_reader_ahead.swap(false, Ordering::AcqRel) || was_there;
        if is_news {
            self.ring.write().cut(Epoch::Unmarked, None, false);
        }
        is_news
    }
}

/// Returns after what time it is looked again whether something is over: clocks are set, too.
pub(super) fn due_in(at: Timestamp, now: Timestamp) -> Duration {
    let left = at.as_millis().saturating_sub(now.as_millis());
    Duration::from_millis(left).clamp(EXPIRY_LOOKED_AFTER[0], EXPIRY_LOOKED_AFTER[1])
}

/// Returns what readers are told of a topic that has ended.
fn closed(topic: &TopicName, ended: RunEnd) -> Closed {
    let RunEnd { state, reason } = ended;
    Closed { topic: topic.clone(), state, reason: reason.map(String::from) }
}

/// Returns the cursor from which a read has gone on behind a gap.
fn resume_after(
    gap: &Gap,
    first: Option<MessageId>,
    reached: Option<MessageId>,
    tail: Option<MessageId>,
) -> Option<MessageId> {
    match gap.reason {
        // Behind what the reader had seen; `to` is the next message or the next id there can be.
        GapReason::Trimmed | GapReason::Compacted | GapReason::Deleted => tail.max(gap.to.previous()),
        GapReason::Reset => match first.or(reached) {
            Some(first) => first.previous(),
            None => gap.to.previous(),
        },
    }
}
