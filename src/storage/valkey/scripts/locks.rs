//! The scripts of locks. What they keep of one:
//!
//! - a hash of who holds it: `secret`, `holder`, `ttl` (ms), `fence`, `until` (ms), `handed` (1 until who waited comes
//!   for it), `key` and `print` (`-` where there is none); of each who waits `w` and its secret, with until when its
//!   place counts, and the same; `k` and a key, with the secret under which that waits; `n`, the last place; and `c`, when it was last looked in a full
//!   line for those whose places count no more (ms);
//! - a sorted set of the secrets of those who wait, by their places;
//! - beside all locks of the same braces the last fence.
//!
//! The server forgets the hash and the set when nobody can hold the lock any more, and nobody can wait.

use super::Script;

/// Begins each script that changes a lock: KEYS are the three of the lock, ARGV begins with its secret, whether it guards
/// something (1 or 0), the channel of notices, and for how many ms a place counts, what was handed over is held, and the
/// last fence is remembered. Answers of foreign keys are their place, below 0.
///
/// Defines `now`; `look()`, which takes the lock from who holds it longer than its time, and hands it to who is next;
/// `free()`, after which nobody holds it; `grant(…)`; and `done(answer)`, which says how long the keys are needed.
macro_rules! of_a_lock {
    () => {
        concat!(
            is_foreign!(),
            ring!(),
            r"
local held, queue, last = KEYS[1], KEYS[2], KEYS[3]
if is_foreign(held, 'hash') then return {-1} end
if is_foreign(queue, 'zset') then return {-2} end
if is_foreign(last, 'string') then return {-3} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local secret, parity, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local place_kept, handed_kept, fence_kept = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local function text(number) return string.format('%.0f', number) end
local before = redis.call('GET', last)
local before_ms, before_seq = string.match(before or '', '^(%d+)-(%d+)$')
if before and not before_ms then return {-3} end
local function next_fence()
  local ms, seq = now, parity
  if before_ms and tonumber(before_ms) >= now then
    ms, seq = tonumber(before_ms), tonumber(before_seq) + 1
    if seq % 2 ~= parity then seq = seq + 1 end
  end
  before_ms, before_seq = text(ms), text(seq)
  local fence = before_ms .. '-' .. before_seq
  redis.call('SET', last, fence, 'PX', fence_kept)
  return fence
end
local function grant(to, holder, ttl, key, print, till, handed)
  local fence = next_fence()
  redis.call('HSET', held, 'secret', to, 'holder', holder, 'ttl', ttl, 'fence', fence, 'until', text(till),
    'handed', handed, 'key', key, 'print', print)
  return fence
end
local function free()
  redis.call('HDEL', held, 'secret', 'holder', 'ttl', 'fence', 'until', 'handed', 'key', 'print')
end
local function waiter_of(of)
  return string.match(redis.call('HGET', held, 'w' .. of) or '', '^(%d+) (%d+) (%S+) (%S+) (%S+)$')
end
local function leave(of)
  local _, _, _, key = waiter_of(of)
  redis.call('ZREM', queue, of)
  redis.call('HDEL', held, 'w' .. of)
  if key and key ~= '-' and redis.call('HGET', held, 'k' .. key) == of then redis.call('HDEL', held, 'k' .. key) end
end
local function look()
  local till = redis.call('HGET', held, 'until')
  if till and tonumber(till) > now then return end
  if till then free() end
  while true do
    local first = redis.call('ZRANGE', queue, 0, 0)[1]
    if not first then return end
    local place_till, ttl, holder, key, print = waiter_of(first)
    leave(first)
    if place_till and tonumber(place_till) > now then
      grant(first, holder, ttl, key, print, now + handed_kept, '1')
      ring(channel, '$lock:' .. first)
      return
    end
  end
end
local function done(answer)
  local till = tonumber(redis.call('HGET', held, 'until') or '0')
  if redis.call('EXISTS', queue) == 1 then till = math.max(till, now + place_kept) end
  if till == 0 then redis.call('DEL', held)
  else
    redis.call('PEXPIREAT', held, text(till))
    redis.call('PEXPIREAT', queue, text(till))
  end
  return answer
end
look()
"
        )
    };
}

/// Asks for a lock.
///
/// ARGV behind those of all: who is to hold it, for how many ms, whether it waits (1 or 0), whether it has asked before
/// (1 or 0), its key and the digest of what was sent (`-` for none), how many may wait, and how often a full line is looked through
/// for places that count no more (ms). Answers `{0, secret, fence,
/// until, whether it was handed over}` where it is granted; `{1, holder, fence, until, how many ms that is, how many stand
/// in front}` where another holds it, the last -1 without a place; `{2}` where the key belongs to another request, `{3}`
/// where as many wait as may, `{4}` where somebody else has asked under the key since.
pub(in crate::storage::valkey) static ACQUIRE_LOCK: Script = Script::new(concat!(
    of_a_lock!(),
    r"
local holder, ttl, waits, again, key, print = ARGV[7], ARGV[8], ARGV[9] == '1', ARGV[10] == '1', ARGV[11], ARGV[12]
local is = redis.call('HMGET', held, 'secret', 'holder', 'fence', 'until', 'handed', 'key', 'print')
local is_known = key ~= '-' and is[6] == key
if is[1] and (is[1] == secret or is_known) then
  if is_known and is[7] ~= print then return done({2}) end
  local till = is[4]
  if is[5] == '1' then
    till = text(now + tonumber(ttl))
    redis.call('HSET', held, 'until', till, 'handed', '0')
  end
  return done({0, is[1], is[3], till, tonumber(is[5])})
end
local other = key ~= '-' and redis.call('HGET', held, 'k' .. key)
if other and other ~= secret then
  local _, _, _, _, other_print = waiter_of(other)
  if other_print and other_print ~= print then return done({2}) end
  if again then return done({4}) end
  local place = redis.call('ZSCORE', queue, other)
  if waits and place then
    leave(other)
    redis.call('ZADD', queue, place, secret)
  end
end
if not is[1] then
  local till = now + tonumber(ttl)
  local fence = grant(secret, holder, ttl, key, print, till, '0')
  return done({0, secret, fence, text(till), 0})
end
local place = -1
if waits then
  if not redis.call('ZSCORE', queue, secret) then
    if redis.call('ZCARD', queue) >= tonumber(ARGV[13]) then
      -- It takes its time to look at all of them.
      if math.abs(now - tonumber(redis.call('HGET', held, 'c') or '0')) >= tonumber(ARGV[14]) then
        redis.call('HSET', held, 'c', text(now))
        for _, of in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
          local place_till = waiter_of(of)
          if not place_till or tonumber(place_till) <= now then leave(of) end
        end
      end
      if redis.call('ZCARD', queue) >= tonumber(ARGV[13]) then return done({3}) end
    end
    redis.call('ZADD', queue, redis.call('HINCRBY', held, 'n', 1), secret)
  end
  redis.call('HSET', held, 'w' .. secret, table.concat({text(now + place_kept), ttl, holder, key, print}, ' '))
  if key ~= '-' then redis.call('HSET', held, 'k' .. key, secret) end
  place = redis.call('ZRANK', queue, secret)
else
  leave(secret)
end
return done({1, is[2], is[3], is[4], tonumber(is[4]) - now, place})
"
));

/// Has a lock be held for longer.
///
/// ARGV behind those of all: for how many ms from now on. Answers `{0, fence, until}`, or `{1}` where it is held no more.
pub(in crate::storage::valkey) static RENEW_LOCK: Script = Script::new(concat!(
    of_a_lock!(),
    r"
local is = redis.call('HMGET', held, 'secret', 'fence')
if is[1] ~= secret then return done({1}) end
local till = text(now + tonumber(ARGV[7]))
redis.call('HSET', held, 'until', till, 'ttl', ARGV[7], 'handed', '0')
return done({0, is[2], till})
"
));

/// Gives a lock back, or a place in the line. Answers `{0, 1}` where the lock was held, else `{0, 0}`.
pub(in crate::storage::valkey) static RELEASE_LOCK: Script = Script::new(concat!(
    of_a_lock!(),
    r"
if redis.call('HGET', held, 'secret') ~= secret then
  leave(secret)
  return done({0, 0})
end
free()
look()
return done({0, 1})
"
));

/// Takes a lock away. The secret counts for nothing. Answers `{0, holder, fence, until}` of who held it, or `{1}`.
pub(in crate::storage::valkey) static TAKE_LOCK: Script = Script::new(concat!(
    of_a_lock!(),
    r"
local is = redis.call('HMGET', held, 'holder', 'fence', 'until')
if not is[1] then return done({1}) end
free()
look()
return done({0, is[1], is[2], is[3]})
"
));

/// Tells who holds a lock, and who waits; it changes nothing.
///
/// KEYS: those of the lock. ARGV: most of those who wait that are told. Answers `{0, how many wait}`, behind that the
/// holder, the fence and until when, empty where nobody holds it, and of each who waits its name and for how many ms.
pub(in crate::storage::valkey) static SEE_LOCK: Script = Script::new(concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'hash') then return {-1} end
if is_foreign(KEYS[2], 'zset') then return {-2} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local is = redis.call('HMGET', KEYS[1], 'holder', 'fence', 'until')
local answer = {0, 0, '', '', ''}
if is[3] and tonumber(is[3]) > now then answer[3], answer[4], answer[5] = is[1], is[2], is[3] end
local waiting = 0
for _, of in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local till, ttl, holder = string.match(redis.call('HGET', KEYS[1], 'w' .. of) or '', '^(%d+) (%d+) (%S+)')
  if till and tonumber(till) > now then
    waiting = waiting + 1
    if waiting <= tonumber(ARGV[1]) then
      answer[#answer + 1] = holder
      answer[#answer + 1] = ttl
    end
  end
end
answer[2] = waiting
return answer
"
));
