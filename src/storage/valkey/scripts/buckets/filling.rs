//! The script that has one of all who ask fill a key.

use super::Script;

/// Has who asks fill a key, unless it is there and fresh, or another fills it.
///
/// KEYS: those of a bucket. ARGV: the key, the token, and for how long it counts (ms). Answers `{0, 0 for fresh, 1 for a
/// token that counts from now on or 2 for another one that does, in how long that is over (ms), when the key is over or
/// nothing, its record or nothing}`, `{1}` where there is no bucket, `{15}` where it is read-only, `{16}` where it is being taken over, or below 0 the place of another program's key.
///
/// Tokens that were never used go with those that come: of two of them that are looked at those that are over, so that
/// there are never many more than what is being filled.
pub(in crate::storage::valkey) static FILL_KEY: Script = Script::new(concat!(
    is_foreign!(),
    now!(),
    head_of!(),
    r"
for at, kind in pairs({[2] = 'hash', [3] = 'hash', [5] = 'zset', [8] = 'hash'}) do
  if is_foreign(KEYS[at], kind) then return {-at} end
end
local facts = redis.call('HMGET', KEYS[2], 'epoch', 'freeze')
if not facts[1] then return {1} end
local due = redis.call('ZSCORE', KEYS[5], ARGV[1])
local record = redis.call('HGET', KEYS[3], ARGV[1])
if not record or due and tonumber(due) <= now then due, record = '', '' end
if record ~= '' then
  local fresh = string.gsub(head_of(record).fresh, '^~', '')
  if fresh == '-' or tonumber(fresh) > now then return {0, 0, 0, due or '', record} end
end
local function end_of(fill) return tonumber(string.match(fill or '', ' (%d+)$') or '0') end
local over = end_of(redis.call('HGET', KEYS[8], ARGV[1]))
if over > now then return {0, 2, over - now, due or '', record} end
if facts[2] then return {facts[2] == 'importing' and 16 or 15} end
local some = redis.call('HRANDFIELD', KEYS[8], 2, 'WITHVALUES')
for at = 1, #some, 2 do
  if end_of(some[at + 1]) <= now then redis.call('HDEL', KEYS[8], some[at]) end
end
redis.call('HSET', KEYS[8], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3]))
if redis.call('PTTL', KEYS[8]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[8], ARGV[3]) end
return {0, 1, 0, due or '', record}
"
));
