//! How a topic ends, from how it is. It must not know topics.

use tidemill_proto::topics::RunState;

use crate::storage::{RunEnd, RunEnding, StorageError};

/// Returns how a topic has ended that is ended now.
pub(super) fn end(now: Option<&RunEnd>, ending: RunEnding<'_>) -> Result<RunEnd, StorageError> {
    let state = now.map_or(RunState::Open, |ended| ended.state);
    let reason = now.and_then(|ended| ended.reason.clone());
    match (state, ending) {
        (RunState::Closed, RunEnding::Close) | (RunState::Cancelled, RunEnding::Cancel(_)) => {
            Ok(RunEnd { state, reason })
        }
        (RunState::Closed, RunEnding::Cancel(_)) => Err(StorageError::Closed),
        (RunState::Open | RunState::Cancelled, RunEnding::Close) => {
            Ok(RunEnd { state: RunState::Closed, reason })
        }
        (RunState::Open, RunEnding::Cancel(reason)) => {
            Ok(RunEnd { state: RunState::Cancelled, reason: Some(reason.into()) })
        }
    }
}

/// Returns the error of an append to a topic that has ended.
pub(super) fn refusal(ended: &RunEnd) -> StorageError {
    match (ended.state, &ended.reason) {
        (RunState::Cancelled, Some(reason)) => StorageError::Cancelled(reason.clone()),
        _ => StorageError::Closed,
    }
}

/// Returns the bytes that it takes to remember that.
pub(super) fn len_bytes(ended: Option<&RunEnd>) -> usize {
    ended.map_or(0, |ended| size_of::<RunEnd>() + ended.reason.as_ref().map_or(0, |reason| reason.len()))
}
