//! A page of a log while it is collected.

use std::ops::ControlFlow;

use tidemill_proto::{Gap, MessageId, Timestamp};

use super::EXPIRED_PER_READ_MAX;
use crate::storage::history::Hole;
use crate::storage::memory::segment::{Record, Segment};
use crate::storage::{Batch, Range, StoredMessage};

/// What a read has picked so far, and how far it looked.
pub(super) struct Page<'a> {
    range: Range,
    /// Where messages were lost.
    holes: &'a [Hole],
    now: Timestamp,
    messages: Vec<StoredMessage>,
    bytes: usize,
    expired: usize,
    /// Where the read stopped inside a run of expired messages.
    stopped_at: Option<MessageId>,
    /// The last id looked at.
    reached: Option<MessageId>,
    /// Whether the next one lies behind a hole, which the next read tells.
    is_at_hole: bool,
}

impl<'a> Page<'a> {
    pub(super) fn new(range: Range, holes: &'a [Hole], now: Timestamp) -> Self {
        Self {
            range,
            holes,
            now,
            messages: Vec::new(),
            bytes: 0,
            expired: 0,
            stopped_at: None,
            reached: None,
            is_at_hole: false,
        }
    }

    /// Takes the messages of one segment, and tells whether the page wants more.
    pub(super) fn take<'s>(
        &mut self,
        segment: &'s Segment,
        entries: impl Iterator<Item = &'s Record>,
    ) -> ControlFlow<()> {
        let mut picked: Vec<&Record> = Vec::new();
        let mut flow = ControlFlow::Continue(());
        for entry in entries {
            if self.reached.is_some()
                && self.holes.iter().any(|hole| hole.lies_between(self.reached, entry.id))
            {
                self.is_at_hole = true;
                flow = ControlFlow::Break(());
                break;
            }
            if entry.is_expired(self.now) {
                self.reached = Some(entry.id);
                self.expired += 1;
                if self.expired >= EXPIRED_PER_READ_MAX {
                    self.stopped_at = Some(entry.id);
                    flow = ControlFlow::Break(());
                    break;
                }
                continue;
            }
            let bytes = self.bytes + entry.body_bytes();
            let count = self.messages.len() + picked.len();
            if count > 0 && bytes > self.range.bytes_max {
                flow = ControlFlow::Break(());
                break;
            }
            picked.push(entry);
            // Not before: the message that found no room is for the next read.
            self.reached = Some(entry.id);
            self.bytes = bytes;
            if count + 1 >= self.range.limit || bytes >= self.range.bytes_max {
                flow = ControlFlow::Break(());
                break;
            }
        }
        if !picked.is_empty() {
            segment.collect(&picked, &mut self.messages);
        }
        flow
    }

    pub(super) fn into_batch(self, gap: Option<Gap>, at_end: bool) -> Batch {
        let next = self.stopped_at.or_else(|| self.messages.last().map(|message| message.id));
        let next = next.or(self.reached.filter(|_| self.is_at_hole));
        let looked_at = (self.expired + self.messages.len()) as u64;
        Batch {
            gap,
            messages: self.messages,
            next,
            reached: self.reached,
            looked_at,
            at_end,
            ..Batch::default()
        }
    }
}
