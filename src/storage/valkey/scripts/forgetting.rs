//! What is remembered of messages that were deleted by request: which they are, and of older ones how many.

/// Defines `score_of(marker)`: the score of what was deleted by request from the stream with this marker; it tells one
/// stream from another as far as a score can hold that (52 bits). And `is_of_another(key, marker)`: whether what is
/// remembered as deleted was deleted from another stream.
macro_rules! is_of_another {
    () => {
        r"
local function score_of(marker)
  return tonumber(string.sub(marker, 16, 28), 16) or 0
end
local function is_of_another(key, marker)
  local score = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return score and tonumber(score) ~= score_of(marker)
end
"
    };
}

/// Defines `forgotten_in(key)`: how many messages were deleted by request of which nobody knows any more which they were,
/// the oldest of these, and the newest; and `forget(key, before, score)`, which keeps no more than that of those in front
/// of an id (as it is sorted). They stay counted, for what was deleted by request is missed by nobody.
///
/// It stands in front of the ids: `!`, how many, and both, with colons between.
macro_rules! forget {
    () => {
        r"
local function forgotten_in(key)
  local count, from, to = string.match(redis.call('ZRANGEBYLEX', key, '[!', '(0')[1] or '', '^!(%d+):([%d-]+):([%d-]+)$')
  return tonumber(count) or 0, from, to
end
local function forget(key, before, score)
  local count, from = forgotten_in(key)
  local more = redis.call('ZLEXCOUNT', key, '[0', '(' .. before)
  if more == 0 then return end
  local oldest = from and 1 or 0
  from = from or redis.call('ZRANGE', key, 0, 0)[1]
  local to = redis.call('ZRANGE', key, oldest + more - 1, oldest + more - 1)[1]
  redis.call('ZREMRANGEBYLEX', key, '-', '(' .. before)
  redis.call('ZADD', key, string.format('%.0f', score), string.format('!%.0f:%s:%s', count + more, from, to))
end
"
    };
}
