//! What a group has passed: how the messages are counted that were gone before it was given them.
//!
//! The settings of a group have, beside the rest, `passed`: how many of all the messages that the stream was ever given
//! lie up to `at`, the last that the group was given. What was given since and is not kept is gone. Servers before 7.0 do
//! not count what a stream was given. Where another program has read for the group since, how many it has passed is not
//! known until a claim has come to the end of the stream.

/// Defines, behind `info_of`, `look()`, which tells of a group the `last` id that it was given, how many it has `passed`,
/// how many the stream was ever `given` (each nothing where that is not known), and how many were `missed` since; and
/// `pass(seen, new, read_to, is_end)`, which notes that so many were given behind that, up to an id, and perhaps to the end
/// of the stream, and returns how many were gone before.
macro_rules! look {
    () => {
        r"
local function look()
  local seen, lag = {missed = 0}, nil
  for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if of[2] == group then
      for at = 1, #of, 2 do
        if of[at] == 'last-delivered-id' then seen.last = of[at + 1] end
        if of[at] == 'lag' then lag = of[at + 1] end
      end
    elseif string.sub(of[2], 1, 15) == 'tidemill-epoch:' then
      -- The marker has read nothing, so it lags behind by all. Where entries were taken out from between others, the
      -- server does not say so.
      seen.given = of[11] == 'lag' and of[12] or nil
    end
  end
  local kept = redis.call('HMGET', KEYS[2], 'at', 'passed')
  if kept[1] and kept[1] == seen.last then seen.passed = tonumber(kept[2]) end
  local length = redis.call('XLEN', stream)
  if not seen.passed then
    -- A claim asks at the end of the stream.
    seen.given = nil
    return seen
  end
  -- What the server says is only what it keeps where the last that was taken out from between others was trimmed since.
  if seen.given == length and lag ~= length - seen.passed then seen.given = info_of(stream)['entries-added'] end
  if seen.given and seen.passed > seen.given then seen.passed = nil end
  if seen.given and seen.passed then seen.missed = math.max(0, seen.given - seen.passed - length) end
  return seen
end
local function pass(seen, new, read_to, is_end)
  local missed, passed = seen.missed, seen.passed
  if passed then passed = passed + missed + new end
  if is_end then
    local given = seen.given or info_of(stream)['entries-added']
    if given and passed and given > passed then missed = missed + given - passed end
    passed = given
  end
  if passed and (new > 0 or passed ~= seen.passed) then
    redis.call('HSET', KEYS[2], 'at', read_to or seen.last, 'passed', string.format('%.0f', passed))
  end
  return missed
end
"
    };
}
