//! Frames of what is told of a watch: its name, and behind that what is the same for all who watch.

use tidemill_proto::frame::{ServerFrame, Watched, binary, json};
use tidemill_proto::watched::{ChangeRef, WatchedKind};
use tidemill_proto::{MessageEncoding, MessageId};

use super::super::told::Told;
use super::{Encoding, Outgoing, write_frame, write_header};
use crate::budget::FREE_BYTES;
use crate::relay::{Held, LiveMessage, LoggedRef, as_wire, change_of, told_of_entry};

/// The part of a change that is the same for all who watch: a [`MessageEncoding`] for each way to write it.
macro_rules! encodings {
    ($($name:ident = $text:literal, $of:expr, $write:path;)+) => {$(
        static $name: MessageEncoding = MessageEncoding {
            name: $text,
            write: |message, out| {
                if let Some(logged) = message.metadata.and_then(LoggedRef::read) {
                    $write(&logged.told($of, message), !logged.more, out);
                }
            },
        };
    )+};
}

encodings! {
    KEY_TEXT = "key in a text frame", WatchedKind::Keys, json::write_change_rest;
    KEY_BINARY = "key in a binary frame", WatchedKind::Keys, binary::write_change_rest;
    MEMBER_TEXT = "member in a text frame", WatchedKind::Members, json::write_change_rest;
    MEMBER_BINARY = "member in a binary frame", WatchedKind::Members, binary::write_change_rest;
}

const fn rest_of(encoding: Encoding, of: WatchedKind) -> &'static MessageEncoding {
    match (encoding, of) {
        (Encoding::Json, WatchedKind::Keys) => &KEY_TEXT,
        (Encoding::Binary, WatchedKind::Keys) => &KEY_BINARY,
        (Encoding::Json, WatchedKind::Members) => &MEMBER_TEXT,
        (Encoding::Binary, WatchedKind::Members) => &MEMBER_BINARY,
    }
}

impl Outgoing {
    /// Adds what is told of a watch. What is `held` is kept until it is written.
    pub(in crate::ws) fn put_told(&mut self, watch: &str, of: WatchedKind, told: &[Told], held: Vec<Held>) {
        let mut changes = 0;
        for one in told {
            match one {
                Told::Entry(entry) => {
                    if let Some(change) = told_of_entry(of, entry) {
                        self.put_change(watch, &change);
                        changes += 1;
                    }
                }
                Told::Early(message) => {
                    if let Some(logged) = change_of(message) {
                        let message = as_wire(message.topic(), message.stored());
                        self.put_change(watch, &logged.told(of, &message));
                        changes += 1;
                    }
                }
                Told::Change(message) => {
                    self.put_shared_change(watch, of, message);
                    changes += 1;
                }
                Told::Synced(revision) => self.put_place(watch, *revision, true),
                Told::Bookmark(revision) => self.put_place(watch, *revision, false),
                Told::Reset => self.put(&ServerFrame::Watched(Watched::Reset { watch: watch.into() })),
            }
        }
        self.metrics.sockets().sent(changes, 0);
        if self.len() > 0 {
            for held in held {
                self.outbox.keep(held);
            }
        }
    }

    fn put_place(&mut self, watch: &str, revision: MessageId, is_synced: bool) {
        let watch = watch.into();
        self.put(&ServerFrame::Watched(if is_synced {
            Watched::Synced { watch, revision }
        } else {
            Watched::Bookmark { watch, revision }
        }));
    }

    /// Adds a change behind which nobody goes on.
    fn put_change(&mut self, watch: &str, change: &ChangeRef<'_>) {
        let mut out = self.change_head(watch, change.kind());
        match self.encoding {
            Encoding::Json => json::write_change_rest(change, false, &mut out),
            Encoding::Binary => binary::write_change_rest(change, false, &mut out),
        }
        write_frame(self.encoding, &out, self.outbox.own());
    }

    /// Adds a change; a large one is not copied.
    fn put_shared_change(&mut self, watch: &str, of: WatchedKind, message: &LiveMessage) {
        let Some(logged) = change_of(message) else { return };
        let head = self.change_head(watch, logged.change.told_of(of));
        let rest = message.encoded(rest_of(self.encoding, of));
        let own = self.outbox.own();
        write_header(self.encoding, head.len() + rest.len(), own);
        own.extend_from_slice(&head);
        if rest.len() > FREE_BYTES {
            self.outbox.push_shared(rest);
        } else {
            own.extend_from_slice(rest);
        }
    }

    fn change_head(&self, watch: &str, kind: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(192);
        match self.encoding {
            Encoding::Json => json::write_change_head(watch, kind, &mut head),
            Encoding::Binary => binary::write_change_head(watch, &mut head),
        }
        head
    }
}
