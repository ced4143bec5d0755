//! The scripts that read keys, and the one that gives them another time.

use super::Script;

/// Defines `now_ms()`.
macro_rules! now_ms {
    () => {
        r"
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
"
    };
}

/// Returns a key to each of several who ask at once.
///
/// KEYS: values, due. ARGV: of each who asks the key, and whether its value is wanted (1). Answers for each nothing where it
/// is not there; else
/// when its time is over, which is empty where it has none, and its record, of which without the value the line alone. It
/// ends before the next where it has a megabyte.
pub(in crate::storage::valkey) static READ_KEY: Script = Script::new(concat!(
    now_ms!(),
    r"
local answers, bytes = {}, 0
for at = 1, #ARGV, 2 do
  local key, answer = ARGV[at], false
  local due = redis.call('ZSCORE', KEYS[2], key)
  if not due or tonumber(due) > now_ms() then
    local record = redis.call('HGET', KEYS[1], key)
    if record and ARGV[at + 1] ~= '1' then record = string.match(record, '^[^\n]*\n') end
    if record then
      answer = {due or '', record}
      bytes = bytes + #record
    end
  end
  answers[#answers + 1] = answer
  if bytes > 1048576 then break end
end
return answers
"
));

/// Returns the revisions of a key.
///
/// KEYS: values, due, past. ARGV: the key. Answers as [`READ_KEY`], with the records of earlier revisions behind that, the
/// newest first.
pub(in crate::storage::valkey) static KEY_HISTORY: Script = Script::new(concat!(
    now_ms!(),
    head_of!(),
    r"
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if due and tonumber(due) <= now_ms() then return false end
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return false end
local answer = {due or '', record}
for revision in string.gmatch(head_of(record).past, '([^,:]+):') do
  answer[#answer + 1] = redis.call('HGET', KEYS[3], ARGV[1] .. '/' .. revision) or nil
end
return answer
"
));

/// Returns a page of keys.
///
/// KEYS: facts, names, values, due. ARGV: where in the order of names it begins and ends, as `ZRANGEBYLEX` takes it, how
/// many keys, after how many bytes of values it ends, and whether values are wanted (1). Answers nothing where there is
/// no bucket; else the name behind which the next page begins, empty for none; then of each key its name, when its time
/// is over, and its record, as [`READ_KEY`] does.
pub(in crate::storage::valkey) static LIST_KEYS: Script = Script::new(concat!(
    now_ms!(),
    r"
if redis.call('HEXISTS', KEYS[1], 'epoch') == 0 then return false end
local limit, room, has_due = tonumber(ARGV[3]), tonumber(ARGV[4]), redis.call('ZCARD', KEYS[4]) > 0
local now, answer, from, count = now_ms(), {''}, ARGV[1], 0
local function add(name)
  local due = has_due and redis.call('ZSCORE', KEYS[4], name)
  if due and tonumber(due) <= now then return true end
  local record = redis.call('HGET', KEYS[3], name)
  if not record then return true end
  local at = string.find(record, '\n', 1, true)
  if count > 0 and ARGV[5] == '1' then
    room = room - (#record - at)
    if room < 0 then return false end
  end
  if count == 0 then room = room - (#record - at) end
  if ARGV[5] ~= '1' then record = string.sub(record, 1, at) end
  count = count + 1
  answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = name, due or '', record
  return true
end
-- Those whose time is over take no place in a page; a page that finds only such ends all the same.
for _ = 1, 8 do
  local names = redis.call('ZRANGEBYLEX', KEYS[2], from, ARGV[2], 'LIMIT', 0, limit - count + 1)
  local is_last = #names <= limit - count
  for at, name in ipairs(names) do
    if count == limit then return answer end
    if not add(name) then return answer end
    answer[1], from = name, '(' .. name
  end
  if is_last then
    answer[1] = ''
    return answer
  end
end
return answer
"
));

/// Has a key live for so long from now on.
///
/// KEYS: facts, values, due. ARGV: the key, for how many ms, or nothing for the time of the bucket, and whether its value
/// is wanted. Answers as [`READ_KEY`], and behind that when the earliest time of the bucket is, if it is a new one.
pub(in crate::storage::valkey) static TOUCH_KEY: Script = Script::new(concat!(
    now_ms!(),
    head_of!(),
    r"
local now, due = now_ms(), redis.call('ZSCORE', KEYS[3], ARGV[1])
if due and tonumber(due) <= now then return false end
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record then return false end
local facts = redis.call('HMGET', KEYS[1], 'ttl', 'age', 'freeze')
if facts[3] then
  if ARGV[3] ~= '1' then record = string.match(record, '^[^\n]*\n') end
  return {due or '', record, ''}
end
local ttl, age = tonumber(ARGV[2]) or tonumber(facts[1] or ''), tonumber(facts[2] or '')
local over = ttl and now + ttl
if age then over = math.min(over or math.huge, tonumber(head_of(record).created) + age) end
local before = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
over = over and string.format('%.0f', over)
if over then redis.call('ZADD', KEYS[3], over, ARGV[1])
elseif due then redis.call('ZREM', KEYS[3], ARGV[1]) end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
local is_new = first and (not before or tonumber(first) < tonumber(before))
if ARGV[3] ~= '1' then record = string.match(record, '^[^\n]*\n') end
return {over or '', record, is_new and first or ''}
"
));

/// Has keys live for so long from now on that have these revisions.
///
/// KEYS: facts, values, due. ARGV: for how many ms, then of each key its name and its revision. Answers when the earliest
/// time of the bucket is, if it is a new one, and for each key whether it had its revision (1).
pub(in crate::storage::valkey) static TOUCH_REVISIONS: Script = Script::new(concat!(
    now_ms!(),
    head_of!(),
    r"
local now, ttl = now_ms(), tonumber(ARGV[1])
local facts = redis.call('HMGET', KEYS[1], 'age', 'freeze')
local age = tonumber(facts[1] or '')
local before = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
local answer = {''}
for at = 2, #ARGV, 2 do
  local due, record = redis.call('ZSCORE', KEYS[3], ARGV[at]), redis.call('HGET', KEYS[2], ARGV[at])
  local head = record and head_of(record)
  local is_there = head and head.revision == ARGV[at + 1] and not (due and tonumber(due) <= now)
  if is_there and not facts[2] then
    local over = now + ttl
    if age then over = math.min(over, tonumber(head.created) + age) end
    redis.call('ZADD', KEYS[3], string.format('%.0f', over), ARGV[at])
  end
  answer[#answer + 1] = is_there and 1 or 0
end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if first and (not before or tonumber(first) < tonumber(before)) then answer[1] = first end
return answer
"
));
