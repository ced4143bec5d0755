//! Making and describing groups, and telling what became of a message.

use crate::storage::valkey::scripts::Script;

/// Tells what is known of a message.
///
/// KEYS behind those of all: that of its result. ARGV: the group, the id, its sortable form. Answers 0, now, the time
/// that consumers have, what is pending of it (its consumer, for how long, which delivery), its facts, when it is due,
/// until when it is leased, what is known of its dead letter, its entries, its result, what the settings say of where the
/// group began, and the id of another message that holds its order key, or nothing.
pub(in crate::storage::valkey) static FATE: Script = Script::new(concat!(
    work!(),
    order_keys!(),
    r"
local id = ARGV[2]
local held = pending(id)
local dead = redis.call('ZRANGE', KEYS[7], '[' .. ARGV[3], '[' .. ARGV[3] .. '~', 'BYLEX')[1]
local last = '0-0'
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if of[2] == group then
    for at = 1, #of, 2 do if of[at] == 'last-delivered-id' then last = of[at + 1] end end
  end
end
local entries = redis.call('XRANGE', stream, id, id)
local key = entries[1] and key_of(entries[1][2])
local holder = key and redis.call('HGET', KEYS[9], 'k' .. key)
return {0, string.format('%.0f', now), string.format('%.0f', ack_wait), held and {held[2], held[3], held[4]} or {},
  has(5) and redis.call('HGET', KEYS[5], id) or '', redis.call('ZSCORE', KEYS[3], id) or '-1',
  redis.call('ZSCORE', KEYS[4], id) or '-1', dead and string.sub(dead, #ARGV[3] + 2) or '',
  entries, redis.call('GET', KEYS[12]) or '', last, redis.call('HGET', KEYS[2], 'start') or '0-0',
  holder and holder ~= id and holder or ''}
"
));

/// Tells which groups a topic has. KEYS: the stream.
pub(in crate::storage::valkey) static GROUP_NAMES: Script = Script::new(concat!(
    kind!(),
    r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local answer = {0}
for _, of in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do answer[#answer + 1] = of[2] end
return answer
"
));

/// Makes a group, changes its settings, or sets it to another place.
///
/// KEYS behind those of all: the set of the topic's groups. ARGV: the group, what is to be done (`put`, `make`, `change`, `seek`),
/// a new epoch, where it begins (an id, or `$`), how many groups there may be, the document that is known (nothing where it
/// does not matter), then pairs of settings; those with nothing as value are taken away. Answers 0 when done, 3 when made,
/// 4 when there is no such group, 5 when there are too many, 6 when the document is another, 7 when the ordering would
/// be another and messages are pending.
pub(in crate::storage::valkey) static PUT_GROUP: Script = Script::new(concat!(
    work!(),
    sortable!(),
    info_of!(),
    end_of!(),
    look!(),
    r"
local what, beginning = ARGV[2], ARGV[4]
-- A stream that takes no messages shows another last id, and may take some again.
if beginning == '$' then beginning = string.match(end_of(stream) or '', '(%d+%-%d+)$') or beginning end
local is_there, groups = false, 0
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  -- The marker, and that the topic has ended, are groups of nobody.
  if not string.match(of[2], '^tidemill%-%a+:') then groups = groups + 1 end
  if of[2] == group then is_there = true end
end
if is_there and what == 'make' then return {0} end
if not is_there and what ~= 'put' and what ~= 'make' then return {4} end
if not is_there and groups >= tonumber(ARGV[5]) then return {5} end
local document = redis.call('HGET', KEYS[2], 'document')
if is_there and ARGV[6] ~= '' and document and document ~= ARGV[6] then return {6} end
if is_there and what ~= 'seek' then
  local ordering = ''
  for at = 7, #ARGV, 2 do if ARGV[at] == 'ordering' then ordering = ARGV[at + 1] end end
  if ordering ~= (set[10] or '') then
    if redis.call('XPENDING', stream, group)[1] > 0 then return {7} end
    redis.call('DEL', KEYS[9], KEYS[10])
  end
end
if not is_there then redis.call('DEL', KEYS[2], KEYS[8], KEYS[11]) end
if not is_there or what == 'seek' then
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[9], KEYS[10])
  if is_there then redis.call('XGROUP', 'DESTROY', stream, group) end
  redis.call('XGROUP', 'CREATE', stream, group, beginning)
  local info = info_of(stream)
  if beginning == '$' then beginning = info['last-generated-id'] end
  redis.call('HSET', KEYS[2], 'epoch', ARGV[3], 'start', beginning)
  local behind = info['length']
  if info['first-entry'] and sortable(info['first-entry'][1]) <= sortable(beginning) then
    behind = #redis.call('XRANGE', stream, '(' .. beginning, '+', 'COUNT', 1001)
  end
  if info['entries-added'] and (behind <= 1000 or behind == info['length']) then
    local passed = info['entries-added'] - behind
    redis.call('HSET', KEYS[2], 'at', beginning, 'passed', string.format('%.0f', passed),
      'base', string.format('%.0f', passed - settled_by_us()))
  else redis.call('HDEL', KEYS[2], 'at', 'passed', 'base') end
end
if not is_there then redis.call('HSET', KEYS[2], 'created_at', string.format('%.0f', now)) end
for at = 7, #ARGV, 2 do
  if ARGV[at + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[at])
  else redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
end
redis.call('SADD', KEYS[12], group)
return {is_there and 0 or 3}
"
));

/// Deletes a group.
///
/// KEYS behind those of all: the set of the topic's groups. ARGV: the group. Answers 0, or 4 when there is none.
pub(in crate::storage::valkey) static DELETE_GROUP: Script = Script::new(concat!(
    work!(),
    r"
local destroyed = redis.call('XGROUP', 'DESTROY', stream, group)
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11])
redis.call('SREM', KEYS[12], group)
return {destroyed == 0 and 4 or 0}
"
));

/// Tells what a group has.
///
/// KEYS behind those of all: the bodies of what waits for later in the topic, and its recurring messages. ARGV: the group,
/// how many consumers are wanted with how much they have, and 0 where its minutes are not wanted, either. Answers 0, now, its settings, its minutes, and the last id that
/// it gave out; how far it lags (-1 where that is not known), how many are pending, how many of these wait, how many of
/// those can be claimed or stand behind others of their keys, how many are dying, and dead; how many consumers there are;
/// the id behind the last one (or nothing), the ids of some that can be claimed again, how many are gone that it has not
/// passed yet, how many messages wait for later, recurring ones apart, how many other programs have settled (-1 where
/// that is not known), and consumers that have messages, each with how many, those that have most in front.
pub(in crate::storage::valkey) static DESCRIBE_GROUP: Script = Script::new(concat!(
    work!(),
    info_of!(),
    look!(),
    r"
local of_group
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if of[2] == group then
    of_group = {}
    for at = 1, #of, 2 do of_group[of[at]] = of[at + 1] end
  end
end
if not of_group then return {4} end
local all = redis.call('XPENDING', stream, group)
local waits, holding, held = 0, 0, {}
local wanted = tonumber(ARGV[2])
for _, of in ipairs(type(all[4]) == 'table' and all[4] or {}) do
  if of[1] == waiting then waits = tonumber(of[2])
  else
    holding = holding + 1
    -- Of very many, the first: putting all in order would take too long.
    if wanted > 0 and holding <= 10000 then held[holding] = {of[1], tonumber(of[2])} end
  end
end
table.sort(held, function(one, other)
  if one[2] ~= other[2] then return one[2] > other[2] end
  return one[1] < other[1]
end)
local held_by = {}
for at = 1, math.min(#held, wanted) do
  held_by[#held_by + 1] = held[at][1]
  held_by[#held_by + 1] = held[at][2]
end
local last = of_group['last-delivered-id']
local again = redis.call('ZRANGE', KEYS[3], '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)
-- What another program keeps there is none of ours.
local function fields(key)
  local count = redis.pcall('HLEN', key)
  return type(count) == 'number' and count or 0
end
local scheduled = fields(KEYS[12])
if scheduled > 0 then
  if redis.call('HGET', KEYS[12], 'last') then scheduled = scheduled - 1 end
  scheduled = math.max(0, scheduled - fields(KEYS[13]))
end
local standing = ordered and redis.call('ZCARD', KEYS[10]) or 0
if standing > 0 then
  -- The oldest that stands behind is not far from the first of all that wait.
  for _, held in ipairs(redis.call('XPENDING', stream, group, '-', '+', 100, waiting)) do
    if not redis.call('ZSCORE', KEYS[3], held[1]) and not redis.call('ZSCORE', KEYS[6], held[1]) then
      again[#again + 1] = held[1]
      break
    end
  end
end
local seen = look()
local lag = of_group['lag'] or -1
if seen.given and seen.passed then lag = seen.given - seen.passed - seen.missed end
local behind = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
-- Where it is not known how many were passed, another program has read for the group.
local elsewhere = not seen.base and -1 or not seen.passed and 1
  or math.abs(seen.passed - seen.base - settled_by_us() - all[1])
return {0, string.format('%.0f', now), redis.call('HGETALL', KEYS[2]),
  wanted > 0 and redis.call('HGETALL', KEYS[8]) or {}, last, lag, all[1], waits,
  redis.call('ZCOUNT', KEYS[3], '-inf', now) + standing, redis.call('ZCARD', KEYS[6]), redis.call('ZCARD', KEYS[7]), holding,
  behind and behind[1] or '', again, seen.missed, scheduled, elsewhere, held_by}
"
));

/// Tells what the groups of a topic have. KEYS: the stream. ARGV: what the keys of its groups begin with, and how those of
/// the settings, of what is dying and of what is dead end. Answers for each group its name, how far it lags (0 where that is
/// not known), how many are pending, how many of these are dying, how many are dead, when somebody asked for messages last
/// (0 for never), and the oldest that it is not done with, or nothing.
pub(in crate::storage::valkey) static GROUPS_SWEPT: Script = Script::new(concat!(
    kind!(),
    r"
local answer = {}
if kind ~= 'stream' then return answer end
for _, of in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for at = 1, #of, 2 do group[of[at]] = of[at + 1] end
  local name = group['name']
  -- The marker, and that the topic has ended, are groups of nobody.
  if not string.match(name, '^tidemill%-%a+:') then
    local function count(ending)
      local found = redis.pcall('ZCARD', ARGV[1] .. name .. ending)
      return type(found) == 'number' and found or 0
    end
    local claimed_at, oldest = redis.pcall('HGET', ARGV[1] .. name .. ARGV[2], 'claimed_at'), nil
    if group['pending'] > 0 then oldest = redis.call('XPENDING', KEYS[1], name)[2]
    elseif group['lag'] ~= 0 then
      local behind = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
      oldest = behind and behind[1]
    end
    for _, part in ipairs({name, group['lag'] or 0, group['pending'], count(ARGV[3]), count(ARGV[4]),
      type(claimed_at) == 'string' and claimed_at or '0', oldest or ''}) do answer[#answer + 1] = part end
  end
end
return answer
"
));
