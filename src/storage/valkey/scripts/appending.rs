//! The scripts that append a message: under an idempotency key, behind a certain message, under a unique key, only where
//! there is room, by who holds a lock, or all of that.

use super::Script;

/// Appends a message under an idempotency key, or returns the first answer.
///
/// KEYS: stream, remembered key. ARGV: fingerprint (hex), window in ms, timestamp, then what follows
/// the key in `XADD`. Answers `{0, id, timestamp}` when appended, `{1, id, timestamp}` when the
/// message was there already, `{2}` when the key belongs to another message, `{3}` when the topic
/// does not exist, `{4}` when what is remembered is another program's. What was remembered for a topic that was deleted since counts for nothing: of a topic
/// that does not exist no key is known; ids from before the first that the stream can give, as its marker says,
/// are another topic's, and where nobody knows that, so are those that are not kept.
///
/// The key is written once before the message, so that a server that refuses it (for want of rights, or
/// of replicas) refuses before anything is appended; alone it says nothing.
///
/// `deny-oom` holds before the script starts and not inside it, so the second write cannot fail for
/// want of memory after the first.
pub(in super::super) const APPEND_ONCE: &str = concat!(
    marker_of!(),
    first_answer!(),
    r"
local first = first_answer(KEYS[2], ARGV[1])
if first then return first end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local id = redis.pcall('XADD', KEYS[1], unpack(ARGV, 4))
if not id or type(id) == 'table' then
  redis.call('DEL', KEYS[2])
  return id or {3}
end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. id .. ' ' .. ARGV[3], 'PX', ARGV[2])
return {0, id, ARGV[3]}
"
);

/// Tells what an idempotency key stands for, and appends nothing.
///
/// KEYS: stream, remembered key. ARGV: fingerprint. Answers 0 where the key is new, else the first number of what
/// [`APPEND_ONCE`] would answer.
pub(in super::super) static KEY_ANSWER: Script = Script::new(concat!(
    marker_of!(),
    first_answer!(),
    r"
local first = first_answer(KEYS[2], ARGV[1])
if first and first['err'] then return first end
return first and first[1] or 0
"
));

/// Appends a message if a certain one is the last that the topic was given, under an idempotency key where there is
/// one. A key that was used wins.
///
/// KEYS: stream, and the remembered key, if there is one. ARGV: as those of [`APPEND_ONCE`], with the expected id
/// in front of what follows the key in `XADD`; fingerprint and window are empty without a key. Answers as that one,
/// and `{5, id}` when this one is the last, `0-0` for none. A stream that gives no more ids is left to `XADD`,
/// which refuses.
pub(in super::super) const APPEND_IF: &str = concat!(
    marker_of!(),
    sortable!(),
    info_of!(),
    last_of!(),
    first_answer!(),
    r"
local first = KEYS[2] and first_answer(KEYS[2], ARGV[1])
if first then return first end
if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end
local last = last_of(KEYS[1])
if last ~= ARGV[4] and last ~= '18446744073709551615-18446744073709551615' then return {5, last} end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
local id = redis.pcall('XADD', KEYS[1], unpack(ARGV, 5))
if not id or type(id) == 'table' then
  if KEYS[2] then redis.call('DEL', KEYS[2]) end
  return id or {3}
end
if KEYS[2] then redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. id .. ' ' .. ARGV[3], 'PX', ARGV[2]) end
return {0, id, ARGV[3]}
"
);

/// Appends a message if its topic has room for it, and if a certain one is the last where one is expected, under an
/// idempotency key where there is one. A key that was used wins.
///
/// What every group has acknowledged makes room, where the topic keeps messages until then.
///
/// KEYS: stream, description, and the remembered key, if there is one. ARGV: fingerprint, window, timestamp and the
/// expected id as those of [`APPEND_IF`], the id empty where none is expected; how many messages and bytes the topic keeps
/// where it says nothing, how many times as many groups may hold of either; then what follows the key in `XADD`. Answers
/// as that one, and `{6}` where there is no room.
pub(in super::super) static APPEND_BOUNDED: Script = Script::new(concat!(
    marker_of!(),
    sortable!(),
    info_of!(),
    last_of!(),
    first_answer!(),
    end_of!(),
    latest!(),
    trim!(),
    r"
local first = KEYS[3] and first_answer(KEYS[3], ARGV[1])
if first then return first end
if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end
local last = last_of(KEYS[1])
local is_over = last == '18446744073709551615-18446744073709551615'
if ARGV[4] ~= '' and last ~= ARGV[4] and not is_over then return {5, last} end
local own = own_of(KEYS[2])
if not is_over and refuses(KEYS[1], own, ARGV[5], ARGV[6], ARGV[7], ARGV[8]) then return {6} end
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2]) end
local id = redis.pcall('XADD', KEYS[1], unpack(ARGV, 9))
if not id or type(id) == 'table' then
  if KEYS[3] then redis.call('DEL', KEYS[3]) end
  return id or {3}
end
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[1] .. ' ' .. id .. ' ' .. ARGV[3], 'PX', ARGV[2]) end
return {0, id, ARGV[3]}
"
));

/// Appends a message unless one of its unique key waits or is worked on in a group, which is then the answer; under an
/// idempotency key and behind a certain message where it says so. An idempotency key that was used wins, and the
/// unique key wins over the condition. What is answered under a unique key is remembered under the idempotency key, too.
///
/// KEYS: stream, the group's settings, what is dying in it, its unique keys (see `work`), the topic's description, and
/// the remembered key, if there is one. ARGV: as those of [`APPEND_IF`], where the expected id may be empty, then the group
/// and the unique key, and what the topic keeps as in [`APPEND_BOUNDED`], in front of what follows the key in `XADD`.
/// Answers as that one, `{6}` where there is no room, and `{7}` where there is no such group.
///
/// That there are such keys is noted before the message is appended, so that a server that refuses that refuses first.
/// Now and then some are forgotten whose messages are over: other programs do not tell.
pub(in super::super) const APPEND_UNIQUE: &str = concat!(
    marker_of!(),
    sortable!(),
    info_of!(),
    last_of!(),
    first_answer!(),
    lives!(),
    end_of!(),
    latest!(),
    trim!(),
    r"
local first = KEYS[6] and first_answer(KEYS[6], ARGV[1])
if first then return first end
if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end
local group, key = ARGV[5], ARGV[6]
local delivered = last_delivered(group)
if not delivered then return {7} end
local kept = redis.call('HGET', KEYS[4], 'k' .. key)
if kept then
  local id, timestamp = string.match(kept, '^(%S+) (%S+)$')
  if lives(id, group, delivered, KEYS[3]) then
    if KEYS[6] then redis.call('SET', KEYS[6], ARGV[1] .. ' ' .. kept, 'PX', ARGV[2]) end
    return {1, id, timestamp}
  end
  redis.call('HDEL', KEYS[4], 'k' .. key, 'i' .. id)
end
local last = last_of(KEYS[1])
local is_over = last == '18446744073709551615-18446744073709551615'
if ARGV[4] ~= '' and last ~= ARGV[4] and not is_over then return {5, last} end
local own = own_of(KEYS[5])
if not is_over and refuses(KEYS[1], own, ARGV[7], ARGV[8], ARGV[9], ARGV[10]) then return {6} end
redis.call('HSET', KEYS[2], 'unique', '1')
if KEYS[6] then redis.call('SET', KEYS[6], ARGV[1], 'PX', ARGV[2]) end
local id = redis.pcall('XADD', KEYS[1], unpack(ARGV, 11))
if not id or type(id) == 'table' then
  if KEYS[6] then redis.call('DEL', KEYS[6]) end
  return id or {3}
end
local answer = id .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[4], 'k' .. key, answer, 'i' .. id, key)
if KEYS[6] then redis.call('SET', KEYS[6], ARGV[1] .. ' ' .. answer, 'PX', ARGV[2]) end
if redis.call('HLEN', KEYS[4]) > 16 and redis.call('TIME')[2] % 16 == 0 then forget_over(KEYS[4], group, KEYS[3]) end
return {0, id, ARGV[3]}
"
);

/// Appends a message by who holds a lock, with all that [`APPEND_BOUNDED`] asks for. A key that was used wins; the fence
/// wins over all else.
///
/// KEYS: stream, description, who holds the lock that guards the topic, the greatest fences that were seen, and the
/// remembered key, if there is one. ARGV: as those of that one, with the name of the lock, the fence, and for how many ms it
/// is remembered, in front of what follows the key in `XADD`. Answers as that one, `{8, fence}` where another fence stands
/// against this one, which is empty where nobody holds the lock, and `{9}` and `{10}` where the third or the fourth key is
/// another program's.
pub(in super::super) static APPEND_FENCED: Script = Script::new(concat!(
    marker_of!(),
    sortable!(),
    is_foreign!(),
    info_of!(),
    last_of!(),
    first_answer!(),
    fence_check!(),
    end_of!(),
    latest!(),
    trim!(),
    r"
local first = KEYS[5] and first_answer(KEYS[5], ARGV[1])
if first then return first end
if is_foreign(KEYS[3], 'hash') then return {9} end
if is_foreign(KEYS[4], 'hash') then return {10} end
local against = fenced(KEYS[3], KEYS[4], ARGV[9], ARGV[10])
if against then return {8, against} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end
local last = last_of(KEYS[1])
local is_over = last == '18446744073709551615-18446744073709551615'
if ARGV[4] ~= '' and last ~= ARGV[4] and not is_over then return {5, last} end
local own = own_of(KEYS[2])
if not is_over and refuses(KEYS[1], own, ARGV[5], ARGV[6], ARGV[7], ARGV[8]) then return {6} end
if KEYS[5] then redis.call('SET', KEYS[5], ARGV[1], 'PX', ARGV[2]) end
local id = redis.pcall('XADD', KEYS[1], unpack(ARGV, 12))
if not id or type(id) == 'table' then
  if KEYS[5] then redis.call('DEL', KEYS[5]) end
  return id or {3}
end
note_fence(KEYS[4], ARGV[9], ARGV[10], ARGV[11])
if KEYS[5] then redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. id .. ' ' .. ARGV[3], 'PX', ARGV[2]) end
return {0, id, ARGV[3]}
"
));
