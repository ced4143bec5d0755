//! Where a reader of a topic begins, and what it means to it that there is no such topic.

use tidemill_proto::MessageId;

use super::history::View;
use crate::storage::{Epoch, Tail};

/// What a topic that does not exist means to who wants to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It will be made: the reader gets everything from its first message on.
    Await,
    /// A mistake.
    Refuse,
}

/// Where a reader of a topic starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The cursor. Who comes back with it is told what is missing behind it.
    pub cursor: MessageId,
    /// Whether there is such a topic, as far as is known: else the reader waits for it.
    pub exists: bool,
    /// Whether the topic takes no messages any more: what it has comes, and nothing else.
    pub has_ended: bool,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) cursor: Option<MessageId>,
    /// Whether the cursor stands for a message that the reader has seen, or it was there before the first.
    pub(super) seen: bool,
    /// Which topic the cursor is of, where that is known.
    pub(super) epoch: Option<Epoch>,
    pub(super) view: View,
}

impl Begin {
    /// In a topic that is still to be made.
    pub(super) const BEFORE_THE_FIRST: Self = Self { cursor: None, seen: true, epoch: None, view: View::All };

    /// In front of the oldest message that there is. What is trimmed from there on is missed, and nothing that
    /// was trimmed before.
    pub(super) fn before_the_oldest(tail: Tail) -> Self {
        let oldest = tail.first.and_then(MessageId::previous);
        Self { cursor: oldest.or(tail.last), ..tail.into() }
    }

    /// Returns the cursor with which the reader begins again in the same place.
    pub(super) fn resume(self) -> MessageId {
        self.cursor.unwrap_or(MessageId::MIN)
    }
}

/// Whoever begins at the tail is told of what is lost behind it.
impl From<Tail> for Begin {
    fn from(tail: Tail) -> Self {
        Self { cursor: tail.last, seen: true, epoch: Some(tail.epoch), view: View::All }
    }
}
