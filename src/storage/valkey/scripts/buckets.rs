//! The scripts of buckets of keys.
//!
//! A bucket is nine keys of one slot: its log, a stream; `facts`, a hash of its settings, of when and as which it was
//! made (`epoch`), and of how many bytes its values have; `values`, a hash of records by key; `names`, a sorted set of the
//! keys, all with score 0, so that it lists them in order; `due`, a sorted set of those that have a time, by when it is
//! over (ms); `past`, a hash of the records of earlier revisions, by key and revision; `owned`, a sorted set of
//! owner and key; and `fills`, a hash of the tokens under which keys are being filled, each with its end (ms), which is
//! gone when the last of them is over; and `reads`, a sorted set of keys by how often they are read, where fills live by that:
//! the score is the logarithm of that to the base 2, and the half-lives until it was written. Names hold no slash, so that what has one in between ends where it seems to end.
//!
//! A record is a line, and behind it the value: its revision, when the key came to be (ms), whose it is, the earlier
//! revisions that are kept of it with their sizes, the newest first (`1-0:12,0-5:7`), its digest and that of the one before
//! (`own.parent`, in base64url), until when the value is fresh (ms; with a `~` in front where the key's fill has lived by how often
//! it was read), and its content type. What there is not is a `-`; owner and content type have a `=` in front.
//!
//! Scripts answer a table whose first number is 0 where all is well, 1 where there is no such bucket, 15 where it is read-only and 16 where it
//! is being taken over (see `copying::buckets`), and below 0 the place of a key that another program has. What a step does to the log comes first: it is the one thing that can be refused,
//! and then nothing is changed.

use super::Script;

/// Defines `head_of(record)`: what its line says, and how long its value is. With one field more it would weigh twice as much.
macro_rules! head_of {
    () => {
        r"
local function head_of(record)
  local revision, created, owner, past, digest, fresh, kind, at =
    string.match(record, '^(%S+) (%d+) (%S+) (%S+) (%S+) (%S+) ([^\n]*)\n()')
  return {revision = revision, created = created, owner = owner, past = past, digest = digest, fresh = fresh, kind = kind,
    size = #record - at + 1}
end
"
    };
}

/// Defines `foreign(reply)`: whether it says that a key holds something of another program.
macro_rules! foreign {
    () => {
        r"
local function foreign(reply)
  return type(reply) == 'table' and reply['err'] and string.find(reply['err'], 'WRONGTYPE', 1, true)
end
"
    };
}

/// Defines `weight_of(head)`: what a key has with its past; and `take_out(key, head)`, which removes it from the table.
/// KEYS: those of a bucket.
macro_rules! table_of_keys {
    () => {
        r"
local function weight_of(head)
  local weight = head.size
  if head.past == '-' then return weight end
  for size in string.gmatch(head.past, ':(%d+)') do weight = weight + tonumber(size) end
  return weight
end
local function take_out(key, head)
  redis.call('HDEL', KEYS[3], key)
  redis.call('ZREM', KEYS[4], key)
  redis.call('ZREM', KEYS[5], key)
  for revision in string.gmatch(head.past, '([^,:]+):') do redis.call('HDEL', KEYS[6], key .. '/' .. revision) end
  if head.owner ~= '-' then redis.call('ZREM', KEYS[7], string.sub(head.owner, 2) .. '/' .. key) end
end
"
    };
}

/// What scripts begin with that change a bucket: they define `now` (ms), `facts`, and what follows, and answer where there
/// is no bucket, or a key is another program's. KEYS: log, facts, values, names, due, past, owned, fills, reads. ARGV: changes and
/// bytes that the log keeps, the doorbell's channel and the notice.
///
/// `fills` is how many keys are being filled; `weight_of(head)` is what a key has with its past; `take_out(key, head)` removes it from the table;
/// `log(key, change, more, payload, kind, timestamp)` appends a change and answers its id, nothing where there is no log, or an error
/// as a table; `finish(bytes, logged)` writes how many bytes the values have, trims the log behind so many bytes, and tells other nodes.
macro_rules! changes_a_bucket {
    () => {
        concat!(
            now!(),
            head_of!(),
            foreign!(),
            ring!(),
            table_of_keys!(),
            r#"
local facts = redis.pcall('HMGET', KEYS[2], 'epoch', 'history', 'ttl', 'age', 'max_keys', 'max_bytes', 'bytes',
  'adaptive_min', 'adaptive_max', 'freeze')
if foreign(facts) then return {-2} end
if not facts[1] then return {1} end
if facts[10] then return {facts[10] == 'importing' and 16 or 15} end
for at, command in pairs({[1] = 'XLEN', [3] = 'HLEN', [4] = 'ZCARD', [5] = 'ZCARD', [6] = 'HLEN', [7] = 'ZCARD'}) do
  if foreign(redis.pcall(command, KEYS[at])) then return {-at} end
end
local fills = redis.pcall('HLEN', KEYS[8])
if foreign(fills) then return {-8} end
local function log(key, change, more, payload, kind, timestamp)
  local metadata = '{"key":"' .. key .. '","change":"' .. change .. (more and '","more":true}' or '"}')
  -- With room for all that may follow.
  local entry = {'XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[1], '*', 'payload', payload, nil, nil, nil, nil, nil, nil}
  local count = 9
  if timestamp then entry[10], entry[11], count = 'timestamp', timestamp, 11 end
  entry[count + 1], entry[count + 2], count = 'metadata', metadata, count + 2
  if kind ~= '-' then entry[count + 1], entry[count + 2], count = 'content_type', string.sub(kind, 2), count + 2 end
  return redis.pcall(unpack(entry, 1, count))
end
local function finish(bytes, logged)
  redis.call('HSET', KEYS[2], 'bytes', string.format('%.0f', bytes))
  if logged > 65536 or time[2] % 64 == 0 then
    local weight = redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
    if weight > tonumber(ARGV[2]) then
      local kept = math.max(1, math.floor(redis.call('XLEN', KEYS[1]) * tonumber(ARGV[2]) / weight))
      redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', string.format('%.0f', kept))
    end
  end
  ring(ARGV[3], ARGV[4])
end
"#
        )
    };
}

mod changing;
mod counting;
mod filling;
mod keeping;
mod reading;

pub(in crate::storage::valkey) use changing::CHANGE_KEYS;
pub(in crate::storage::valkey) use counting::COUNT_READS;
pub(in crate::storage::valkey) use filling::FILL_KEY;
pub(in crate::storage::valkey) use keeping::{
    DELETE_BUCKET, DESCRIBE_BUCKET, EXPIRE_KEYS, PUT_BUCKET, REVOKE_KEYS,
};
pub(in crate::storage::valkey) use reading::{KEY_HISTORY, LIST_KEYS, READ_KEY, TOUCH_KEY, TOUCH_REVISIONS};
