//! Abilities: what a server can be waited for, and if not, why not.
//!
//! Under `appendfsync everysec` `WAITAOF` answers at once, without waiting for the disk, at least up to Valkey 9.1. So
//! only `always` counts.

use tidemill_proto::Durability;

use super::super::options::DurabilityRule;
use super::super::replication::Replication;
use super::super::resp::{Reply, Request};
use crate::storage::StorageError;

/// What a server can be waited for.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Abilities {
    /// Why its file cannot be waited for, if so.
    unsynced: Option<Box<str>>,
    /// Why its replicas cannot be, if so.
    unreceived: Option<Box<str>>,
}

impl Abilities {
    /// Adds the questions for them, which wait for nothing.
    pub(in super::super) fn ask(request: &mut Request) {
        add_settings(request);
        request.add(&[b"WAITAOF", b"0", b"0", b"1"]).add(&[b"WAIT", b"0", b"1"]);
    }

    /// Reads the answers.
    pub(in super::super) fn read<'a>(mut replies: impl Iterator<Item = Reply<'a>>) -> Self {
        let settings = replies.next().map_or_else(|| Ok(Settings::default()), settings_of);
        let mut refusal = || replies.next().and_then(|reply| reply.error());
        let (of_file, of_replicas) = (refusal(), refusal());
        let unsynced = match (settings, of_file) {
            (_, Some(refusal)) => Some(format!(
                "the server does not do `WAITAOF`, as Valkey does, and Redis from 7.2 on, unless the relay's user may not: {refusal}"
            )),
            (Ok(settings), None) => settings.why_unsynced(),
            (Err(refusal), None) => Some(format!(
                "the server does not tell whether it keeps what is written on its disk; the relay's user needs the command `CONFIG GET`: {refusal}"
            )),
        };
        let unreceived =
            of_replicas.map(|refusal| format!("the server does not wait for replicas (`WAIT`): {refusal}"));
        Self { unsynced: unsynced.map(Into::into), unreceived: unreceived.map(Into::into) }
    }

    /// Returns why what is asked for cannot be had of the server, as it has told of its replication, if so.
    pub(super) fn refusal(&self, asked: Durability, told: Option<&Replication>) -> Option<StorageError> {
        let unsynced = self.unsynced.as_ref().filter(|_| asked.fsync);
        let unreceived = self.unreceived.as_ref().filter(|_| asked.replicas > 0);
        if let Some(why) = unsynced.or(unreceived) {
            return Some(StorageError::Undurable(why.clone()));
        }
        let Some(told) = told.filter(|told| told.history.is_some()) else {
            let why =
                "the server does not tell its `master_replid`; the relay's user needs the command `INFO`";
            return Some(StorageError::Undurable(why.into()));
        };
        let connected = told.count();
        (connected < u32::from(asked.replicas))
            .then_some(StorageError::TooFewReplicas { asked: asked.replicas, connected })
    }

    /// Returns a sentence where messages are refused that are to be so durable by the settings.
    pub(in super::super) fn warning(
        &self,
        rule: &DurabilityRule,
        told: Option<&Replication>,
    ) -> Option<String> {
        let DurabilityRule { topics, durability } = rule;
        let why = match self.refusal(*durability, told)? {
            StorageError::TooFewReplicas { asked, connected } => format!(
                "{connected} replicas follow the server; give it {asked}, or set less to be waited for"
            ),
            StorageError::Undurable(why) => why.into(),
            other => other.to_string(),
        };
        Some(match topics {
            Some(topics) => format!(
                "publishes to `{topics}` are to be `{durability}` (TIDEMILL_DURABILITY_TOPICS), and are refused: {why}"
            ),
            None => format!(
                "publishes that say nothing of it are to be `{durability}` (TIDEMILL_DURABILITY), and are refused: {why}"
            ),
        })
    }
}

/// How a server keeps its file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    appendonly: String,
    appendfsync: String,
}

impl Settings {
    pub(super) fn why_unsynced(&self) -> Option<String> {
        if self.appendonly != "yes" {
            return Some(
                "the server keeps no append-only file; set `appendonly yes` and `appendfsync always` there"
                    .to_owned(),
            );
        }
        (self.appendfsync != "always").then(|| {
            format!(
                "the server is set to `appendfsync {}`, and confirms there what is not on its disk yet; set `appendfsync always` there",
                self.appendfsync
            )
        })
    }
}

/// Adds the question how the server keeps its file.
pub(super) fn add_settings(request: &mut Request) {
    request.add(&[b"CONFIG", b"GET", b"append*"]);
}

/// Reads what the server says of how it keeps its file.
pub(super) fn settings_of(reply: Reply<'_>) -> Result<Settings, String> {
    if let Some(refusal) = reply.error() {
        return Err(refusal);
    }
    let mut read = Settings::default();
    let Reply::Array(mut parts) = reply else { return Ok(read) };
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let value = || String::from_utf8_lossy(value.bytes().unwrap_or_default()).into_owned();
        match name.bytes() {
            Some(b"appendonly") => read.appendonly = value(),
            Some(b"appendfsync") => read.appendfsync = value(),
            _ => {}
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn asked(fsync: bool, replicas: u8) -> Durability {
        Durability { fsync, replicas }
    }

    #[test]
    fn what_cannot_be_had_is_told_with_what_to_set() {
        let able = Abilities::default();
        let none = Replication::read(b"role:master\r\nconnected_slaves:0\r\nmaster_replid:0af1\r\n");
        let unable = Abilities { unsynced: Some("no file".into()), unreceived: Some("no wait".into()) };
        assert!(able.refusal(asked(true, 0), Some(&none)).is_none());
        let few = able.refusal(asked(true, 2), Some(&none));
        assert!(matches!(few, Some(StorageError::TooFewReplicas { asked: 2, connected: 0 })), "{few:?}");
        for (abilities, asked, told, part) in [
            (&unable, asked(true, 1), Some(&none), "no file"),
            (&unable, asked(false, 1), Some(&none), "no wait"),
            (&able, asked(false, 1), None, "`INFO`"),
        ] {
            let refusal = abilities.refusal(asked, told);
            assert!(matches!(&refusal, Some(StorageError::Undurable(why)) if why.contains(part)), "{part}");
        }
        let of_node = DurabilityRule { topics: None, durability: asked(false, 1) };
        let warning = able.warning(&of_node, Some(&none)).expect("there is no replica");
        assert!(warning.contains("TIDEMILL_DURABILITY)") && warning.contains("give it 1"), "{warning}");
        let of_topics = DurabilityRule {
            topics: Some("orders.*".parse().expect("a pattern")),
            durability: asked(true, 0),
        };
        let warning = unable.warning(&of_topics, Some(&none)).expect("it has no file");
        assert!(
            warning.contains("`orders.*`") && warning.contains("TIDEMILL_DURABILITY_TOPICS"),
            "{warning}"
        );
        assert_eq!(able.warning(&of_topics, Some(&none)), None);
    }
}
