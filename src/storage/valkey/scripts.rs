//! The scripts that make several commands one step. The server runs a script whole or not at all,
//! so no crash point lies between its commands.

/// What scripts about a topic begin with: what is kept under its stream's key, as `kind`. Servers answer
/// with a text or with a table.
macro_rules! kind {
    () => {
        r"
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind['ok'] end
"
    };
}

/// What follows in those that are for a topic that exists: they answer 1 when it does not, 2 when the key
/// holds something else.
macro_rules! of_a_topic {
    () => {
        r"
if kind == 'none' then return 1 end
if kind ~= 'stream' then return 2 end
"
    };
}

/// Appends a message under an idempotency key, or returns the first answer.
///
/// KEYS: stream, remembered key, description. ARGV: fingerprint (hex), window in ms, timestamp, then what follows
/// the key in `XADD`. Answers `{0, id, timestamp}` when appended, `{1, id, timestamp}` when the
/// message was there already, `{2}` when the key belongs to another message, `{3}` when the topic
/// does not exist. What was remembered for a topic that was deleted since counts for nothing: of a topic
/// that does not exist no key is known, and ids from before the topic's `born` are another topic's.
///
/// The key is written once before the message, so that a server that refuses it (for want of rights, or
/// of replicas) refuses before anything is appended; alone it says nothing.
///
/// `deny-oom` holds before the script starts and not inside it, so the second write cannot fail for
/// want of memory after the first.
pub(super) const APPEND_ONCE: &str = r"
local kept = redis.call('GET', KEYS[2])
if kept then
  if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end
  local fingerprint, id, timestamp = string.match(kept, '^(%x+) (%S+) (%S+)$')
  local born = redis.call('HGET', KEYS[3], 'born')
  local of_this_topic = not born or tonumber(string.match(id, '^%d+')) >= tonumber(string.match(born, '^%d+'))
  if of_this_topic then
    if fingerprint ~= ARGV[1] then return {2} end
    return {1, id, timestamp}
  end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local id = redis.pcall('XADD', KEYS[1], unpack(ARGV, 4))
if not id or type(id) == 'table' then
  redis.call('DEL', KEYS[2])
  return id or {3}
end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. id .. ' ' .. ARGV[3], 'PX', ARGV[2])
return {0, id, ARGV[3]}
";

/// Creates a topic: an empty stream and its description.
///
/// KEYS: stream, description, last id. ARGV: field and value pairs of the description. Answers 0 when
/// created, 1 when the topic exists, 2 when the key holds something else.
///
/// `born` is the smallest id that the stream can give: of the millisecond after now, by the server's
/// clock, or of the one after the last id of a stream of the same name that was deleted lately, where
/// that is later. So a stream never gives an id of its predecessor, also in the same millisecond and
/// when the server's clock goes back a little.
pub(super) const CREATE_TOPIC: &str = concat!(
    kind!(),
    r"
if kind == 'stream' then return 1 end
if kind ~= 'none' then return 2 end
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = redis.call('GET', KEYS[3])
if last then ms = math.max(ms, tonumber(last)) end
local born = string.format('%.0f-0', ms + 1)
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'born', born, unpack(ARGV))
redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-create', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', KEYS[1], 'tidemill-create')
redis.call('XSETID', KEYS[1], string.format('%.0f-18446744073709551615', ms))
return 0
"
);

/// Replaces the changeable part of a description.
///
/// KEYS: stream, description. ARGV: description, retention (each empty to clear it). Answers 0 when
/// changed, 1 when the topic does not exist, 2 when the key holds something else.
pub(super) const UPDATE_TOPIC: &str = concat!(
    kind!(),
    of_a_topic!(),
    r"
for at, field in ipairs({'description', 'retention'}) do
  if ARGV[at] == '' then redis.call('HDEL', KEYS[2], field)
  else redis.call('HSET', KEYS[2], field, ARGV[at]) end
end
return 0
"
);

/// Deletes a topic with its description, and remembers its last id for as long as ARGV says (ms).
///
/// The removal comes first: at its memory limit the server refuses a script that would begin by
/// writing, and deleting is what makes room.
///
/// KEYS: stream, description, last id. Answers 0 when deleted, 1 when the topic does not exist, 2 when
/// the key holds something else.
pub(super) const DELETE_TOPIC: &str = concat!(
    kind!(),
    of_a_topic!(),
    r"
local info = redis.call('XINFO', 'STREAM', KEYS[1])
redis.call('UNLINK', KEYS[1], KEYS[2])
for at = 1, #info, 2 do
  if info[at] == 'last-generated-id' then
    redis.call('SET', KEYS[3], string.match(info[at + 1], '^%d+'), 'PX', ARGV[1])
  end
end
return 0
"
);

/// Tells what the server knows of a stream, without its entries.
///
/// KEYS: stream. Answers `{first id, last given id, length, entries ever added, newest deleted id}`; an id
/// that there is not is empty, a number that the server does not know is -1. A key that does not exist, or
/// holds something else, is the error of `XINFO`.
pub(super) const STREAM_FACTS: &str = r"
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local known = {}
for at = 1, #info, 2 do known[info[at]] = info[at + 1] end
local first = known['first-entry']
return {first and first[1] or '', known['last-generated-id'], known['length'],
  known['entries-added'] or -1, known['max-deleted-entry-id'] or ''}
";
