//! The scripts that keep buckets: that make, describe and delete them, and take out what is over or an owner's.

use super::Script;

/// Has keys expire whose time is over.
///
/// KEYS and ARGV: those of a bucket; then how many at most. Answers `{0, how many, now, when the next is due or nothing}`.
pub(in crate::storage::valkey) static EXPIRE_KEYS: Script = Script::new(concat!(
    changes_a_bucket!(),
    r"
redis.call('HDEL', KEYS[2], 'sum')
local found = redis.call('ZRANGE', KEYS[5], '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, ARGV[6])
local bytes, count = tonumber(facts[7] or '0'), 0
for _, key in ipairs(found) do
  local record = redis.call('HGET', KEYS[3], key)
  if record then
    local id = log(key, 'expired', false, 'null', '-')
    if not id or type(id) == 'table' then
      if count == 0 then return id or {1} end
      break
    end
    local head = head_of(record)
    take_out(key, head)
    bytes, count = bytes - weight_of(head), count + 1
  else redis.call('ZREM', KEYS[5], key) end
end
if count > 0 then finish(bytes, 0) end
return {0, count, now, redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2] or ''}
"
));

/// Deletes keys of an owner.
///
/// KEYS and ARGV: those of a bucket; then the owner, and how many at most. Answers `{0, how many, whether there may be
/// more}`. Those whose time is over expire, and are not counted.
pub(in crate::storage::valkey) static REVOKE_KEYS: Script = Script::new(concat!(
    changes_a_bucket!(),
    r"
redis.call('HDEL', KEYS[2], 'sum')
local found = redis.call('ZRANGEBYLEX', KEYS[7], '[' .. ARGV[6] .. '/', '(' .. ARGV[6] .. '0', 'LIMIT', 0, ARGV[7])
local bytes, count, keys = tonumber(facts[7] or '0'), 0, {}
for _, member in ipairs(found) do
  local key = string.sub(member, #ARGV[6] + 2)
  local record = redis.call('HGET', KEYS[3], key)
  if record then keys[#keys + 1] = {key, head_of(record)} else redis.call('ZREM', KEYS[7], member) end
end
for at, one in ipairs(keys) do
  local key, head = one[1], one[2]
  local due = redis.call('ZSCORE', KEYS[5], key)
  local is_over = due and tonumber(due) <= now
  local id = log(key, is_over and 'expired' or 'deleted', at < #keys, 'null', '-', not is_over and ARGV[5] or nil)
  if at == 1 and (not id or type(id) == 'table') then return id or {1} end
  take_out(key, head)
  bytes = bytes - weight_of(head)
  if not is_over then
    count = count + 1
    if fills > 0 then redis.call('HDEL', KEYS[8], key) end
  end
end
if #keys > 0 then finish(bytes, 0) end
return {0, count, #found == tonumber(ARGV[7]) and 1 or 0}
"
));

/// Makes a bucket, or gives settings to one that is there.
///
/// KEYS: those of a bucket, and where the last id is remembered of one that was deleted. ARGV: an epoch, the time as text, whether one that is
/// there keeps its settings (1), then pairs of a setting and what it is, empty for none. Answers `{0, whether it is new,
/// when it was made, how many keys, how many bytes, settings…}`, or below 0 the place of another program's key.
///
/// A log that is gone is made anew, and what there is in the table stays: whoever follows is told. As with topics the log
/// gives no id of one of the same name that was deleted lately.
pub(in crate::storage::valkey) static PUT_BUCKET: Script = Script::new(concat!(
    mark!(),
    is_foreign!(),
    now!(),
    r"
for at, kind in ipairs({'stream', 'hash', 'hash', 'zset', 'zset', 'hash', 'zset', 'hash', 'zset', 'string'}) do
  if is_foreign(KEYS[at], kind) then return {-at} end
end
local epoch = redis.call('HGET', KEYS[2], 'epoch')
local is_new = not epoch
local freeze = redis.call('HGET', KEYS[2], 'freeze')
if ARGV[3] ~= '1' and freeze then return {freeze == 'importing' and 16 or 15} end
if is_new then
  redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'created_at', ARGV[2])
  redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9])
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  local last = tonumber(redis.call('GET', KEYS[10]) or '0') or 0
  local ms = last < 9007199254740992 and math.max(now, last) or now
  mark(KEYS[1], ARGV[1], string.format('%.0f-0', ms + 1))
  redis.call('XSETID', KEYS[1], string.format('%.0f-18446744073709551615', ms))
end
if is_new or ARGV[3] ~= '1' then redis.call('HSET', KEYS[2], unpack(ARGV, 4)) end
local facts = redis.call('HMGET', KEYS[2], 'created_at', 'bytes', 'history', 'ttl', 'age', 'max_keys', 'max_bytes',
  'adaptive_min', 'adaptive_max')
for at = 1, 9 do facts[at] = facts[at] or '' end
return {0, is_new and 1 or 0, redis.call('ZCARD', KEYS[4]), unpack(facts)}
"
));

/// Describes a bucket.
///
/// KEYS: facts, names. Answers as [`PUT_BUCKET`], and `{1}` where there is none.
pub(in crate::storage::valkey) static DESCRIBE_BUCKET: Script = Script::new(
    r"
local facts = redis.call('HMGET', KEYS[1], 'created_at', 'bytes', 'history', 'ttl', 'age', 'max_keys', 'max_bytes',
  'adaptive_min', 'adaptive_max')
if not facts[1] then return {1} end
for at = 1, 9 do facts[at] = facts[at] or '' end
return {0, 0, redis.call('ZCARD', KEYS[2]), unpack(facts)}
",
);

/// Deletes a bucket, and remembers the last id of its log.
///
/// The removal comes first, as where topics are deleted.
///
/// KEYS: those of a bucket, and where the last id is remembered. ARGV: for how many ms; then, of one that is to be deleted
/// only where it has no keys, and nothing was done with it for so long, that time (ms). Answers `{0}`, `{1}` where there
/// is none, `{2}` where it stays, or below 0 the place of another program's key.
pub(in crate::storage::valkey) static DELETE_BUCKET: Script = Script::new(concat!(
    is_foreign!(),
    info_of!(),
    now!(),
    r"
for at, kind in ipairs({'stream', 'hash', 'hash', 'zset', 'zset', 'hash', 'zset', 'hash', 'zset', 'string'}) do
  if is_foreign(KEYS[at], kind) then return {-at} end
end
if redis.call('HEXISTS', KEYS[2], 'epoch') == 0 then return {1} end
local last
if redis.call('EXISTS', KEYS[1]) == 1 then last = string.match(info_of(KEYS[1])['last-generated-id'], '^%d+') end
if ARGV[2] and (redis.call('ZCARD', KEYS[4]) > 0 or tonumber(last or '0') + tonumber(ARGV[2]) > now) then return {2} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9])
if last then redis.call('SET', KEYS[10], last, 'PX', ARGV[1]) end
return {0}
"
));
