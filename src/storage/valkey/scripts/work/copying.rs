//! Groups that are told to another storage, or taken over from one.

use crate::storage::valkey::scripts::Script;

/// What follows in those that take over: they answer 3 where the topic is not being taken over.
macro_rules! taken_over {
    () => {
        r"
if string.sub(end_of(stream) or '', 1, 22) ~= 'tidemill-end:importing' then return {3} end
"
    };
}

/// Tells of a group without its messages. ARGV: the group. Answers 0, the last id that it gave out, and its settings; 4
/// where there is none.
pub(in crate::storage::valkey) static COPIED_GROUP: Script = Script::new(concat!(
    work!(),
    r"
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if of[2] == group then
    local answer = {0, ''}
    for at = 1, #of, 2 do if of[at] == 'last-delivered-id' then answer[2] = of[at + 1] end end
    for _, part in ipairs(redis.call('HGETALL', KEYS[2])) do answer[#answer + 1] = part end
    return answer
  end
end
return {4}
"
));

/// Tells of messages that are not done.
///
/// ARGV: the group, from which id on (`-`, or one behind a `(`), and how many. Answers 0, now, how long consumers have one;
/// and for each its id, its consumer, for how long, which delivery, when it is due, until when it is leased, since when it
/// is dying (each -1 where it is not), and its facts.
pub(in crate::storage::valkey) static COPIED_PENDING: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    r"
local answer = {0, string.format('%.0f', now), string.format('%.0f', ack_wait)}
for _, held in ipairs(redis.call('XPENDING', stream, group, ARGV[2], '+', ARGV[3])) do
  local id = held[1]
  for _, part in ipairs({id, held[2], held[3], held[4], redis.call('ZSCORE', KEYS[3], id) or '-1',
    redis.call('ZSCORE', KEYS[4], id) or '-1', redis.call('ZSCORE', KEYS[6], id) or '-1',
    redis.call('HGET', KEYS[5], id) or ''}) do answer[#answer + 1] = part end
end
return answer
"
));

/// Tells of keys of which one message at a time may be there. ARGV: the group, and from where on. Answers 0, from where the
/// next are, and for each the key, the id of its message, and its time.
pub(in crate::storage::valkey) static COPIED_UNIQUE: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    r"
local found = redis.call('HSCAN', KEYS[11], ARGV[2], 'COUNT', 200)
local answer = {0, found[1]}
for at = 1, #found[2], 2 do
  if string.sub(found[2][at], 1, 1) == 'k' then
    local id, timestamp = string.match(found[2][at + 1], '^(%S+) (%S+)$')
    for _, part in ipairs({string.sub(found[2][at], 2), id, timestamp}) do answer[#answer + 1] = part end
  end
end
return answer
"
));

/// Takes over a group without its messages, in place of what there is of it.
///
/// KEYS behind those of all: the set of the topic's groups. ARGV: the group, the last id that it gave out, and its settings.
pub(in crate::storage::valkey) static IMPORT_GROUP: Script = Script::new(concat!(
    work!(),
    end_of!(),
    taken_over!(),
    r"
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11])
redis.call('XGROUP', 'DESTROY', stream, group)
redis.call('XGROUP', 'CREATE', stream, group, ARGV[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
redis.call('SADD', KEYS[12], group)
return {0}
"
));

/// Takes over messages that are not done: those that hold their order keys before those that stand behind. Those that the
/// group has stay as they are.
///
/// ARGV: the group, and for each its id, which delivery was the last, `waits`, `behind` or `dying`, since or until when
/// (ms), and its facts or nothing.
pub(in crate::storage::valkey) static IMPORT_PENDING: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    order_keys!(),
    end_of!(),
    taken_over!(),
    r"
for at = 2, #ARGV, 5 do
  local id, place, known = ARGV[at], ARGV[at + 2], ARGV[at + 4]
  if not pending(id) then
    local taken = redis.call('XCLAIM', stream, group, waiting, 0, id, 'RETRYCOUNT', ARGV[at + 1], 'FORCE', 'JUSTID')
    local entry = redis.call('XRANGE', stream, id, id)[1]
    if #taken == 0 or not entry then
      redis.call('XACK', stream, group, id)
      count('gone', 1)
    else
      if known ~= '' then redis.call('HSET', KEYS[5], id, known) end
      local key = place ~= 'dying' and key_of(entry[2])
      if place == 'dying' then redis.call('ZADD', KEYS[6], ARGV[at + 3], id)
      elseif not key or takes(id, key) then redis.call('ZADD', KEYS[3], ARGV[at + 3], id) end
    end
  end
end
return {0}
"
));

/// Takes over dead letters. ARGV: the group, and what is kept of each.
pub(in crate::storage::valkey) static IMPORT_DEAD: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    end_of!(),
    taken_over!(),
    r"
for at = 2, #ARGV do redis.call('ZADD', KEYS[7], 0, ARGV[at]) end
return {0}
"
));

/// Takes over keys of which one message at a time may be there. ARGV: the group, and for each the key, the id of its
/// message, and its time.
pub(in crate::storage::valkey) static IMPORT_UNIQUE: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    end_of!(),
    taken_over!(),
    r"
redis.call('HSET', KEYS[2], 'unique', '1')
for at = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[11], 'k' .. ARGV[at], ARGV[at + 1] .. ' ' .. ARGV[at + 2], 'i' .. ARGV[at + 1], ARGV[at])
end
return {0}
"
));
