//! Every form of what is told of a watch.

use std::borrow::Cow;

use tidemill::proto::MessageId;
use tidemill::proto::frame::{Change, Watched};
use tidemill::proto::watched::{LoggedKind, WatchedKind};

pub(super) fn frames() -> Vec<Watched<'static>> {
    let (watch, revision) = (Cow::Borrowed("w\""), MessageId::new(u64::MAX, 3));
    let mut all = vec![
        Watched::Began { reference: Some("r".into()), watch: watch.clone() },
        Watched::Began { reference: None, watch: watch.clone() },
        Watched::Ended { reference: None, watch: watch.clone(), cursor: None, reason: None },
        Watched::Ended {
            reference: Some("r".into()),
            watch: watch.clone(),
            cursor: Some(revision),
            reason: Some("why".into()),
        },
        Watched::Synced { watch: watch.clone(), revision },
        Watched::Bookmark { watch: watch.clone(), revision },
        Watched::Reset { watch: watch.clone() },
    ];
    let member = br#"{"since":"2026-01-31T12:00:00.000Z"}"#;
    let full = br#"{"since":"2026-01-31T12:00:00.000Z","node":"n","connection":"c","address":"a","lease":"l","data":[1]}"#;
    for (of, change, value, content_type) in [
        (WatchedKind::Keys, LoggedKind::Put, Some(&b"[1]"[..]), None),
        (WatchedKind::Keys, LoggedKind::Put, Some(b"[1]"), Some("a/b+json")),
        (WatchedKind::Keys, LoggedKind::Put, Some(b"text"), Some("text/plain")),
        (WatchedKind::Keys, LoggedKind::Put, Some(b"\xff"), Some("a/b")),
        (WatchedKind::Keys, LoggedKind::Put, None, None),
        (WatchedKind::Keys, LoggedKind::Deleted, None, None),
        (WatchedKind::Keys, LoggedKind::Expired, None, None),
        (WatchedKind::Members, LoggedKind::Put, Some(member), None),
        (WatchedKind::Members, LoggedKind::Put, Some(full), None),
        (WatchedKind::Members, LoggedKind::Deleted, None, None),
        (WatchedKind::Members, LoggedKind::Expired, None, None),
    ] {
        all.extend([false, true].map(|ends_step| {
            Watched::Change(Change {
                watch: watch.clone(),
                of,
                change,
                key: "a.b".into(),
                revision,
                value: value.map(Into::into),
                content_type: content_type.map(Into::into),
                ends_step,
            })
        }));
    }
    all
}
