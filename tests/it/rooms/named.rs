//! Crates that a few files alone may name.

use super::allowed::NamedIn;

/// Crates that not even all files of a room may name.
pub(super) const NAMED_IN: &[NamedIn] = &[
    NamedIn {
        name: "glide",
        files: &[
            "src/storage/valkey/access.rs",
            "src/storage/valkey/check.rs",
            "src/storage/valkey/check/copies.rs",
            "src/storage/valkey/check/doorbell.rs",
            "src/storage/valkey/check/groups.rs",
            "src/storage/valkey/connect.rs",
            "src/storage/valkey/control.rs",
            "src/storage/valkey/description.rs",
            "src/storage/valkey/ending.rs",
            "src/storage/valkey/health.rs",
            "src/storage/valkey/held.rs",
            "src/storage/valkey/kept.rs",
            "src/storage/valkey/limits.rs",
            "src/storage/valkey/nodes.rs",
            "src/storage/valkey/records.rs",
            "src/storage/valkey/scanning.rs",
            "src/storage/valkey/slowlog.rs",
            "src/storage/valkey/sweep.rs",
            "src/storage/valkey/tickets.rs",
            "src/storage/valkey/topics.rs",
            "src/storage/valkey/trim.rs",
        ],
        because: "the client library of Valkey is a preview, and the control plane alone: these files name it",
    },
    NamedIn {
        name: "tikv_jemallocator",
        files: &["src/main.rs"],
        because: "a program chooses its allocator, a library does not",
    },
    NamedIn {
        name: "bincode",
        files: &["proto/src/frame/binary.rs"],
        because: "bincode is no longer maintained: one file names it, so that another can read the same bytes",
    },
];
