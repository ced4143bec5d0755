//! Close codes: those of the protocol, and our own, of which those below 4500 say "do not come back
//! with the same", and the others "come back with your cursors".

/// A frame breaks the protocol.
pub(super) const PROTOCOL: u16 = 1002;
/// A text frame is not UTF-8.
pub(super) const NOT_UTF8: u16 = 1007;
/// A frame is too large.
pub(super) const TOO_BIG: u16 = 1009;
/// The relay is restarting.
pub(super) const RESTART: u16 = 1012;
/// The relay has no room for what the client sends.
pub(super) const OVERLOADED: u16 = 1013;
/// Who opened the session may not go on as it is: its credentials have expired or were revoked.
pub(super) const ENDED: u16 = 4401;
/// The client gives no sign of life.
pub(super) const SILENT: u16 = 4500;
/// A message does not arrive whole.
pub(super) const LATE: u16 = 4501;
/// It cannot be told now whether who opened the session may go on.
pub(super) const UNKNOWN: u16 = 4502;

/// Every code, with what it means and what a client then does, for readers.
pub(super) const ALL: &[(u16, &str, &str)] = &[
    (PROTOCOL, "a frame breaks the WebSocket protocol", "mend the client"),
    (NOT_UTF8, "a text frame is not UTF-8", "mend the client"),
    (
        TOO_BIG,
        "a frame is larger than a payload of `TIDEMILL_PAYLOAD_BYTES_MAX` in base64 and 128 KiB",
        "send smaller payloads",
    ),
    (
        RESTART,
        "the relay is restarting; an `end` came before (`the relay is restarting`)",
        "connect again, with the cursors",
    ),
    (
        OVERLOADED,
        "the relay holds as much of what clients have sent as it may (`TIDEMILL_INFLIGHT_BYTES_MAX`); an `end` came before (`the relay holds as much of what clients have sent as it may`)",
        "connect again a little later, with the cursors, and publish under a key what has no answer",
    ),
    (
        ENDED,
        "the credentials have expired, were revoked, or give other rights; an `end` came before (`revoked`)",
        "connect again with valid ones, with the cursors",
    ),
    (
        SILENT,
        "no sign of life came from the client; an `end` came before (`no sign of life came from the client`)",
        "connect again, with the cursors",
    ),
    (
        LATE,
        "a message did not arrive whole within `TIDEMILL_WS_MESSAGE_TIMEOUT_MS`; an `end` came before (`a message did not arrive whole in its time`)",
        "connect again, with the cursors; send what is large in one piece, or less of it",
    ),
    (
        UNKNOWN,
        "who may do what could not be looked up for too long, because the storage is away, or who administers the relay has ended the session; an `end` came before (`who may do what cannot be looked up now; resume from the cursors`, or `ended by who administers the relay; resume from the cursors`)",
        "connect again a little later, with the cursors",
    ),
];
