//! The frames of watches in JSON, as a client reads and writes them.

use std::borrow::Cow;

use serde::Deserialize;

use super::message::read_bytes;
use super::{AnyServerFrame, ServerFrameError, parse_as, write_member, write_value};
use crate::frame::{Change, Watch, WatchTarget, Watched};
use crate::presence::KeptMember;
use crate::watched::{LoggedKind, WatchedKind};
use crate::{KeyName, MemberName, MessageId};

/// The types of frames that tell of a watch.
pub(super) const KINDS: [&str; 10] =
    ["watching", "unwatched", "put", "deleted", "expired", "joined", "left", "synced", "bookmark", "reset"];

/// Every field that what is told of a watch can have, beside those of a member.
#[derive(Deserialize)]
struct AnyWatched<'a> {
    #[serde(borrow, default)]
    watch: Option<Cow<'a, str>>,
    #[serde(default)]
    key: Option<KeyName>,
    #[serde(default)]
    member: Option<MemberName>,
    #[serde(default)]
    revision: Option<MessageId>,
    #[serde(default)]
    id: Option<MessageId>,
    #[serde(borrow, default, deserialize_with = "crate::json::present")]
    value: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    value_text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value_base64: Option<Cow<'a, str>>,
    #[serde(default)]
    damaged: bool,
}

/// Reads what is told of a watch in a frame of this type.
pub(super) fn read<'a>(
    kind: &'static str,
    text: &'a str,
    any: AnyServerFrame<'a>,
) -> Result<Watched<'a>, ServerFrameError> {
    let missing = |field| ServerFrameError::Missing(kind, field);
    let of: AnyWatched<'_> = parse_as(text)?;
    let watch = of.watch.ok_or(missing("watch"))?;
    let revision = of.revision.ok_or(missing("revision"));
    let (of_kind, change) = match kind {
        "watching" => return Ok(Watched::Began { reference: any.reference, watch }),
        "unwatched" => {
            let (reference, cursor, reason) = (any.reference, of.id, any.reason);
            return Ok(Watched::Ended { reference, watch, cursor, reason });
        }
        "synced" => return Ok(Watched::Synced { watch, revision: revision? }),
        "bookmark" => return Ok(Watched::Bookmark { watch, revision: revision? }),
        "reset" => return Ok(Watched::Reset { watch }),
        "put" => (WatchedKind::Keys, LoggedKind::Put),
        "deleted" => (WatchedKind::Keys, LoggedKind::Deleted),
        "expired" => (WatchedKind::Keys, LoggedKind::Expired),
        "joined" => (WatchedKind::Members, LoggedKind::Put),
        _ if any.reason.as_deref() == Some("expired") => (WatchedKind::Members, LoggedKind::Expired),
        _ => (WatchedKind::Members, LoggedKind::Deleted),
    };
    let value = match (of_kind, change) {
        (WatchedKind::Keys, LoggedKind::Put) if !of.damaged => {
            let bytes = read_bytes(text, of.value, of.value_text, of.value_base64);
            Some(bytes.ok_or(missing("value"))?)
        }
        (WatchedKind::Members, LoggedKind::Put) => {
            let kept: KeptMember = parse_as(text)?;
            Some(Cow::Owned(serde_json::to_vec(&kept).unwrap_or_default()))
        }
        _ => None,
    };
    let key = match of_kind {
        WatchedKind::Keys => of.key.ok_or(missing("key"))?.as_str().to_owned(),
        WatchedKind::Members => of.member.ok_or(missing("member"))?.as_str().to_owned(),
    };
    Ok(Watched::Change(Change {
        watch,
        of: of_kind,
        change,
        key: key.into(),
        revision: revision?,
        value,
        content_type: any.content_type,
        ends_step: of.id.is_some(),
    }))
}

/// Appends a `watch` frame.
pub(super) fn write(frame: &Watch<'_>, out: &mut Vec<u8>) {
    let Watch { reference, watch, target, cursor } = frame;
    out.extend_from_slice(br#"{"type":"watch","watch":"#);
    write_value(watch, out);
    match target {
        WatchTarget::Keys { bucket, prefix } => {
            write_member("bucket", bucket, out);
            if !prefix.is_empty() {
                write_member("prefix", prefix, out);
            }
        }
        WatchTarget::Key { bucket, key } => {
            write_member("bucket", bucket, out);
            write_member("key", key, out);
        }
        WatchTarget::Room { room } => write_member("room", room, out),
    }
    for (name, text) in [("cursor", cursor), ("ref", reference)] {
        if let Some(text) = text {
            write_member(name, text, out);
        }
    }
    out.push(b'}');
}
