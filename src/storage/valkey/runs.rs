//! Runs: topics that end.
//!
//! A publish is a plain `XADD`, by whichever node, and must not be appended once a topic has ended. So the stream itself
//! refuses: its last id is set to the end of the id space, behind which the server gives none. That is one step in the
//! server, holds for every node and for producers that know nothing of it, and costs the publishes of other topics
//! nothing. What else there was to choose from:
//!
//! - A script in place of `XADD`, or a look beside it: every publish of every topic would pay for it, and a look that is
//!   not in one step with the append lets messages through.
//! - A lease of what nodes know of a topic: closing would wait for it to end, and a node that was stopped for a while
//!   would append all the same.
//! - Moving the stream to another key: readers, and consumers of other programs, would lose it.
//!
//! What follows from it: the last id that was given stands in the name of a group, beside the marker, and goes where the
//! stream goes: `tidemill-end:<closed|cancelled>:<id>`. Whoever asks the server for the last id of a topic asks for that
//! group, too (`marker`). A group of consumers that begins at `$` begins behind all messages, which is where one would
//! begin that comes now. Nothing sets the last id back: the topic is deleted, and made anew. Should the group be removed
//! behind the relay, the topic takes no messages still, and is one that has used up its ids.
//!
//! A topic that is frozen (see `storage::copying`) stands there in the same way, as `importing` or `frozen`, and is no run
//! that has ended. Its last id is set back when it takes messages again.

use bytes::Bytes;
use tidemill_proto::TopicName;
use tidemill_proto::topics::RunState;

use super::failure::{Effect, of_reply, unexpected};
use super::keys::{self, Keys};
use super::marker;
use super::resp::{Reply, Request};
use crate::storage::{RunEnd, StorageError};

/// Adds the question why a topic takes no messages, of two commands.
pub(super) fn ask(request: &mut Request, keys: Keys, topic: &TopicName) {
    request.add(&[b"XINFO", b"GROUPS", keys.stream(topic).as_bytes()]);
    request.add(&[b"HGET", keys.description(topic).as_bytes(), keys::REASON.as_bytes()]);
}

/// Reads the answers to [`ask`]: the error of an append to the topic.
pub(super) fn refusal<'a>(replies: &mut impl Iterator<Item = Reply<'a>>) -> StorageError {
    let (groups, reason) = (replies.next(), replies.next());
    match groups {
        Some(Reply::Error(text)) => of_reply(String::from_utf8_lossy(text).into_owned()),
        Some(groups) => match marker::end_among(groups).map(|end| (end.freeze, end.state)) {
            Some((Some(freeze), _)) => StorageError::ReadOnly(freeze.into()),
            Some((None, RunState::Cancelled)) => {
                let reason = reason.as_ref().and_then(Reply::bytes).unwrap_or_default();
                StorageError::Cancelled(String::from_utf8_lossy(reason).into())
            }
            Some((None, RunState::Open | RunState::Closed)) => StorageError::Closed,
            None => StorageError::IdsUsedUp,
        },
        None => unexpected("XINFO GROUPS", Effect::Read),
    }
}

/// Returns how a topic has ended that is in this state.
pub(super) fn ended(state: RunState, reason: Option<&[u8]>) -> Option<RunEnd> {
    let reason = reason.map(|text| String::from_utf8_lossy(text).into());
    (state != RunState::Open).then_some(RunEnd { state, reason })
}

/// Returns how a topic is whose stream has groups of these names.
pub(super) fn state_among(names: impl Iterator<Item = Bytes>) -> RunState {
    end_among(names).map_or(RunState::Open, |end| end.state)
}

/// Returns why a topic takes no messages whose stream has groups of these names, if it takes none.
pub(super) fn end_among(mut names: impl Iterator<Item = Bytes>) -> Option<marker::End> {
    names.find_map(|name| marker::End::read(&name))
}
