//! Feeds: which topics have feeds on this node, how readers come to them, and how they end.
//!
//! What changes between the question for a topic's tail and the moment from which its feed is hinted at,
//! nobody tells: so a feed looks once it is there, and again once hints of what others do come. Very many
//! feeds would keep the backend busy with that, as when all readers of a node come at once: the backend is
//! asked about many of them in one question, and while that is under way the next gather.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;

use tidemill_proto::page::Order;
use tidemill_proto::{Code, Cursor, MessageId, Problem, Since, Timestamp, TopicName};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::begin::{Absent, Begin};
use super::feed::{Feed, Mark};
use super::history::{History, View};
use super::options::FeedOptions;
use super::pattern_feed::PatternFeed;
use super::patterns::Patterns;
use super::pending::Pending;
use super::ring_bytes::RingBytes;
use super::running::{FeedEntry, Reserved, Running};
use crate::access::{Caller, Permit, Session, Verb};
use crate::relay::Failure;
use crate::relay::owners::{Owned, Owners};
use crate::relay::watching::Watching;
use crate::storage::{Epoch, GapCheck, Hint, HintListener, LatestRange, Range, Storage, StorageError, Tail};

/// How many feeds are begun at one time, at most.
const BEGINNING: usize = 64;

/// The tail of a topic that is still to be made.
const NOTHING: Tail = Tail {
    first: None,
    last: None,
    given: Some(0),
    epoch: Epoch::Unmarked,
    born: None,
    late: None,
    ended: None,
};

/// A reader's way into a feed.
pub(super) struct Joined {
    pub(super) feed: Arc<Feed>,
    /// The topic's tail, if the feed is begun now.
    pub(super) begun: Option<Tail>,
    /// Whether there is such a topic.
    pub(super) exists: bool,
}

/// The task of a pattern's feed, until it is stopped.
pub(in crate::relay) type RunPattern =
    fn(Arc<Feeds>, Arc<PatternFeed>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All feeds of a node.
#[derive(Debug)]
pub(in crate::relay) struct Feeds {
    history: History,
    pending: Pending,
    storage: Storage,
    watching: Watching,
    options: FeedOptions,
    running: Arc<Running>,
    /// Held while a feed is begun, so that readers who come together ask the backend once. Each is for some
    /// of the topics, so that many topics are begun at one time.
    beginning: [tokio::sync::Mutex<()>; BEGINNING],
    hasher: RandomState,
    patterns: Patterns,
    rings: RingBytes,
    owners: Arc<Owners>,
    run_pattern: RunPattern,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Feeds {
    /// Starts without any; the tasks run on `tracker` until `token` is cancelled.
    #[must_use]
    pub(in crate::relay) fn start(
        storage: Storage,
        watching: Watching,
        options: FeedOptions,
        run_pattern: RunPattern,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Arc<Self> {
        let rings = RingBytes::new(options.ring_bytes_max);
        let running = Arc::new(Running::new(storage.clone(), rings.clone(), options.sweep_every));
        let feeds = Arc::new(Self {
            history: History::new(storage.clone(), options.payload_bytes_max, tracker.clone()),
            pending: Pending::new(options.pending_bytes_max),
            running: running.clone(),
            storage,
            watching,
            options,
            beginning: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            hasher: RandomState::new(),
            patterns: Patterns::new(rings.clone()),
            rings,
            owners: Arc::default(),
            run_pattern,
            tracker: tracker.clone(),
            token: token.clone(),
        });
        tracker.spawn(token.clone().run_until_cancelled_owned(running.clone().ask_in_turn()));
        tracker.spawn(token.clone().run_until_cancelled_owned(running.sweep()));
        let (owners, storage) = (feeds.owners.clone(), feeds.storage.clone());
        let end_readers = async move { owners.end_readers(&storage).await };
        tracker.spawn(token.clone().run_until_cancelled_owned(end_readers));
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

    /// Returns how many bytes the newest messages take that are held for live readers.
    #[must_use]
    pub(in crate::relay) fn ring_bytes(&self) -> u64 {
        self.rings.held()
    }

    /// Returns how many topics have feeds.
    #[must_use]
    pub(in crate::relay) fn count(&self) -> usize {
        self.running.count()
    }

    pub(super) fn history(&self) -> &History {
        &self.history
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
        let exists = found.is_some();
        let tail = found.unwrap_or(NOTHING);
        let feed = Feed::new(topic.clone(), self.storage.clone(), tail.clone(), !exists, now, &self.rings);
        let feed = Arc::new(feed);
        self.running.feeds().write().insert(topic.clone(), FeedEntry { feed: feed.clone(), readers: 1 });
        room.keep();
        self.watching.begin(topic);
        self.tracker.spawn(self.token.clone().run_until_cancelled_owned(feed.clone().run(tail.clone())));
        self.running.look_soon(vec![feed.clone()]);
        Ok(Joined { feed, begun: Some(tail), exists })
    }

    /// Asks the storage for a topic whose feed has found none, and returns whether it was made since.
    async fn look_for_absent(&self, topic: &TopicName, absent: Absent) -> Result<bool, Failure> {
        let feed = self.running.feed(topic);
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
        self.running.reserve(max).ok_or_else(|| {
            let detail = format!(
                "{max} topics are read live on this node, as many as may be (setting `TIDEMILL_LIVE_TOPICS_MAX`); try again when readers have gone"
            );
            Problem::new(Code::Overloaded, detail).into()
        })
    }

    /// Returns how many read a topic live on this node, by its name or by a pattern. Those who read by a pattern and have
    /// not come to its newest messages yet count twice.
    pub(in crate::relay) fn readers(&self, topic: &TopicName) -> u64 {
        let joined = self.running.feeds().read().get(topic).map_or(0, |entry| entry.readers);
        // Each pattern has joined it once, for all its readers.
        let (patterns, readers) = self.patterns.covering(topic);
        (joined.saturating_sub(patterns) + readers) as u64
    }

    /// Returns how far the feed of a topic has come, if it runs.
    pub(super) fn mark(&self, topic: &TopicName) -> Option<Mark> {
        let feed = self.running.feed(topic);
        feed.map(|feed| feed.mark())
    }

    /// Returns the feed of a topic for a new reader, if it runs.
    pub(super) fn join_running(&self, topic: &TopicName) -> Option<Joined> {
        let mut feeds = self.running.feeds().write();
        let entry = feeds.get_mut(topic)?;
        entry.readers += 1;
        let feed = entry.feed.clone();
        let exists = !feed.is_gone();
        Some(Joined { feed, begun: None, exists })
    }

    /// Takes a reader away. The feed lingers for those that come back at once. Each time that nobody is
    /// left has its own timer, and the first that finds nobody ends the feed.
    pub(super) fn leave(self: &Arc<Self>, topic: &TopicName) {
        let mut feeds = self.running.feeds().write();
        let Some(entry) = feeds.get_mut(topic) else { return };
        entry.readers -= 1;
        if entry.readers == 0 {
            let (feeds, topic) = (self.clone(), topic.clone());
            self.after_lingering(move || feeds.end_if_idle(&topic));
        }
    }

    fn end_if_idle(&self, topic: &TopicName) {
        // Held to the end, so that who joins again watches after this.
        let mut feeds = self.running.feeds().write();
        if feeds.get(topic).is_some_and(|entry| entry.readers == 0 && entry.feed.subscribers().is_empty())
            && let Some(entry) = feeds.remove(topic)
        {
            self.running.end(&entry);
            self.watching.end(topic);
        }
    }

    /// Returns the tail of a topic; `None` if there is no topic, and it is awaited.
    async fn tail(&self, topic: &TopicName, absent: Absent) -> Result<Option<Tail>, Failure> {
        match self.storage.live.tail(topic).await {
            Err(StorageError::NoTopic) if absent == Absent::Await => Ok(None),
            tail => tail.map(Some).map_err(|error| Failure::read(error, Some(topic))),
        }
    }

    /// Returns where a reader's words mean now: a place that still proves what is missing when the reader comes
    /// back to it.
    pub(super) async fn resolve(
        &self,
        topic: &TopicName,
        since: Since,
        absent: Absent,
        view: View,
    ) -> Result<Begin, Failure> {
        let cursor = since.at(self.storage.upkeep.now());
        if matches!((cursor, view), (Cursor::Earliest, View::Latest { .. })) {
            return Ok(Begin::BEFORE_THE_FIRST);
        }
        if let (Cursor::After(id), Since::Cursor(_)) = (cursor, since) {
            return Ok(Begin { cursor: Some(id), ..Begin::BEFORE_THE_FIRST });
        }
        let tail = self.tail(topic, absent).await?.unwrap_or(NOTHING);
        Ok(match cursor {
            Cursor::Latest => tail.into(),
            Cursor::Earliest => Begin::before_the_oldest(tail),
            Cursor::After(time) if tail.last.is_none_or(|last| last <= time) => tail.into(),
            Cursor::After(time) if tail.first.is_none_or(|first| first > time) => {
                Begin::before_the_oldest(tail)
            }
            Cursor::After(time) => {
                // Where none is left, what came behind that time may be gone as well.
                let newest = self.newest_up_to(topic, time).await?.unwrap_or(time);
                Begin { cursor: Some(newest), ..tail.into() }
            }
        })
    }

    /// Checks that there is a latest message of each key of a topic, if there is the topic.
    ///
    /// # Errors
    /// It is not compacted, or the storage did not answer.
    pub(super) async fn check_compacted(&self, topic: &TopicName) -> Result<(), Failure> {
        let (after, gap_check) = (Some(MessageId::MAX), GapCheck::None);
        let range = LatestRange { after, gap_check, goes_on: true, limit: 1, bytes_max: 1 };
        match self.storage.messages.latest(topic, range).await {
            Ok(_) | Err(StorageError::NoTopic) => Ok(()),
            Err(error) => Err(Failure::read(error, Some(topic))),
        }
    }

    /// Returns the newest message up to a place, if one is kept. A topic that has gone meanwhile has none.
    async fn newest_up_to(&self, topic: &TopicName, place: MessageId) -> Result<Option<MessageId>, Failure> {
        let (order, after, gap_check) = (Order::Desc, place.next(), GapCheck::None);
        let range = Range { order, after, gap_check, limit: 1, bytes_max: 1 };
        match self.storage.messages.read(topic, range).await {
            Ok(batch) => Ok(batch.messages.first().map(|message| message.id)),
            Err(StorageError::NoTopic) => Ok(None),
            Err(error) => Err(Failure::read(error, Some(topic))),
        }
    }

    /// Checks that a caller may do this with a topic, because a rule says so or because it owns the topic.
    ///
    /// # Errors
    /// It may not, or the storage did not answer.
    pub(in crate::relay) async fn check(
        &self,
        caller: &Caller,
        verb: Verb,
        topic: &TopicName,
    ) -> Result<Permit, Failure> {
        match caller.check(verb, topic)? {
            Permit::Granted => Ok(Permit::Granted),
            Permit::IfOwner => match self.owned_for(verb, caller.owner(), topic).await? {
                Owned::Yes => Ok(Permit::IfOwner),
                // What is told says nothing of whether there is such a topic.
                Owned::No | Owned::NoTopic => Err(caller.refused(verb, topic).into()),
            },
        }
    }

    /// Notes that a session reads a topic because its caller owns it: it ends where that is over.
    pub(super) fn note_owner(&self, session: &Session, topic: &TopicName) {
        if let Some(user) = session.caller().owner() {
            self.owners.note_reader(user, topic, session);
        }
    }

    /// Finds out whether this user owns a topic now; nobody owns nothing.
    pub(in crate::relay) async fn owned(
        &self,
        user: Option<&str>,
        topic: &TopicName,
    ) -> Result<Owned, Failure> {
        Owners::ask(&self.storage, user, topic).await
    }

    async fn owned_for(&self, verb: Verb, user: Option<&str>, topic: &TopicName) -> Result<Owned, Failure> {
        match verb {
            Verb::Publish => self.owners.ask_for_publish(&self.storage, user, topic).await,
            Verb::Read | Verb::Work | Verb::Manage | Verb::Admin => self.owned(user, topic).await,
        }
    }

    /// Forgets who owns a topic, which is deleted.
    pub(in crate::relay) fn forget_owner(&self, topic: &TopicName) {
        self.owners.forget(topic);
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
}

impl HintListener for Feeds {
    fn hear(&self, hint: Hint) {
        match hint {
            Hint::Topic(topic) => {
                self.patterns.hear(&topic);
                self.running.look(&topic);
            }
            Hint::WatchedAll => self.patterns.list_soon(),
            Hint::Watched(topics) => {
                let feeds = {
                    let feeds = self.running.feeds().read();
                    topics.iter().filter_map(|topic| Some(feeds.get(topic)?.feed.clone())).collect()
                };
                self.running.look_soon(feeds);
            }
            // They are nothing that is read.
            Hint::Lock(_) | Hint::WatchedLocks => {}
            // Feeds watch their own topics.
            Hint::Everything => {
                self.patterns.list_soon();
                self.running.all_look_soon();
            }
        }
    }
}
