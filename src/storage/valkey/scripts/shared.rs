//! The scripts of what all nodes count and keep together beside topics: documents, records, allowances, places, tickets
//! and nodes.

/// Changes documents on who may do what, if nobody else has changed them.
///
/// KEYS: the hash. ARGV: the revision that is known, 0 for none, and the new one; then pairs of a document's name
/// and the document, which is empty to delete it. Answers 1 when changed, 0 when the revision is another, 2
/// when the key holds something else.
pub(in crate::storage::valkey) const CHANGE_ACCESS: &str = concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'hash') then return 2 end
if (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2])
for at = 3, #ARGV, 2 do
  if ARGV[at + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[at])
  else redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
end
return 1
"
);

/// Tells which records have changed since a revision.
///
/// KEYS: records, their changes, the newest last. ARGV: the revision that is known, or nothing; how many changes
/// are kept. Answers 2 when a key holds something else; else the revision, 1 where all records follow and 0 where
/// those that have changed do, and of each its name and what stands there, which is empty where nothing does.
pub(in crate::storage::valkey) const READ_RECORDS: &str = concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'hash') or is_foreign(KEYS[2], 'zset') then return 2 end
local revision = redis.call('HGET', KEYS[1], 'revision') or '0'
local function since(known)
  local names, seen = {}, {}
  for first = 0, tonumber(ARGV[2]) - 1, 32 do
    for at, change in ipairs(redis.call('ZRANGE', KEYS[2], first, first + 31, 'REV')) do
      local words = string.gmatch(change, '%S+')
      local made = words()
      -- Changes that are not those of the records tell nothing.
      if first == 0 and at == 1 and made ~= revision then return end
      if made == known then return names end
      for name in words do
        if not seen[name] then
          seen[name] = true
          names[#names + 1] = name
        end
      end
    end
  end
end
local names = since(ARGV[1])
local answer = {revision, 0}
if not names then
  answer[2] = 1
  for _, part in ipairs(redis.call('HGETALL', KEYS[1])) do answer[#answer + 1] = part end
  return answer
end
for _, name in ipairs(names) do
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('HGET', KEYS[1], name) or ''
end
return answer
"
);

/// Changes records, if before each change there is what it expects.
///
/// KEYS: records, their changes. ARGV: the next revision, how many changes are kept, and of each record its name,
/// what is expected (`anything`, `nothing`, or `this` and what that is), and what stands there from now on, which
/// is empty to delete it. Answers 1 when that is done, 0 when one finds something else, 2 when a key holds
/// something else.
pub(in crate::storage::valkey) const CHANGE_RECORDS: &str = concat!(
    is_foreign!(),
    r"
if is_foreign(KEYS[1], 'hash') or is_foreign(KEYS[2], 'zset') then return 2 end
for at = 3, #ARGV, 4 do
  if ARGV[at + 1] ~= 'anything' then
    local found = redis.call('HGET', KEYS[1], ARGV[at])
    local expected = false
    if ARGV[at + 1] == 'this' then expected = ARGV[at + 2] end
    if found ~= expected then return 0 end
  end
end
redis.call('HSET', KEYS[1], 'revision', ARGV[1])
local change = {ARGV[1]}
for at = 3, #ARGV, 4 do
  if ARGV[at + 3] == '' then redis.call('HDEL', KEYS[1], ARGV[at])
  else redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 3]) end
  change[#change + 1] = ARGV[at]
end
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
local place = string.format('%.0f', tonumber(last[2] or '0') + 1)
redis.call('ZADD', KEYS[2], place, table.concat(change, ' '))
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[2]))
return 1
"
);

/// Draws from a quota, which is what `storage::limits` does in a process.
///
/// KEYS: the quota's hash. ARGV: the amount of its rate, the length of a part of its time, how long after its part
/// a grant counts (both in ms), how much is of use, and what comes back: its part and its amount.
/// Answers how much is granted, in which part, how much is left, and after how many ms there is something.
pub(in crate::storage::valkey) const DRAW: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local width, counts = tonumber(ARGV[2]), tonumber(ARGV[3])
local slice, first = math.floor(now / width), math.floor((now - counts) / width)
local back, amount = tonumber(ARGV[5]), tonumber(ARGV[6])
local used, in_slice, oldest = 0, 0, slice
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local of, granted = tonumber(fields[at]), tonumber(fields[at + 1])
  if of == back and amount > 0 then
    granted = math.max(0, granted - amount)
    redis.call('HSET', KEYS[1], fields[at], granted)
  end
  if of < first or of > slice or granted == 0 then redis.call('HDEL', KEYS[1], fields[at])
  else
    used = used + granted
    if of == slice then in_slice = granted end
    if of < oldest then oldest = of end
  end
end
local room = math.max(0, tonumber(ARGV[1]) - used)
local granted = math.min(tonumber(ARGV[4]), math.max(1, math.floor(room / 10)), room)
if granted > 0 then
  redis.call('HSET', KEYS[1], string.format('%.0f', slice), in_slice + granted)
  redis.call('EXPIRE', KEYS[1], math.ceil((counts + width) / 1000) + 1)
end
local wait = 0
if room == 0 then wait = math.max(1, (oldest + 1) * width + counts - now) end
return {granted, slice, room - granted, wait}
";

/// Tells how many places a node holds.
///
/// KEYS: the hash of what nodes hold. ARGV: the node, how many it holds from now on, how many all may hold, and for
/// how many ms that counts. Answers 1 where it may, and else 0, and nothing is changed.
pub(in crate::storage::valkey) const HOLD_PLACES: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local others, before, count = 0, 0, tonumber(ARGV[2])
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local held, till = string.match(fields[at + 1], '^(%d+) (%d+)$')
  if not held or tonumber(till) <= now then redis.call('HDEL', KEYS[1], fields[at])
  elseif fields[at] == ARGV[1] then before = tonumber(held)
  else others = others + tonumber(held) end
end
if others + count > tonumber(ARGV[3]) and count > before then return 0 end
if count == 0 then redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[4])))
  redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[4]) / 1000) + 1)
end
return 1
";

/// Keeps a ticket, and remembers it among those of its maker and among all, by when they are over.
///
/// KEYS: the ticket's hash, the sets of its maker's and of all. ARGV: its id, its hash, its document, for how many
/// ms it is kept, and how many a maker, and all, may have. Answers 1 when it is kept, 0 when there is no room. The
/// key of a ticket that goes is that of this one with its own id.
pub(in crate::storage::valkey) const PUT_TICKET: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for at = 2, 3 do
  for _, id in ipairs(redis.call('ZRANGE', KEYS[at], '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[at], id)
  end
end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  redis.call('DEL', string.sub(KEYS[1], 1, #KEYS[1] - #ARGV[1]) .. oldest)
  redis.call('ZREM', KEYS[2], oldest)
  redis.call('ZREM', KEYS[3], oldest)
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then return 0 end
local over = now + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], 'hash', ARGV[2], 'document', ARGV[3], 'maker', KEYS[2], 'over', over)
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[4]) / 1000) + 1)
redis.call('ZADD', KEYS[2], over, ARGV[1])
redis.call('ZADD', KEYS[3], over, ARGV[1])
redis.call('EXPIRE', KEYS[2], 172800)
redis.call('EXPIRE', KEYS[3], 172800)
return 1
";

/// Takes a ticket to open something.
///
/// KEYS: the ticket's hash, the set of all. ARGV: its id, the hash that was shown, the digest of what is to be opened,
/// 1 where that resumes, who claims it, and for how many ms it is kept from now on. Answers its document, or nothing
/// where it is not good for this.
pub(in crate::storage::valkey) const CLAIM_TICKET: &str = r"
local kept = redis.call('HGETALL', KEYS[1])
local ticket = {}
for at = 1, #kept, 2 do ticket[kept[at]] = kept[at + 1] end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if not ticket['hash'] or ticket['hash'] ~= ARGV[2] or tonumber(ticket['over']) <= now then return false end
if ticket['place'] and (ARGV[4] ~= '1' or ticket['place'] ~= ARGV[3]) then return false end
local over = now + tonumber(ARGV[6])
redis.call('HSET', KEYS[1], 'place', ARGV[3], 'holder', ARGV[5], 'over', over)
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[6]) / 1000) + 1)
redis.call('ZADD', KEYS[2], over, ARGV[1])
redis.call('ZADD', ticket['maker'], over, ARGV[1])
redis.call('EXPIRE', KEYS[2], 172800)
redis.call('EXPIRE', ticket['maker'], 172800)
return ticket['document']
";

/// Lists a node, and forgets those that have not said for too long that they are there.
///
/// KEYS: the hash. ARGV: the node, its document, for how many ms it is listed, how many may be. Answers whether it is.
pub(in crate::storage::valkey) const ANNOUNCE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local nodes = redis.call('HGETALL', KEYS[1])
for at = 1, #nodes, 2 do
  if tonumber(string.match(nodes[at + 1], '^%d+') or 0) <= now then redis.call('HDEL', KEYS[1], nodes[at]) end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + tonumber(ARGV[3]), ARGV[2]))
redis.call('EXPIRE', KEYS[1], 172800)
return 1
";

/// Returns the nodes that are listed.
///
/// KEYS: the hash. Answers each node and its document.
pub(in crate::storage::valkey) const LIST_NODES: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local nodes, answer = redis.call('HGETALL', KEYS[1]), {}
for at = 1, #nodes, 2 do
  local till, document = string.match(nodes[at + 1], '^(%d+) (.*)$')
  if till and tonumber(till) > now then
    answer[#answer + 1] = nodes[at]
    answer[#answer + 1] = document
  end
end
return answer
";
