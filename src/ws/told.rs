//! What is told of a watch, about to be written.
//!
//! It must not know frames, nor what makes it.

use std::sync::Arc;

use tidemill_proto::MessageId;

use crate::relay::{KeyEntry, LiveMessage};

/// What is told of a watch.
#[derive(Debug)]
pub(super) enum Told {
    /// A key, or a member, of a snapshot.
    Entry(KeyEntry),
    /// A change that comes before the snapshot is whole: nobody goes on behind it.
    Early(Arc<LiveMessage>),
    /// A change.
    Change(Arc<LiveMessage>),
    /// That the snapshot is whole.
    Synced(MessageId),
    /// Where the watch is.
    Bookmark(MessageId),
    /// That a snapshot comes anew.
    Reset,
}
