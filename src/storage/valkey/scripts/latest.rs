//! The scripts of topics whose messages replace each other (see `storage::latest`).
//!
//! Beside the stream stand three keys, `latest:{topic}:` and:
//!
//! | key | |
//! |---|---|
//! | `facts` | a hash: of each key, behind a `k`, the id of its latest message as it is sorted; `of`: the stream's epoch and the field; `at`: the last entry that was looked at; `nth`: how many the stream had been given then, if there was none behind; and what is gone without a trace, as in [`STREAM_FACTS`](super::STREAM_FACTS): `from`, `upto`, `keyless` |
//! | `order` | a sorted set, all with score 0: of each key the id of its latest message as it is sorted, and the entry's fields in `MessagePack` |
//! | `gone` | a sorted set, all with score 0: of these ids those of messages that say that their key is gone |
//!
//! Publishes do not come by here. Whoever reads or trims brings the table up to the newest entry first, some entries in
//! one step, so that what is trimmed was looked at.

use super::Script;

/// Defines, behind `sortable`, `info_of`, `marker_of` and `end_of`: `latest_keys(stream)`; `latest_untold(keys, marker)`:
/// what [`STREAM_FACTS`](super::STREAM_FACTS) says of what is gone without a trace; `latest_drop(keys, id, by)`, which
/// takes out the latest message with this sorted id, and returns whether there was one; `latest_index(stream, by, most)`,
/// which looks at entries that nobody has looked at, and returns whether there are none left; and `latest_keep(keys, by,
/// number, bytes)`, which drops the oldest while there are more, or they weigh more, and what is gone for a day.
macro_rules! latest {
    () => {
        r"
local function latest_keys(stream)
  local before = 'latest:{' .. string.match(stream, '^stream:topic:{?(.-)}?$') .. '}:'
  return {facts = before .. 'facts', order = before .. 'order', gone = before .. 'gone'}
end
-- The last id that the stream was given, also where it has ended and shows another.
local function latest_given(stream, known)
  local last = known['last-generated-id']
  if last ~= '18446744073709551615-18446744073709551615' then return last end
  return string.match(end_of(stream) or '', '(%d+%-%d+)$') or last
end
local function latest_forget(stream)
  local keys = latest_keys(stream)
  redis.call('UNLINK', keys.facts, keys.order, keys.gone)
end
local function latest_untold(stream, marker)
  local facts = redis.pcall('HMGET', latest_keys(stream).facts, 'of', 'from', 'upto', 'keyless')
  if facts['err'] or not facts[1] or string.sub(facts[1], 1, 16) ~= string.sub(marker, 16, 31) then return '' end
  return (facts[2] or '-') .. ' ' .. (facts[3] or '-') .. ' ' .. (facts[4] or '-')
end
local function plain(id)
  local ms, seq = string.match(id, '^0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. seq
end
-- The key of a message with these fields, if it has one; whether it says that this is gone; what it weighs.
local function latest_key(fields, by)
  local of, size = {}, 0
  for at = 1, #fields, 2 do
    of[fields[at]] = fields[at + 1]
    size = size + #fields[at + 1]
  end
  if not of['metadata'] or not of['payload'] then return nil, false, size end
  local is_read, metadata = pcall(cjson.decode, of['metadata'])
  local key = is_read and type(metadata) == 'table' and metadata[by]
  if type(key) ~= 'string' then return nil, false, size end
  local kind = of['content_type']
  local is_json = not kind or kind == 'application/json'
  return key, of['payload'] == '' or is_json and string.match(of['payload'], '^%s*null%s*$') ~= nil, size
end
local function latest_drop(keys, id, by)
  local member = redis.call('ZRANGEBYLEX', keys.order, '[' .. id, '(' .. id .. '\255', 'LIMIT', 0, 1)[1]
  if not member then return false end
  local key = latest_key(cmsgpack.unpack(string.sub(member, 42)), by)
  redis.call('ZREM', keys.order, member)
  redis.call('ZREM', keys.gone, id)
  if key then redis.call('HDEL', keys.facts, 'k' .. key) end
  return true
end
local function latest_index(stream, by, most)
  local keys, marker = latest_keys(stream), marker_of(stream)
  -- The next sweep gives it one.
  if not marker then return false end
  local of, known = string.sub(marker, 16, 31) .. ' ' .. by, info_of(stream)
  local first, added = known['first-entry'], known['entries-added']
  local last = latest_given(stream, known)
  local facts = redis.call('HMGET', keys.facts, 'of', 'at', 'nth')
  local at, nth, is_lost = facts[2] or '0-0', tonumber(facts[3] or ''), false
  if facts[1] ~= of then
    latest_forget(stream)
    redis.call('HSET', keys.facts, 'of', of)
    at, nth = '0-0', nil
    is_lost = not added or added > known['length']
  elseif at ~= '0-0' and (not first or sortable(first[1]) > sortable(at)) then
    -- All that was looked at is gone from the stream: so may be others, by who does not look.
    if nth and added then is_lost = added - nth > known['length']
    else is_lost = first ~= false and first ~= nil or last ~= at end
  end
  if is_lost then
    if first then redis.call('HSET', keys.facts, 'from', first[1])
    else redis.call('HSET', keys.facts, 'upto', last) end
  end
  local seen, bytes, keyless = 0, 0, nil
  local is_all
  repeat
    local entries = redis.call('XRANGE', stream, '(' .. at, '+', 'COUNT', 32)
    for _, entry in ipairs(entries) do
      at = entry[1]
      local id = sortable(at)
      local key, is_gone, size = latest_key(entry[2], by)
      bytes = bytes + size
      if key then
        local before = redis.call('HGET', keys.facts, 'k' .. key)
        if before then
          redis.call('ZREMRANGEBYLEX', keys.order, '[' .. before, '(' .. before .. '\255')
          redis.call('ZREM', keys.gone, before)
        end
        redis.call('ZADD', keys.order, 0, id .. cmsgpack.pack(entry[2]))
        redis.call('HSET', keys.facts, 'k' .. key, id)
        if is_gone then redis.call('ZADD', keys.gone, 0, id) end
      else keyless = at end
    end
    seen = seen + #entries
    is_all = #entries < 32
  until is_all or seen >= 128 and (seen >= most or bytes >= 8388608 and most < math.huge)
  if keyless then redis.call('HSET', keys.facts, 'keyless', keyless) end
  if seen > 0 or (is_all and nth ~= added) then
    redis.call('HSET', keys.facts, 'at', at, 'nth', is_all and added and string.format('%.0f', added) or '')
  end
  return is_all
end
local function latest_keep(keys, by, number, bytes)
  local time = redis.call('TIME')
  local day_ago = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - 86400000
  local upto
  local function drop(id)
    latest_drop(keys, id, by)
    if not upto or id > upto then upto = id end
  end
  local past = redis.call('ZRANGEBYLEX', keys.gone, '-', '(' .. string.format('%020.0f-', day_ago), 'LIMIT', 0, 1000)
  for _, id in ipairs(past) do drop(id) end
  local count = redis.call('ZCARD', keys.order)
  local over = count - number
  if bytes and count > 1 then
    local weight = redis.call('MEMORY', 'USAGE', keys.order) or 0
    if weight > bytes then over = math.max(over, math.min(count - 1, math.ceil(count * (1 - bytes / weight)))) end
  end
  if over > 0 then
    for _, member in ipairs(redis.call('ZRANGE', keys.order, 0, math.min(over, 1000) - 1)) do
      drop(string.sub(member, 1, 41))
    end
  end
  if upto then
    local before = redis.call('HGET', keys.facts, 'upto')
    if not before or sortable(before) < upto then redis.call('HSET', keys.facts, 'upto', plain(upto)) end
  end
end
"
    };
}

/// Reads the latest messages of the keys of a topic, once the table is brought up to its newest message: some entries are
/// looked at in one step, so that this is called until that is done.
///
/// KEYS: stream, description. ARGV: a cursor as it is sorted, or nothing for the start; how many messages and bytes; an
/// epoch for a stream that has none. Answers `{0, last given id, name of the marker, name of the group that says
/// that the topic has ended, what is gone without a trace, whether there are more, messages}`, where a message is as in an
/// answer of `XRANGE`; `{1}` when the topic does not exist, `{2}` when the key holds something else, `{3}` where it is not
/// compacted, `{4}` to be called again, and `{-3}` where one of the keys beside it holds something else.
pub(in super::super) static LATEST: Script = Script::new(concat!(
    kind!(),
    is_foreign!(),
    sortable!(),
    info_of!(),
    marker_of!(),
    mark!(),
    end_of!(),
    latest!(),
    r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local by = redis.pcall('HGET', KEYS[2], 'compact_by')
if type(by) ~= 'string' then return {3} end
local keys = latest_keys(KEYS[1])
if is_foreign(keys.facts, 'hash') or is_foreign(keys.order, 'zset') or is_foreign(keys.gone, 'zset') then return {-3} end
if not marker_of(KEYS[1]) then mark(KEYS[1], ARGV[4], '0-0') end
if not latest_index(KEYS[1], by, 2000) then return {4} end
local from = ARGV[1] == '' and '-' or '(' .. ARGV[1] .. '\255'
local entries, bytes, limit, is_more = {}, 0, tonumber(ARGV[2]), false
repeat
  local wanted = math.min(limit - #entries + 1, 64)
  local members = redis.call('ZRANGEBYLEX', keys.order, from, '+', 'LIMIT', 0, wanted)
  for _, member in ipairs(members) do
    if #entries == limit or (#entries > 0 and bytes + #member > tonumber(ARGV[3])) then
      is_more = true
      break
    end
    bytes = bytes + #member
    entries[#entries + 1] = {plain(string.sub(member, 1, 41)), cmsgpack.unpack(string.sub(member, 42))}
    from = '(' .. member
  end
until is_more or #members < wanted
local known, marker = info_of(KEYS[1]), marker_of(KEYS[1])
return {0, known['last-generated-id'], marker, end_of(KEYS[1]) or '',
  latest_untold(KEYS[1], marker), is_more and 1 or 0, entries}
"
));

/// Takes out of the latest messages of a topic that is compacted what is older than its oldest message: somebody has asked
/// to remove it.
///
/// KEYS: stream, description. Answers 0.
pub(in super::super) static FORGET_TRIMMED: Script = Script::new(concat!(
    kind!(),
    sortable!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    latest!(),
    r"
if kind ~= 'stream' then return 0 end
local by = redis.pcall('HGET', KEYS[2], 'compact_by')
if type(by) ~= 'string' then return 0 end
latest_index(KEYS[1], by, math.huge)
local keys, known = latest_keys(KEYS[1]), info_of(KEYS[1])
local first = known['first-entry']
local edge = first and '(' .. sortable(first[1]) or '+'
repeat
  local members = redis.call('ZRANGEBYLEX', keys.order, '-', edge, 'LIMIT', 0, 100)
  for _, member in ipairs(members) do latest_drop(keys, string.sub(member, 1, 41), by) end
until #members < 100
if first then redis.call('HSET', keys.facts, 'from', first[1])
else redis.call('HSET', keys.facts, 'upto', latest_given(KEYS[1], known)) end
return 0
"
));
