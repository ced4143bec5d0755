//! The feed of a pattern: the messages of all topics that it covers, one after the other, for all who follow
//! the pattern on this node and may read the same of it. A reader that has come to its ring holds a place in it and nothing else, however
//! many topics there are.
//!
//! It owns the ring and what is known of each topic. It must not know who fills it (`pattern_task` does), nor
//! how readers come to it.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_proto::topics::Closed;
use tidemill_proto::{Gap, MessageId, Problem, Timestamp, TopicName, TopicPattern};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bookmark::Bookmark;
use super::feed::{Feed, due_in};
use super::message::LiveMessage;
use super::names::Names;
use super::primitives::{Mutex, RwLock};
use super::ring::Ring;
use super::ring_bytes::RingBytes;
use super::subscribers::{Subscribers, tell};
use crate::access::ReadScope;
use crate::storage::Epoch;

/// Where a reader of one topic stands between two cuts of its feed: there, ids tell who is further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderPosition {
    pub(super) cursor: Option<MessageId>,
    pub(super) cuts: u64,
    pub(super) losses: u64,
}

/// A topic that a pattern covers.
#[derive(Debug)]
pub(super) struct CoveredTopic {
    pub(super) feed: Arc<Feed>,
    /// Who has a bookmark whose base is not after this time reads the topic from its first message: it was made
    /// then, or the base cannot speak for it.
    pub(super) from_ms: u64,
    /// Whether no base can speak for it: its ids do not follow the clock.
    pub(super) is_apart: bool,
    /// Whether another producer has made it, whose ids need not follow the clock.
    pub(super) is_foreign: bool,
    /// Whether it is covered because a user owns it: another one of its name may belong to somebody else.
    pub(super) is_owned: bool,
    /// Which topic it was of which that was found out.
    pub(super) epoch: Epoch,
    /// How far the ring has it; `None` while nobody can tell.
    pub(super) position: Option<ReaderPosition>,
}

impl Covered {
    /// Returns whether a topic that is covered because of who owns it is another one by now.
    pub(super) fn is_another(&mut self, topic: &TopicName) -> bool {
        let Some(covered) = self.topics.get_mut(topic).filter(|covered| covered.is_owned) else {
            return false;
        };
        let now = covered.feed.ring().read().epoch();
        let before = std::mem::replace(&mut covered.epoch, now);
        !before.may_be(now)
    }
}

/// What a pattern covers.
#[derive(Debug, Default)]
pub(super) struct Covered {
    pub(super) topics: HashMap<TopicName, CoveredTopic>,
    /// Counts the topics that have come or gone.
    pub(super) version: u64,
    /// The newest bookmark in the ring.
    pub(super) bookmark: Arc<Bookmark>,
}

/// How a pattern's feed is.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It finds out what it covers.
    Begins,
    /// It runs.
    Runs,
    /// It has ended, and cannot go on.
    Ended(Box<Problem>),
}

/// The feed of a pattern on this node.
#[derive(Debug)]
pub(in crate::relay) struct PatternFeed {
    names: Names,
    ring: RwLock<Ring>,
    subscribers: Subscribers,
    covered: Mutex<Covered>,
    phase: watch::Sender<Phase>,
    stopped: CancellationToken,
}

impl PatternFeed {
    /// Returns the feed of a pattern, whose ring is counted with all of these.
    pub(super) fn new(pattern: TopicPattern, scope: ReadScope, rings: &RingBytes) -> Self {
        Self {
            names: Names::new(pattern, scope),
            ring: RwLock::new(Ring::of_pattern(rings)),
            subscribers: Subscribers::default(),
            covered: Mutex::default(),
            phase: watch::Sender::new(Phase::Begins),
            stopped: CancellationToken::new(),
        }
    }

    pub(super) fn pattern(&self) -> &TopicPattern {
        self.names.pattern()
    }

    pub(super) fn scope(&self) -> &ReadScope {
        self.names.scope()
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn ring(&self) -> &RwLock<Ring> {
        &self.ring
    }

    pub(super) fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    pub(super) fn covered(&self) -> &Mutex<Covered> {
        &self.covered
    }

    /// Notes how the feed is, and tells all readers.
    pub(super) async fn enter(self: &Arc<Self>, phase: Phase) {
        self.phase.send_replace(phase);
        self.tell().await;
    }

    /// Returns why the feed has ended, if it has.
    pub(super) fn ended(&self) -> Option<Box<Problem>> {
        match &*self.phase.borrow() {
            Phase::Begins | Phase::Runs => None,
            Phase::Ended(problem) => Some(problem.clone()),
        }
    }

    /// Whether the feed has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(&*self.phase.borrow(), Phase::Ended(_))
    }

    /// Waits until the feed has found out what it covers.
    ///
    /// # Errors
    /// It has ended.
    pub(super) async fn begun(&self) -> Result<(), Box<Problem>> {
        let mut phase = self.phase.subscribe();
        let has_begun = phase.wait_for(|phase| !matches!(phase, Phase::Begins)).await;
        // The sender lives as long as the feed.
        match has_begun.as_deref() {
            Ok(Phase::Ended(problem)) => Err(problem.clone()),
            Ok(Phase::Begins | Phase::Runs) | Err(_) => Ok(()),
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    /// Waits until nobody reads it any more.
    pub(super) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    pub(super) fn push_message(&self, message: &Arc<LiveMessage>) {
        self.ring.write().push_message(message.clone());
    }

    pub(super) fn push_closed(&self, closed: &Arc<Closed>) {
        self.ring.write().push_closed(closed.clone());
    }

    pub(super) fn push_gap(&self, gap: &Arc<Gap>) {
        self.ring.write().push_shared_gap(gap.clone());
    }

    pub(super) fn push_bookmark(&self, bookmark: &Arc<Bookmark>) {
        self.ring.write().push_bookmark(bookmark.clone());
    }

    /// Lets go of messages whose time is over.
    pub(super) fn expire(&self, now: Timestamp) {
        let is_due = self.ring.read().next_expiry().is_some_and(|at| at <= now);
        if is_due {
            self.ring.write().expire(now);
        }
    }

    /// Lets go of messages whose time is over, and returns until when can be waited: until this, or until the next is over.
    pub(super) fn due(&self, at: Instant, now: Timestamp) -> Instant {
        self.expire(now);
        let next = self.ring.read().next_expiry();
        next.map_or(at, |next| at.min(Instant::now() + due_in(next, now)))
    }

    /// Lets go of what the ring holds, where room is needed and none of it is new.
    pub(super) fn ease(&self) {
        self.ring.write().ease();
    }

    /// Tells all readers that there is something in the ring, and returns once they have been told.
    pub(super) async fn tell(self: &Arc<Self>) {
        tell(self, |feed| (&feed.subscribers, &feed.ring)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::StoredMessage;

    #[tokio::test(start_paused = true)]
    async fn what_is_over_is_let_go_of_in_time() {
        let pattern = TopicPattern::parse("a.*").expect("a pattern");
        let feed = PatternFeed::new(pattern, ReadScope::everything(), &RingBytes::new(1 << 30));
        let time = Timestamp::from_millis;
        let (timestamp, expires_at) = (time(1), Some(time(1_000)));
        let body = crate::relay::test_body("1");
        let stored = StoredMessage { id: MessageId::new(1, 0), timestamp, expires_at, body };
        let topic = TopicName::parse("a.b").expect("a name");
        feed.push_message(&Arc::new(LiveMessage::new(topic, stored)));
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_hours(1));
        assert_eq!(feed.due(later, time(400)), now + Duration::from_millis(600));
        assert_eq!(feed.due(now, time(400)), now);
        assert_eq!(feed.ring().read().first(), 0);
        assert_eq!(feed.due(later, time(1_000)), later);
        assert_eq!(feed.ring().read().first(), 1);
    }
}
