//! The feeds that run, and everything that has them look at their topics.
//!
//! Two things do: hints of the backend, when this node, another node or another producer has changed a
//! topic; and the sweep, which asks the backend about all topics with feeds, many in one question, because
//! hints can be lost without a sign. It must not know who reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill_proto::TopicName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::feed::Feed;
use super::primitives::{Mutex, RwLock};
use super::ring_bytes::RingBytes;
use super::topic_map::TopicMap;
use crate::storage::{Changes, Storage};

/// Topics that are asked about at one time: publishes wait behind the question, for less than a tenth of
/// a millisecond of the server's time.
const ASKED_TOPICS: usize = 64;
/// The rest of the sweep after that, at least. Where there are so many topics that it takes longer than
/// it should for that, it is about 20,000 topics a second.
const SWEEP_REST: Duration = Duration::from_millis(2);

/// Feeds that look at one time when everything may have changed. Where there are more, changes are asked for
/// first, and all look by and by: so many in each part of the sweep.
const LOOKS_AT_ONCE: usize = 4_096;
const LOOKS_IN_PART: usize = 8;

/// A feed that runs.
#[derive(Debug)]
pub(super) struct FeedEntry {
    pub(super) feed: Arc<Feed>,
    /// How many have joined it and not left.
    pub(super) readers: usize,
}

/// A feed that is counted, and not there yet.
pub(super) struct Reserved<'a>(&'a AtomicUsize);

impl Reserved<'_> {
    /// Has it counted for as long as it runs.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Feeds that wait for their turn.
type Queue = Mutex<VecDeque<Arc<Feed>>>;

/// All feeds that run on a node.
#[derive(Debug)]
pub(super) struct Running {
    storage: Storage,
    rings: RingBytes,
    sweep_every: Duration,
    feeds: RwLock<TopicMap<FeedEntry>>,
    /// The number of feeds, so that a publish on a node without readers asks for no lock.
    count: AtomicUsize,
    /// Feeds to ask about as soon as there is a turn.
    unasked: Queue,
    /// Notified when there are some.
    asking: Notify,
    /// Feeds that are to look, by and by, since everything may have changed.
    overdue: Queue,
}

impl Running {
    pub(super) fn new(storage: Storage, rings: RingBytes, sweep_every: Duration) -> Self {
        Self {
            storage,
            rings,
            sweep_every,
            feeds: RwLock::default(),
            count: AtomicUsize::new(0),
            unasked: Mutex::default(),
            asking: Notify::new(),
            overdue: Mutex::default(),
        }
    }

    pub(super) fn feeds(&self) -> &RwLock<TopicMap<FeedEntry>> {
        &self.feeds
    }

    /// Returns how many topics have feeds.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one feed more, if there may be one.
    pub(super) fn reserve(&self, max: usize) -> Option<Reserved<'_>> {
        let more = |count| (count < max).then_some(count + 1);
        let counted = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok().then_some(Reserved(&self.count))
    }

    /// Stops a feed that has been taken out.
    pub(super) fn end(&self, entry: &FeedEntry) {
        entry.feed.stop();
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the feed of a topic, if it runs.
    pub(super) fn feed(&self, topic: &TopicName) -> Option<Arc<Feed>> {
        self.feeds.read().get(topic).map(|entry| entry.feed.clone())
    }

    /// Tells the feed of a topic, if there is one, that the topic has changed.
    pub(super) fn look(&self, topic: &TopicName) {
        if self.count() == 0 {
            return;
        }
        if let Some(entry) = self.feeds.read().get(topic) {
            entry.feed.look();
        }
    }

    /// Has feeds look at their topics: at once where there are few feeds. Where there are many, the backend
    /// is asked for changes of these as soon as there is a turn.
    pub(super) fn look_soon(&self, feeds: Vec<Arc<Feed>>) {
        if self.count() <= LOOKS_AT_ONCE {
            for feed in &feeds {
                feed.look();
            }
            return;
        }
        let mut unasked = self.unasked.lock();
        unasked.extend(feeds);
        if unasked.len() > 2 * self.count() {
            // All stand in it, once. Whoever comes meanwhile is put behind them.
            *unasked = self.part(usize::MAX, usize::MAX).0.into();
        }
        self.asking.notify_one();
    }

    /// Has all feeds look.
    pub(super) fn all_look_soon(&self) {
        let (feeds, _) = self.part(usize::MAX, usize::MAX);
        if feeds.len() > LOOKS_AT_ONCE {
            // What is no change, as a topic that was made again, is seen by looking only.
            *self.overdue.lock() = feeds.iter().cloned().collect();
        }
        self.look_soon(feeds);
    }

    /// Asks about feeds that are to look soon, some at a time, without end.
    pub(super) async fn ask_in_turn(self: Arc<Self>) {
        loop {
            self.asking.notified().await;
            loop {
                let part = take(&self.unasked, ASKED_TOPICS);
                if part.is_empty() {
                    break;
                }
                self.ask_for_news(&part).await;
            }
        }
    }

    /// Asks the backend about all topics with feeds, again and again, some of them at a time: a burst of
    /// questions would hold up everything else.
    pub(super) async fn sweep(self: Arc<Self>) {
        let every = self.sweep_every;
        loop {
            let parts = u32::try_from(self.count().div_ceil(ASKED_TOPICS)).unwrap_or(u32::MAX).max(1);
            let (mut place, mut due) = (usize::MAX, Instant::now());
            while place > 0 {
                let (part, before) = self.part(place, ASKED_TOPICS);
                place = before;
                if self.rings.is_tight() {
                    for feed in &part {
                        feed.ease();
                    }
                }
                if !part.is_empty() {
                    self.ask_for_news(&part).await;
                }
                for feed in take(&self.overdue, LOOKS_IN_PART) {
                    feed.look();
                }
                due += every / parts;
                sleep_until(due.max(Instant::now() + SWEEP_REST.min(every))).await;
            }
        }
    }

    /// Returns up to `count` feeds in front of a place in the map, and the place in front of them.
    fn part(&self, place: usize, count: usize) -> (Vec<Arc<Feed>>, usize) {
        let feeds = self.feeds.read();
        let (part, before) = feeds.part(place, count);
        (part.iter().map(|(_, entry)| entry.feed.clone()).collect(), before)
    }

    async fn ask_for_news(&self, feeds: &[Arc<Feed>]) {
        let asked: Vec<_> = feeds.iter().map(|feed| feed.followed()).collect();
        let asked_at = self.storage.upkeep.now();
        match self.storage.live.poll_changes(&asked).await {
            Ok(Changes { changed, gone }) => {
                let mut is_unchanged = vec![true; feeds.len()];
                for place in changed.into_iter().chain(gone) {
                    is_unchanged[place] = false;
                    feeds[place].look();
                }
                for (feed, asked) in
                    feeds.iter().zip(asked).zip(is_unchanged).filter_map(|(it, is)| is.then_some(it))
                {
                    // What it has read meanwhile it has not told everybody yet.
                    if feed.mark().tail == asked.seen {
                        feed.note_complete(asked_at);
                    }
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "a question for changes has failed; the sweep asks again");
            }
        }
    }
}

/// Takes up to `count` feeds from the front of a queue.
fn take(queue: &Queue, count: usize) -> Vec<Arc<Feed>> {
    let mut queue = queue.lock();
    let count = count.min(queue.len());
    queue.drain(..count).collect()
}
