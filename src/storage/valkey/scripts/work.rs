//! The scripts of groups. What they know of a message beside the stream's own list of what is pending:
//!
//! | key | holds |
//! |---|---|
//! | settings | a hash: the group's settings as the scripts need them, its document, its epoch, its counts, and what it has passed |
//! | due | a sorted set of messages that were given out and wait, by when they can be claimed |
//! | leases | a sorted set of messages whose consumer has another time than the group's, by when that is over |
//! | facts | a hash of what is known of messages that were not just given out: JSON, by id |
//! | dying | a sorted set of messages that are to become dead letters, by since when |
//! | dead | a sorted set of dead letters: the [`sortable`](super::super::keys::sortable) id, a blank, and JSON |
//! | minutes | a hash of what happened in each minute |
//! | holders | a hash, where the group heeds order keys: of each key that is taken the id of the message that holds it (`k` and the key), of each of these messages the key (`i` and the id), and how far it was looked whether they are there (`at`) |
//! | behind | a sorted set of the messages that stand behind others: the key, a byte 1, and the [`sortable`](super::super::keys::sortable) id; no key has such a byte |
//! | unique | a hash: of each key of which one message at a time may be there the id and the time of that message (`k` and the key), of each of these messages the key (`i` and the id), and how far it was looked whether they are over (`at`); the settings' `unique` says that there are some |
//!
//! **Invariant:** a message that is pending with the consumer `tidemill:waiting` is in `due`, in `dying` or in `behind`, and
//! whatever else is pending is with a consumer, until the time that the stream says or `leases` does.
//!
//! **Invariant:** what is in `behind` has a message in front of it that holds its key. Whoever takes a message out of what
//! is pending, or has it die, calls `forget` or `free`, which have the next one hold the key, due at once. Of what other
//! programs settle that is done once it is noticed: at a claim of the same key, or by tending.
//!
//! Facts: `f` failures, `c` losses of a consumer, `e` the last error, `s` why it waits (`failed`, `lapsed`, `released`,
//! `revived`, `dying`), `r` why it dies; of the consumer's time: `w` who, `t` since when, `b` whether it had begun, `x`
//! whether the loss of it was charged.

/// The consumer that has what waits. The scripts spell it, too.
pub(in crate::storage::valkey) const WAITING: &str = "tidemill:waiting";

/// What all begin with. KEYS: stream, settings, due, leases, facts, dying, dead, minutes, holders,
/// behind, unique. ARGV: the group.
macro_rules! work {
    () => {
        r"
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind['ok'] end
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local stream, group, waiting = KEYS[1], ARGV[1], 'tidemill:waiting'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local set = redis.call('HMGET', KEYS[2], 'epoch', 'ack_wait', 'max_deliveries', 'max_run', 'backoff',
  'max_in_flight', 'per_consumer_max', 'paused', 'result_ttl', 'ordering', 'unique', 'claimed_at', 'at', 'passed', 'base')
local epoch, ack_wait = set[1] or '0000000000000000', tonumber(set[2] or 30000)
local function pending(id)
  return redis.call('XPENDING', stream, group, id, id, 1)[1]
end
-- Asked for once, and only where it matters.
local there = {}
local function has(at)
  if there[at] == nil then there[at] = redis.call('EXISTS', KEYS[at]) == 1 end
  return there[at]
end
local function facts(id)
  local text = has(5) and redis.call('HGET', KEYS[5], id)
  return text and cjson.decode(text) or {}
end
local function remember(id, known)
  if next(known) then
    redis.call('HSET', KEYS[5], id, cjson.encode(known))
    there[5] = true
  elseif has(5) then redis.call('HDEL', KEYS[5], id) end
end
local ordered = set[10] == '1'
local function free(id)
  local key = redis.call('HGET', KEYS[9], 'i' .. id)
  if not key then return end
  redis.call('HDEL', KEYS[9], 'i' .. id)
  if redis.call('HGET', KEYS[9], 'k' .. key) ~= id then return end
  for turn = 1, 100 do
    local next = redis.call('ZRANGE', KEYS[10], '[' .. key .. '\1', '(' .. key .. '\2', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not next then
      redis.call('HDEL', KEYS[9], 'k' .. key)
      return
    end
    redis.call('ZREM', KEYS[10], next)
    local ms, seq = string.match(string.sub(next, #key + 2), '^0*(%d+)%-0*(%d+)$')
    next = ms .. '-' .. seq
    local held = pending(next)
    -- After many that others have settled, a claim looks at the next one.
    if turn == 100 or held and held[2] == waiting then
      redis.call('HSET', KEYS[9], 'k' .. key, next, 'i' .. next, key)
      redis.call('ZADD', KEYS[3], now, next)
      there[3] = true
      return
    end
  end
end
local function forget_unique(id)
  local key = set[11] and redis.call('HGET', KEYS[11], 'i' .. id)
  if key then redis.call('HDEL', KEYS[11], 'i' .. id, 'k' .. key) end
end
local function forget(id)
  if has(3) then redis.call('ZREM', KEYS[3], id) end
  if has(4) then redis.call('ZREM', KEYS[4], id) end
  if has(5) then redis.call('HDEL', KEYS[5], id) end
  if ordered then free(id) end
  forget_unique(id)
end
local function count(what, number)
  redis.call('HINCRBY', KEYS[2], what, number)
  if what ~= 'done' and what ~= 'failed' then return end
  local minute = math.floor(now / 60000)
  local field = string.sub(what, 1, 1) .. string.format('%.0f', minute)
  if redis.call('HINCRBY', KEYS[8], field, number) == number and redis.call('HLEN', KEYS[8]) > 3000 then
    for _, field in ipairs(redis.call('HKEYS', KEYS[8])) do
      if tonumber(string.sub(field, 2)) <= minute - 1440 then redis.call('HDEL', KEYS[8], field) end
    end
  end
end
"
    };
}

/// What follows in those that would not notice that there is no such group: the server says so.
macro_rules! of_a_group {
    () => {
        r"
if not set[1] then redis.call('XPENDING', stream, group, '-', '+', 1) end
"
    };
}

/// Defines `is_over(fields)`, whether an entry has expired.
macro_rules! expiring {
    () => {
        r"
local function is_over(fields)
  local ends = false
  for at = 1, #fields, 2 do
    if fields[at] == 'expires_at' and fields[1] == 'payload' then
      ends = tonumber(fields[at + 1]) and tonumber(fields[at + 1]) <= now
    end
  end
  return ends
end
"
    };
}

/// Defines `wait(id, due, known)`, which has a pending message wait until then, and `die(id, reason, known)`.
macro_rules! placing {
    () => {
        r"
local function take(id)
  if #redis.call('XCLAIM', stream, group, waiting, 0, id, 'JUSTID') > 0 then return true end
  -- Its message is gone from the stream, and what was pending with it.
  redis.call('XACK', stream, group, id)
  forget(id)
  count('gone', 1)
end
local function wait(id, due, known)
  if not take(id) then return end
  redis.call('ZREM', KEYS[4], id)
  redis.call('ZADD', KEYS[3], due, id)
  there[3] = true
  remember(id, known)
end
local function die(id, reason, known)
  if not take(id) then return end
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  redis.call('ZADD', KEYS[6], now, id)
  known.s, known.r = 'dying', reason
  remember(id, known)
  if ordered then free(id) end
  forget_unique(id)
end
"
    };
}

/// Defines `key_of(fields)`, the order key of an entry that the group heeds, or nothing; and `takes(id, key)`, which has
/// a message hold its key, or else stand behind the one that does, and answers whether it holds it.
macro_rules! order_keys {
    () => {
        concat!(
            sortable!(),
            r"
local function key_of(fields)
  if not ordered then return end
  local key, is_ours
  for at = 1, #fields, 2 do
    if fields[at] == 'payload' then is_ours = true elseif fields[at] == 'order_key' then key = fields[at + 1] end
  end
  return is_ours and key and #key > 0 and #key <= 256 and not string.find(key, '%c') and key or nil
end
local are_there, is_freed = {}, false
local function takes(id, key)
  local holder = redis.call('HGET', KEYS[9], 'k' .. key)
  if holder and not are_there[key] then
    are_there[key] = true
    if not pending(holder) then
      -- Another program has settled it.
      forget(holder)
      is_freed = true
      holder = redis.call('HGET', KEYS[9], 'k' .. key)
    end
  end
  if holder then
    redis.call('ZADD', KEYS[10], 0, key .. '\1' .. sortable(id))
    return false
  end
  redis.call('HSET', KEYS[9], 'k' .. key, id, 'i' .. id, key)
  are_there[key] = true
  return true
end
"
        )
    };
}

#[macro_use]
mod passing;
mod claiming;
mod copying;
mod describing;
mod dying;
mod settling;

pub(in crate::storage::valkey) use claiming::{CLAIM, CLAIM_NEW};
pub(in crate::storage::valkey) use copying::{
    COPIED_GROUP, COPIED_PENDING, COPIED_UNIQUE, IMPORT_DEAD, IMPORT_GROUP, IMPORT_PENDING, IMPORT_UNIQUE,
};
pub(in crate::storage::valkey) use describing::{
    DELETE_GROUP, DESCRIBE_GROUP, FATE, GROUP_NAMES, GROUPS_SWEPT, PUT_GROUP,
};
pub(in crate::storage::valkey) use dying::{BURY, DEAD, DYING, REVIVE};
pub(in crate::storage::valkey) use settling::{SETTLE, TEND};
