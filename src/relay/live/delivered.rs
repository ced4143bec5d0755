//! Spans of what live readers get: one for what is written to many at once, and for each turn of one that reads alone.

use super::item::Item;
use crate::traces::{self, Operation, Parent, Span};

/// Begins the span of messages that live readers get.
pub(super) fn begin_delivered(items: &[Item]) -> Span {
    if !traces::is_on() || items.is_empty() {
        return Span::none();
    }
    let messages = || {
        items.iter().filter_map(|item| match item {
            Item::Message(message) => Some(message),
            Item::Gap(_) | Item::Closed(_) | Item::Bookmark(..) => None,
        })
    };
    let publishers: Vec<_> = messages()
        .filter_map(|message| Parent::of_metadata(message.stored().body.metadata.as_deref()))
        .collect();
    let span = Span::begin_for(Operation::Deliver, &publishers);
    if let Some(notes) = span.notes() {
        notes.count(messages().count());
        if let Some(message) = messages().next() {
            notes.topic(Operation::Deliver, message.topic().as_str());
        }
    }
    span
}
