//! What readers get, and how much of it at once.

use std::sync::Arc;

use tidemill_proto::topics::Closed;
use tidemill_proto::{Gap, PatternCursor, TopicName, TopicPattern};

use super::message::LiveMessage;
use super::pending::{Held, Pending, is_large};
use crate::budget::{FREE_BYTES, Hold};

/// What a gap counts as, in bytes.
const GAP_BYTES: usize = 200;

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// A message.
    Message(Arc<LiveMessage>),
    /// A hole.
    Gap(Arc<Gap>),
    /// That a topic takes no messages any more: all that it has came before.
    Closed(Arc<Closed>),
    /// Where a reader of this pattern can go on from here.
    Bookmark(TopicPattern, PatternCursor),
}

/// How much a reader takes at once.
#[derive(Clone, Copy, Debug)]
pub struct TakeLimit {
    /// Most items; at least 1.
    pub items: usize,
    /// Bytes after which to stop; one item is taken whatever it weighs.
    pub bytes: usize,
}

/// What is taken in one turn.
pub(super) struct Taken {
    pub(super) items: Vec<Item>,
    bytes: usize,
    pub(super) limit: TakeLimit,
    /// Where it is counted; `None` for a reader whose answer is counted elsewhere.
    pending: Option<Pending>,
    /// The part of the budget that the reader has waited for, or that what is taken has.
    hold: Hold,
    /// What keeps a large message counted.
    shared: Option<Held>,
    lack: Lack,
}

/// What keeps a reader from taking more, though its own limit would allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Nothing.
    Nothing,
    /// Room for more than a little: the next turn goes on.
    Little,
    /// Room for one message of so many bytes in this topic, for which the reader has to wait.
    Room(TopicName, u64),
}

/// How a turn ends.
pub(super) struct End {
    pub(super) items: Vec<Item>,
    /// What has to be kept until the items are written.
    pub(super) held: Option<Held>,
    /// What was waited for and not used.
    pub(super) granted: Hold,
    pub(super) lack: Lack,
}

impl Taken {
    /// Returns an empty turn of a reader to which a part of the budget was `granted`.
    pub(super) fn new(limit: TakeLimit, pending: Option<Pending>, granted: Hold) -> Self {
        Self { items: Vec::new(), bytes: 0, limit, pending, hold: granted, shared: None, lack: Lack::Nothing }
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= self.limit.items || self.bytes >= self.limit.bytes || self.lack != Lack::Nothing
    }

    /// Returns the message as it is to be pushed, if there is room for it now: else the turn ends.
    pub(super) fn admit(&mut self, message: Arc<LiveMessage>) -> Option<Arc<LiveMessage>> {
        let Some(pending) = &self.pending else { return Some(message) };
        if !is_large(&message) {
            let bytes = self.bytes + message.len_bytes();
            // For the whole turn at once.
            let bytes = if bytes > FREE_BYTES { bytes.max(self.limit.bytes) } else { 0 };
            if pending.budget().raise(&mut self.hold, bytes as u64).is_err() {
                self.lack = Lack::Little;
                return None;
            }
            return Some(message);
        }
        if !self.items.is_empty() {
            // It goes alone, so that it is written without a copy.
            self.lack = Lack::Little;
            return None;
        }
        match pending.hold(&message, &mut self.hold) {
            Ok(large) => {
                let message = large.message().clone();
                self.shared = Some(large);
                Some(message)
            }
            Err(bytes) => {
                self.lack = Lack::Room(message.topic().clone(), bytes);
                None
            }
        }
    }

    /// Returns the messages of a page, all of which are pushed next, as [`admit`](Self::admit) does for one.
    pub(super) fn admit_all(&mut self, messages: &[Arc<LiveMessage>]) -> Option<Vec<Arc<LiveMessage>>> {
        if let [only] = messages {
            return self.admit(only.clone()).map(|message| vec![message]);
        }
        let bytes = self.bytes + messages.iter().map(|message| message.len_bytes()).sum::<usize>();
        let is_counted = match &self.pending {
            Some(pending) => pending.budget().raise(&mut self.hold, bytes as u64).is_ok(),
            None => true,
        };
        if !is_counted {
            self.lack = Lack::Little;
        }
        is_counted.then(|| messages.to_vec())
    }

    /// Ends the turn where others wait for room in this topic, and this reader has not been given any yet.
    /// Returns whether it does: then nothing is to be read.
    pub(super) fn waits_behind(&mut self, topic: &TopicName) -> bool {
        let Some(pending) = self.pending.as_ref().filter(|_| self.hold.is_empty()) else { return false };
        let awaited = pending.awaited(topic);
        if let Some(bytes) = awaited {
            self.lack = Lack::Room(topic.clone(), bytes);
        }
        awaited.is_some()
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += match &item {
            Item::Message(message) => message.len_bytes(),
            Item::Gap(_) => GAP_BYTES,
            Item::Closed(closed) => GAP_BYTES + closed.reason.as_ref().map_or(0, String::len),
            Item::Bookmark(_, cursor) => cursor.as_str().len(),
        };
        self.items.push(item);
    }

    pub(super) fn end(self) -> End {
        let Self { items, bytes, mut hold, shared, lack, .. } = self;
        if items.is_empty() {
            return End { items, held: None, granted: hold, lack };
        }
        if shared.is_some() || bytes <= FREE_BYTES {
            hold = Hold::default();
        } else {
            hold.lower(bytes as u64);
        }
        let own: Option<Held> = (!hold.is_empty()).then(|| Arc::new(hold) as Held);
        let held = match (shared, own) {
            (Some(shared), Some(own)) => Some(Arc::new((shared, own)) as Held),
            (one, other) => one.or(other),
        };
        End { items, held, granted: Hold::default(), lack }
    }
}
