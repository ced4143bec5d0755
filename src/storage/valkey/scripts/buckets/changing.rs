//! The script that changes keys.

use super::Script;

/// Makes changes of keys, for several who ask at once: those of each, all of them or none.
///
/// The first round only looks, and finds what each change would do, or that one is refused; the second does it. Two
/// decimal numbers of 64 bits are more than a number of a script can hold: the server adds them, and texts are compared.
///
/// KEYS: those of a bucket; the remembered idempotency key, if there is one; and with a fence who holds the lock that guards
/// the bucket, and the greatest fences that were seen. ARGV: those of a bucket; fingerprint and window (ms), the first empty
/// without a key; the name of the lock, the fence, and for how many ms it is remembered, the first two empty without a
/// fence: whoever has a key or a fence is alone. Then of each who asks the time of the changes, how many there are, and of
/// each change the key, its condition (`*` none, `-` absent, `+` there, `=` and
/// a token where it is being filled under that, with a space and the half-life of reads (ms) behind it, or a revision), and `put` with value, content type (as in a record), time to
/// live (ms, or nothing), owner (as in a record), digest, and for how long it is fresh (ms, or nothing), `del` with six
/// empty ones, or `inc` with by how much, the bounds (each may be empty), time to live, and two empty ones.
///
/// Answers for each who asks `{0, the earliest time of the bucket if it is a new one, or nothing, …}` with `revision new
/// number due` of each
/// change, where `-` stands for none; `{2, at, revision}` where the condition of the change at this place does not hold,
/// `{3, at}` where its value is no number, `{4, at, number}` where that would leave its bounds, `{5, at}` and `{6, at}`
/// where there would be too many keys or bytes; `{8}` where that may be so because of keys whose time is over: they have to
/// go first; or an error. In place of all of these, `{9, fence}` where another fence stands against the one that is shown,
/// which is empty where nobody holds the
/// lock; `{10, …}` as 0 where the idempotency key was used for the same, `{11}` where for something else, `{12}` where
/// what is remembered is another program's, `{13}` and `{14}` where the last key but one or the last is.
///
/// The fence is looked at first, so that a bucket is not made by who may not write to it; a key that was used wins all the
/// same.
pub(in crate::storage::valkey) static CHANGE_KEYS: Script = Script::new(concat!(
    sortable!(),
    is_foreign!(),
    fence_check!(),
    r"
local fingerprint, lock, fence, against = ARGV[5], ARGV[7], ARGV[8], nil
local remembered = fingerprint ~= '' and KEYS[10]
local held, seen = KEYS[#KEYS - 1], KEYS[#KEYS]
if lock ~= '' then
  if is_foreign(held, 'hash') then return {13} end
  if is_foreign(seen, 'hash') then return {14} end
  against = fenced(held, seen, lock, fence)
  if against and redis.call('EXISTS', KEYS[2]) == 0 then return {9, against} end
end
",
    changes_a_bucket!(),
    r"
if remembered then
  local kept = redis.pcall('GET', remembered)
  if foreign(kept) then return {12} end
  -- Of a bucket that was deleted since no key is known.
  local of, epoch, rest = string.match(kept or '', '^(%S+) (%S+)\n(.*)$')
  if of and epoch == facts[1] then
    if of ~= fingerprint then return {11} end
    local answer = {10, ''}
    for line in string.gmatch(rest, '[^\n]+') do answer[#answer + 1] = line end
    return answer
  end
end
if against then return {9, against} end
local function is_less(one, other)
  local negative = string.sub(one, 1, 1) == '-'
  if negative ~= (string.sub(other, 1, 1) == '-') then return negative end
  if negative then one, other = string.sub(other, 2), string.sub(one, 2) end
  if #one ~= #other then return #one < #other end
  return one < other
end
local function sum_of(number, by)
  if not string.match(number, '^%-?%d+$') or #number > 20 then return nil, 3 end
  redis.call('HSET', KEYS[2], 'sum', number)
  local sum = redis.pcall('HINCRBY', KEYS[2], 'sum', by)
  local text = redis.call('HGET', KEYS[2], 'sum')
  redis.call('HDEL', KEYS[2], 'sum')
  if type(sum) == 'table' then return nil, string.find(sum['err'], 'overflow', 1, true) and 4 or 3 end
  return text
end
local history, common, age = tonumber(facts[2]), tonumber(facts[3] or ''), tonumber(facts[4] or '')
local max_keys, max_bytes = tonumber(facts[5] or '') or math.huge, tonumber(facts[6] or '') or math.huge
local now_text = string.format('%.0f', now)
-- What all before have left.
local count, bytes, has_due = redis.call('ZCARD', KEYS[4]), tonumber(facts[7] or '0'), redis.call('ZCARD', KEYS[5]) > 0
local all_logged, has_changed = 0, false
local function too_many(code, at)
  if has_due and redis.call('ZCOUNT', KEYS[5], '-inf', now_text) > 0 then return {8} end
  return {code, at}
end
-- Notes which earlier revisions stay with a key and which go, and returns the bytes of those that stay.
local function keep_past(step, head)
  if history == 1 and head.past == '-' then return 0 end
  local left, past, gone, kept = history - 1, {}, {}, 0
  for part in string.gmatch(head.revision .. ':' .. head.size .. ',' .. head.past, '[^,]+:%d+') do
    if #past < left then
      past[#past + 1] = part
      kept = kept + tonumber(string.match(part, ':(%d+)$'))
    else gone[#gone + 1] = string.match(part, '^[^:]+') end
  end
  step.gone = gone
  if #past > 0 then step.past = table.concat(past, ',') end
  return kept
end
-- How many changes are left to tell, and whether none was told yet: the first one alone may be refused.
local left, is_first = 0, true
local function append(step, change, payload, kind, timestamp)
  left = left - 1
  local id = log(step.key, change, left > 0, payload, kind, timestamp)
  if is_first and (not id or type(id) == 'table') then return nil, id or {1} end
  all_logged, is_first = all_logged + #payload, false
  return id
end
local function change(first, last, timestamp)
  local count_then, bytes_then = count, bytes
  local steps, events, grows = {}, 0, false
  for first = first, last, 9 do
    local at, key, condition, op = #steps, ARGV[first], ARGV[first + 1], ARGV[first + 2]
    local record, due = redis.call('HGET', KEYS[3], key), has_due and redis.call('ZSCORE', KEYS[5], key)
    local head = record and head_of(record)
    local step = {key = key, op = op, head = false, record = false, over = false, value = false, kind = '-',
      owner = '-', created = now_text, due = false, past = '-', gone = false, digest = '-', fresh = '-'}
    if head and due and tonumber(due) <= now then
      step.over, head, record, due = head, nil, nil, nil
      count_then, bytes_then, events = count_then - 1, bytes_then - weight_of(step.over), events + 1
    end
    local holds, half_life
    if condition == '*' then holds = true
    elseif string.sub(condition, 1, 1) == '=' then
      local token, over = string.match(redis.call('HGET', KEYS[8], key) or '', '^(%S+) (%d+)$')
      local shown, half = string.match(condition, '^=(%S+) (%d+)$')
      holds = token == shown and tonumber(over) > now
      half_life = tonumber(half)
    elseif condition == '-' then holds = not head
    elseif condition == '+' then holds = head
    else holds = head and head.revision == condition end
    if not holds then
      return {2, at, head and head.revision or ''}
    end
    step.head, step.record = head, record
    if op == 'del' then
      if head then
        count_then, bytes_then, events = count_then - 1, bytes_then - weight_of(head), events + 1
      end
    else
      grows, events = true, events + 1
      local ttl
      if op == 'put' then
        step.value, step.kind, step.owner = ARGV[first + 3], ARGV[first + 4], ARGV[first + 6]
        ttl = tonumber(ARGV[first + 5])
        if ARGV[first + 8] ~= '' then step.fresh = string.format('%.0f', now + ARGV[first + 8]) end
        local min, max = tonumber(facts[8] or ''), tonumber(facts[9] or '')
        if not ttl and half_life and min and max then
          local heat = tonumber(redis.call('ZSCORE', KEYS[9], key) or '')
          ttl = math.floor(math.min(max, min * (1 + (heat and 2 ^ (heat - now / half_life) or 0))))
          step.fresh = '~' .. step.fresh
        end
        ttl = ttl or common
        if history > 1 then
          step.digest = ARGV[first + 7]
          local parent = head and head.digest ~= '-' and string.match(head.digest, '^[^.]+')
          if parent then step.digest = step.digest .. '.' .. parent end
        end
      else
        local number = head and string.sub(record, #record - head.size + 1) or '0'
        local sum, wrong = sum_of(number, ARGV[first + 3])
        if wrong == 3 then return {3, at} end
        local least, most = ARGV[first + 4], ARGV[first + 5]
        if wrong or least ~= '' and is_less(sum, least) or most ~= '' and is_less(most, sum) then return {4, at, number} end
        step.value, step.number = sum, sum
        if head then step.kind, step.owner, step.fresh = head.kind, head.owner, head.fresh end
        ttl = tonumber(ARGV[first + 6]) or common
      end
      if head then step.created = head.created end
      if op == 'inc' and head then step.due = due and tonumber(due) else
        step.due = ttl and now + ttl
        if age then step.due = math.min(step.due or math.huge, tonumber(step.created) + age) end
      end
      local kept, before = #step.value, 0
      if head then
        kept, before = kept + keep_past(step, head), weight_of(head)
      else
        count_then = count_then + 1
        if count_then > max_keys then return too_many(5, at) end
      end
      bytes_then = bytes_then + kept - before
      if bytes_then > max_bytes and kept > before then return too_many(6, at) end
    end
    steps[at + 1] = step
  end
  -- What makes room must be possible where there is none: the server refuses a step that begins by adding.
  if not grows then redis.call('HDEL', KEYS[2], 'sum') end
  local first_due = has_due and redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2]
  local answer = {0, ''}
  left, is_first = events, true
  for at, step in ipairs(steps) do
    local id, wrong
    if step.over then
      id, wrong = append(step, 'expired', 'null', '-')
      if wrong then return wrong end
      take_out(step.key, step.over)
    end
    id = nil
    local head = step.head
    if step.op == 'del' then
      if head then
        id, wrong = append(step, 'deleted', 'null', '-', timestamp)
        if wrong then return wrong end
        take_out(step.key, head)
      end
    else
      id, wrong = append(step, 'put', step.value, step.kind, timestamp)
      if wrong then return wrong end
      if head then
        if step.gone then
          for _, revision in ipairs(step.gone) do
            if revision ~= head.revision then redis.call('HDEL', KEYS[6], step.key .. '/' .. revision) end
          end
        end
        if history > 1 then redis.call('HSET', KEYS[6], step.key .. '/' .. head.revision, step.record) end
        if head.owner ~= '-' and head.owner ~= step.owner then
          redis.call('ZREM', KEYS[7], string.sub(head.owner, 2) .. '/' .. step.key)
        end
      else redis.call('ZADD', KEYS[4], 0, step.key) end
      redis.call('HSET', KEYS[3], step.key, id .. ' ' .. step.created .. ' ' .. step.owner .. ' ' .. step.past .. ' '
        .. step.digest .. ' ' .. step.fresh .. ' ' .. step.kind .. '\n' .. step.value)
      if step.owner ~= '-' then redis.call('ZADD', KEYS[7], 0, string.sub(step.owner, 2) .. '/' .. step.key) end
      if step.due then
        redis.call('ZADD', KEYS[5], string.format('%.0f', step.due), step.key)
        has_due = true
      elseif has_due then redis.call('ZREM', KEYS[5], step.key) end
    end
    if fills > 0 then redis.call('HDEL', KEYS[8], step.key) end
    answer[at + 2] = (id or '-') .. (head and ' 0 ' or id and ' 1 ' or ' 0 ') .. (step.number or '-') .. ' '
      .. (step.due and string.format('%.0f', step.due) or '-')
  end
  count, bytes = count_then, bytes_then
  has_changed = has_changed or events > 0
  local earliest = has_due and redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2]
  if earliest and (not first_due or tonumber(earliest) < tonumber(first_due)) then answer[2] = earliest end
  return answer
end
local answers, first = {}, 10
while first <= #ARGV do
  local last = first + 1 + 9 * ARGV[first + 1]
  local is_done, answer = pcall(change, first + 2, last, ARGV[first])
  -- What goes wrong for one is not the answer to those before it.
  if not is_done and type(answer) ~= 'table' then answer = {err = tostring(answer)} end
  answers[#answers + 1], first = answer, last + 1
end
if has_changed then finish(bytes, all_logged) end
if answers[1][1] == 0 then
  if lock ~= '' then note_fence(seen, lock, fence, ARGV[9]) end
  if remembered then
    local kept = fingerprint .. ' ' .. facts[1] .. '\n' .. table.concat(answers[1], '\n', 3)
    redis.call('SET', remembered, kept, 'PX', ARGV[6])
  end
end
return answers
"
));
