//! The task of a pattern's feed: it finds the topics that the pattern covers, reads all of them, and puts what
//! they give into the ring of the pattern, with bookmarks between.
//!
//! Names come by hints, and can be lost, so the backend's list is looked at as well: at first, when hints were
//! lost, and all the time, as fast as its length allows. A topic that comes while the feed runs is read from
//! its first message on.
//!
//! A bookmark's base is a time before which the feed has everything. It is found so: each topic's feed knows up
//! to when it had everything; the earliest of these is taken first; then all that there is is read. Some time
//! is left between the two, because clocks of servers differ. A topic whose ids do not follow the clock stands
//! apart from then on.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tidemill_proto::{Code, MessageId, Problem, Timestamp, TopicName};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::begin::{Absent, Begin};
use super::bookmark::{Bookmark, Gathering};
use super::feed::Feed;
use super::feeds::{Feeds, Joined};
use super::item::{Item, TakeLimit};
use super::outlet::NoOutlet;
use super::pattern_feed::{Covered, CoveredTopic, PatternFeed, Phase};
use super::reader::LiveReader;
use super::subscription::Subscription;
use crate::access::{Caller, Opening, ReadScope, Sessions, Within};
use crate::relay::Failure;
use crate::relay::owners::Owned;
use crate::storage::{StorageError, Tail};

/// What is taken at once.
const BUDGET: TakeLimit = TakeLimit { items: 512, bytes: 1024 * 1024 };
/// Names of one look at the list, and the rest after it: publishes wait behind the question.
const LIST_NAMES: usize = 1_000;
const LIST_REST: Duration = Duration::from_millis(2);
/// How often the list is looked at: once in so long, and so much longer for each topic.
const LIST_EVERY: Duration = Duration::from_secs(1);
const LIST_EVERY_MORE: Duration = Duration::from_micros(100);
/// Topics that are begun at one time.
const BEGIN_AT_ONCE: usize = 64;
/// Time between two bookmarks while messages come, at least.
const BOOKMARK_EVERY: Duration = Duration::from_millis(250);
/// The same while none comes.
const BOOKMARK_EVERY_QUIET: Duration = Duration::from_secs(15);
/// By so much the clocks of servers that stand in for each other may differ, in milliseconds: a base keeps this
/// distance from what is certain, and what comes again after a break is of this time.
const CLOCKS_MS: u64 = 2_000;
/// How long a topic that belongs to somebody else is not asked for again: it can be deleted, and made anew.
const OF_OTHERS_FOR: Duration = Duration::from_mins(1);
/// How long a topic is gone until its feed is left.
const GONE_FOR: Duration = Duration::from_secs(10);

/// The task of a pattern's feed.
struct Task {
    feeds: Arc<Feeds>,
    feed: Arc<PatternFeed>,
    reader: LiveReader<NoOutlet>,
    /// The newest message of topics that had one lately.
    recent: HashMap<TopicName, MessageId>,
    /// Topics that belong to others, since when that was found out.
    of_others: HashMap<TopicName, Instant>,
    /// Topics that are gone, since when.
    gone: HashMap<TopicName, Instant>,
    has_news: bool,
    marked_at: Instant,
    list_at: Instant,
}

/// Runs the task until nobody reads the pattern any more.
pub(in crate::relay) fn run(
    feeds: Arc<Feeds>,
    feed: Arc<PatternFeed>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    // No caller's: it reads for all, and each of them was asked.
    let session = Sessions::new(CancellationToken::new()).open(&Caller::anyone(), Opening::by_the_node());
    let now = Instant::now();
    let task = Task {
        reader: LiveReader::new(feeds.clone(), session),
        feeds,
        feed,
        recent: HashMap::new(),
        of_others: HashMap::new(),
        gone: HashMap::new(),
        has_news: false,
        marked_at: now,
        list_at: now,
    };
    Box::pin(task.run())
}

impl Task {
    async fn run(mut self) {
        let feed = self.feed.clone();
        let stopped = feed.stopped();
        let work = async {
            self.begin().await?;
            self.feed.enter(Phase::Runs).await;
            loop {
                self.turn().await?;
            }
        };
        let ended: Result<std::convert::Infallible, Box<Problem>> = tokio::select! {
            ended = work => ended,
            () = stopped => return,
        };
        let Err(problem) = ended;
        tracing::warn!(pattern = %feed.pattern(), reason = problem.detail, "the feed of a pattern has ended");
        feed.enter(Phase::Ended(problem)).await;
    }

    async fn begin(&mut self) -> Result<(), Box<Problem>> {
        // Whoever comes now wants what comes from now on.
        let base = self.feeds.now().as_millis().saturating_sub(CLOCKS_MS);
        self.list(true).await.map_err(|failure| Box::new(failure.problem().clone()))?;
        self.feed.names().open();
        let mut covered = self.feed.covered().lock();
        let mut gathering = Gathering::default();
        add_foreign(&covered, &mut gathering);
        covered.bookmark = Arc::new(gathering.at(base));
        drop(covered);
        Ok(())
    }

    /// Does what is to be done next.
    async fn turn(&mut self) -> Result<(), Box<Problem>> {
        if self.pass_on() {
            self.feed.tell().await;
            if self.marked_at.elapsed() < BOOKMARK_EVERY {
                return Ok(());
            }
        }
        let every = if self.has_news { BOOKMARK_EVERY } else { BOOKMARK_EVERY_QUIET };
        if self.marked_at.elapsed() >= every {
            self.mark()?;
            self.feed.tell().await;
        }
        let due = self.feed.due((self.marked_at + every).min(self.list_at), self.feeds.now());
        tokio::select! {
            biased;
            () = self.reader.woken() => {}
            () = self.feed.names().changed() => self.learn().await?,
            () = sleep_until(due) => {
                if self.list_at <= Instant::now() {
                    self.leave_gone();
                    self.feed.ease();
                    self.feed.names().list_soon();
                    self.learn().await?;
                }
            }
        }
        Ok(())
    }

    /// Puts what the topics have given into the ring. Returns whether there was something.
    fn pass_on(&mut self) -> bool {
        let items = self.reader.take_uncounted(BUDGET);
        if items.is_empty() {
            return false;
        }
        self.has_news = true;
        let now = self.feeds.now();
        self.feed.expire(now);
        let (now_ms, mut touched, mut left) = (now.as_millis(), HashSet::new(), HashSet::new());
        let mut covered = self.feed.covered().lock();
        let base_ms = covered.bookmark.base_ms();
        for item in &items {
            match item {
                // It may be somebody else's by now, and is asked for again.
                Item::Message(message) if left.contains(message.topic()) => {}
                Item::Message(message) if covered.is_another(message.topic()) => {
                    left.insert(message.topic().clone());
                }
                Item::Message(message) => {
                    let ms = message.id().ms;
                    if (ms < base_ms || ms > now_ms + CLOCKS_MS)
                        && let Some(topic) = covered.topics.get_mut(message.topic())
                    {
                        topic.is_apart = true;
                        topic.from_ms = now_ms;
                    }
                    self.recent.insert(message.topic().clone(), message.id());
                    touched.insert(message.topic());
                    self.feed.push_message(message);
                }
                Item::Gap(gap) => {
                    if !gap.reason.goes_on()
                        && let Some(topic) = covered.topics.get_mut(&gap.topic)
                    {
                        // What it has now may be of another topic than what readers have seen.
                        topic.from_ms = now_ms;
                        self.recent.remove(&gap.topic);
                        if topic.is_owned {
                            left.insert(gap.topic.clone());
                        }
                    }
                    touched.insert(&gap.topic);
                    self.feed.push_gap(gap);
                }
                Item::Closed(closed) => self.feed.push_closed(closed),
                Item::Bookmark(..) => {}
            }
        }
        for subscription in &self.reader.subscriptions {
            if touched.contains(subscription.topic())
                && let Some(topic) = covered.topics.get_mut(subscription.topic())
            {
                topic.position = subscription.position();
            }
        }
        drop(covered);
        for topic in left {
            self.leave(&topic);
            self.feed.names().hear(&topic);
        }
        true
    }

    /// Puts a bookmark into the ring, if it can be said how far the feed has come.
    fn mark(&mut self) -> Result<(), Box<Problem>> {
        self.marked_at = Instant::now();
        // Before the last look: what is complete now is in the rings of the topics.
        let complete = {
            let covered = self.feed.covered().lock();
            covered.topics.values().map(|topic| topic.feed.complete_ms()).min()
        };
        let complete = complete.unwrap_or_else(|| self.feeds.now().as_millis());
        while self.pass_on() {}
        let mut covered = self.feed.covered().lock();
        let mut is_complete = !self.reader.is_reading();
        for subscription in &self.reader.subscriptions {
            let position = subscription.position();
            is_complete &= position.is_some() && !subscription.waker.is_pending();
            if let Some(topic) = covered.topics.get_mut(subscription.topic()) {
                topic.position = position;
            }
        }
        if !is_complete {
            return Ok(());
        }
        let base = covered.bookmark.base_ms().max(complete.saturating_sub(CLOCKS_MS));
        let mut gathering = Gathering::default();
        for (name, topic) in covered.topics.iter().filter(|(_, topic)| topic.is_apart) {
            let cursor = topic.position.and_then(|position| position.cursor);
            if !gathering.add(name, cursor.unwrap_or(MessageId::MIN)) {
                return Err(too_many_apart(&self.feed));
            }
        }
        // With these nothing comes again; where there is no room for all, some does.
        add_foreign(&covered, &mut gathering);
        self.recent.retain(|_, cursor| cursor.ms >= base);
        for (name, cursor) in &self.recent {
            let is_there = |topic: &CoveredTopic| topic.is_apart || topic.is_foreign;
            if covered.topics.get(name).is_some_and(|topic| !is_there(topic)) && !gathering.add(name, *cursor)
            {
                break;
            }
        }
        let bookmark: Arc<Bookmark> = Arc::new(gathering.at(base));
        self.has_news = false;
        if bookmark != covered.bookmark {
            covered.bookmark = bookmark.clone();
            self.feed.push_bookmark(&bookmark);
        }
        Ok(())
    }

    /// Begins with the topics that were heard of, and looks at the list where that is due.
    async fn learn(&mut self) -> Result<(), Box<Problem>> {
        let (heard, is_list_due) = self.feed.names().take();
        let mut result = self.begin_all(heard, false).await;
        if is_list_due && result.is_ok() {
            result = self.list(false).await;
        }
        let Err(failure) = result else { return Ok(()) };
        if failure.code() == Code::Overloaded {
            return Err(Box::new(failure.problem().clone()));
        }
        tracing::debug!(%failure, pattern = %self.feed.pattern(), "a pattern cannot look for topics, trying on");
        self.list_at = Instant::now() + LIST_EVERY;
        Ok(())
    }

    /// Begins with those topics of the list that are new.
    async fn list(&mut self, is_first: bool) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let prefix = self.feed.pattern().prefix().to_owned();
            let page = self.feeds.names(&prefix, after.as_ref(), LIST_NAMES).await;
            let page = page.map_err(|error| Failure::read(error, None))?;
            let is_last = page.len() < LIST_NAMES;
            after = page.last().cloned();
            self.forget_others(&page);
            let new = self.feed.names().learn(page);
            self.begin_all(new, is_first).await?;
            if is_last {
                break;
            }
            sleep(LIST_REST).await;
        }
        let topics = u32::try_from(self.reader.subscriptions.len()).unwrap_or(u32::MAX);
        self.list_at = Instant::now() + LIST_EVERY + LIST_EVERY_MORE * topics;
        Ok(())
    }

    /// Begins with topics: from now on, or from their first message.
    async fn begin_all(&mut self, names: Vec<TopicName>, from_now_on: bool) -> Result<(), Failure> {
        let now_ms = self.feeds.now().as_millis();
        let feeds = self.feeds.clone();
        let feeds = &feeds;
        let scope = self.feed.scope().clone();
        let scope = &scope;
        let joining = stream::iter(names).map(|topic| async move {
            let joined = join_within(feeds, scope, &topic).await;
            (topic, joined)
        });
        let mut joining = std::pin::pin!(joining.buffer_unordered(BEGIN_AT_ONCE));
        let mut failed = None;
        let mut begun = Vec::new();
        let mut of_others = HashMap::new();
        while let Some((topic, joined)) = joining.next().await {
            match joined {
                Ok(Some(joined)) => begun.push((topic, joined)),
                Ok(None) => drop(of_others.insert(topic, Instant::now())),
                Err(failure) => {
                    // It is heard of again when it is there, or stands in the list.
                    self.feed.names().forget(&topic);
                    if !matches!(failure.code(), Code::TopicNotFound | Code::TopicConflict) {
                        failed = Some(failure);
                    }
                }
            }
        }
        self.of_others.extend(of_others);
        for (topic, (guest, tail)) in begun {
            if let Some(feed) = guest.stay() {
                self.begin_with(topic, (feed, tail), from_now_on, now_ms);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn begin_with(&mut self, topic: TopicName, joined: (Arc<Feed>, Tail), from_now_on: bool, now_ms: u64) {
        let (feed, tail) = joined;
        let parking = self.reader.parking.clone();
        let subscription = if from_now_on {
            Subscription::from_now_on(feed.clone(), parking)
        } else {
            Subscription::begin(feed.clone(), parking, Begin::BEFORE_THE_FIRST, None)
        };
        let (epoch, is_foreign) = (tail.epoch, tail.born.is_none());
        let late_ms = tail.late.map(Timestamp::as_millis);
        let from_ms = match tail.born {
            Some(born) => born.ms.max(late_ms.unwrap_or(0)),
            // Of a stream that another producer has made the sweep says since when it is known.
            None => late_ms.unwrap_or(now_ms),
        };
        let is_owned = self.feed.scope().has(&topic) != Within::Yes;
        let position = subscription.position();
        self.reader.subscriptions.push(subscription);
        self.reader.parking.wake();
        let mut covered = self.feed.covered().lock();
        covered.topics.insert(
            topic,
            CoveredTopic { feed, from_ms, is_apart: false, is_foreign, is_owned, epoch, position },
        );
        covered.version += 1;
    }

    /// Leaves topics that have been gone for a while. If they are made again, they are new.
    fn leave_gone(&mut self) {
        let now = Instant::now();
        let mut left = Vec::new();
        for (at, subscription) in self.reader.subscriptions.iter().enumerate() {
            if !subscription.is_absent()
                || subscription.position().is_none()
                || subscription.waker.is_pending()
            {
                if !self.gone.is_empty() {
                    self.gone.remove(subscription.topic());
                }
                continue;
            }
            let since = *self.gone.entry(subscription.topic().clone()).or_insert(now);
            if since + GONE_FOR <= now {
                left.push(at);
            }
        }
        for at in left.into_iter().rev() {
            let topic = self.reader.subscriptions[at].topic().clone();
            self.leave(&topic);
        }
    }

    /// Leaves a topic. If it is heard of again, it is new.
    fn leave(&mut self, topic: &TopicName) {
        let Some(at) = self.reader.subscriptions.iter().position(|it| it.topic() == topic) else { return };
        self.gone.remove(topic);
        {
            let mut covered = self.feed.covered().lock();
            covered.topics.remove(topic);
            covered.version += 1;
        }
        // From here on it is heard of again.
        self.feed.names().forget(topic);
        self.reader.end_subscription(at);
    }

    /// Forgets those of the names that have belonged to others for so long that they are asked for again.
    fn forget_others(&mut self, names: &[TopicName]) {
        for name in names {
            if self.of_others.get(name).is_some_and(|since| since.elapsed() >= OF_OTHERS_FOR) {
                self.of_others.remove(name);
                self.feed.names().forget(name);
            }
        }
    }
}

/// A feed that was joined, and is left when this is dropped before a subscription has taken it over.
struct Guest<'a> {
    feeds: &'a Arc<Feeds>,
    feed: Option<Arc<Feed>>,
}

impl Guest<'_> {
    fn stay(mut self) -> Option<Arc<Feed>> {
        self.feed.take()
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            self.feeds.leave(feed.topic());
        }
    }
}

/// Joins the feed of a topic that exists, unless it belongs to somebody else.
async fn join_within<'a>(
    feeds: &'a Arc<Feeds>,
    scope: &ReadScope,
    topic: &TopicName,
) -> Result<Option<(Guest<'a>, Tail)>, Failure> {
    let owned = match scope.has(topic) {
        Within::Yes => Owned::Yes,
        Within::IfOwnedBy(owner) => feeds.owned(Some(owner), topic).await?,
        Within::No => Owned::No,
    };
    match owned {
        Owned::Yes => {
            let joined = join(feeds, topic).await?;
            // Whoever has made it since it was asked for is told by the feed from here on.
            let is_it = match scope.has(topic) {
                Within::IfOwnedBy(user) => feeds.owned(Some(user), topic).await? == Owned::Yes,
                Within::Yes | Within::No => true,
            };
            Ok(is_it.then_some(joined))
        }
        Owned::No => Ok(None),
        Owned::NoTopic => Err(Failure::read(StorageError::NoTopic, Some(topic))),
    }
}

/// Joins the feed of a topic that exists.
async fn join<'a>(feeds: &'a Arc<Feeds>, topic: &TopicName) -> Result<(Guest<'a>, Tail), Failure> {
    let Joined { feed, begun, .. } = feeds.join(topic, Absent::Refuse).await?;
    let guest = Guest { feeds, feed: Some(feed) };
    let tail = match begun {
        Some(tail) => tail,
        None => feeds.tail_of(topic).await?,
    };
    Ok((guest, tail))
}

/// Adds the topics of other producers, as far as there is room: whether their ids follow the clock shows only
/// when they give some.
fn add_foreign(covered: &Covered, gathering: &mut Gathering) {
    for (name, topic) in covered.topics.iter().filter(|(_, topic)| topic.is_foreign && !topic.is_apart) {
        if let Some(cursor) = topic.position.and_then(|position| position.cursor)
            && !gathering.add(name, cursor)
        {
            break;
        }
    }
}

fn too_many_apart(feed: &PatternFeed) -> Box<Problem> {
    let detail = format!(
        "pattern `{}` covers so many topics whose ids do not follow the clock that no cursor can hold them; read these by their names",
        feed.pattern()
    );
    Box::new(Problem::new(Code::Conflict, detail))
}
