//! The frames of watches in JSON, as the relay reads and writes them.

use std::io::Write as _;

use super::{AnyFrame, put_reference};
use crate::Problem;
use crate::frame::{ClientFrame, Watch, WatchTarget, Watched};
use crate::watched::ChangeRef;

/// Reads a frame that watches, or ends that.
///
/// # Errors
/// It lacks a field that it needs, or has two of which there can be one.
pub(super) fn read(any: AnyFrame<'_>) -> Result<ClientFrame<'_>, Box<Problem>> {
    let missing = |field: &str| Box::new(Problem::field(field, "is missing"));
    let wrong = |field: &str, rule: &str| Err(Box::new(Problem::field(field, rule)));
    let watch = any.watch.ok_or_else(|| missing("watch"))?;
    let reference = any.reference;
    if any.kind.as_deref() == Some("unwatch") {
        return Ok(ClientFrame::Unwatch { reference, watch });
    }
    let target = match (any.bucket, any.room) {
        (Some(_), Some(_)) => return wrong("room", "cannot stand beside `bucket`; write one of them"),
        (None, None) => return wrong("bucket", "is missing; a watch is of a `bucket` or of a `room`"),
        (None, Some(room)) => match (any.prefix, any.key) {
            (Some(_), _) => return wrong("prefix", "is of keys; a `room` is watched as a whole"),
            (None, Some(_)) => return wrong("key", "is of a bucket; a `room` is watched as a whole"),
            (None, None) => WatchTarget::Room { room },
        },
        (Some(bucket), None) => match (any.prefix, any.key) {
            (Some(_), Some(_)) => return wrong("key", "cannot stand beside `prefix`; write one of them"),
            (None, Some(key)) => WatchTarget::Key { bucket, key },
            (prefix, None) => WatchTarget::Keys { bucket, prefix: prefix.unwrap_or_default() },
        },
    };
    Ok(ClientFrame::Watch(Watch { reference, watch, target, cursor: any.cursor }))
}

/// Appends what is told of a watch.
pub(super) fn write(watched: &Watched<'_>, out: &mut Vec<u8>) {
    match watched {
        Watched::Began { reference, watch } => {
            write_head("watching", watch, out);
            put_reference(reference.as_deref(), out);
        }
        Watched::Ended { reference, watch, cursor, reason } => {
            write_head("unwatched", watch, out);
            put_reference(reference.as_deref(), out);
            // Writing into a vector cannot fail.
            if let Some(cursor) = cursor {
                let _ = write!(out, r#","id":"{cursor}""#);
            }
            if let Some(reason) = reason {
                out.extend_from_slice(br#","reason":"#);
                let _ = serde_json::to_writer(&mut *out, reason);
            }
        }
        Watched::Change(change) => {
            let parts = change.parts();
            write_change_head(&change.watch, parts.kind(), out);
            return write_change_rest(&parts, change.ends_step, out);
        }
        Watched::Synced { watch, revision } => {
            write_head("synced", watch, out);
            let _ = write!(out, r#","revision":"{revision}","id":"{revision}""#);
        }
        Watched::Bookmark { watch, revision } => {
            write_head("bookmark", watch, out);
            let _ = write!(out, r#","revision":"{revision}","id":"{revision}""#);
        }
        Watched::Reset { watch } => write_head("reset", watch, out),
    }
    out.push(b'}');
}

fn write_head(kind: &str, watch: &str, out: &mut Vec<u8>) {
    let _ = write!(out, r#"{{"type":"{kind}","watch":"#);
    let _ = serde_json::to_writer(&mut *out, watch);
}

/// Appends what the frame of a change begins with: all that is of one watch.
pub fn write_change_head(watch: &str, kind: &str, out: &mut Vec<u8>) {
    write_head(kind, watch, out);
    out.push(b',');
}

/// Appends the rest of it, which is the same for all who watch.
pub fn write_change_rest(change: &ChangeRef<'_>, ends_step: bool, out: &mut Vec<u8>) {
    change.write_members(out);
    if ends_step {
        let _ = write!(out, r#","id":"{}""#, change.revision);
    }
    out.push(b'}');
}
