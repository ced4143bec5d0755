//! What the log of a bucket tells of a change.

use bytes::Bytes;
pub use tidemill_proto::watched::LoggedKind;
use tidemill_proto::watched::{ChangeRef, WatchedKind};
use tidemill_proto::{KeyName, MessageRef};

use crate::storage::message::StoredMessage;

/// What a message of a log says of its change, as its metadata. Its payload is the value, and `null` where there is
/// none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The key.
    pub key: KeyName,
    /// How it has changed.
    pub change: LoggedKind,
    /// Whether more changes of the same step follow.
    pub more: bool,
}

impl Logged {
    /// Returns it in its one form, in JSON: no name of a key has a character with an escape.
    #[must_use]
    pub fn metadata(&self) -> Bytes {
        let Self { key, change, more } = self;
        let change = match change {
            LoggedKind::Put => "put",
            LoggedKind::Deleted => "deleted",
            LoggedKind::Expired => "expired",
        };
        let more = if *more { ",\"more\":true" } else { "" };
        format!("{{\"key\":\"{key}\",\"change\":\"{change}\"{more}}}").into()
    }

    /// Returns what a message of a log says; `None` of one that another program has put there.
    #[must_use]
    pub fn of(message: &StoredMessage) -> Option<Self> {
        let LoggedRef { key, change, more } = LoggedRef::read(message.body.metadata.as_deref()?)?;
        Some(Self { key: KeyName::parse(key).ok()?, change, more })
    }
}

/// A [`Logged`] as it stands in metadata, which every reader of a log looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedRef<'a> {
    /// The key.
    pub key: &'a str,
    /// How it has changed.
    pub change: LoggedKind,
    /// Whether more changes of the same step follow.
    pub more: bool,
}

impl<'a> LoggedRef<'a> {
    /// Reads metadata in the one form in which a [`Logged`] is written.
    #[must_use]
    pub fn read(metadata: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(metadata).ok()?.strip_prefix("{\"key\":\"")?;
        let (key, rest) = text.split_once("\",\"change\":\"")?;
        let (change, more) = match rest.strip_suffix("\"}") {
            Some(change) => (change, false),
            None => (rest.strip_suffix("\",\"more\":true}")?, true),
        };
        let change = match change {
            "put" => LoggedKind::Put,
            "deleted" => LoggedKind::Deleted,
            "expired" => LoggedKind::Expired,
            _ => return None,
        };
        Some(Self { key, change, more })
    }

    /// Returns the change as it is told of something of this kind, of the message that has it.
    #[must_use]
    pub fn told(&self, of: WatchedKind, message: &MessageRef<'a>) -> ChangeRef<'a> {
        let Self { key, change, more: _ } = *self;
        let value = (change == LoggedKind::Put).then_some(message.payload);
        ChangeRef { of, change, key, revision: message.message_id, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_is_read_as_it_is_written() {
        for (key, change, more) in [
            ("a", LoggedKind::Put, false),
            ("a.b:c", LoggedKind::Deleted, true),
            ("-", LoggedKind::Expired, false),
        ] {
            let logged = Logged { key: KeyName::parse(key).expect("a name"), change, more };
            let text = logged.metadata();
            assert_eq!(LoggedRef::read(&text), Some(LoggedRef { key, change, more }));
        }
        for text in [
            "",
            "{}",
            r#"{"key":"a"}"#,
            r#"{"key":"a","change":"made"}"#,
            r#"{"key":"a","change":"put","x":1}"#,
        ] {
            assert_eq!(LoggedRef::read(text.as_bytes()), None, "{text}");
        }
    }
}
