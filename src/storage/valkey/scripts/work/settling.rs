//! Settling deliveries, and taking back those that were not.

use crate::storage::valkey::scripts::Script;

/// Settles deliveries.
///
/// ARGV: the group, what the keys of results begin with, after how many losses of its consumer a message dies, then for
/// each what is said, the epoch, the id, which delivery, a time in ms (-1 for none), and a text. Answers 0 and for each: why it was refused (0 if it was not), 1 where it
/// was late, until when (-1 for none), and 1 where the message is dying.
pub(in crate::storage::valkey) static SETTLE: Script = Script::new(concat!(
    work!(),
    of_a_group!(),
    placing!(),
    sortable!(),
    r"
local max_deliveries, max_run, crashes_max = tonumber(set[3] or 5), tonumber(set[4]), tonumber(ARGV[3])
local function backoff(charges)
  local at, last = 0, 0
  for ms in string.gmatch(set[5] or '1000', '%d+') do
    at, last = at + 1, tonumber(ms)
    if at == charges then break end
  end
  return last
end
-- What is pending between the first and the last of them is asked for once, where that is little more than they are.
local found_pending, looked_up, is_whole = {}, {}, false
if #ARGV > 9 then
  local first, last, low, high
  for at = 6, #ARGV, 6 do
    local place = sortable(ARGV[at])
    if not low or place < low then first, low = ARGV[at], place end
    if not high or place > high then last, high = ARGV[at], place end
  end
  local most = math.floor(#ARGV / 2)
  local found = redis.call('XPENDING', stream, group, first, last, most)
  for _, held in ipairs(found) do found_pending[held[1]] = held end
  is_whole = #found < most
end
local function held_now(id)
  -- What was said of it before may have changed it.
  if looked_up[id] then return pending(id) end
  looked_up[id] = true
  if found_pending[id] or is_whole then return found_pending[id] end
  return pending(id)
end
local answer, done, failed, acked = {0}, 0, 0, {}
local settled, results = {}, {}
local function settle(verb, of, id, delivery, ms, text)
  if of ~= epoch then return 1 end
  if settled[id] then return 3 end
  local held = held_now(id)
  if not held then return 3 end
  if string.format('%.0f', held[4]) ~= delivery then return 2 end
  local known, waits = facts(id), held[2] == waiting
  if waits and known.s ~= 'lapsed' then return 3 end
  local consumer = waits and known.w or held[2]
  local since = known.t or (now - held[3])
  local lease = has(4) and redis.call('ZSCORE', KEYS[4], id)
  local till = not waits and tonumber(lease or (now - held[3] + ack_wait))
  local late = (waits or till <= now) and 1 or 0
  if verb == 'extend' and max_run and since + max_run <= now then return 4 end
  if verb == 'ack' then
    acked[#acked + 1], settled[id] = id, true
    forget(id)
    if text ~= '' then results[#results + 1] = {id, text} end
    return 0, late
  end
  if verb == 'lost' then
    if late == 1 then return 3 end
    known.s, known.w, known.t = 'lapsed', consumer, since
    if text ~= '' then
      known.c, known.x, failed = (known.c or 0) + 1, 1, failed + 1
      if known.c >= crashes_max or known.c + (known.f or 0) >= max_deliveries then
        die(id, 'crashed', known)
        return 0, 0, -1, 1
      end
    end
    wait(id, now, known)
    return 0, 0, now
  end
  if known.x then known.c, known.x = known.c - 1, nil end
  if verb == 'extend' then
    local till = now + (ms < 0 and ack_wait or ms)
    if max_run then till = math.min(till, since + max_run) end
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    redis.call('ZREM', KEYS[3], id)
    if till == now + ack_wait then redis.call('ZREM', KEYS[4], id)
    else
      redis.call('ZADD', KEYS[4], till, id)
      there[4] = true
    end
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
for at = 4, #ARGV, 6 do
  local code, late, till, dies =
    settle(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5])
  answer[#answer + 1], answer[#answer + 2] = code, late or 0
  answer[#answer + 1], answer[#answer + 2] = string.format('%.0f', till or -1), dies or 0
end
if #acked > 0 then
  redis.call('XACK', stream, group, unpack(acked))
  count('done', #acked)
  -- A server that is full refuses what a script begins with, and this is not it.
  for _, of in ipairs(results) do redis.call('SET', ARGV[2] .. of[1], of[2], 'PX', set[9] or '3600000') end
end
if failed > 0 then count('failed', failed) end
return answer
"
));

/// Takes messages back whose deadline has passed, and lets consumers go that have none and did nothing for
/// twice their time, and two seconds at least.
///
/// ARGV: the group, how many messages, and after how many losses of a consumer one dies. Answers 0, how many were taken
/// back, 1 where any can be claimed, when the next one that waits or is held for another time is due (-1 for none), 1
/// where some are dying, and 1 where there may be more to be taken back now.
pub(in crate::storage::valkey) static TEND: Script = Script::new(concat!(
    work!(),
    placing!(),
    sortable!(),
    lives!(),
    r"
local max, crashes_max, max_deliveries = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(set[3] or 5)
local claims, lapsed, looked_at, dropped, seen = {}, 0, 0, 0, {}
-- Before Valkey 7.2 time goes on within a script.
local function is_same(one, other) return math.abs(one - other) <= 5 end
local function lapse(id, consumer, idle, known)
  if seen[id] then return end
  seen[id] = true
  local since, claim = known.t or (now - idle), nil
  for _, other in ipairs(claims) do
    if other.consumer == consumer and is_same(other.since, since) then claim = other end
  end
  if not claim then
    claim = {consumer = consumer, since = since}
    claims[#claims + 1] = claim
  end
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
    if consumer['idle'] > math.max(2000, 2 * ack_wait) and dropped < 1000 then
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
for _, claim in ipairs(claims) do
  table.sort(claim, function(one, other) return sortable(one.id) < sortable(other.id) end)
  if has(5) and not claim.began then
    -- What it had begun may be held for longer.
    for _, held in ipairs(redis.call('XPENDING', stream, group, '-', '+', 100, claim.consumer)) do
      local known = facts(held[1])
      if known.b and is_same(known.t, claim.since) then claim.began = true end
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
if ordered then
  -- Holders of keys that another program has settled.
  local found = redis.call('HSCAN', KEYS[9], redis.call('HGET', KEYS[9], 'at') or '0', 'COUNT', 200)
  for at = 1, #found[2], 2 do
    if string.sub(found[2][at], 1, 1) == 'k' and not pending(found[2][at + 1]) then forget(found[2][at + 1]) end
  end
  if found[1] ~= '0' then redis.call('HSET', KEYS[9], 'at', found[1]) else redis.call('HDEL', KEYS[9], 'at') end
end
if set[11] then
  forget_over(KEYS[11], group, KEYS[6])
  if redis.call('EXISTS', KEYS[11]) == 0 then redis.call('HDEL', KEYS[2], 'unique') end
end
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
local lease = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2]
if lease and (not due or tonumber(lease) < tonumber(due)) then due = lease end
return {0, lapsed, redis.call('ZCOUNT', KEYS[3], '-inf', now) > 0 and 1 or 0, due or '-1',
  redis.call('ZCARD', KEYS[6]) > 0 and 1 or 0, is_more and 1 or 0}
"
));
