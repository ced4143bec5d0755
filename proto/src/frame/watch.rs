//! The frames of watches: what is asked for, and what is told of keys and members that are watched.

use std::borrow::Cow;

use crate::watched::{ChangeRef, LoggedKind, WatchedKind};
use crate::{MessageId, PayloadRef};

/// Longest name of a watch in bytes.
pub const WATCH_NAME_BYTES_MAX: usize = 128;

/// A `watch` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch<'a> {
    /// Comes back with the answer.
    pub reference: Option<Cow<'a, str>>,
    /// What the client calls it; whatever is told of it carries the name.
    pub watch: Cow<'a, str>,
    /// What is watched.
    pub target: WatchTarget<'a>,
    /// The id after which to go on, without a snapshot.
    pub cursor: Option<Cow<'a, str>>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchTarget<'a> {
    /// The keys of a bucket that begin so; all where that is empty.
    Keys {
        /// The bucket.
        bucket: Cow<'a, str>,
        /// What their names begin with.
        prefix: Cow<'a, str>,
    },
    /// One key.
    Key {
        /// The bucket.
        bucket: Cow<'a, str>,
        /// The key.
        key: Cow<'a, str>,
    },
    /// The members of a room.
    Room {
        /// The room.
        room: Cow<'a, str>,
    },
}

/// What is told of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched<'a> {
    /// The answer to `watch`.
    Began {
        /// The `ref` of the frame.
        reference: Option<Cow<'a, str>>,
        /// The watch.
        watch: Cow<'a, str>,
    },
    /// Nothing more comes: the answer to `unwatch`, or that a watch cannot go on.
    Ended {
        /// The `ref` of the frame that it answers.
        reference: Option<Cow<'a, str>>,
        /// The watch.
        watch: Cow<'a, str>,
        /// The id to go on after, where one was told.
        cursor: Option<MessageId>,
        /// Why it cannot go on, in a sentence.
        reason: Option<Cow<'a, str>>,
    },
    /// A key or a member of the snapshot, or a change.
    Change(Change<'a>),
    /// Everything came that there was at this revision.
    Synced {
        /// The watch.
        watch: Cow<'a, str>,
        /// The revision, which is also the id to go on after.
        revision: MessageId,
    },
    /// Everything came up to here.
    Bookmark {
        /// The watch.
        watch: Cow<'a, str>,
        /// The revision, which is also the id to go on after.
        revision: MessageId,
    },
    /// What comes next is a snapshot anew.
    Reset {
        /// The watch.
        watch: Cow<'a, str>,
    },
}

/// A change in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The watch.
    pub watch: Cow<'a, str>,
    /// What it is of.
    pub of: WatchedKind,
    /// How it has changed.
    pub change: LoggedKind,
    /// The key, or the member.
    pub key: Cow<'a, str>,
    /// The change itself, or of a snapshot, the one that its value came with.
    pub revision: MessageId,
    /// The value; of a member, an object in JSON that says what there is to say. `None` where it has none, or that is
    /// damaged.
    pub value: Option<Cow<'a, [u8]>>,
    /// The content type it was put with; `None` for JSON that has no other.
    pub content_type: Option<Cow<'a, str>>,
    /// Whether it ends a step: then its revision is the id to go on after.
    pub ends_step: bool,
}

impl Change<'_> {
    /// Returns the change, which all who watch are told.
    #[must_use]
    pub fn parts(&self) -> ChangeRef<'_> {
        let Self { of, change, revision, .. } = *self;
        let content_type = self.content_type.as_deref();
        let value = self.value.as_deref().map(|bytes| PayloadRef { bytes, content_type });
        ChangeRef { of, change, key: &self.key, revision, value }
    }
}
