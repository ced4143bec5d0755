//! The scripts of what waits for later in a topic.
//!
//! Beside its stream a topic has three keys: `due`, a sorted set of what waits by when it is due (ms); `bodies`, a hash
//! of what each publishes, and `last`, the time and the number of the last id; and `recurring`, a hash of the rules of
//! recurring messages by their names. In the first two a recurring message is its name with `~` in front, which no id
//! has. How a body is written is told by `waiting_body`.

use super::Script;

/// What scripts about what waits begin with: they answer a table whose first number is 0 where all is well, 1 where the
/// topic does not exist, 2 where its key holds something else, and below 0 the place of another key that does. KEYS:
/// stream, due, bodies, and where they are needed, recurring.
macro_rules! of_what_waits {
    () => {
        concat!(
            kind!(),
            is_foreign!(),
            r"
if kind ~= 'none' and kind ~= 'stream' then return {2} end
for at, expected in ipairs({'zset', 'hash', 'hash'}) do
  if KEYS[at + 1] and string.sub(KEYS[at + 1], 1, 9) == 'schedule:' and is_foreign(KEYS[at + 1], expected) then
    return {-1 - at}
  end
end
"
        )
    };
}

/// Defines `publish(body, oldest, own, keep, times, times_bytes)`, behind `now` and `trim`: appends what waited as an append does, as it stands in `entry`,
/// and answers the id, an error as a table, or nothing where there is nothing to publish.
macro_rules! publish {
    () => {
        r"
local function text_of(ms)
  local day = math.floor(ms / 86400000)
  local rest = ms - day * 86400000
  local era = math.floor((day + 719468) / 146097)
  local of_era = day + 719468 - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local of_month = of_year - math.floor((153 * month + 2) / 5) + 1
  if month < 10 then month = month + 3 else month = month - 9 end
  year = year + era * 400
  if month <= 2 then year = year + 1 end
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, of_month, math.floor(rest / 3600000),
    math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end
local function publish(body, oldest, own, keep, times, times_bytes)
  if refuses(KEYS[1], own, keep, '', times, times_bytes) then return {err = 'TOPICFULL the topic has no room'} end
  local ttl, payload, metadata, kind, order_key, first =
    string.match(body or '', '^(%S+) (%d+) (%S+) (%S+) (%S+)\n()')
  if not ttl then return end
  local entry = {'XADD', KEYS[1], 'NOMKSTREAM', '*'}
  local at = first
  local function field(name, length)
    if length == '-' then return end
    entry[#entry + 1] = name
    entry[#entry + 1] = string.sub(body, at, at + tonumber(length) - 1)
    at = at + tonumber(length)
  end
  field('payload', payload)
  entry[#entry + 1] = 'timestamp'
  entry[#entry + 1] = text_of(now)
  field('metadata', metadata)
  field('content_type', kind)
  if ttl ~= '-' then
    entry[#entry + 1] = 'expires_at'
    entry[#entry + 1] = string.format('%.0f', now + tonumber(ttl))
  end
  field('order_key', order_key)
  local id = redis.pcall(unpack(entry))
  if type(id) == 'string' and oldest ~= '' then
    redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%.0f', now - tonumber(oldest)))
  end
  return id
end
"
    };
}

/// Keeps a message for later.
///
/// KEYS: stream, due, bodies, and the remembered idempotency key, if there is one. ARGV: `after` or `at`, how many ms or
/// when (ms), the body, what stands behind the number in the id, how many may wait in the topic; then, under a key, the
/// fingerprint (hex) and the window in ms. Answers `{0, id, due, now}`; `{10, id, due}` where the key was used for the
/// same message; `{11}` where it belongs to another, `{12}` where what is remembered is another program's; `{13}` where
/// as many wait as may, `{14}` where the topic has ended.
///
/// An id has the time of the server, or of the id before, or of the first message that the topic can have, where that is
/// later, and a number: ids of a topic are in the order in which they were given, and none is from before the topic.
pub(in crate::storage::valkey) static SCHEDULE: Script = Script::new(concat!(
    of_what_waits!(),
    marker_of!(),
    first_answer!(),
    end_of!(),
    now!(),
    r"
if kind == 'none' then return {1} end
if KEYS[4] then
  local first = first_answer(KEYS[4], ARGV[6])
  if first and first['err'] then return first end
  if first then
    if first[1] == 3 then return {1} end
    return {first[1] == 1 and 10 or first[1] == 2 and 11 or 12, first[2], first[3]}
  end
end
if end_of(KEYS[1]) then return {14} end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return {13} end
local due = tonumber(ARGV[2])
if ARGV[1] == 'after' then due = now + due else due = math.max(now, due) end
local ms, number = string.match(redis.call('HGET', KEYS[3], 'last') or '', '^(%d+) (%d+)$')
ms, number = tonumber(ms or '0'), tonumber(number or '0')
local least = math.max(now, tonumber(string.match(marker_of(KEYS[1]) or '', ':(%d+)%-%d+$') or 0))
if ms < least then ms, number = least, 0 else number = number + 1 end
local id = string.format('%013.0f-%06.0f-%s', ms, number, ARGV[4])
local text = string.format('%.0f', due)
if KEYS[4] then redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7]) end
redis.call('HSET', KEYS[3], 'last', string.format('%.0f %.0f', ms, number), id, ARGV[3])
redis.call('ZADD', KEYS[2], text, id)
if KEYS[4] then redis.call('SET', KEYS[4], ARGV[6] .. ' ' .. id .. ' ' .. text, 'PX', ARGV[7]) end
return {0, id, text, now}
"
));

/// Publishes what is due, in the order in which it is due, and takes it out of what waits.
///
/// KEYS: stream, due, bodies, recurring, description. ARGV: how many at most, and after how many bytes it ends; how many
/// messages the topic keeps where it says nothing, how many times as many groups may hold, and of bytes; for how many ms,
/// or nothing; then, for recurring messages, the name with `~`, when it is expected to
/// be due, and when it is due next, or nothing. Answers `{0, now, when the next is due or -1, how many recurring ones are
/// asked about}`, then of each of these its name with `~`, its rule, and when it is due; then how late each message was
/// that was published (ms). Where the first append is refused, that is the answer, and nothing is changed.
///
/// A recurring message that is due and not told of as it is expected stays; it is asked about. In a topic that does not
/// exist nothing waits.
pub(in crate::storage::valkey) static PROMOTE: Script = Script::new(concat!(
    of_what_waits!(),
    now!(),
    sortable!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    latest!(),
    trim!(),
    publish!(),
    r"
if kind == 'none' then
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
  return {0, now, -1, 0}
end
local own, planned = own_of(KEYS[5]), {}
for at = 7, #ARGV, 3 do planned[ARGV[at]] = {ARGV[at + 1], ARGV[at + 2]} end
local asked, late, bytes = {}, {}, 0
local found = redis.call('ZRANGE', KEYS[2], '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
for at = 1, #found, 2 do
  local member, due = found[at], found[at + 1]
  local is_recurring = string.sub(member, 1, 1) == '~'
  local plan = planned[member]
  if is_recurring and not (plan and tonumber(plan[1]) == tonumber(due)) then
    asked[#asked + 1] = member
    asked[#asked + 1] = redis.call('HGET', KEYS[4], string.sub(member, 2)) or ''
    asked[#asked + 1] = due
  else
    local body = redis.call('HGET', KEYS[3], member)
    local id = publish(body, ARGV[6], own, ARGV[3], ARGV[4], ARGV[5])
    if type(id) == 'table' then
      if #late == 0 then return id end
      break
    end
    if is_recurring and plan[2] ~= '' then redis.call('ZADD', KEYS[2], plan[2], member)
    else
      redis.call('ZREM', KEYS[2], member)
      if not is_recurring then redis.call('HDEL', KEYS[3], member) end
    end
    if id then late[#late + 1] = now - tonumber(due) end
    bytes = bytes + #(body or '')
    if bytes > tonumber(ARGV[2]) then break end
  end
end
if #late > 0 then trim(KEYS[1], own, ARGV[3], '', ARGV[4], ARGV[5]) end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
local answer = {0, now, next and tonumber(next) or -1, #asked / 3}
for _, part in ipairs(asked) do answer[#answer + 1] = part end
for _, ms in ipairs(late) do answer[#answer + 1] = ms end
return answer
"
));

/// Publishes one message that waits, whenever it is due.
///
/// KEYS: stream, due, bodies, description. ARGV: its id; how many messages the topic keeps where it says nothing, how many
/// times as many groups may hold, and of bytes; and for how many ms, or nothing. Answers `{0, id}`, or `{0}` where it does not wait.
pub(in crate::storage::valkey) static PUBLISH_NOW: Script = Script::new(concat!(
    of_what_waits!(),
    now!(),
    sortable!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    latest!(),
    trim!(),
    publish!(),
    r"
if kind == 'none' then return {1} end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {0} end
local own = own_of(KEYS[4])
local id = publish(redis.call('HGET', KEYS[3], ARGV[1]), ARGV[5], own, ARGV[2], ARGV[3], ARGV[4])
if type(id) == 'table' then return id end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
if not id then return {0} end
trim(KEYS[1], own, ARGV[2], '', ARGV[3], ARGV[4])
return {0, id}
"
));

/// Takes a message out of those that wait. KEYS: stream, due, bodies. ARGV: its id. Answers `{0, how many that were}`.
pub(in crate::storage::valkey) static CANCEL: Script = Script::new(concat!(
    of_what_waits!(),
    r"
if kind == 'none' then return {1} end
redis.call('HDEL', KEYS[3], ARGV[1])
return {0, redis.call('ZREM', KEYS[2], ARGV[1])}
"
));

/// Tells of messages that wait, but for recurring ones.
///
/// KEYS: stream, due, bodies. ARGV: how many at most, after how many bytes it ends, and behind which to begin: when that
/// is due and its id, or nothing. Answers `{0, 1 where there are more}`, then of each its id, when it is due, and its
/// body.
pub(in crate::storage::valkey) static WAITING_PAGE: Script = Script::new(concat!(
    of_what_waits!(),
    r"
if kind == 'none' then return {1} end
local first = 0
if ARGV[4] ~= '' then
  first = redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. ARGV[3])
  local last = redis.call('ZCOUNT', KEYS[2], '-inf', ARGV[3])
  while first < last do
    local middle = math.floor((first + last) / 2)
    local member = redis.call('ZRANGE', KEYS[2], middle, middle)[1]
    if string.sub(member, 1, 1) == '~' or member > ARGV[4] then last = middle else first = middle + 1 end
  end
end
local limit, bytes, answer = tonumber(ARGV[1]), 0, {0, 0}
while true do
  local found = redis.call('ZRANGE', KEYS[2], first, first + limit, 'WITHSCORES')
  if #found == 0 then return answer end
  for at = 1, #found, 2 do
    if string.sub(found[at], 1, 1) ~= '~' then
      local body = redis.call('HGET', KEYS[3], found[at]) or ''
      bytes = bytes + #body
      if #answer >= 2 + 3 * limit or (#answer > 2 and bytes > tonumber(ARGV[2])) then
        answer[2] = 1
        return answer
      end
      answer[#answer + 1] = found[at]
      answer[#answer + 1] = found[at + 1]
      answer[#answer + 1] = body
    end
  end
  first = first + limit + 1
end
"
));

/// Keeps a recurring message in place of the one of its name.
///
/// KEYS: stream, due, bodies, recurring. ARGV: its name, its rule, its body, when it is due next or nothing, how many may
/// wait in the topic, and how many recurring messages it may have. Answers `{0, when it is due next or -1}`; `{13}` where
/// as many are kept as may, `{14}` where the topic has ended. One with the same rule that is to come comes when it would have.
pub(in crate::storage::valkey) static PUT_RECURRING: Script = Script::new(concat!(
    of_what_waits!(),
    end_of!(),
    r"
if kind == 'none' then return {1} end
if end_of(KEYS[1]) then return {14} end
local member = '~' .. ARGV[1]
local rule = redis.call('HGET', KEYS[4], ARGV[1])
local due = redis.call('ZSCORE', KEYS[2], member)
if not rule and redis.call('HLEN', KEYS[4]) >= tonumber(ARGV[6]) then return {13} end
if not due and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return {13} end
local next = ARGV[4]
if due and rule == ARGV[2] then next = due end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], member, ARGV[3])
if next == '' then redis.call('ZREM', KEYS[2], member) else redis.call('ZADD', KEYS[2], next, member) end
return {0, next == '' and -1 or tonumber(next)}
"
));

/// Tells of the recurring messages of a topic. KEYS: stream, due, bodies, recurring. Answers `{0}`, then of each its name,
/// its rule, its body, and when it is due next, or -1.
pub(in crate::storage::valkey) static RECURRING: Script = Script::new(concat!(
    of_what_waits!(),
    r"
if kind == 'none' then return {1} end
local answer = {0}
local found = redis.call('HGETALL', KEYS[4])
for at = 1, #found, 2 do
  local member = '~' .. found[at]
  answer[#answer + 1] = found[at]
  answer[#answer + 1] = found[at + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[3], member) or ''
  answer[#answer + 1] = redis.call('ZSCORE', KEYS[2], member) or '-1'
end
return answer
"
));

/// Removes a recurring message. KEYS: stream, due, bodies, recurring. ARGV: its name. Answers `{0, how many that were}`.
pub(in crate::storage::valkey) static REMOVE_RECURRING: Script = Script::new(concat!(
    of_what_waits!(),
    r"
if kind == 'none' then return {1} end
redis.call('ZREM', KEYS[2], '~' .. ARGV[1])
redis.call('HDEL', KEYS[3], '~' .. ARGV[1])
return {0, redis.call('HDEL', KEYS[4], ARGV[1])}
"
));

/// Tells in which topics something is due soon. KEYS: the index. ARGV: within how many ms, and how many at most. Answers
/// `{0, now}`, then of each its name and when it is due; `{-1}` where the index is another program's.
pub(in crate::storage::valkey) static DUE_TOPICS: Script = Script::new(concat!(
    is_foreign!(),
    now!(),
    r"
if is_foreign(KEYS[1], 'zset') then return {-1} end
local answer = {0, now}
local till = string.format('%.0f', now + tonumber(ARGV[1]))
for _, part in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', till, 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')) do
  answer[#answer + 1] = part
end
return answer
"
));

/// Tells when the next is due in a topic. KEYS: due. Answers that, or nothing.
pub(in crate::storage::valkey) static NEXT_DUE: Script = Script::new(concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'zset') then return false end
return redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or false
"
));

/// Counts what waits in a topic. KEYS: due. Answers how many that are.
pub(in crate::storage::valkey) static COUNT_IN: Script = Script::new(concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'zset') then return 0 end
return redis.call('ZCARD', KEYS[1])
"
));
