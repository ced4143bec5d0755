//! The script that removes from a topic what it does not keep, and what others need for the same.

use super::Script;

/// Defines, behind `latest`, `own_of(description)`: what a topic says itself of what it keeps; `held_from(key)`: the first id that not
/// every group of the stream has acknowledged, or nothing where it has no groups; and, behind `sortable`,
/// `trim(key, own, messages, bytes, times, times_bytes)`, which removes what the topic does not keep, and returns how
/// many that were. What it is given holds where the topic says nothing: messages and bytes that are kept (each empty for
/// no bound), and how many times as many of either groups may hold. And `refuses(key, own, messages, bytes, times,
/// times_bytes)`: whether the topic refuses what comes now, also when what every group has acknowledged has made room.
macro_rules! trim {
    () => {
        r"
local function own_of(description)
  local own = redis.pcall('HMGET', description, 'max_messages', 'max_bytes', 'when_full', 'keep_until_acked', 'compact_by')
  if own['err'] then return {} end
  return own
end
local function next_of(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  -- A script counts no further. Then one that was acknowledged stays.
  if #seq > 15 then return id end
  return string.format('%s-%.0f', ms, tonumber(seq) + 1)
end
local function held_from(key)
  local held
  for _, of in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = {}
    for at = 1, #of, 2 do group[of[at]] = of[at + 1] end
    -- The marker, and that the topic has ended, are groups of nobody.
    if not string.match(group['name'], '^tidemill%-%a+:') then
      local from
      if group['pending'] > 0 then from = redis.call('XPENDING', key, group['name'], '-', '+', 1)[1][1]
      else from = next_of(group['last-delivered-id']) end
      if not held or sortable(from) < sortable(held) then held = from end
    end
  end
  return held
end
local function trim(key, own, messages, bytes, times, times_bytes)
  local number = tonumber(own[1] or messages) or math.huge
  bytes = tonumber(own[2] or bytes)
  local length, removed, held = redis.call('XLEN', key), 0, nil
  if own[5] then
    local is_urgent = length > 2 * number or bytes and (redis.call('MEMORY', 'USAGE', key) or 0) > 2 * bytes
    -- What nobody has looked at stays, but not without a bound.
    if not latest_index(key, own[5], is_urgent and math.huge or 2000) then return 0 end
    latest_keep(latest_keys(key), own[5], number, bytes)
  end
  if own[4] == '1' then
    held = held_from(key)
    if held then removed = redis.call('XTRIM', key, 'MINID', '=', held) end
    length = length - removed
  end
  if own[3] == 'refuse' then return removed end
  local most = number * tonumber(times)
  if bytes and length > 0 then
    local weight = redis.call('MEMORY', 'USAGE', key) or 0
    if weight > bytes then
      number = math.min(number, math.max(1, math.floor(length * (bytes / weight))))
      most = math.min(most, math.floor(number * tonumber(times_bytes)))
    end
  end
  if length <= number then return removed end
  held = held or held_from(key)
  if not held then return redis.call('XTRIM', key, 'MAXLEN', '~', string.format('%.0f', number)) end
  local past = 0
  if length > most then past = redis.call('XTRIM', key, 'MAXLEN', '~', string.format('%.0f', most)) end
  local over = length - past - number
  if over > 0 then
    past = past + redis.call('XTRIM', key, 'MINID', '~', held, 'LIMIT', string.format('%.0f', over))
  end
  return removed + past
end
local function is_full(key, own, messages, bytes)
  if own[3] ~= 'refuse' then return false end
  if redis.call('XLEN', key) >= (tonumber(own[1] or messages) or math.huge) then return true end
  bytes = tonumber(own[2] or bytes)
  return bytes and redis.call('XLEN', key) > 0 and (redis.call('MEMORY', 'USAGE', key) or 0) >= bytes
end
local function refuses(key, own, messages, bytes, times, times_bytes)
  if not is_full(key, own, messages, bytes) then return false end
  trim(key, own, messages, bytes, times, times_bytes)
  return is_full(key, own, messages, bytes)
end
"
    };
}

/// Removes from the old end of a topic what it does not keep, whole nodes of the stream at a time, and what is too old.
///
/// What the topic keeps is read here, from its description: so no node trims by what it does not know any more. The
/// groups that consume from the stream hold back what they have not acknowledged: what lies behind the oldest pending
/// entry of each, or behind the last that it was given. They do so up to a bound, so that one that is left alone does not
/// fill the server: past it the oldest entries go, and are a gap to the group.
///
/// KEYS: stream, description. ARGV: messages and bytes that are kept where the topic says nothing (each empty for no
/// bound), how many times as many of either groups may hold; then an age in ms, or nothing, and for how many times as long
/// they may. Answers how many were removed, and 1 where the topic refuses what has no room.
pub(in super::super) static TRIM_TOPIC: Script = Script::new(concat!(
    kind!(),
    sortable!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    latest!(),
    trim!(),
    r"
if kind ~= 'stream' then return {0, 0} end
-- What is taken over has not got its groups yet, which may hold some of it.
if string.sub(end_of(KEYS[1]) or '', 1, 22) == 'tidemill-end:importing' then return {0, 0} end
local removed, own = 0, own_of(KEYS[2])
if ARGV[5] and (not own[5] or latest_index(KEYS[1], own[5], 2000)) then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local function before(age) return string.format('%.0f-0', math.max(0, now - age)) end
  local oldest, held = before(tonumber(ARGV[5])), held_from(KEYS[1])
  if held and sortable(held) < sortable(oldest) then
    oldest = before(tonumber(ARGV[5]) * tonumber(ARGV[6]))
    if sortable(oldest) < sortable(held) then oldest = held end
  end
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', oldest)
end
removed = removed + trim(KEYS[1], own, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return {removed, own[3] == 'refuse' and 1 or 0}
"
));
