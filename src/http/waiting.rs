//! Long-polls: a reader that is there until it has something, or its time is up.
//!
//! Waiting asks the storage for nothing: the topic's feed reads for all that wait, and wakes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::limits::{PAGE_BYTES_MAX, POLL_SECONDS_MAX};
use tidemill_proto::sessions::SessionKind;
use tidemill_proto::{Gap, GapReason, MessageId, Since, TopicName};
use tokio::time::timeout;

use super::Http;
use super::live::View;
use crate::metrics::Transport;
use crate::relay::{self, Absent, Failure, Gate, Item, LiveMessage, LiveReader, within};
use crate::slow;

/// What a long-poll has found.
#[derive(Debug)]
pub(super) struct Found {
    /// The messages, as the reader got them.
    pub(super) messages: Vec<Arc<LiveMessage>>,
    /// The holes.
    pub(super) gaps: Vec<Gap>,
    /// About how many bytes the messages have.
    pub(super) bytes: usize,
    /// Where to read on in the one topic of a page.
    pub(super) resume: MessageId,
    /// Whether there may be more at once.
    pub(super) full: bool,
    /// The topics that do not exist.
    pub(super) absent: Vec<TopicName>,
    /// The topics that take no messages any more, all of which are there.
    pub(super) closed: Vec<TopicName>,
}

/// Checks how long is to be waited, which was read if it was a duration.
///
/// # Errors
/// It is none, or out of bounds.
pub(super) fn bounded(field: &str, duration: Option<Duration>) -> Result<Duration, Failure> {
    within(field, duration, [Duration::from_secs(1), Duration::from_secs(POLL_SECONDS_MAX)])
}

/// Waits for a page of a topic. A page has one gap at most, in front: at a second one it ends.
///
/// # Errors
/// The topic does not exist, and that is a mistake; or the storage did not answer.
pub(super) async fn page(
    http: &Http,
    gate: &Gate,
    (topic, view): (&TopicName, View),
    (since, absent): (Since, Absent),
    limit: usize,
    wait: Duration,
) -> Result<Found, Failure> {
    let mut reader = gate.live_reader(SessionKind::Poll);
    let begun = view.begin(&mut reader, topic, since, absent).await?;
    let _waiter = http.0.waiters.enter(std::slice::from_ref(topic));
    let mut found = Found::new(begun.cursor);
    found.wait(http, &mut reader, limit, wait, Holes::OneInFront).await;
    Ok(found)
}

/// How many gaps an answer has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holes {
    /// One, before the first message.
    OneInFront,
    /// Any number.
    Any,
}

impl Found {
    pub(super) const fn new(start: MessageId) -> Self {
        Self {
            messages: Vec::new(),
            gaps: Vec::new(),
            bytes: 0,
            resume: start,
            full: false,
            absent: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// Takes what `reader` has; if there is no message, waits for one. A gap alone does not end the
    /// wait: a client that does not know of gaps would ask again at once, and for ever.
    pub(super) async fn wait(
        &mut self,
        http: &Http,
        reader: &mut LiveReader,
        limit: usize,
        wait: Duration,
        holes: Holes,
    ) {
        let _counted = http.0.metrics.readers().enter(Transport::Poll);
        let farewell = reader.farewell();
        let waits = async {
            tokio::select! {
                biased;
                () = self.fill(reader, limit, holes) => {}
                _ = timeout(wait, farewell) => {}
            }
        };
        slow::awaited(waits).await;
        self.absent = reader.absent();
        http.0.metrics.messages().served(self.messages.len());
    }

    async fn fill(&mut self, reader: &mut LiveReader, limit: usize, holes: Holes) {
        while !self.full {
            let room = relay::TakeLimit {
                items: limit - self.messages.len(),
                bytes: PAGE_BYTES_MAX.saturating_sub(self.bytes),
            };
            let items =
                if self.messages.is_empty() { reader.next(room).await } else { reader.catch_up(room).await };
            if items.is_empty() {
                return;
            }
            self.take(items, holes);
            self.full |= self.messages.len() >= limit || self.bytes >= PAGE_BYTES_MAX;
        }
    }

    fn take(&mut self, items: Vec<Item>, holes: Holes) {
        for item in items {
            match item {
                Item::Message(message) => {
                    self.bytes += message.len_bytes();
                    self.resume = message.id();
                    self.messages.push(message);
                }
                Item::Gap(gap) => {
                    if holes == Holes::OneInFront && !(self.gaps.is_empty() && self.messages.is_empty()) {
                        self.full = true;
                        return;
                    }
                    self.resume = behind(&gap);
                    self.gaps.push(gap.as_ref().clone());
                }
                // A client that does not know of it would ask again at once, and for ever.
                Item::Closed(closed) => self.closed.push(closed.topic.clone()),
                // Nobody waits for a pattern.
                Item::Bookmark(..) => {}
            }
        }
    }
}

/// Returns the cursor of a reader that has been told of a gap.
fn behind(gap: &Gap) -> MessageId {
    match gap.reason {
        // There is no such topic now; if it is made again, this reader was there from its first message.
        GapReason::Deleted if gap.from.next() == Some(gap.to) => MessageId::MIN,
        GapReason::Deleted | GapReason::Trimmed | GapReason::Compacted | GapReason::Reset => {
            gap.to.previous().unwrap_or(MessageId::MIN)
        }
    }
}

/// Who waits, for the statistics.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<PollCounts>);

/// How many long-polls wait.
#[derive(Clone, Debug, Default)]
pub(super) struct PollCounts {
    /// Long-polls.
    pub(super) polls: usize,
    /// Those of each topic.
    pub(super) by_topic: HashMap<TopicName, usize>,
}

/// The entry of one long-poll, taken out when dropped.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    topics: &'a [TopicName],
}

impl Waiters {
    pub(super) fn enter<'a>(&'a self, topics: &'a [TopicName]) -> Waiter<'a> {
        let mut waiting = self.0.lock();
        waiting.polls += 1;
        for topic in topics {
            *waiting.by_topic.entry(topic.clone()).or_default() += 1;
        }
        Waiter { waiters: self, topics }
    }

    pub(super) fn now(&self) -> PollCounts {
        self.0.lock().clone()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.0.lock();
        waiting.polls -= 1;
        for topic in self.topics {
            if let Some(count) = waiting.by_topic.get_mut(topic) {
                *count -= 1;
                if *count == 0 {
                    waiting.by_topic.remove(topic);
                }
            }
        }
    }
}
