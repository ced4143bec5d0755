//! What readers get, and how much of it at once.

use std::sync::Arc;

use tidemill_proto::Gap;

use super::message::LiveMessage;

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// A message.
    Message(Arc<LiveMessage>),
    /// A hole.
    Gap(Arc<Gap>),
}

/// How much a reader takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Most items; at least 1.
    pub items: usize,
    /// Bytes after which to stop; one item is taken whatever it weighs.
    pub bytes: usize,
}

/// What is taken in one turn.
pub(super) struct Taken {
    pub(super) items: Vec<Item>,
    bytes: usize,
    pub(super) budget: Budget,
}

impl Taken {
    pub(super) const fn new(budget: Budget) -> Self {
        Self { items: Vec::new(), bytes: 0, budget }
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= self.budget.items || self.bytes >= self.budget.bytes
    }

    pub(super) fn push(&mut self, item: Item) {
        self.bytes += match &item {
            Item::Message(message) => message.len_bytes(),
            Item::Gap(_) => 200,
        };
        self.items.push(item);
    }
}
