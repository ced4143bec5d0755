//! Spans of what consumers say of messages.

use super::SettledReceipt;
use crate::traces::{self, Notes, Operation, Span};

/// Notes what is settled on the span of who settles.
pub(super) fn note_settled(receipts: &[SettledReceipt]) {
    traces::note(|notes| tell_settled(notes, receipts));
}

/// Begins the span of what is settled without a request.
pub(crate) fn begin_settled(receipts: &[SettledReceipt]) -> Span {
    let Some(first) = receipts.first().filter(|_| traces::is_on()) else { return Span::none() };
    let span = Span::begin(Operation::Settle(first.name()), None);
    if let Some(notes) = span.notes() {
        tell_settled(notes, receipts);
    }
    span
}

fn tell_settled(notes: Notes<'_>, receipts: &[SettledReceipt]) {
    notes.count(receipts.len());
    if let Some((receipt, settled)) = receipts.iter().find_map(|one| Some((one.receipt.as_ref()?, one))) {
        notes.topic(Operation::Settle(settled.name()), receipt.topic.as_str());
        notes.text("messaging.consumer.group.name", receipt.group.as_str());
        if receipts.len() == 1 {
            notes.text("messaging.message.id", receipt.id.to_string());
        }
    }
}
