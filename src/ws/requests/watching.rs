//! What a client's frame asks to watch, checked.

use tidemill_proto::frame::{self, WATCH_NAME_BYTES_MAX};
use tidemill_proto::{BucketName, MessageId, Problem, RoomName};

use crate::relay::{Failure, WatchScope, parse_bucket, parse_id, parse_key, parse_prefix};

/// Something to watch.
#[derive(Debug)]
pub(in crate::ws) struct Watch {
    /// Comes back with the answer.
    pub(in crate::ws) reference: Option<String>,
    /// What the client calls it.
    pub(in crate::ws) name: String,
    pub(in crate::ws) target: WatchTarget,
    /// Behind which id to go on, without a snapshot.
    pub(in crate::ws) cursor: Option<MessageId>,
}

/// What to watch.
#[derive(Debug)]
pub(in crate::ws) enum WatchTarget {
    /// Keys of a bucket.
    Keys(BucketName, WatchScope),
    /// The members of a room.
    Room(RoomName),
}

pub(super) fn watch(frame: &frame::Watch<'_>, reference: Option<String>) -> Result<Watch, Failure> {
    let target = match &frame.target {
        frame::WatchTarget::Keys { bucket, prefix } => {
            let scope = WatchScope::Prefix(parse_prefix("prefix", prefix)?);
            WatchTarget::Keys(parse_bucket("bucket", bucket)?, scope)
        }
        frame::WatchTarget::Key { bucket, key } => {
            WatchTarget::Keys(parse_bucket("bucket", bucket)?, WatchScope::Key(parse_key("key", key)?))
        }
        frame::WatchTarget::Room { room } => {
            WatchTarget::Room(RoomName::parse(room).map_err(|error| Problem::field("room", error))?)
        }
    };
    Ok(Watch {
        reference,
        name: name(&frame.watch)?,
        target,
        cursor: frame.cursor.as_deref().map(|id| parse_id("cursor", id)).transpose()?,
    })
}

/// Checks the name of a watch.
pub(super) fn name(text: &str) -> Result<String, Failure> {
    if (1..=WATCH_NAME_BYTES_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    let rule = format_args!("has {} bytes; the name of a watch has 1 to {WATCH_NAME_BYTES_MAX}", text.len());
    Err(Problem::field("watch", rule).into())
}
