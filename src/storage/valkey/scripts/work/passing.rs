//! What a group has passed: how the messages are counted that were gone before it was given them.
//!
//! The settings of a group have, beside the rest, `passed`: how many of all the messages that the stream was ever given
//! lie up to `at`, the last that the group was given. What was given since and is not kept is gone. Servers before 7.0 do
//! not count what a stream was given. Where another program has read for the group since, how many it has passed is not
//! known until a claim has come to the end of the stream.
//!
//! And `base`: what it had passed when it began, less what it had settled until then. What it has passed since is pending,
//! or settled by the relay (`done`, `gone`, `buried`), or else other programs have settled it.

/// Defines, behind `info_of`, `settled_by_us()`, how many the relay has settled in the group; `look()`, which tells of a
/// group the `last` id that it was given, how many it has `passed`, its `base`, how many the stream was ever `given` (each
/// nothing where that is not known), and how many were `missed` since; and `count_gone(gone, seen, new, read_to, is_end)`,
/// which counts so many that are gone, notes that so many were given behind what was seen, if anything was, up to an id, and
/// perhaps to the end of the stream, and returns how many are gone with those, and whether
/// it is known that there are no more.
macro_rules! look {
    () => {
        r"
local function settled_by_us()
  local sum = 0
  for _, of in ipairs(redis.call('HMGET', KEYS[2], 'done', 'gone', 'buried')) do sum = sum + (tonumber(of) or 0) end
  return sum
end
local function look()
  local seen, lag = {missed = 0}, nil
  for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if of[2] == group then
      for at = 1, #of, 2 do
        if of[at] == 'last-delivered-id' then seen.last = of[at + 1] end
        if of[at] == 'lag' then lag = of[at + 1] end
      end
    elseif string.sub(of[2], 1, 15) == 'tidemill-epoch:' then
      -- It may be only what is kept: see `marker`.
      seen.given = of[11] == 'lag' and of[12] or nil
    end
  end
  seen.base = tonumber(set[15] or '')
  if set[13] and set[13] == seen.last then seen.passed = tonumber(set[14]) end
  local length = redis.call('XLEN', stream)
  if not seen.passed then
    -- A claim asks at the end of the stream.
    seen.given = nil
    return seen
  end
  -- Where the group's own lag does not say the same, what was given is asked for.
  if seen.given == length and lag ~= length - seen.passed then seen.given = info_of(stream)['entries-added'] end
  if seen.given and seen.passed > seen.given then seen.passed = nil end
  if seen.given and seen.passed then seen.missed = math.max(0, seen.given - seen.passed - length) end
  return seen
end
local function count_gone(gone, seen, new, read_to, is_end)
  if gone > 0 then count('gone', gone) end
  if not seen then return gone end
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
  if passed and not seen.base then
    local base = passed - missed - redis.call('XPENDING', stream, group)[1] - settled_by_us()
    redis.call('HSET', KEYS[2], 'base', string.format('%.0f', base))
  end
  if missed > 0 then count('gone', missed) end
  return gone + missed, is_end or passed and passed == seen.given
end
"
    };
}
