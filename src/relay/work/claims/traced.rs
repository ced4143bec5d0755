//! Spans of claims: whose messages they have got.

use super::DeliveriesOf;
use crate::traces::{self, Operation, Parent, Span};

/// Notes what was claimed on the span of who claims, and links it to its publishers.
pub(super) fn note_claimed(claimed: &[DeliveriesOf]) {
    traces::note(|notes| {
        notes.count(claimed.iter().map(|of| of.deliveries.len()).sum());
        if let [of] = claimed {
            notes.topic(Operation::Claim, of.topic.as_str());
            notes.text("messaging.consumer.group.name", of.group.as_str());
        }
        notes.link(&parents_of(claimed));
    });
}

/// Begins the span of messages that were claimed without a request, for what consumes over a connection.
pub(crate) fn begin_claimed(claimed: &[DeliveriesOf]) -> Span {
    if !traces::is_on() {
        return Span::none();
    }
    let span = Span::begin_for(Operation::Claim, &parents_of(claimed));
    if let (Some(notes), [of]) = (span.notes(), claimed) {
        notes.count(of.deliveries.len());
        notes.topic(Operation::Claim, of.topic.as_str());
        notes.text("messaging.consumer.group.name", of.group.as_str());
    }
    span
}

/// Returns the spans of those who have published what was claimed.
fn parents_of(claimed: &[DeliveriesOf]) -> Vec<Parent> {
    let messages = claimed.iter().flat_map(|of| &of.deliveries).map(|delivery| &delivery.message);
    messages.filter_map(|message| Parent::of_metadata(message.body.metadata.as_deref())).collect()
}
