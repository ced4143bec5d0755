//! The scripts of groups. What they know of a message beside the stream's own list of what is pending:
//!
//! | key | holds |
//! |---|---|
//! | settings | a hash: the group's settings as the scripts need them, its document, its epoch, and its counts |
//! | due | a sorted set of messages that were given out and wait, by when they can be claimed |
//! | leases | a sorted set of messages whose consumer has another time than the group's, by when that is over |
//! | facts | a hash of what is known of messages that were not just given out: JSON, by id |
//! | dying | a sorted set of messages that are to become dead letters, by since when |
//! | dead | a sorted set of dead letters: the [`sortable`](super::super::keys::sortable) id, a blank, and JSON |
//! | minutes | a hash of what happened in each minute |
//!
//! **Invariant:** a message that is pending with the consumer `tidemill:waiting` is in `due` or in `dying`, and whatever
//! else is pending is with a consumer, until the time that the stream says or `leases` does.
//!
//! Facts: `f` failures, `c` losses of a consumer, `e` the last error, `s` why it waits (`failed`, `lapsed`, `released`,
//! `revived`, `dying`), `r` why it dies; of the consumer's time: `w` who, `t` since when, `b` whether it had begun, `x`
//! whether the loss of it was charged.

use super::Script;

/// The consumer that has what waits. The scripts spell it, too.
pub(in crate::storage::valkey) const WAITING: &str = "tidemill:waiting";

/// What all begin with. KEYS: stream, settings, due, leases, facts, dying, dead, minutes. ARGV: the group.
macro_rules! work {
    () => {
        r"
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind['ok'] end
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local stream, group, waiting = KEYS[1], ARGV[1], 'tidemill:waiting'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local set = redis.call('HMGET', KEYS[2], 'epoch', 'ack_wait', 'max_deliveries', 'max_run', 'backoff',
  'max_in_flight', 'per_consumer_max', 'paused', 'result_ttl')
local epoch, ack_wait = set[1] or '0000000000000000', tonumber(set[2] or 30000)
local function pending(id)
  return redis.call('XPENDING', stream, group, id, id, 1)[1]
end
local has_facts = redis.call('EXISTS', KEYS[5]) == 1
local function facts(id)
  local text = has_facts and redis.call('HGET', KEYS[5], id)
  return text and cjson.decode(text) or {}
end
local function remember(id, known)
  if next(known) then
    redis.call('HSET', KEYS[5], id, cjson.encode(known))
    has_facts = true
  elseif has_facts then redis.call('HDEL', KEYS[5], id) end
end
local function forget(id)
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  if has_facts then redis.call('HDEL', KEYS[5], id) end
end
local function count(what, number)
  redis.call('HINCRBY', KEYS[2], what, number)
  if what ~= 'done' and what ~= 'failed' then return end
  local minute = math.floor(now / 60000)
  local field = string.sub(what, 1, 1) .. string.format('%.0f', minute)
  if redis.call('HINCRBY', KEYS[8], field, number) == number and redis.call('HLEN', KEYS[8]) > 3000 then
    for _, field in ipairs(redis.call('HKEYS', KEYS[8])) do
      if tonumber(string.sub(field, 2)) <= minute - 1440 then redis.call('HDEL', KEYS[8], field) end
    end
  end
end
"
    };
}

/// Defines `wait(id, due, known)`, which has a pending message wait until then, and `die(id, reason, known)`.
macro_rules! placing {
    () => {
        r"
local function wait(id, due, known)
  redis.call('XCLAIM', stream, group, waiting, 0, id, 'JUSTID')
  redis.call('ZREM', KEYS[4], id)
  redis.call('ZADD', KEYS[3], due, id)
  remember(id, known)
end
local function die(id, reason, known)
  redis.call('XCLAIM', stream, group, waiting, 0, id, 'JUSTID')
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  redis.call('ZADD', KEYS[6], now, id)
  known.s, known.r = 'dying', reason
  remember(id, known)
end
"
    };
}

/// Claims messages for a consumer: first those that were given out before and can be again, then new ones.
///
/// KEYS behind those of all: that of the claim's id. ARGV: the group, the consumer, how many, how many bytes, and 1
/// where the claim has an id. Answers 0, the epoch, now, the time that the consumer has, 1 for a repeated claim, 1 where
/// the group is paused, when the next message that waits is due (-1 for none), then entries, and for each which delivery
/// it is; and for a repeated claim until when each is held.
pub(in crate::storage::valkey) static CLAIM: Script = Script::new(concat!(
    work!(),
    r"
local consumer, room, room_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, deliveries, deadlines, bytes = {}, {}, {}, 0
local function is_over(fields)
  local ends = false
  for at = 1, #fields, 2 do
    if fields[at] == 'expires_at' and fields[1] == 'payload' then
      ends = tonumber(fields[at + 1]) and tonumber(fields[at + 1]) <= now
    end
  end
  return ends
end
local function add(entry, delivery)
  entries[#entries + 1], deliveries[#deliveries + 1] = entry, delivery
  for at = 2, #entry[2], 2 do bytes = bytes + #entry[2][at] end
end
local function answer(replayed, paused)
  local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  return {0, epoch, string.format('%.0f', now), string.format('%.0f', ack_wait), replayed, paused, due or '-1',
    entries, deliveries, deadlines}
end
local kept = ARGV[5] == '1' and redis.call('GET', KEYS[9])
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
local gone, again = 0, 0
if room > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], '-inf', now, 'BYSCORE', 'LIMIT', 0, room)) do
    if bytes >= room_bytes then break end
    local held = pending(id)
    if not held then
      -- Another program has settled it, or it was found to be gone.
      forget(id)
    elseif held[2] ~= waiting then redis.call('ZREM', KEYS[3], id)
    else
      local found = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
      redis.call('ZREM', KEYS[3], id)
      if found and not is_over(found[2]) then
        add(found, held[4] + 1)
        again = again + 1
        local known = facts(id)
        remember(id, {f = known.f, c = known.c, e = known.e})
      else
        redis.call('XACK', stream, group, id)
        forget(id)
        gone = gone + 1
      end
    end
  end
end
local step = 8
while #entries < room and bytes < room_bytes do
  step = math.min(step, room - #entries)
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', step, 'STREAMS', stream, '>')
  local found = read and read[1] and read[1][2] or {}
  local over = {}
  for _, entry in ipairs(found) do
    if is_over(entry[2]) then over[#over + 1] = entry[1] else add(entry, 1) end
  end
  if #over > 0 then
    redis.call('XACK', stream, group, unpack(over))
    gone = gone + #over
  end
  if #found < step then break end
  step = 32
end
if gone > 0 then count('gone', gone) end
if again > 0 then count('redelivered', again) end
if ARGV[5] == '1' and #entries > 0 then
  local text = {epoch}
  for at, entry in ipairs(entries) do text[#text + 1] = entry[1] .. ' ' .. string.format('%.0f', deliveries[at]) end
  redis.call('SET', KEYS[9], table.concat(text, ' '), 'PX', string.format('%.0f', ack_wait))
end
return answer(0, 0)
"
));

/// Settles deliveries.
///
/// ARGV: the group, what the keys of results begin with, then for each what is said, the epoch, the id, which delivery, a
/// time in ms (-1 for none), and a text. Answers 0 and for each: why it was refused (0 if it was not), 1 where it
/// was late, until when (-1 for none), and 1 where the message is dying.
pub(in crate::storage::valkey) static SETTLE: Script = Script::new(concat!(
    work!(),
    placing!(),
    r"
local max_deliveries, max_run = tonumber(set[3] or 5), tonumber(set[4])
local function backoff(charges)
  local at, last = 0, 0
  for ms in string.gmatch(set[5] or '1000', '%d+') do
    at, last = at + 1, tonumber(ms)
    if at == charges then break end
  end
  return last
end
local answer, done, failed, acked = {0}, 0, 0, {}
local settled = {}
local function settle(verb, of, id, delivery, ms, text)
  if of ~= epoch then return 1 end
  if settled[id] then return 3 end
  local held = pending(id)
  if not held then return 3 end
  if string.format('%.0f', held[4]) ~= delivery then return 2 end
  local known, waits = facts(id), held[2] == waiting
  if waits and known.s ~= 'lapsed' then return 3 end
  local consumer = waits and known.w or held[2]
  local since = known.t or (now - held[3])
  local till = not waits and tonumber(redis.call('ZSCORE', KEYS[4], id) or (now - held[3] + ack_wait))
  local late = (waits or till <= now) and 1 or 0
  if verb == 'extend' and max_run and since + max_run <= now then return 4 end
  if verb == 'ack' then
    acked[#acked + 1], settled[id] = id, true
    forget(id)
    if text ~= '' then redis.call('SET', ARGV[2] .. id, text, 'PX', set[9] or '3600000') end
    return 0, late
  end
  if known.x then known.c, known.x = known.c - 1, nil end
  if verb == 'extend' then
    local till = now + (ms < 0 and ack_wait or ms)
    if max_run then till = math.min(till, since + max_run) end
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    redis.call('ZREM', KEYS[3], id)
    if till == now + ack_wait then redis.call('ZREM', KEYS[4], id) else redis.call('ZADD', KEYS[4], till, id) end
    known.s, known.w, known.t, known.b = nil, nil, since, 1
    remember(id, known)
    return 0, late, till
  end
  known.w, known.t, known.b = nil, nil, nil
  if verb == 'release' then
    known.s = 'released'
    wait(id, now, known)
    return 0, late, now
  end
  failed = failed + 1
  if verb == 'reject' then
    die(id, text, known)
    return 0, late, -1, 1
  end
  known.f = (known.f or 0) + 1
  if text ~= '' then known.e = text end
  local charges = known.f + (known.c or 0)
  if charges >= max_deliveries then
    die(id, 'failed', known)
    return 0, late, -1, 1
  end
  local due = now + (ms < 0 and backoff(charges) or ms)
  known.s = 'failed'
  wait(id, due, known)
  return 0, late, due
end
for at = 3, #ARGV, 6 do
  local code, late, till, dies =
    settle(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5])
  answer[#answer + 1], answer[#answer + 2] = code, late or 0
  answer[#answer + 1], answer[#answer + 2] = string.format('%.0f', till or -1), dies or 0
end
if #acked > 0 then
  redis.call('XACK', stream, group, unpack(acked))
  count('done', #acked)
end
if failed > 0 then count('failed', failed) end
return answer
"
));

/// Takes messages back whose deadline has passed, and lets consumers go that have none and did nothing for a minute.
///
/// ARGV: the group, how many messages, and after how many losses of a consumer one dies. Answers 0, how many were taken
/// back, 1 where any can be claimed, when the next one that waits or is held for another time is due (-1 for none), 1
/// where some are dying, and 1 where there may be more to be taken back now.
pub(in crate::storage::valkey) static TEND: Script = Script::new(concat!(
    work!(),
    placing!(),
    r"
local max, crashes_max, max_deliveries = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(set[3] or 5)
local claims, order, lapsed, looked_at, dropped = {}, {}, 0, 0, 0
local function lapse(id, consumer, idle, known)
  local since = known.t or (now - idle)
  local of = consumer .. ' ' .. string.format('%.0f', since)
  if not claims[of] then
    claims[of] = {consumer = consumer, since = since}
    order[#order + 1] = of
  end
  local claim = claims[of]
  claim[#claim + 1] = {id = id, known = known}
  if known.b then claim.began = true end
  lapsed = lapsed + 1
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[4], '-inf', now, 'BYSCORE', 'LIMIT', 0, max)) do
  local held = pending(id)
  if held and held[2] ~= waiting then lapse(id, held[2], held[3], facts(id)) end
  redis.call('ZREM', KEYS[4], id)
end
local is_more = lapsed == max
for _, of in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local consumer = {}
  for at = 1, #of, 2 do consumer[of[at]] = of[at + 1] end
  local name = consumer['name']
  if name == waiting then
  elseif consumer['pending'] == 0 then
    if consumer['idle'] > 60000 and dropped < 1000 then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
      dropped = dropped + 1
    end
  elseif not is_more then
    local from = '-'
    repeat
      local found = redis.call('XPENDING', stream, group, 'IDLE', ack_wait, from, '+', 100, name)
      for _, held in ipairs(found) do
        looked_at = looked_at + 1
        from = '(' .. held[1]
        if not redis.call('ZSCORE', KEYS[4], held[1]) and lapsed < max then
          lapse(held[1], name, held[3], facts(held[1]))
        end
      end
      is_more = lapsed >= max or looked_at >= 10 * max
    until #found < 100 or is_more
  end
end
local failed = 0
for _, of in ipairs(order) do
  local claim = claims[of]
  table.sort(claim, function(one, other)
    local ms, seq = string.match(one.id, '^(%d+)-(%d+)$')
    local other_ms, other_seq = string.match(other.id, '^(%d+)-(%d+)$')
    if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
    return tonumber(seq) < tonumber(other_seq)
  end)
  if has_facts and not claim.began then
    -- What it had begun may be held for longer.
    for _, held in ipairs(redis.call('XPENDING', stream, group, '-', '+', 100, claim.consumer)) do
      local known = facts(held[1])
      if known.b and known.t == claim.since then claim.began = true end
    end
  end
  for at, held in ipairs(claim) do
    local id, known, dies = held.id, held.known, false
    local charged = (claim.began and known.b) or (not claim.began and at == 1)
    known.s, known.w, known.t = 'lapsed', claim.consumer, claim.since
    if charged then
      known.c, known.x = (known.c or 0) + 1, 1
      dies = known.c >= crashes_max or known.c + (known.f or 0) >= max_deliveries
      failed = failed + 1
    end
    if dies then die(id, 'crashed', known) else wait(id, now, known) end
  end
end
if failed > 0 then count('failed', failed) end
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
local lease = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2]
if lease and (not due or tonumber(lease) < tonumber(due)) then due = lease end
return {0, lapsed, redis.call('ZCOUNT', KEYS[3], '-inf', now) > 0 and 1 or 0, due or '-1',
  redis.call('ZCARD', KEYS[6]) > 0 and 1 or 0, is_more and 1 or 0}
"
));

/// Tells which messages are dying.
///
/// ARGV: the group, and how many. Answers 0, the epoch, and for each its id, which delivery was the last, its facts, and
/// its entries, none where it is gone.
pub(in crate::storage::valkey) static DYING: Script = Script::new(concat!(
    work!(),
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
    r"
local id = ARGV[3]
local held = epoch == ARGV[2] and redis.call('ZSCORE', KEYS[6], id) and pending(id)
if not held then return {0, 0} end
local known = facts(id)
redis.call('XACK', stream, group, id)
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
    r"
local answer = {0}
for _, dead in ipairs(redis.call('ZRANGE', KEYS[7], ARGV[2], '+', 'BYLEX', 'LIMIT', 0, ARGV[3])) do
  answer[#answer + 1] = dead
end
return answer
"
));

/// Tells which groups a topic has. KEYS: the stream.
pub(in crate::storage::valkey) static GROUP_NAMES: Script = Script::new(
    r"
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind['ok'] end
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local answer = {0}
for _, of in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do answer[#answer + 1] = of[2] end
return answer
",
);

/// Has dead letters wait again, or forgets them.
///
/// ARGV: the group, 1 where they are to wait, then ids with their sortable forms. Answers 0, and for each 0 where it
/// waits, 1 where it is gone, 2 where it is none.
pub(in crate::storage::valkey) static REVIVE: Script = Script::new(concat!(
    work!(),
    placing!(),
    r"
local answer = {0}
for at = 3, #ARGV, 2 do
  local id, sorted = ARGV[at], ARGV[at + 1]
  local found = redis.call('ZRANGE', KEYS[7], '[' .. sorted, '[' .. sorted .. '~', 'BYLEX')[1]
  local code = 2
  if found then
    redis.call('ZREM', KEYS[7], found)
    code = 1
    if ARGV[2] == '1' and redis.call('XRANGE', stream, id, id)[1] then
      local known = cjson.decode(string.sub(found, #sorted + 2))
      redis.call('XCLAIM', stream, group, waiting, 0, id, 'RETRYCOUNT', string.format('%.0f', known.n), 'FORCE', 'JUSTID')
      wait(id, now, {s = 'revived'})
      code = 0
    end
  end
  answer[#answer + 1] = code
end
return answer
"
));

/// Tells what is known of a message.
///
/// KEYS behind those of all: that of its result. ARGV: the group, the id, its sortable form. Answers 0, now, the time
/// that consumers have, what is pending of it (its consumer, for how long, which delivery), its facts, when it is due,
/// until when it is leased, what is known of its dead letter, its entries, its result, and what the settings say of where
/// the group began.
pub(in crate::storage::valkey) static FATE: Script = Script::new(concat!(
    work!(),
    r"
local id = ARGV[2]
local held = pending(id)
local dead = redis.call('ZRANGE', KEYS[7], '[' .. ARGV[3], '[' .. ARGV[3] .. '~', 'BYLEX')[1]
local last = '0-0'
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if of[2] == group then
    for at = 1, #of, 2 do if of[at] == 'last-delivered-id' then last = of[at + 1] end end
  end
end
return {0, string.format('%.0f', now), string.format('%.0f', ack_wait), held and {held[2], held[3], held[4]} or {},
  has_facts and redis.call('HGET', KEYS[5], id) or '', redis.call('ZSCORE', KEYS[3], id) or '-1',
  redis.call('ZSCORE', KEYS[4], id) or '-1', dead and string.sub(dead, #ARGV[3] + 2) or '',
  redis.call('XRANGE', stream, id, id), redis.call('GET', KEYS[9]) or '', last,
  redis.call('HGET', KEYS[2], 'start') or '0-0'}
"
));

/// Makes a group, changes its settings, or sets it to another place.
///
/// KEYS behind those of all: the set of the topic's groups. ARGV: the group, what is to be done (`put`, `change`, `seek`),
/// a new epoch, where it begins (an id, or `$`), how many groups there may be, the document that is known (nothing where it
/// does not matter), then pairs of settings; those with nothing as value are taken away. Answers 0 when done, 3 when made,
/// 4 when there is no such group, 5 when there are too many, 6 when the document is another.
pub(in crate::storage::valkey) static PUT_GROUP: Script = Script::new(concat!(
    work!(),
    r"
local what, beginning = ARGV[2], ARGV[4]
local is_there, groups = false, 0
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if string.sub(of[2], 1, 15) ~= 'tidemill-epoch:' then groups = groups + 1 end
  if of[2] == group then is_there = true end
end
if not is_there and what ~= 'put' then return {4} end
if not is_there and groups >= tonumber(ARGV[5]) then return {5} end
local document = redis.call('HGET', KEYS[2], 'document')
if is_there and ARGV[6] ~= '' and document and document ~= ARGV[6] then return {6} end
if not is_there then redis.call('DEL', KEYS[2], KEYS[8]) end
if not is_there or what == 'seek' then
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
  if is_there then redis.call('XGROUP', 'DESTROY', stream, group) end
  redis.call('XGROUP', 'CREATE', stream, group, beginning)
  if beginning == '$' then
    local info = redis.call('XINFO', 'STREAM', stream)
    for at = 1, #info, 2 do if info[at] == 'last-generated-id' then beginning = info[at + 1] end end
  end
  redis.call('HSET', KEYS[2], 'epoch', ARGV[3], 'start', beginning)
end
if not is_there then redis.call('HSET', KEYS[2], 'created_at', string.format('%.0f', now)) end
for at = 7, #ARGV, 2 do
  if ARGV[at + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[at])
  else redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
end
redis.call('SADD', KEYS[9], group)
return {is_there and 0 or 3}
"
));

/// Deletes a group.
///
/// KEYS behind those of all: the set of the topic's groups. ARGV: the group. Answers 0, or 4 when there is none.
pub(in crate::storage::valkey) static DELETE_GROUP: Script = Script::new(concat!(
    work!(),
    r"
local destroyed = redis.call('XGROUP', 'DESTROY', stream, group)
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
redis.call('SREM', KEYS[9], group)
return {destroyed == 0 and 4 or 0}
"
));

/// Tells what a group has.
///
/// ARGV: the group, and 1 where its minutes are wanted. Answers 0, now, its settings, its minutes, and the last id that
/// it gave out; how far it lags (-1 where that is not known), how many are pending, how many of these wait, how many of
/// those can be claimed, how many are dying, and dead; how many consumers there are; the id behind the last one (or
/// nothing), and the ids of some that can be claimed again.
pub(in crate::storage::valkey) static DESCRIBE_GROUP: Script = Script::new(concat!(
    work!(),
    r"
local of_group
for _, of in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if of[2] == group then
    of_group = {}
    for at = 1, #of, 2 do of_group[of[at]] = of[at + 1] end
  end
end
if not of_group then return {4} end
local all = redis.call('XPENDING', stream, group)
local waits, holding = 0, 0
for _, of in ipairs(type(all[4]) == 'table' and all[4] or {}) do
  if of[1] == waiting then waits = tonumber(of[2]) else holding = holding + 1 end
end
local last = of_group['last-delivered-id']
local behind = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
return {0, string.format('%.0f', now), redis.call('HGETALL', KEYS[2]),
  ARGV[2] == '1' and redis.call('HGETALL', KEYS[8]) or {}, last, of_group['lag'] or -1, all[1], waits,
  redis.call('ZCOUNT', KEYS[3], '-inf', now), redis.call('ZCARD', KEYS[6]), redis.call('ZCARD', KEYS[7]), holding,
  behind and behind[1] or '', redis.call('ZRANGE', KEYS[3], '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)}
"
));
