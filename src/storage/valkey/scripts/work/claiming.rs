//! Claiming messages for consumers.

use crate::storage::valkey::scripts::Script;

/// Claims messages for a consumer: first those that were given out before and can be again, then new ones.
///
/// KEYS behind those of all: that of the claim's id. ARGV: the group, the consumer, how many, how many bytes, and 1
/// where the claim has an id. Answers 0, the epoch, now, the time that the consumer has, 1 for a repeated claim, 1 where
/// the group is paused, when the next message that waits is due (-1 for none), then entries, and for each which delivery
/// it is; for a repeated claim until when each is held; 1 where no more may be held; and how many were found to be gone.
pub(in crate::storage::valkey) static CLAIM: Script = Script::new(concat!(
    work!(),
    info_of!(),
    look!(),
    r"
local consumer, room, room_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, deliveries, deadlines, bytes = {}, {}, {}, 0
local function is_over(fields)
  local ends = false
  for at = 1, #fields, 2 do
    if fields[at] == 'expires_at' and fields[1] == 'payload' then
      ends = tonumber(fields[at + 1]) and tonumber(fields[at + 1]) <= now
    end
  end
  return ends
end
local function add(entry, delivery)
  entries[#entries + 1], deliveries[#deliveries + 1] = entry, delivery
  for at = 2, #entry[2], 2 do bytes = bytes + #entry[2][at] end
end
local gone, again = 0, 0
local function answer(replayed, paused)
  local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  return {0, epoch, string.format('%.0f', now), string.format('%.0f', ack_wait), replayed, paused, due or '-1',
    entries, deliveries, deadlines, room < tonumber(ARGV[3]) and 1 or 0, gone}
end
local kept = ARGV[5] == '1' and redis.call('GET', KEYS[9])
if kept and string.sub(kept, 1, 16) == epoch then
  for id, delivery in string.gmatch(kept, ' (%S+) (%d+)') do
    local held = pending(id)
    if held and held[2] == consumer and string.format('%.0f', held[4]) == delivery then
      local found = redis.call('XRANGE', stream, id, id)[1]
      if found then
        add(found, held[4])
        deadlines[#deadlines + 1] = redis.call('ZSCORE', KEYS[4], id)
          or string.format('%.0f', now - held[3] + ack_wait)
      end
    end
  end
  if #entries > 0 then return answer(1, 0) end
end
if set[8] == '1' then return answer(0, 1) end
if set[6] or set[7] then
  local all = redis.call('XPENDING', stream, group)
  local waits, own = 0, 0
  for _, of in ipairs(type(all[4]) == 'table' and all[4] or {}) do
    if of[1] == waiting then waits = tonumber(of[2]) elseif of[1] == consumer then own = tonumber(of[2]) end
  end
  if set[6] then room = math.min(room, tonumber(set[6]) - (all[1] - waits)) end
  if set[7] then room = math.min(room, tonumber(set[7]) - own) end
end
if room > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], '-inf', now, 'BYSCORE', 'LIMIT', 0, room)) do
    if bytes >= room_bytes then break end
    local held = pending(id)
    if not held then
      -- Another program has settled it, or it was found to be gone.
      forget(id)
    elseif held[2] ~= waiting then redis.call('ZREM', KEYS[3], id)
    else
      local found = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
      redis.call('ZREM', KEYS[3], id)
      if found and not is_over(found[2]) then
        add(found, held[4] + 1)
        again = again + 1
        local known = facts(id)
        remember(id, {f = known.f, c = known.c, e = known.e})
      else
        redis.call('XACK', stream, group, id)
        forget(id)
        gone = gone + 1
      end
    end
  end
end
local step, read_to, is_end = 8, nil, false
local seen = #entries < room and bytes < room_bytes and look()
local new = 0
while #entries < room and bytes < room_bytes do
  step = math.min(step, room - #entries)
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', step, 'STREAMS', stream, '>')
  local found = read and read[1] and read[1][2] or {}
  local over = {}
  if #found > 0 then new, read_to = new + #found, found[#found][1] end
  for _, entry in ipairs(found) do
    if is_over(entry[2]) then over[#over + 1] = entry[1] else add(entry, 1) end
  end
  if #over > 0 then
    redis.call('XACK', stream, group, unpack(over))
    gone = gone + #over
  end
  if #found < step then
    is_end = true
    break
  end
  -- As many as have room, if they weigh what those before did.
  local mean = math.max(1, bytes / math.max(1, #entries))
  step = math.max(1, math.min(32, math.ceil((room_bytes - bytes) / mean)))
end
if seen then
  local missed, passed = seen.missed, seen.passed
  if passed then passed = passed + missed + new end
  if is_end then
    local given = seen.given or info_of(stream)['entries-added']
    if given and passed and given > passed then missed = missed + given - passed end
    passed = given
  end
  gone = gone + missed
  if passed and (new > 0 or passed ~= seen.passed) then
    redis.call('HSET', KEYS[2], 'at', read_to or seen.last, 'passed', string.format('%.0f', passed))
  end
end
if gone > 0 then count('gone', gone) end
if again > 0 then count('redelivered', again) end
if ARGV[5] == '1' and #entries > 0 then
  local text = {epoch}
  for at, entry in ipairs(entries) do text[#text + 1] = entry[1] .. ' ' .. string.format('%.0f', deliveries[at]) end
  redis.call('SET', KEYS[9], table.concat(text, ' '), 'PX', string.format('%.0f', ack_wait))
end
return answer(0, 0)
"
));
