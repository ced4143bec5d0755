//! What is told to those who watch keys of a bucket, or members of a room: changes, whatever carries them.
//!
//! It must not know what stands around a change: an event, a line, a frame.

use std::io::Write as _;

use crate::{MessageId, PayloadRef};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedKind {
    /// Keys of a bucket.
    Keys,
    /// Members of a room.
    Members,
}

/// How a key has changed, as the log of its bucket tells; or a member, which is a key of its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedKind {
    /// It has a value from now on.
    Put,
    /// It was deleted.
    Deleted,
    /// Its time was over.
    Expired,
}

impl LoggedKind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Put, Self::Deleted, Self::Expired];

    /// Returns what it is called where it is told of something of this kind.
    #[must_use]
    pub const fn told_of(self, of: WatchedKind) -> &'static str {
        match (of, self) {
            (WatchedKind::Keys, Self::Put) => "put",
            (WatchedKind::Keys, Self::Deleted) => "deleted",
            (WatchedKind::Keys, Self::Expired) => "expired",
            (WatchedKind::Members, Self::Put) => "joined",
            (WatchedKind::Members, Self::Deleted | Self::Expired) => "left",
        }
    }

    /// Returns why a member has left; `None` where it has joined.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Put => None,
            Self::Deleted => Some("left"),
            Self::Expired => Some("expired"),
        }
    }
}

/// A change that is about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRef<'a> {
    /// What it is of.
    pub of: WatchedKind,
    /// How it has changed.
    pub change: LoggedKind,
    /// The key, or the member.
    pub key: &'a str,
    /// The change itself, or of a snapshot, the one that its value came with.
    pub revision: MessageId,
    /// The value, where it has one: what a room keeps of a member is an object in JSON. `None` where it is damaged, and
    /// not shown.
    pub value: Option<PayloadRef<'a>>,
}

impl ChangeRef<'_> {
    /// Returns the type under which it is told.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.change.told_of(self.of)
    }

    /// Appends the members of its object in JSON, without its braces.
    pub fn write_members(&self, out: &mut Vec<u8>) {
        let name = match self.of {
            WatchedKind::Keys => "key",
            WatchedKind::Members => "member",
        };
        // Names and ids hold nothing that JSON escapes. Writing into a vector cannot fail.
        let _ = write!(out, r#""{name}":"{}","revision":"{}""#, self.key, self.revision);
        match (self.of, self.change.reason()) {
            (WatchedKind::Keys, None) => match &self.value {
                Some(value) => {
                    out.push(b',');
                    value.write_json("value", out);
                }
                None => out.extend_from_slice(br#","damaged":true"#),
            },
            (WatchedKind::Members, None) => {
                let kept = self.value.as_ref().and_then(|value| value.bytes.strip_prefix(b"{"));
                let kept = kept.and_then(|kept| kept.strip_suffix(b"}"));
                if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
                    out.push(b',');
                    out.extend_from_slice(kept);
                }
            }
            (WatchedKind::Members, Some(reason)) => {
                let _ = write!(out, r#","reason":"{reason}""#);
            }
            (WatchedKind::Keys, Some(_)) => {}
        }
    }
}
