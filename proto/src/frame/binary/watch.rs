//! The frames of watches, as the layout has them.

use std::borrow::Cow;

use super::parts::{Id, read_id, write_id};
use super::{BinaryError, BorrowDecode, Encode, append, encode};
use crate::frame::{Change, WatchTarget};
use crate::watched::{ChangeRef, LoggedKind, WatchedKind};

/// The kind of a frame that tells a change.
const CHANGE: u32 = 16;

/// What a frame of type 8 watches.
#[derive(Encode, BorrowDecode)]
pub(super) enum InTarget<'a> {
    /// 0
    Keys { bucket: Cow<'a, str>, prefix: Cow<'a, str> },
    /// 1
    Key { bucket: Cow<'a, str>, key: Cow<'a, str> },
    /// 2
    Room { room: Cow<'a, str> },
}

/// A change of a frame of type 16. `kind` counts put, deleted, expired of keys, and then joined, left, and left because
/// its time was over, of members.
#[derive(Encode, BorrowDecode)]
pub(super) struct OutChange<'a> {
    kind: u8,
    key: Cow<'a, str>,
    revision: Id,
    value: Option<&'a [u8]>,
    content_type: Option<Cow<'a, str>>,
    ends_step: bool,
}

const KINDS: [(WatchedKind, LoggedKind); 6] = [
    (WatchedKind::Keys, LoggedKind::Put),
    (WatchedKind::Keys, LoggedKind::Deleted),
    (WatchedKind::Keys, LoggedKind::Expired),
    (WatchedKind::Members, LoggedKind::Put),
    (WatchedKind::Members, LoggedKind::Deleted),
    (WatchedKind::Members, LoggedKind::Expired),
];

impl<'a> OutChange<'a> {
    pub(super) fn of(change: &ChangeRef<'a>, ends_step: bool) -> Self {
        let kind = KINDS.iter().position(|known| *known == (change.of, change.change)).unwrap_or_default();
        Self {
            kind: u8::try_from(kind).unwrap_or_default(),
            key: change.key.into(),
            revision: write_id(change.revision),
            value: change.value.map(|value| value.bytes),
            content_type: change.value.and_then(|value| value.content_type).map(Cow::Borrowed),
            ends_step,
        }
    }

    pub(super) fn read(self, watch: Cow<'a, str>) -> Result<Change<'a>, BinaryError> {
        let (of, change) = *KINDS.get(usize::from(self.kind)).ok_or(BinaryError::Part("kind"))?;
        Ok(Change {
            watch,
            of,
            change,
            key: self.key,
            revision: read_id(self.revision),
            value: self.value.map(Cow::Borrowed),
            content_type: self.content_type,
            ends_step: self.ends_step,
        })
    }
}

pub(super) fn read_target(target: InTarget<'_>) -> WatchTarget<'_> {
    match target {
        InTarget::Keys { bucket, prefix } => WatchTarget::Keys { bucket, prefix },
        InTarget::Key { bucket, key } => WatchTarget::Key { bucket, key },
        InTarget::Room { room } => WatchTarget::Room { room },
    }
}

pub(super) fn write_target<'a>(target: &'a WatchTarget<'_>) -> InTarget<'a> {
    let borrowed = |text: &'a str| Cow::Borrowed(text);
    match target {
        WatchTarget::Keys { bucket, prefix } => {
            InTarget::Keys { bucket: borrowed(bucket), prefix: borrowed(prefix) }
        }
        WatchTarget::Key { bucket, key } => InTarget::Key { bucket: borrowed(bucket), key: borrowed(key) },
        WatchTarget::Room { room } => InTarget::Room { room: borrowed(room) },
    }
}

/// Appends what the frame of a change begins with: all that is of one watch.
pub fn write_change_head(watch: &str, out: &mut Vec<u8>) {
    // Fields stand one behind the other, whatever they are fields of.
    encode(&(CHANGE, watch), out);
}

/// Appends the rest of it, which is the same for all who watch.
pub fn write_change_rest(change: &ChangeRef<'_>, ends_step: bool, out: &mut Vec<u8>) {
    append(&OutChange::of(change, ends_step), out);
}
