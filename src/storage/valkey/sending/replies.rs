//! What the scripts that append answer.

use tidemill_proto::{MessageId, Timestamp};

use super::super::failure::{Effect, unexpected};
use super::super::pipeline::Outcome;
use super::super::resp::{Parts, Reply};
use crate::storage::{Appended, StorageError};

/// What a reply means for its message.
pub(super) enum AppendReply {
    Done(Outcome),
    NoTopic,
    Elsewhere,
}

/// Reads the answer of a script; `key` is the key that belongs to another program where it says so with this number.
pub(super) fn read_script_reply(mut parts: Parts<'_>, key: impl FnOnce(i64) -> String) -> AppendReply {
    let replayed = match parts.next() {
        Some(Reply::Integer(0)) => false,
        Some(Reply::Integer(1)) => true,
        Some(Reply::Integer(2)) => return AppendReply::Done(Err(StorageError::KeyReused)),
        Some(Reply::Integer(3)) => return AppendReply::NoTopic,
        Some(Reply::Integer(5)) if let Some(last) = parts.next().as_ref().and_then(read_id) => {
            return AppendReply::Done(Err(StorageError::NotLast(last)));
        }
        Some(Reply::Integer(6)) => return AppendReply::Done(Err(StorageError::TopicFull)),
        Some(Reply::Integer(7)) => return AppendReply::Done(Err(StorageError::NoGroup)),
        Some(Reply::Integer(8)) => {
            let against = parts.next().as_ref().and_then(read_id);
            return AppendReply::Done(Err(StorageError::Fenced(against)));
        }
        Some(Reply::Integer(code @ (4 | 9 | 10))) => {
            return AppendReply::Done(Err(StorageError::ForeignKey(key(code).into())));
        }
        _ => return AppendReply::Done(Err(unexpected("EVALSHA", Effect::Write))),
    };
    let id = parts.next().as_ref().and_then(read_id);
    let timestamp = parts.next().as_ref().and_then(text_of).and_then(|text| Timestamp::parse(text).ok());
    AppendReply::Done(match (id, timestamp) {
        (Some(id), Some(timestamp)) => Ok(Appended { id, timestamp, replayed }),
        _ => Err(unexpected("EVALSHA", Effect::Write)),
    })
}

/// Reads an id.
pub(super) fn read_id(reply: &Reply<'_>) -> Option<MessageId> {
    MessageId::parse(text_of(reply)?).ok()
}

fn text_of<'a>(reply: &Reply<'a>) -> Option<&'a str> {
    std::str::from_utf8(reply.bytes()?).ok()
}
