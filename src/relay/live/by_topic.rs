//! A reader of a pattern that has not come to the pattern's ring: it reads each of the topics by itself, as if
//! it had named them, from history into the topic's own ring. Once it has at least what the pattern's ring has
//! of every topic, it goes on there, and holds nothing of single topics any more.
//!
//! While it cannot, as where its client is slow, it reads on like this, and misses nothing either.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{TopicName, TopicPattern};
use tokio::time::Instant;

use super::begin::Begin;
use super::bookmark::{Bookmark, Gathering};
use super::feeds::Joined;
use super::following::{At, Origin};
use super::item::{Item, Taken};
use super::outlet::Outlet;
use super::pattern_feed::Covered;
use super::reader::LiveReader;
use super::subscription::Subscription;
use super::turn::Turn;

/// How often such a reader is told how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(1);

impl<O: Outlet> LiveReader<O> {
    /// Takes what there is of a pattern.
    pub(super) fn take_from_pattern(&mut self, at: usize, taken: &mut Taken) {
        if taken.is_full() {
            return;
        }
        let following = &mut self.following[at];
        if let At::Ring(from) = following.at {
            if !following.is_pending() {
                return;
            }
            // Whatever is notified from here on is looked at in the next turn.
            following.clear_pending();
            if following.take_from_ring(from, taken) {
                return;
            }
        }
        match self.following[at].at {
            At::Ring(_) => {}
            At::Behind(origin) => {
                if self.begin_by_topic(at, origin) {
                    self.parking.wake();
                }
            }
            At::ByTopic(_) => self.read_by_topic(at, taken),
        }
    }

    /// Begins to read the topics by themselves, if there is room for that now. Else it is waited for.
    fn begin_by_topic(&mut self, at: usize, origin: Origin) -> bool {
        let feed = self.following[at].feed().clone();
        let permit = match std::mem::replace(&mut self.turn_by_topic, Turn::None) {
            Turn::Granted(permit) => permit,
            Turn::Awaited(turn) => {
                self.turn_by_topic = Turn::Awaited(turn);
                return false;
            }
            Turn::None => {
                let topics = feed.covered().lock().topics.len();
                let (room, needed) = self.feeds.patterns().room_by_topic(topics);
                let Ok(permit) = room.clone().try_acquire_many_owned(needed) else {
                    let turn = async move { room.acquire_many_owned(needed).await.ok() };
                    self.turn_by_topic = Turn::Awaited(Box::pin(turn));
                    self.parking.wake();
                    return false;
                };
                permit
            }
        };
        let following = &mut self.following[at];
        following.at = At::ByTopic(permit);
        let begins: Vec<_> = {
            let covered = feed.covered().lock();
            following.version = covered.version;
            let begin = |(name, topic)| {
                let begin = origin.begin_in(name, topic, &following.bookmark);
                (TopicName::clone(name), begin)
            };
            covered.topics.iter().map(begin).collect()
        };
        for (topic, begin) in begins {
            self.begin_covered(feed.pattern(), &topic, begin);
        }
        true
    }

    /// Begins to read a topic that a pattern covers.
    fn begin_covered(&mut self, pattern: &TopicPattern, topic: &TopicName, begin: Begin) {
        // One that has no feed any more is gone; if it is made again it is new.
        let Some(Joined { feed, exists, .. }) = self.feeds.join_running(topic) else { return };
        let begin = if exists || begin.seen { begin } else { Begin::BEFORE_THE_FIRST };
        let mut subscription = Subscription::begin(feed, self.parking.clone(), begin, None);
        subscription.covered_by = Some(pattern.clone());
        self.subscriptions.push(subscription);
    }

    /// Sees to it that all topics are read, and goes on in the pattern's ring as soon as it can.
    fn read_by_topic(&mut self, at: usize, taken: &mut Taken) {
        self.following[at].clear_pending();
        if self.take_new_topics(at) {
            self.parking.wake();
            return;
        }
        if self.enter_ring(at, taken) {
            return;
        }
        if self.following[at].marked_at.elapsed() >= BOOKMARK_EVERY {
            self.following[at].marked_at = Instant::now();
            let feed = self.following[at].feed().clone();
            let bookmark = self.bookmark_by_topic(feed.pattern(), &feed.covered().lock());
            if let Some(bookmark) = bookmark
                && bookmark.base_ms() > self.following[at].bookmark.base_ms()
            {
                taken.push(Item::Bookmark(feed.pattern().clone(), bookmark.to_cursor()));
                self.following[at].bookmark = Arc::new(bookmark);
            }
        }
    }

    /// Begins to read topics that have come since, each from its first message on. Returns whether there are
    /// some.
    fn take_new_topics(&mut self, at: usize) -> bool {
        let following = &mut self.following[at];
        let feed = following.feed().clone();
        let new: Vec<_> = {
            let covered = feed.covered().lock();
            if covered.version == following.version {
                return false;
            }
            following.version = covered.version;
            let of_it = |it: &&Subscription<O>| it.covered_by.as_ref() == Some(feed.pattern());
            let known: HashSet<_> =
                self.subscriptions.iter().filter(of_it).map(Subscription::topic).collect();
            covered.topics.keys().filter(|topic| !known.contains(topic)).cloned().collect()
        };
        for topic in &new {
            self.begin_covered(feed.pattern(), topic, Begin::BEFORE_THE_FIRST);
        }
        !new.is_empty()
    }

    /// Goes on in the pattern's ring, if the reader has at least what that has of every topic.
    fn enter_ring(&mut self, at: usize, taken: &mut Taken) -> bool {
        let feed = self.following[at].feed().clone();
        let pattern = feed.pattern();
        let covered = feed.covered().lock();
        if covered.version != self.following[at].version {
            return false;
        }
        let mut skips = HashMap::new();
        for subscription in self.subscriptions.iter().filter(|it| it.covered_by.as_ref() == Some(pattern)) {
            let Some(own) = subscription.position().filter(|_| !subscription.waker.is_pending()) else {
                return false;
            };
            let Some(topic) = covered.topics.get(subscription.topic()) else {
                // Gone, and the reader knows.
                if subscription.is_absent() {
                    continue;
                }
                return false;
            };
            // Across a cut, or a loss, ids do not tell who is further.
            let ring = topic.position.filter(|ring| (ring.cuts, ring.losses) == (own.cuts, own.losses));
            let Some(ring) = ring.filter(|ring| ring.cursor <= own.cursor) else { return false };
            if let Some(cursor) = own.cursor.filter(|_| ring.cursor < own.cursor) {
                skips.insert(subscription.topic().clone(), cursor);
            }
        }
        let (end, bookmark) = (feed.ring().read().end(), covered.bookmark.clone());
        drop(covered);
        let following = &mut self.following[at];
        following.enter_ring(end, skips);
        taken.push(Item::Bookmark(pattern.clone(), bookmark.to_cursor()));
        following.bookmark = bookmark;
        self.end_topics_of(pattern);
        self.parking.wake();
        true
    }

    /// Returns how far the reader has come in all topics; `None` where that cannot be said in few bytes.
    fn bookmark_by_topic(&self, pattern: &TopicPattern, covered: &Covered) -> Option<Bookmark> {
        let mut base = covered.bookmark.base_ms();
        let mut gathering = Gathering::default();
        for subscription in self.subscriptions.iter().filter(|it| it.covered_by.as_ref() == Some(pattern)) {
            let topic = covered.topics.get(subscription.topic());
            let has_all = subscription.position().is_some() && !subscription.waker.is_pending();
            match subscription.cursor() {
                Some(cursor) if topic.is_some_and(|topic| topic.is_apart) => {
                    if !gathering.add(subscription.topic(), cursor) {
                        return None;
                    }
                }
                // What has no room the base speaks for, as far as it can.
                Some(cursor) if has_all && topic.is_some_and(|topic| topic.is_foreign) => {
                    gathering.add(subscription.topic(), cursor);
                }
                _ if has_all => {}
                Some(cursor) => base = base.min(cursor.ms),
                // It is read from its first message again.
                None => base = base.min(topic.map_or(0, |topic| topic.from_ms)),
            }
        }
        Some(gathering.at(base))
    }
}
