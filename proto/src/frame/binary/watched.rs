//! What is told of a watch, as a frame of the layout.

use std::borrow::Cow;

use super::layout::Out;
use super::parts::write_id;
use super::watch::OutChange;
use crate::frame::Watched;

pub(super) fn write<'a>(watched: &'a Watched<'_>) -> Out<'a> {
    let borrowed = |text: &'a Option<Cow<'_, str>>| text.as_deref().map(Cow::Borrowed);
    match watched {
        Watched::Began { reference, watch } => {
            Out::Watching { reference: borrowed(reference), watch: Cow::Borrowed(watch) }
        }
        Watched::Ended { reference, watch, cursor, reason } => Out::Unwatched {
            reference: borrowed(reference),
            watch: Cow::Borrowed(watch),
            cursor: cursor.map(write_id),
            reason: borrowed(reason),
        },
        Watched::Change(change) => {
            let watch = Cow::Borrowed(&*change.watch);
            Out::Change { watch, change: OutChange::of(&change.parts(), change.ends_step) }
        }
        Watched::Synced { watch, revision } => {
            Out::Synced { watch: Cow::Borrowed(watch), revision: write_id(*revision) }
        }
        Watched::Bookmark { watch, revision } => {
            Out::Bookmark { watch: Cow::Borrowed(watch), revision: write_id(*revision) }
        }
        Watched::Reset { watch } => Out::Reset { watch: Cow::Borrowed(watch) },
    }
}
