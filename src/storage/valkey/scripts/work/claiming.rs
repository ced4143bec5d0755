//! Claiming messages for consumers.

use crate::storage::valkey::scripts::Script;

/// Defines `note_claim()`, which notes now and then when somebody asked for messages.
macro_rules! note_claim {
    () => {
        r"
local function note_claim()
  if not set[1] or now - tonumber(set[12] or 0) < 5000 then return end
  -- A server that is full refuses that alone: claims make room.
  redis.pcall('HSET', KEYS[2], 'claimed_at', string.format('%.0f', now))
end
"
    };
}

/// Claims messages for a consumer: first those that were given out before and can be again, then new ones.
///
/// KEYS behind those of all: that of the claim's id, and the topic's description. ARGV: the group, the consumer, how
/// many, how many bytes, 1 where the claim has an id, how many messages may stand behind others, and how many such a
/// claim looks at. Answers 0, the epoch, now, the time that the consumer has, 1 for a repeated claim, 1 where the group
/// is paused, when the next message that waits is due (-1 for none), then entries, and for each which delivery
/// it is; for a repeated claim until when each is held; 1 where no more may be held, or messages stand behind others; and
/// 1 where it has not looked at all that may be claimed; why the topic was cancelled, or nothing; how many were found
/// to be gone; and 1 where it is known that no more can be claimed.
pub(in crate::storage::valkey) static CLAIM: Script = Script::new(concat!(
    work!(),
    expiring!(),
    order_keys!(),
    info_of!(),
    look!(),
    note_claim!(),
    r"
note_claim()
local consumer, room, room_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, deliveries, deadlines, bytes = {}, {}, {}, 0
local looked_at_max, looked_at, is_more = tonumber(ARGV[7]), 0, 0
local function add(entry, delivery)
  entries[#entries + 1], deliveries[#deliveries + 1] = entry, delivery
  for at = 2, #entry[2], 2 do bytes = bytes + #entry[2][at] end
end
local gone, again, is_end = 0, 0, false
local function answer(replayed, paused)
  local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  -- Where the key holds something of another program, there is no reason.
  local reason = #entries > 0 and redis.pcall('HGET', KEYS[13], 'reason')
  local is_limited = room < tonumber(ARGV[3]) or ordered and redis.call('EXISTS', KEYS[10]) == 1
  local is_drained = is_end and not is_limited and not (due and tonumber(due) <= now)
  return {0, epoch, string.format('%.0f', now), string.format('%.0f', ack_wait), replayed, paused, due or '-1',
    entries, deliveries, deadlines, is_limited and 1 or 0, is_more,
    type(reason) == 'string' and reason or '', gone, is_drained and 1 or 0}
end
local kept = ARGV[5] == '1' and redis.call('GET', KEYS[12])
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
local function claim_due()
  local are_gone = false
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], '-inf', now, 'BYSCORE', 'LIMIT', 0, room - #entries)) do
    if bytes >= room_bytes then return end
    looked_at = looked_at + 1
    local held = pending(id)
    if not held then
      -- Another program has settled it, or it was found to be gone.
      forget(id)
      are_gone = true
    elseif held[2] ~= waiting then redis.call('ZREM', KEYS[3], id)
    else
      local found = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
      redis.call('ZREM', KEYS[3], id)
      if found and not is_over(found[2]) then
        add(found, held[4] + 1)
        -- What has stood behind others is given out for the first time.
        if held[4] > 0 then again = again + 1 end
        local known = facts(id)
        remember(id, {f = known.f, c = known.c, e = known.e})
      else
        redis.call('XACK', stream, group, id)
        forget(id)
        gone = gone + 1
        are_gone = true
      end
    end
  end
  -- Where one was gone, the next of its key is due now.
  return are_gone
end
if room > 0 then
  while claim_due() and ordered and #entries < room do
    if looked_at >= looked_at_max then
      is_more = 1
      break
    end
  end
end
local function begins(id, fields)
  local key = key_of(fields)
  if not key or takes(id, key) then return true end
  -- It was not given out yet.
  redis.call('XCLAIM', stream, group, waiting, 0, id, 'RETRYCOUNT', 0, 'JUSTID')
  return false
end
local step, read_to = 8, nil
local seen = #entries < room and bytes < room_bytes and look()
local new = 0
while #entries < room and bytes < room_bytes do
  step = math.min(step, room - #entries)
  if ordered then
    -- All of them may have to stand behind.
    step = math.min(step, ARGV[6] - redis.call('ZCARD', KEYS[10]))
    if step <= 0 then break end
    if looked_at >= looked_at_max then
      is_more = 1
      break
    end
    looked_at = looked_at + step
  end
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', step, 'STREAMS', stream, '>')
  local found = read and read[1] and read[1][2] or {}
  local over = {}
  if #found > 0 then new, read_to = new + #found, found[#found][1] end
  for _, entry in ipairs(found) do
    if is_over(entry[2]) then over[#over + 1] = entry[1]
    elseif begins(entry[1], entry[2]) then add(entry, 1) end
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
if is_freed then is_more = 1 end
gone, is_end = count_gone(gone, seen, new, read_to, is_end)
if again > 0 then count('redelivered', again) end
if ARGV[5] == '1' and #entries > 0 then
  local text = {epoch}
  for at, entry in ipairs(entries) do text[#text + 1] = entry[1] .. ' ' .. string.format('%.0f', deliveries[at]) end
  redis.call('SET', KEYS[12], table.concat(text, ' '), 'PX', string.format('%.0f', ack_wait))
end
return answer(0, 0)
"
));

/// Claims one new message for each of several consumers, where nothing stands in the way of that: no message that was
/// given out before can be claimed, the group bounds nothing and has no order, and the topic was not cancelled.
///
/// KEYS behind those of all: the topic's description. ARGV: the group, the consumers. Answers 8 where it is for the other
/// script; else 0, the epoch, now, the time that consumers have, when the next message that waits is due (-1 for none),
/// the entries of the first consumers, how many were found to be gone, and 1 where it is known that no more can be claimed.
pub(in crate::storage::valkey) static CLAIM_NEW: Script = Script::new(concat!(
    work!(),
    expiring!(),
    info_of!(),
    look!(),
    note_claim!(),
    r"
note_claim()
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if set[6] or set[7] or set[8] == '1' or ordered or (due and tonumber(due) <= now)
  or type(redis.pcall('HGET', KEYS[12], 'reason')) == 'string' then return {8} end
local entries, over, new, read_to, is_end = {}, {}, 0, nil, false
local seen = look()
for at = 2, #ARGV do
  local entry
  repeat
    local read = redis.call('XREADGROUP', 'GROUP', group, ARGV[at], 'COUNT', 1, 'STREAMS', stream, '>')
    entry = read and read[1] and read[1][2][1]
    if entry then new, read_to = new + 1, entry[1] else is_end = true end
    local is_gone = entry and is_over(entry[2])
    if is_gone then over[#over + 1] = entry[1] end
  until not is_gone or #over >= 100
  if not entry or #over >= 100 then break end
  entries[#entries + 1] = entry
end
if #over > 0 then redis.call('XACK', stream, group, unpack(over)) end
local gone, is_drained = count_gone(#over, seen, new, read_to, is_end)
return {0, epoch, string.format('%.0f', now), string.format('%.0f', ack_wait), due or '-1', entries, gone,
  is_drained and 1 or 0}
"
));
