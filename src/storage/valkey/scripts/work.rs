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
//!
//! **Invariant:** a message that is pending with the consumer `tidemill:waiting` is in `due` or in `dying`, and whatever
//! else is pending is with a consumer, until the time that the stream says or `leases` does.
//!
//! Facts: `f` failures, `c` losses of a consumer, `e` the last error, `s` why it waits (`failed`, `lapsed`, `released`,
//! `revived`, `dying`), `r` why it dies; of the consumer's time: `w` who, `t` since when, `b` whether it had begun, `x`
//! whether the loss of it was charged.

/// The consumer that has what waits. The scripts spell it, too.
pub(in crate::storage::valkey) const WAITING: &str = "tidemill:waiting";

/// What all begin with. KEYS: stream, settings, due, leases, facts, dying, dead, minutes. ARGV: the group.
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
  'max_in_flight', 'per_consumer_max', 'paused', 'result_ttl')
local epoch, ack_wait = set[1] or '0000000000000000', tonumber(set[2] or 30000)
local function pending(id)
  return redis.call('XPENDING', stream, group, id, id, 1)[1]
end
local has_facts = redis.call('EXISTS', KEYS[5]) == 1
local function facts(id)
  local text = has_facts and redis.call('HGET', KEYS[5], id)
  return text and cjson.decode(text) or {}
end
local function remember(id, known)
  if next(known) then
    redis.call('HSET', KEYS[5], id, cjson.encode(known))
    has_facts = true
  elseif has_facts then redis.call('HDEL', KEYS[5], id) end
end
local function forget(id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  if has_facts then redis.call('HDEL', KEYS[5], id) end
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
  remember(id, known)
end
local function die(id, reason, known)
  if not take(id) then return end
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  redis.call('ZADD', KEYS[6], now, id)
  known.s, known.r = 'dying', reason
  remember(id, known)
end
"
    };
}

#[macro_use]
mod passing;
mod claiming;
mod describing;
mod dying;
mod settling;

pub(in crate::storage::valkey) use claiming::CLAIM;
pub(in crate::storage::valkey) use describing::{DELETE_GROUP, DESCRIBE_GROUP, FATE, GROUP_NAMES, PUT_GROUP};
pub(in crate::storage::valkey) use dying::{BURY, DEAD, DYING, REVIVE};
pub(in crate::storage::valkey) use settling::{SETTLE, TEND};
