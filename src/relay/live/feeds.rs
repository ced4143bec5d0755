//! Feeds: which topics have feeds on this node, and everything that tells a feed to look.
//!
//! Two things do: hints of the backend, when this node, another node or another producer has changed a
//! topic; and the sweep, which asks the backend about all topics with feeds, many in one question, because
//! hints can be lost without a sign.
//!
//! What changes between the question for a topic's tail and the moment from which its feed is hinted at,
//! nobody tells: so a feed looks once it is there, and again once hints of what others do come. Very many
//! feeds would keep the backend busy with that, as when all readers of a node come at once: the backend is
//! asked about many of them in one question, and while that is under way the next gather.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidemill_proto::{Code, Cursor, Problem, Since, Timestamp, TopicName};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::begin::{Absent, Begin};
use super::feed::{Feed, Mark};
use super::history::History;
use super::options::FeedOptions;
use super::pattern_feed::PatternFeed;
use super::patterns::Patterns;
use super::pending::Pending;
use super::primitives::{Mutex, RwLock};
use super::topic_map::TopicMap;
use crate::relay::Failure;
use crate::relay::owners::{Owned, Owners};
use crate::storage::{Changes, Epoch, Hint, HintListener, Storage, StorageError, Tail};

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

/// How many feeds are begun at one time, at most.
const BEGINNING: usize = 64;

/// The tail of a topic that is still to be made.
const NOTHING: Tail = Tail { last: None, given: Some(0), epoch: Epoch::Unmarked, born: None, late: None };

/// A reader's way into a feed.
pub(super) struct Joined {
    pub(super) feed: Arc<Feed>,
    /// The topic's tail, if the feed is begun now.
    pub(super) begun: Option<Tail>,
    /// Whether there is such a topic.
    pub(super) exists: bool,
}

/// A feed that is counted, and not there yet.
struct Reserved<'a>(&'a AtomicUsize);

impl Reserved<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task of a pattern's feed, until it is stopped.
pub(in crate::relay) type RunPattern =
    fn(Arc<Feeds>, Arc<PatternFeed>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug)]
struct FeedEntry {
    feed: Arc<Feed>,
    readers: usize,
}

type Queue = Mutex<VecDeque<Arc<Feed>>>;

/// All feeds of a node.
#[derive(Debug)]
pub(in crate::relay) struct Feeds {
    history: History,
    pending: Pending,
    storage: Storage,
    options: FeedOptions,
    feeds: RwLock<TopicMap<FeedEntry>>,
    /// The number of feeds, so that a publish on a node without readers asks for no lock.
    count: AtomicUsize,
    /// Held while a feed is begun, so that readers who come together ask the backend once. Each is for some
    /// of the topics, so that many topics are begun at one time.
    beginning: [tokio::sync::Mutex<()>; BEGINNING],
    hasher: RandomState,
    /// Feeds to ask about as soon as there is a turn.
    unasked: Queue,
    /// Notified when there are some.
    asking: Notify,
    /// Feeds that are to look, by and by, since everything may have changed.
    overdue: Queue,
    patterns: Patterns,
    owners: Owners,
    run_pattern: RunPattern,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Feeds {
    /// Starts without any; the tasks run on `tracker` until `token` is cancelled.
    #[must_use]
    pub(in crate::relay) fn start(
        storage: Storage,
        options: FeedOptions,
        run_pattern: RunPattern,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Arc<Self> {
        let feeds = Arc::new(Self {
            history: History::new(storage.clone(), options.payload_bytes_max, tracker.clone()),
            pending: Pending::new(options.pending_bytes_max),
            storage,
            options,
            feeds: RwLock::default(),
            count: AtomicUsize::new(0),
            beginning: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            hasher: RandomState::new(),
            unasked: Mutex::default(),
            asking: Notify::new(),
            overdue: Mutex::default(),
            patterns: Patterns::default(),
            owners: Owners::default(),
            run_pattern,
            tracker: tracker.clone(),
            token: token.clone(),
        });
        let listener: Weak<dyn HintListener> = Arc::downgrade(&(feeds.clone() as Arc<dyn HintListener>));
        feeds.storage.live.listen(listener);
        tracker.spawn(token.clone().run_until_cancelled_owned(feeds.clone().ask_in_turn()));
        tracker.spawn(token.clone().run_until_cancelled_owned(feeds.clone().sweep()));
        feeds
    }

    /// Returns where it is counted what readers have pending.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Returns how many bytes are pending for readers.
    #[must_use]
    pub(in crate::relay) fn pending_bytes(&self) -> u64 {
        self.pending.budget().held_bytes()
    }

    /// Returns how many topics have feeds.
    #[must_use]
    pub(in crate::relay) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Tells the feed of a topic, if there is one, that the topic has changed.
    fn look(&self, topic: &TopicName) {
        if self.count() == 0 {
            return;
        }
        if let Some(entry) = self.feeds.read().get(topic) {
            entry.feed.look();
        }
    }

    /// Returns the feed of a topic for a new reader.
    ///
    /// # Errors
    /// There is no such topic, and it is refused; there are as many feeds as there may be; or the storage did
    /// not answer.
    pub(super) async fn join(self: &Arc<Self>, topic: &TopicName, absent: Absent) -> Result<Joined, Failure> {
        let is_back = self.look_for_absent(topic, absent).await?;
        if let Some(joined) = self.join_running(topic) {
            let exists = joined.exists || is_back;
            return Ok(Joined { exists, ..joined });
        }
        let turn = usize::try_from(self.hasher.hash_one(topic) % BEGINNING as u64).unwrap_or(0);
        let _turn = self.beginning[turn].lock().await;
        if let Some(joined) = self.join_running(topic) {
            return Ok(joined);
        }
        let room = self.reserve()?;
        let now = self.storage.upkeep.now();
        let found = self.tail(topic, absent).await?;
        let tail = found.unwrap_or(NOTHING);
        let feed = Arc::new(Feed::new(topic.clone(), self.storage.clone(), tail, found.is_none(), now));
        self.feeds.write().insert(topic.clone(), FeedEntry { feed: feed.clone(), readers: 1 });
        room.keep();
        self.storage.live.watch(topic, true);
        self.tracker.spawn(self.token.clone().run_until_cancelled_owned(feed.clone().run(tail)));
        self.look_soon(vec![feed.clone()]);
        Ok(Joined { feed, begun: Some(tail), exists: found.is_some() })
    }

    /// Asks the storage for a topic whose feed has found none, and returns whether it was made since.
    async fn look_for_absent(&self, topic: &TopicName, absent: Absent) -> Result<bool, Failure> {
        let feed = self.feeds.read().get(topic).map(|entry| entry.feed.clone());
        let Some(feed) = feed.filter(|feed| feed.is_gone()) else { return Ok(false) };
        match self.tail(topic, absent).await {
            Ok(None) => Ok(false),
            Ok(Some(_)) => {
                feed.look();
                Ok(true)
            }
            // Who waits for a topic can wait for the storage as well.
            Err(failure) if absent == Absent::Await && failure.problem().retryable => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Counts one feed more, if there may be one. A topic that is waited for has one, too.
    fn reserve(&self) -> Result<Reserved<'_>, Failure> {
        let max = self.options.topics_max;
        let more = |count| (count < max).then_some(count + 1);
        if self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            return Ok(Reserved(&self.count));
        }
        let detail = format!(
            "{max} topics are read live on this node, as many as may be (setting `TIDEMILL_LIVE_TOPICS_MAX`); try again when readers have gone"
        );
        Err(Problem::new(Code::Overloaded, detail).into())
    }

    /// Returns how far the feed of a topic has come, if it runs.
    pub(super) fn mark(&self, topic: &TopicName) -> Option<Mark> {
        let feed = self.feeds.read().get(topic).map(|entry| entry.feed.clone());
        feed.map(|feed| feed.mark())
    }

    /// Returns the feed of a topic for a new reader, if it runs.
    pub(super) fn join_running(&self, topic: &TopicName) -> Option<Joined> {
        let mut feeds = self.feeds.write();
        let entry = feeds.get_mut(topic)?;
        entry.readers += 1;
        let feed = entry.feed.clone();
        let exists = !feed.is_gone();
        Some(Joined { feed, begun: None, exists })
    }

    /// Takes a reader away. The feed lingers for those that come back at once. Each time that nobody is
    /// left has its own timer, and the first that finds nobody ends the feed.
    pub(super) fn leave(self: &Arc<Self>, topic: &TopicName) {
        let mut feeds = self.feeds.write();
        let Some(entry) = feeds.get_mut(topic) else { return };
        entry.readers -= 1;
        if entry.readers == 0 {
            let (feeds, topic) = (self.clone(), topic.clone());
            self.after_lingering(move || feeds.end_if_idle(&topic));
        }
    }

    fn end_if_idle(&self, topic: &TopicName) {
        // Held to the end, so that who joins again watches after this.
        let mut feeds = self.feeds.write();
        if feeds.get(topic).is_some_and(|entry| entry.readers == 0 && entry.feed.subscribers().is_empty())
            && let Some(entry) = feeds.remove(topic)
        {
            entry.feed.stop();
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.storage.live.watch(topic, false);
        }
    }

    /// Returns the tail of a topic; `None` if there is no topic, and it is awaited.
    async fn tail(&self, topic: &TopicName, absent: Absent) -> Result<Option<Tail>, Failure> {
        match self.storage.live.tail(topic).await {
            Err(StorageError::NoTopic) if absent == Absent::Await => Ok(None),
            tail => tail.map(Some).map_err(|error| Failure::read(error, Some(topic))),
        }
    }

    /// Returns where a reader's words mean now.
    pub(super) async fn resolve(
        &self,
        topic: &TopicName,
        since: Since,
        absent: Absent,
    ) -> Result<Begin, Failure> {
        let seen = matches!(since, Since::Cursor(Cursor::After(_)));
        Ok(match since.at(self.storage.upkeep.now()) {
            Cursor::Earliest => Begin { cursor: None, seen: false, epoch: None },
            Cursor::Latest => self.tail(topic, absent).await?.unwrap_or(NOTHING).into(),
            Cursor::After(id) => Begin { cursor: Some(id), seen, epoch: None },
        })
    }

    /// Finds out whether this user owns a topic; nobody owns nothing.
    pub(in crate::relay) async fn owned(
        &self,
        user: Option<&str>,
        topic: &TopicName,
    ) -> Result<Owned, Failure> {
        self.owners.ask(&self.storage, user, topic).await
    }

    /// Returns the feeds of patterns, and what runs a new one.
    pub(in crate::relay) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Runs the task of a pattern's feed.
    pub(super) fn run_pattern(self: &Arc<Self>, feed: Arc<PatternFeed>) {
        let run = (self.run_pattern)(self.clone(), feed);
        self.tracker.spawn(self.token.clone().run_until_cancelled_owned(run));
    }

    /// Runs something once a feed without readers has lingered.
    pub(super) fn after_lingering(&self, run: impl FnOnce() + Send + 'static) {
        let linger = self.options.linger;
        self.tracker.spawn(self.token.clone().run_until_cancelled_owned(async move {
            sleep(linger).await;
            run();
        }));
    }

    /// Begins or ends hearing of all topics that relays change.
    pub(super) fn watch_all(&self, watch: bool) {
        self.storage.live.watch_all(watch);
    }

    /// Returns the tail of a topic that exists.
    pub(super) async fn tail_of(&self, topic: &TopicName) -> Result<Tail, Failure> {
        let tail = self.storage.live.tail(topic).await;
        tail.map_err(|error| Failure::read(error, Some(topic)))
    }

    /// Returns names of topics that begin with a prefix, as the backend lists them.
    pub(super) async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        self.storage.topics.names(prefix, after, limit).await
    }

    /// Returns the time by the clock that makes ids.
    pub(super) fn now(&self) -> Timestamp {
        self.storage.upkeep.now()
    }

    /// Has feeds look at their topics: at once where there are few feeds. Where there are many, the backend
    /// is asked for changes of these as soon as there is a turn.
    fn look_soon(&self, feeds: Vec<Arc<Feed>>) {
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
    fn all_look_soon(&self) {
        let (feeds, _) = self.part(usize::MAX, usize::MAX);
        if feeds.len() > LOOKS_AT_ONCE {
            // What is no change, as a topic that was made again, is seen by looking only.
            *self.overdue.lock() = feeds.iter().cloned().collect();
        }
        self.look_soon(feeds);
    }

    async fn ask_in_turn(self: Arc<Self>) {
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
    async fn sweep(self: Arc<Self>) {
        let every = self.options.sweep_every;
        loop {
            let parts = u32::try_from(self.count().div_ceil(ASKED_TOPICS)).unwrap_or(u32::MAX).max(1);
            let (mut place, mut due) = (usize::MAX, Instant::now());
            while place > 0 {
                let (part, before) = self.part(place, ASKED_TOPICS);
                place = before;
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

impl HintListener for Feeds {
    fn hear(&self, hint: Hint) {
        match hint {
            Hint::Topic(topic) => {
                self.patterns.hear(&topic);
                self.look(&topic);
            }
            Hint::WatchedAll => self.patterns.list_soon(),
            Hint::Watched(topics) => {
                let feeds = {
                    let feeds = self.feeds.read();
                    topics.iter().filter_map(|topic| Some(feeds.get(topic)?.feed.clone())).collect()
                };
                self.look_soon(feeds);
            }
            // Feeds watch their own topics.
            Hint::Everything => {
                self.patterns.list_soon();
                self.all_look_soon();
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
