//! What may wait for a server: messages and bytes, each job with its part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What may wait for the server, on this node.
#[derive(Debug)]
pub(super) struct QueueBudget {
    pub(super) messages: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) budget: Arc<QueueBudget>,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl QueueBudget {
    pub(super) fn take(budget: &Arc<Self>, messages: usize, bytes: usize) -> Option<Ticket> {
        let messages_before = budget.messages.fetch_add(messages, Ordering::Relaxed);
        let bytes_before = budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        let ticket = Ticket { budget: budget.clone(), messages, bytes };
        // A batch that is larger than the whole budget passes when nothing else waits.
        let fits = |before: usize, more: usize, max: usize| before == 0 || before + more <= max;
        let fits = fits(messages_before, messages, budget.messages_max)
            && fits(bytes_before, bytes, budget.bytes_max);
        fits.then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.budget.messages.fetch_sub(self.messages, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
