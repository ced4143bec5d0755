//! What messages need, and what becomes of those that were not sent one by one.

use tidemill_proto::TopicName;

use super::super::failure::{Failure, causes_of, same};
use super::super::pipeline::Outcome;
use super::super::scripts;
use crate::storage::{NewMessage, StorageError};

/// Returns the scripts that messages need.
pub(super) fn scripts_of(open: &[(usize, NewMessage)]) -> Vec<&'static str> {
    let has = |of: fn(&NewMessage) -> bool| open.iter().any(|(_, message)| of(message));
    let unique = has(|message| message.unique.is_some());
    let conditional = has(|message| message.unique.is_none() && message.expected_last.is_some());
    let once = has(|message| {
        message.unique.is_none() && message.expected_last.is_none() && message.idempotency.is_some()
    });
    let scripts =
        [(once, scripts::APPEND_ONCE), (conditional, scripts::APPEND_IF), (unique, scripts::APPEND_UNIQUE)];
    scripts.into_iter().filter(|(is_needed, _)| *is_needed).map(|(_, script)| script).collect()
}

/// Returns whether one of these messages makes a topic.
pub(super) fn is_made(again: &[(usize, NewMessage)], topic: &TopicName) -> bool {
    again.iter().any(|(_, message)| message.topic == *topic)
}

/// Decides every message of a pipeline that failed as a whole.
pub(super) fn fail(open: Vec<(usize, NewMessage)>, outcomes: &mut [Option<Outcome>], error: &StorageError) {
    for (place, _) in open {
        outcomes[place] = Some(Err(same(error)));
    }
}

/// A message whose topic could not be created was not appended, whatever became of the topic.
pub(in super::super) fn not_created(error: &StorageError) -> StorageError {
    let cause = || Failure::NotCreated(causes_of(error)).into();
    match error {
        StorageError::TopicsLimit => StorageError::TopicsLimit,
        StorageError::NotATopic => StorageError::NotATopic,
        StorageError::ForeignKey(key) => StorageError::ForeignKey(key.clone()),
        StorageError::IdsUsedUp => StorageError::IdsUsedUp,
        StorageError::ReadOnly(why) => StorageError::ReadOnly(*why),
        StorageError::Overloaded => StorageError::Overloaded,
        StorageError::Full(_) => StorageError::Full(cause()),
        StorageError::KeysFull(_) => StorageError::KeysFull(cause()),
        StorageError::Unavailable(_) | StorageError::Indeterminate(_) => StorageError::Unavailable(cause()),
        StorageError::NoTopic
        | StorageError::TopicExists
        | StorageError::NotLast(_)
        | StorageError::Fenced(_)
        | StorageError::Closed
        | StorageError::Cancelled(_)
        | StorageError::TopicFull
        | StorageError::NotCompacted
        | StorageError::KeyReused
        | StorageError::Undurable(_)
        | StorageError::TooFewReplicas { .. }
        | StorageError::SchedulesLimit
        | StorageError::NoGroup
        | StorageError::PoliciesLimit
        | StorageError::GroupsLimit
        | StorageError::GroupHolds
        | StorageError::NoBucket
        | StorageError::BucketsLimit => StorageError::NoTopic,
    }
}
