//! The scripts of buckets that are copied. Beside what [`buckets`](super::super::buckets) says of them, one that is frozen
//! has a field `freeze` among its facts, `frozen` or `importing`, and of the latter, once all its keys were taken over, a
//! field `keys`; its log says that it is being taken over as a topic does.

use super::Script;

/// What follows in scripts that go on with a bucket that is being taken over. ARGV: the epoch, first.
macro_rules! importing_bucket {
    () => {
        r"
local facts = redis.pcall('HMGET', KEYS[2], 'epoch', 'freeze', 'bytes')
if foreign(facts) then return {-2} end
if not facts[1] then return {1} end
local is_it = facts[1] == ARGV[1]
"
    };
}

/// Tells what a copy of a bucket needs to know beside its log.
///
/// KEYS: facts, names. Answers `{0, freeze or nothing, 1 where all keys were taken over or nothing}`, then as a description
/// of the bucket.
pub(in crate::storage::valkey) static COPIED_BUCKET: Script = Script::new(concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'hash') then return {-1} end
local facts = redis.call('HMGET', KEYS[1], 'created_at', 'bytes', 'history', 'ttl', 'age', 'max_keys', 'max_bytes',
  'adaptive_min', 'adaptive_max')
if not facts[1] then return {1} end
for at = 1, 9 do facts[at] = facts[at] or '' end
local copied = redis.call('HMGET', KEYS[1], 'freeze', 'keys')
return {0, copied[1] or '', copied[2] or '', 0, redis.call('ZCARD', KEYS[2]), unpack(facts)}
"
));

/// Returns keys with all that belongs to them.
///
/// KEYS: names, values, due, past. ARGV: where in the order of names it begins, as `ZRANGEBYLEX` takes it, and how many, or
/// nothing for keys that are named; after how many bytes it ends, but not before the first; then these names. Answers `{0}`,
/// then of each key its name, when it is over or nothing, its record or nothing where it is not there, how many earlier
/// revisions there are, and their records.
pub(in crate::storage::valkey) static COPIED_KEYS: Script = Script::new(concat!(
    head_of!(),
    r"
local names = {unpack(ARGV, 4)}
if ARGV[1] ~= '' then names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2]) end
local answer, room = {0}, tonumber(ARGV[3])
for _, name in ipairs(names) do
  local record, past = redis.call('HGET', KEYS[2], name), {}
  if record then
    room = room - #record
    for revision in string.gmatch(head_of(record).past, '([^,:]+):') do
      local earlier = redis.call('HGET', KEYS[4], name .. '/' .. revision)
      if earlier then
        past[#past + 1] = earlier
        room = room - #earlier
      end
    end
  end
  if room < 0 and #answer > 1 then return answer end
  answer[#answer + 1], answer[#answer + 2] = name, redis.call('ZSCORE', KEYS[3], name) or ''
  answer[#answer + 1], answer[#answer + 2] = record or '', #past
  for _, earlier in ipairs(past) do answer[#answer + 1] = earlier end
end
return answer
"
));

/// Returns when keys are over.
///
/// KEYS: names, due. ARGV: where in the order of names it begins, as `ZRANGEBYLEX` takes it, and how many. Answers `{0}`, then
/// of each key its name and when it is over, or nothing.
pub(in crate::storage::valkey) static COPIED_ENDS: Script = Script::new(
    r"
local answer = {0}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  answer[#answer + 1], answer[#answer + 2] = name, redis.call('ZSCORE', KEYS[2], name) or ''
end
return answer
",
);

/// Has nothing be changed in a bucket, or has it be changed again.
///
/// KEYS: facts. ARGV: 1, or nothing. Answers 3 where it is being taken over.
pub(in crate::storage::valkey) static FREEZE_BUCKET: Script = Script::new(concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'hash') then return {-1} end
local facts = redis.call('HMGET', KEYS[1], 'epoch', 'freeze')
if not facts[1] then return {1} end
if facts[2] == 'importing' then return {3} end
if ARGV[1] == '1' then redis.call('HSET', KEYS[1], 'freeze', 'frozen')
else redis.call('HDEL', KEYS[1], 'freeze') end
return {0}
"
));

/// Makes a bucket that is to be taken over.
///
/// KEYS: those of a bucket, and where the last id is remembered of one that was deleted. ARGV: epoch, the smallest revision
/// that it can give, how many changes there were before the first of its log, when it was made, then pairs of a setting and
/// what it is. Answers 3 where the bucket is there.
pub(in crate::storage::valkey) static BEGIN_BUCKET: Script = Script::new(concat!(
    is_foreign!(),
    mark!(),
    r"
for at, kind in ipairs({'stream', 'hash', 'hash', 'zset', 'zset', 'hash', 'zset', 'hash', 'zset', 'string'}) do
  if is_foreign(KEYS[at], kind) then return {-at} end
end
if redis.call('HEXISTS', KEYS[2], 'epoch') == 1 then return {3} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10])
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'created_at', ARGV[4], 'freeze', 'importing', unpack(ARGV, 5))
mark(KEYS[1], ARGV[1], ARGV[2])
redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-end:importing:0-0', '0')
local last = '18446744073709551615-18446744073709551615'
local set = redis.pcall('XSETID', KEYS[1], last, 'ENTRIESADDED', ARGV[3], 'MAXDELETEDID', '0-0')
if type(set) == 'table' and set['err'] then redis.call('XSETID', KEYS[1], last) end
return {0}
"
));

/// Takes over keys.
///
/// KEYS: those of a bucket. ARGV: epoch, 1 where all keys go before, 1 where all keys have come with these; then of each key
/// its name, when it is over or nothing, its record or nothing where it is gone, how many earlier revisions there are, and
/// of each its revision and its record. Answers 3 where the bucket is not being taken over under this epoch.
pub(in crate::storage::valkey) static IMPORT_KEYS: Script = Script::new(concat!(
    head_of!(),
    foreign!(),
    table_of_keys!(),
    importing_bucket!(),
    r"
if facts[2] ~= 'importing' or not is_it then return {3} end
local bytes = tonumber(facts[3] or '0')
if ARGV[2] == '1' then
  redis.call('UNLINK', KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
  redis.call('HDEL', KEYS[2], 'keys')
  bytes = 0
end
local at = 4
while at <= #ARGV do
  local key, due, record, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local before = redis.call('HGET', KEYS[3], key)
  if before then
    local head = head_of(before)
    bytes = bytes - weight_of(head)
    take_out(key, head)
  end
  if record ~= '' then
    local head = head_of(record)
    redis.call('HSET', KEYS[3], key, record)
    redis.call('ZADD', KEYS[4], 0, key)
    if due ~= '' then redis.call('ZADD', KEYS[5], due, key) end
    if head.owner ~= '-' then redis.call('ZADD', KEYS[7], 0, string.sub(head.owner, 2) .. '/' .. key) end
    for past = at + 4, at + 2 + 2 * count, 2 do
      redis.call('HSET', KEYS[6], key .. '/' .. ARGV[past], ARGV[past + 1])
    end
    bytes = bytes + weight_of(head)
  end
  at = at + 4 + 2 * count
end
redis.call('HSET', KEYS[2], 'bytes', string.format('%.0f', bytes))
if ARGV[3] == '1' then redis.call('HSET', KEYS[2], 'keys', '1') end
return {0}
"
));

/// Takes over when keys are over.
///
/// KEYS: those of a bucket. ARGV: epoch, then of each key its name and when it is over, or nothing. Answers as
/// [`IMPORT_KEYS`].
pub(in crate::storage::valkey) static IMPORT_ENDS: Script = Script::new(concat!(
    foreign!(),
    importing_bucket!(),
    r"
if facts[2] ~= 'importing' or not is_it then return {3} end
for at = 2, #ARGV, 2 do
  if ARGV[at + 1] == '' then redis.call('ZREM', KEYS[5], ARGV[at])
  elseif redis.call('HEXISTS', KEYS[3], ARGV[at]) == 1 then redis.call('ZADD', KEYS[5], ARGV[at + 1], ARGV[at]) end
end
return {0}
"
));

/// Ends taking over a bucket.
///
/// KEYS: those of a bucket. ARGV: epoch, last revision, changes ever made (empty where nobody knows), the first change that
/// the log keeps (empty for none), where changes were lost, then pairs of a setting and what it is. Answers 3 as
/// [`IMPORT_KEYS`], and `{4, id}` where a later change was taken over.
pub(in crate::storage::valkey) static FINISH_BUCKET: Script = Script::new(concat!(
    foreign!(),
    marker_of!(),
    sortable!(),
    info_of!(),
    end_of!(),
    state_of!(),
    give!(),
    lose!(),
    importing_bucket!(),
    r"
if not is_it then return {3} end
if facts[2] ~= 'importing' then return {0} end
local state, last = state_of(KEYS[1])
if state ~= 'importing' then return {3} end
if sortable(last) > sortable(ARGV[2]) or not redis.call('HGET', KEYS[2], 'keys') then return {4, last} end
if ARGV[4] == '' then redis.call('XTRIM', KEYS[1], 'MAXLEN', '0')
else redis.call('XTRIM', KEYS[1], 'MINID', ARGV[4]) end
local info = info_of(KEYS[1])
local added = math.max(tonumber(ARGV[3]) or info['entries-added'] or 0, info['length'])
give(KEYS[1], ARGV[2], {'ENTRIESADDED', string.format('%.0f', added), 'MAXDELETEDID', '0-0'})
redis.call('XGROUP', 'DESTROY', KEYS[1], 'tidemill-end:importing:' .. last)
lose(KEYS[1], ARGV[5])
redis.call('HSET', KEYS[2], unpack(ARGV, 6))
redis.call('HDEL', KEYS[2], 'freeze', 'keys', 'claim')
return {0}
"
));
