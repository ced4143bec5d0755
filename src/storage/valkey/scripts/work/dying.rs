//! Dead letters.

use crate::storage::valkey::scripts::Script;

/// Tells which messages are dying.
///
/// ARGV: the group, and how many. Answers 0, the epoch, and for each its id, which delivery was the last, its facts, and
/// its entries, none where it is gone.
pub(in crate::storage::valkey) static DYING: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    r"
local answer = {0, epoch}
for _, id in ipairs(redis.call('ZRANGE', KEYS[6], 0, ARGV[2] - 1)) do
  local held = pending(id)
  local text = held and redis.call('HGET', KEYS[5], id)
  if text and held[2] == waiting then
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = id, held[4], text
    answer[#answer + 1] = redis.call('XRANGE', stream, id, id)
  else
    redis.call('ZREM', KEYS[6], id)
    forget(id)
  end
end
return answer
"
));

/// Notes that the dead letter of a message is kept.
///
/// ARGV: the group, the epoch, the id, its sortable form, and the id of the letter or nothing. Answers 0, and 1 where the
/// message was dying.
pub(in crate::storage::valkey) static BURY: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    r"
local id = ARGV[3]
local held = epoch == ARGV[2] and redis.call('ZSCORE', KEYS[6], id) and pending(id)
if not held then return {0, 0} end
local known = facts(id)
redis.call('XACK', stream, group, id)
count('buried', 1)
redis.call('ZREM', KEYS[6], id)
forget(id)
redis.call('ZADD', KEYS[7], 0, ARGV[4] .. ' ' .. cjson.encode({l = ARGV[5], n = held[4], r = known.e or known.r}))
return {0, 1}
"
));

/// Tells of dead letters.
///
/// ARGV: the group, behind which of them, and how many. Answers 0, and what is kept of each.
pub(in crate::storage::valkey) static DEAD: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    r"
local answer = {0}
for _, dead in ipairs(redis.call('ZRANGE', KEYS[7], ARGV[2], '+', 'BYLEX', 'LIMIT', 0, ARGV[3])) do
  answer[#answer + 1] = dead
end
return answer
"
));

/// Has dead letters wait again, or forgets them; so it does with messages that are dying, of which there is no letter yet.
///
/// ARGV: the group, 1 where they are to wait, then ids with their sortable forms, and for how many ms. Answers 0, and for each 0 where it
/// waits, 1 where it is gone, 2 where it is none.
pub(in crate::storage::valkey) static REVIVE: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    placing!(),
    order_keys!(),
    r"
local answer = {0}
local function place(id, entry, due)
  local key = key_of(entry[2])
  if not key or takes(id, key) then wait(id, due, {s = 'revived'})
  else remember(id, {s = 'revived'}) end
end
for at = 3, #ARGV, 3 do
  local id, sorted = ARGV[at], ARGV[at + 1]
  local found = redis.call('ZRANGE', KEYS[7], '[' .. sorted, '[' .. sorted .. '~', 'BYLEX')[1]
  local code = 2
  if found then
    redis.call('ZREM', KEYS[7], found)
    code = 1
    local entry = ARGV[2] == '1' and redis.call('XRANGE', stream, id, id)[1]
    if entry then
      local known = cjson.decode(string.sub(found, #sorted + 2))
      redis.call('XCLAIM', stream, group, waiting, 0, id, 'RETRYCOUNT', string.format('%.0f', known.n), 'FORCE', 'JUSTID')
      count('buried', -1)
      place(id, entry, now + ARGV[at + 2])
      code = 0
    end
  elseif redis.call('ZREM', KEYS[6], id) == 1 and pending(id) then
    local entry = ARGV[2] == '1' and redis.call('XRANGE', stream, id, id)[1]
    if entry then
      place(id, entry, now + ARGV[at + 2])
      code = 0
    else
      redis.call('XACK', stream, group, id)
      count('buried', 1)
      forget(id)
      code = 1
    end
  end
  answer[#answer + 1] = code
end
return answer
"
));
