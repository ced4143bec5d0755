//! The scripts of leases. A lease is a hash that the server forgets when its time is over: `ttl` (ms), and for each thing a
//! field, whose name has a space in it, with what shows that it is still the one that was put under the lease.
//!
//! They answer a table whose first number is 0 where all is well, 1 where there is no such lease, and -1 where another
//! program has its key.

use super::Script;

/// Begins each script of a lease that is there: KEYS is its hash. Defines `facts()`, which answers `{0, ttl, how much of it is
/// left, when it ends, how many things}`, and `with_things(answer)`, which adds the name and the proof of each.
macro_rules! of_a_lease {
    () => {
        concat!(
            is_foreign!(),
            now!(),
            r"
local lease = KEYS[1]
if is_foreign(lease, 'hash') then return {-1} end
local ttl = redis.call('HGET', lease, 'ttl')
if not ttl then return {1} end
local function facts()
  local left = math.max(redis.call('PTTL', lease), 0)
  return {0, ttl, left, string.format('%.0f', now + left), redis.call('HLEN', lease) - 1}
end
local function with_things(answer)
  local all = redis.call('HGETALL', lease)
  for at = 1, #all, 2 do
    if all[at] ~= 'ttl' then
      answer[#answer + 1] = all[at]
      answer[#answer + 1] = all[at + 1]
    end
  end
  return answer
end
"
        )
    };
}

/// Makes a lease. ARGV: how long it lasts (ms). Answers its facts.
pub(in crate::storage::valkey) static MAKE_LEASE: Script = Script::new(concat!(
    is_foreign!(),
    now!(),
    r"
if is_foreign(KEYS[1], 'hash') then return {-1} end
redis.call('HSET', KEYS[1], 'ttl', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {0, ARGV[1], tonumber(ARGV[1]), string.format('%.0f', now + tonumber(ARGV[1])), 0}
"
));

/// Tells the facts of a lease, and, where ARGV has a 1, what is under it.
pub(in crate::storage::valkey) static SEE_LEASE: Script = Script::new(concat!(
    of_a_lease!(),
    r"
if ARGV[1] == '1' then return with_things(facts()) end
return facts()
"
));

/// Puts something under a lease. ARGV: its name, its proof, and how many things there may be. Answers the facts, and `{2}`
/// where there are as many. Of two revisions the later one stays.
pub(in crate::storage::valkey) static PUT_UNDER: Script = Script::new(concat!(
    of_a_lease!(),
    r"
local function is_less(one, other) return #one < #other or #one == #other and one < other end
local function is_before(one, other)
  local ms, seq = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  if not ms or not other_ms then return false end
  return is_less(ms, other_ms) or ms == other_ms and is_less(seq, other_seq)
end
local before = redis.call('HGET', lease, ARGV[1])
if not before and redis.call('HLEN', lease) > tonumber(ARGV[3]) then return {2} end
if not before or not is_before(ARGV[2], before) then redis.call('HSET', lease, ARGV[1], ARGV[2]) end
return facts()
"
));

/// Takes things from under a lease. ARGV: the name and the proof of each. Answers `{0}`.
pub(in crate::storage::valkey) static LET_GO: Script = Script::new(concat!(
    of_a_lease!(),
    r"
for at = 1, #ARGV, 2 do
  if redis.call('HGET', lease, ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', lease, ARGV[at]) end
end
return {0}
"
));

/// Has a lease last for its whole time from now on. Answers its facts, and what is under it.
pub(in crate::storage::valkey) static RENEW_LEASE: Script = Script::new(concat!(
    of_a_lease!(),
    r"
redis.call('PEXPIRE', lease, ttl)
return with_things(facts())
"
));

/// Ends a lease. Answers what were its facts, and what was under it.
pub(in crate::storage::valkey) static END_LEASE: Script = Script::new(concat!(
    of_a_lease!(),
    r"
local answer = with_things(facts())
redis.call('UNLINK', lease)
return answer
"
));
