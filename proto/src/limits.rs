//! Every bound of the wire, named once, with its reason. Bounds that an operator may move are
//! settings of the relay; their defaults stand here too.

/// Longest topic name in bytes. Today's clients use up to 255; with the key prefix it stays a
/// small key in Valkey.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;

/// Most bytes that a member of a room says of itself: each who watches the room gets them.
pub const PRESENCE_BYTES_MAX: usize = 4 * 1024;

/// Longest name of a bucket, key, lock, limit, room, member or series in bytes: as of topics.
pub const NAME_BYTES_MAX: usize = TOPIC_NAME_BYTES_MAX;

/// Most stars in a topic pattern: enough for names of many parts, and few pieces to look for in each name.
pub const TOPIC_PATTERN_STARS_MAX: usize = 8;

/// Most messages in one bulk publish: one pipeline's worth of work, answered as one document.
pub const BULK_MESSAGES_MAX: usize = 1_000;

/// Most lines in one NDJSON publish. The body limit usually bites first; this one bounds the answer.
pub const NDJSON_LINES_MAX: usize = 100_000;

/// Most messages in one page.
pub const PAGE_MESSAGES_MAX: usize = 1_000;
/// Sessions of a node in one page, unless told.
pub const SESSIONS_PAGE_DEFAULT: usize = 100;
/// Most sessions of a node in one page.
pub const SESSIONS_PAGE_MAX: usize = 1_000;
/// Operations of a node, and commands of a server, that took long and are listed, unless told.
pub const SLOW_PAGE_DEFAULT: usize = 50;
/// Most of them that are listed.
pub const SLOW_PAGE_MAX: usize = 256;

/// Messages in a page when the reader does not say; what today's clients expect.
pub const PAGE_MESSAGES_DEFAULT: usize = 10;

/// Payload bytes after which a page stops early, so that one answer stays small enough to build in
/// memory whatever the payloads weigh. At least one message is always served.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most topics in one long-poll, as today's clients expect.
pub const POLL_TOPICS_MAX: usize = 20;

/// Longest wait of a long-poll in seconds: proxies cut requests that are silent for longer.
pub const POLL_SECONDS_MAX: u64 = 60;

/// Seconds that a poll over several topics waits when the reader does not say.
pub const POLL_SECONDS_DEFAULT: u64 = 30;

/// Most topics in one page of the topic list.
pub const TOPICS_PAGE_MAX: usize = 1_000;

/// Topics in a page of the topic list when the reader does not say.
pub const TOPICS_PAGE_DEFAULT: usize = 100;

/// Most keys in one page of a bucket.
pub const KEYS_PAGE_MAX: usize = 1_000;

/// Keys in a page when the reader does not say.
pub const KEYS_PAGE_DEFAULT: usize = 100;

/// Most buckets in one page of their list: each is described.
pub const BUCKETS_PAGE_MAX: usize = 100;

/// Most changes of keys in one request: they are made in one step, which holds up the server meanwhile.
pub const KEY_CHANGES_MAX: usize = 100;

/// Most revisions that a bucket keeps of a key: they are written anew with each of its changes.
pub const KEY_HISTORY_MAX: u32 = 64;

/// Default of the largest value of a key in bytes.
pub const VALUE_BYTES_DEFAULT: usize = 1024 * 1024;

/// Most items of one step of a copy: messages, changes or keys. One step of the server takes them over.
pub const COPY_ITEMS_MAX: usize = 1_000;

/// Steps of copies that a node does at one time: two copies at their full width.
pub const COPY_STEPS_MAX: usize = 32;

/// Longest time that a step of a copy may take, in seconds: a group with all that is not done is told in one.
pub const COPY_STEP_SECONDS_MAX: u64 = 60;

/// Most marks of lost messages that a topic keeps.
pub const LOST_MARKS_MAX: usize = 8;

/// Longest idempotency key in bytes: a UUID with room for a prefix, and a small key in Valkey.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Longest order key in bytes: names of things of any kind, and a small key in Valkey.
pub const ORDER_KEY_BYTES_MAX: usize = 256;

/// Most bytes of the name of the field by which a topic is compacted.
pub const COMPACT_BY_BYTES_MAX: usize = 255;

/// Most bytes of a message's metadata. It is meant for headers, not for a second payload.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Most replicas that a publish may wait for. A server has one or two, seldom more.
pub const DURABILITY_REPLICAS_MAX: u8 = 5;

/// Longest wait for a message to become as durable as was asked, in milliseconds, from when the storage has confirmed it.
pub const DURABILITY_WAIT_MS: u64 = 2_000;

/// Longest content type in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Longest description of a topic in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;

/// Longest reason for which a topic is cancelled, in bytes: each publisher is answered with it.
pub const CANCEL_REASON_BYTES_MAX: usize = 1_024;

/// Deepest nesting of arrays and objects in JSON. Common readers stop at 127 (`serde_json` does), and
/// a page puts three levels of its own around a payload, so a deeper one could be stored but not read.
pub const JSON_DEPTH_MAX: usize = 120;

/// Longest time to live of a message in seconds: ten years, which keeps every sum of times far
/// from overflow.
pub const TTL_SECONDS_MAX: u64 = 10 * 365 * 24 * 60 * 60;

/// Longest time that a message may wait for its delivery, in seconds: a year.
pub const DELAY_SECONDS_MAX: u64 = 365 * 24 * 60 * 60;

/// Most schedules in one page of their list.
pub const SCHEDULES_PAGE_MAX: usize = 1_000;

/// Schedules in a page when the reader does not say.
pub const SCHEDULES_PAGE_DEFAULT: usize = 100;

/// Longest name of a recurring message in bytes.
pub const RECURRING_NAME_BYTES_MAX: usize = 64;

/// Most recurring messages of a topic: they are listed in one answer.
pub const RECURRING_MAX: usize = 100;

/// Longest cron pattern in bytes.
pub const CRON_BYTES_MAX: usize = 255;

/// Longest name of a time zone in bytes.
pub const TIME_ZONE_BYTES_MAX: usize = 64;

/// Most messages that a topic of its own can keep, far from what a server counts exactly.
pub const KEPT_MESSAGES_MAX: u64 = 1_000_000_000_000;

/// Most bytes that a topic of its own can keep, for the same reason.
pub const KEPT_BYTES_MAX: u64 = 1_000_000_000_000_000;

/// Longest time in seconds after which a topic that is not used is removed, for the same reason.
pub const IDLE_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// Longest age retention in seconds, for the same reason.
pub const RETENTION_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// Default of the largest payload in bytes. Common WebSocket libraries take no frame of more than
/// [`LIBRARY_FRAME_BYTES`] unless they are told to, so that a larger message would cut their readers off.
pub const PAYLOAD_BYTES_DEFAULT: usize = 704 * 1024;

/// The largest frame that common WebSocket libraries take by default.
pub const LIBRARY_FRAME_BYTES: usize = 1024 * 1024;

/// Bytes of a message in JSON beside payload and metadata: names, topic, id, time, content type.
const MESSAGE_FRAME_BYTES: usize = 2 * 1024;

const _: () = assert!(
    in_base64(PAYLOAD_BYTES_DEFAULT) + METADATA_BYTES_MAX + MESSAGE_FRAME_BYTES <= LIBRARY_FRAME_BYTES
);

/// Bytes that a text may take in JSON where base64 would take fewer. Short texts stay readable, whatever
/// has to be escaped in them, and a large one takes no more than other bytes do.
pub const TEXT_ESCAPED_BYTES_MAX: usize = 64 * 1024;

/// Returns the most bytes that a JSON object takes which publishes a payload of so many bytes: the payload
/// may be in base64.
#[must_use]
pub const fn publish_bytes_max(payload_bytes_max: usize) -> usize {
    in_base64(payload_bytes_max) + ENVELOPE_BYTES_MAX
}

/// Returns how many bytes so many take in base64.
const fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

const _: () = assert!(PAGE_MESSAGES_DEFAULT <= PAGE_MESSAGES_MAX);
const _: () = assert!(POLL_SECONDS_DEFAULT <= POLL_SECONDS_MAX);
const _: () = assert!(TOPICS_PAGE_DEFAULT <= TOPICS_PAGE_MAX);
const _: () = assert!(PAGE_BYTES_MAX >= PAYLOAD_BYTES_DEFAULT);

/// Bytes of a publish beside its payload: topic, metadata, key, names and blanks.
pub const ENVELOPE_BYTES_MAX: usize = 128 * 1024;

const _: () = assert!(ENVELOPE_BYTES_MAX > METADATA_BYTES_MAX);
