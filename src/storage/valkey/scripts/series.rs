//! The scripts of series. What they keep of one: a hash with a field for each minute since 1970 that has a point, of the
//! form `COUNT SUM MIN MAX`, and `first`, before which no minute has a field.
//!
//! The server forgets it when its last minute could have been read for the last time.

use super::Script;

/// Begins each script: answers 2 where the key holds something else. Defines `first`.
macro_rules! of_a_series {
    () => {
        concat!(
            kind!(),
            r"
if kind ~= 'none' and kind ~= 'hash' then return {2} end
local first = redis.call('HGET', KEYS[1], 'first')
if kind == 'hash' and not (first and string.match(first, '^%d+$')) then return {2} end
local function text(number) return string.format('%.0f', number) end
"
        )
    };
}

/// Adds points.
///
/// KEYS: the series. ARGV: for how many ms minutes are kept, how many ms ahead a point may be, and of each point its time
/// in ms (empty for now), its value, what the sum gets, and its count. Answers 0, and of each point its minute with it, as
/// `MINUTE COUNT SUM MIN MAX`, or an empty text where its time is out of bounds; or 2 where the key holds something else.
pub(in crate::storage::valkey) static ADD_POINTS: Script = Script::new(concat!(
    of_a_series!(),
    now!(),
    r"
local kept_ms, ahead_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local function shortest(number)
  for digits = 15, 16 do
    local short = string.format('%.' .. digits .. 'g', number)
    if tonumber(short) == number then return short end
  end
  return string.format('%.17g', number)
end
local answer, minutes, fields, least = {0}, {}, {}, nil
for at = 3, #ARGV, 4 do
  local ms = ARGV[at] == '' and now or tonumber(ARGV[at])
  if ms < now - kept_ms or ms > now + ahead_ms then
    answer[#answer + 1] = ''
  else
    local minute = math.floor(ms / 60000)
    local of = minutes[minute]
    if not of then
      local before = redis.call('HGET', KEYS[1], text(minute))
      if before then
        local count, sum, min, max = string.match(before, '^(%d+) (%S+) (%S+) (%S+)$')
        of = {tonumber(count or ''), tonumber(sum or ''), tonumber(min or ''), tonumber(max or '')}
        if not (of[1] and of[2] and of[3] and of[4]) then return {2} end
      else
        of = {0, 0, math.huge, -math.huge}
      end
      minutes[minute] = of
      if not least or minute < least then least = minute end
    end
    local value = tonumber(ARGV[at + 1])
    of[1], of[2] = of[1] + tonumber(ARGV[at + 3]), of[2] + tonumber(ARGV[at + 2])
    of[3], of[4] = math.min(of[3], value), math.max(of[4], value)
    of[5] = text(of[1]) .. ' ' .. shortest(of[2]) .. ' ' .. shortest(of[3]) .. ' ' .. shortest(of[4])
    answer[#answer + 1] = text(minute) .. ' ' .. of[5]
  end
end
if not least then return answer end
local oldest, old = math.floor((now - kept_ms) / 60000), {}
local from = math.min(tonumber(first or text(least)), least)
while from < oldest and #old < 3000 do
  old[#old + 1] = text(from)
  from = from + 1
end
for minute, of in pairs(minutes) do
  fields[#fields + 1], fields[#fields + 2] = text(minute), of[5]
end
redis.call('HSET', KEYS[1], 'first', text(from), unpack(fields))
if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end
redis.call('EXPIRE', KEYS[1], math.ceil((kept_ms + ahead_ms) / 1000) + 60)
return answer
",
));

/// Reads minutes.
///
/// KEYS: the series. ARGV: how many ms before now the first may end, and how many ms ahead the last may begin. Answers 0,
/// and the minutes that have a point, in order, as `MINUTE COUNT SUM MIN MAX`; or 2 where the key holds something else.
pub(in crate::storage::valkey) static READ_SERIES: Script = Script::new(concat!(
    of_a_series!(),
    now!(),
    r"
local answer, fields = {0}, {}
if not first then return answer end
for minute = math.floor((now - tonumber(ARGV[1])) / 60000), math.floor((now + tonumber(ARGV[2])) / 60000) do
  fields[#fields + 1] = text(minute)
end
for at, kept in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do
  if kept then
    if not string.match(kept, '^%d+ %S+ %S+ %S+$') then return {2} end
    answer[#answer + 1] = fields[at] .. ' ' .. kept
  end
end
return answer
",
));

/// Forgets a series.
///
/// KEYS: the series. Answers 0, or 2 where the key holds something else.
pub(in crate::storage::valkey) static DELETE_SERIES: Script = Script::new(concat!(
    of_a_series!(),
    r"
redis.call('DEL', KEYS[1])
return {0}
",
));
