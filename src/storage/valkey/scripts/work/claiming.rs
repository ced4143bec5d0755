//! Claiming messages for consumers.

use crate::storage::valkey::scripts::Script;

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

/// Claims one new message for each of several consumers, where nothing stands in the way of that: no message that was
/// given out before can be claimed, and the group bounds nothing.
///
/// ARGV: the group, the consumers. Answers 7 where it is for the other script; else 0, the epoch, now, the time that
/// consumers have, when the next message that waits is due (-1 for none), and the entries of the first consumers.
pub(in crate::storage::valkey) static CLAIM_NEW: Script = Script::new(concat!(
    work!(),
    expiring!(),
    r"
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if set[6] or set[7] or set[8] == '1' or set[10] or (due and tonumber(due) <= now) then return {7} end
local entries, over = {}, {}
for at = 2, #ARGV do
  local entry
  repeat
    local read = redis.call('XREADGROUP', 'GROUP', group, ARGV[at], 'COUNT', 1, 'STREAMS', stream, '>')
    entry = read and read[1] and read[1][2][1]
    local is_gone = entry and is_over(entry[2])
    if is_gone then over[#over + 1] = entry[1] end
  until not is_gone or #over >= 100
  if not entry or #over >= 100 then break end
  entries[#entries + 1] = entry
end
if #over > 0 then
  redis.call('XACK', stream, group, unpack(over))
  count('gone', #over)
end
return {0, epoch, string.format('%.0f', now), string.format('%.0f', ack_wait), due or '-1', entries}
"
));

/// Claims messages for a consumer: first those that were given out before and can be again, then new ones.
///
/// KEYS behind those of all: that of the claim's id. ARGV: the group, the consumer, how many, how many bytes, and 1
/// where the claim has an id. Answers 0, the epoch, now, the time that the consumer has, 1 for a repeated claim, 1 where
/// the group is paused, when the next message that waits is due (-1 for none), then entries, and for each which delivery
/// it is; for a repeated claim until when each is held; and 1 where no more may be held.
pub(in crate::storage::valkey) static CLAIM: Script = Script::new(concat!(
    work!(),
    expiring!(),
    r"
local consumer, room, room_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, deliveries, deadlines, bytes = {}, {}, {}, 0
local function add(entry, delivery)
  entries[#entries + 1], deliveries[#deliveries + 1] = entry, delivery
  for at = 2, #entry[2], 2 do bytes = bytes + #entry[2][at] end
end
local function answer(replayed, paused)
  local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  return {0, epoch, string.format('%.0f', now), string.format('%.0f', ack_wait), replayed, paused, due or '-1',
    entries, deliveries, deadlines, room < tonumber(ARGV[3]) and 1 or 0}
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
local gone, again = 0, 0
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
local step = 8
while #entries < room and bytes < room_bytes do
  step = math.min(step, room - #entries)
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', step, 'STREAMS', stream, '>')
  local found = read and read[1] and read[1][2] or {}
  local over = {}
  for _, entry in ipairs(found) do
    if is_over(entry[2]) then over[#over + 1] = entry[1] else add(entry, 1) end
  end
  if #over > 0 then
    redis.call('XACK', stream, group, unpack(over))
    gone = gone + #over
  end
  if #found < step then break end
  -- As many as have room, if they weigh what those before did.
  local mean = math.max(1, bytes / math.max(1, #entries))
  step = math.max(1, math.min(32, math.ceil((room_bytes - bytes) / mean)))
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
