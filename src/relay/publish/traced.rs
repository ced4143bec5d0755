//! Spans of publishes: what is noted on them.

use tidemill_proto::TopicName;

use super::{Answered, Draft};
use crate::relay::trace::note_failure;
use crate::relay::{Failure, JsonText};
use crate::traces::{self, Operation, Span};

/// Notes what came of a message on the span of who publishes it.
pub(super) fn note_published(topic: &TopicName, result: &Result<Answered, Failure>) {
    traces::note(|notes| {
        notes.topic(Operation::Publish, topic.as_str());
        if let Ok(Answered::Published(appended, _)) = result {
            notes.text("messaging.message.id", appended.id.to_string());
        }
    });
}

/// Notes what came of messages on the span of who publishes them.
pub(super) fn note_all(results: &[Result<Answered, Failure>]) {
    traces::note(|notes| {
        notes.count(results.len());
        let failed = || results.iter().filter_map(|result| result.as_ref().err());
        if let Some(failure) = failed().find(|failure| failure.has_cause()).or_else(|| failed().next()) {
            note_failure(notes, failure);
        }
    });
}

/// Begins the span of a message that came without a request.
pub(crate) fn begin_published(draft: &Draft) -> Span {
    if !traces::is_on() {
        return Span::none();
    }
    Span::begin(Operation::Publish, draft.metadata.as_ref().and_then(JsonText::parent).as_ref())
}

/// Notes the end on the span of a message that came without a request.
pub(crate) fn end_published(span: &Span, topic: &TopicName, result: &Result<Answered, Failure>) {
    let Some(notes) = span.notes() else { return };
    notes.topic(Operation::Publish, topic.as_str());
    match result {
        Ok(Answered::Published(appended, _)) => notes.text("messaging.message.id", appended.id.to_string()),
        Ok(Answered::Scheduled(_)) => {}
        Err(failure) => note_failure(notes, failure),
    }
}
