//! The script that counts how often keys are read.

use super::Script;

/// Adds to how often keys were read, in a bucket whose fills live by that.
///
/// KEYS: facts, reads. ARGV: the half-life (ms), of how many keys it is known at most, for how many ms nothing is forgotten
/// as a whole, and of each key its name and how often it was read. Answers `{0}`, or below 0 the place of another program's
/// key among those of a bucket.
///
/// Keys that are cold, and of too many those that are the least read, go with what comes.
pub(in crate::storage::valkey) static COUNT_READS: Script = Script::new(concat!(
    is_foreign!(),
    now!(),
    r"
if is_foreign(KEYS[1], 'hash') then return {-2} end
if is_foreign(KEYS[2], 'zset') then return {-9} end
local min = redis.call('HGET', KEYS[1], 'adaptive_min')
if not min or min == '' then return {0} end
local half_lives = now / tonumber(ARGV[1])
for at = 4, #ARGV, 2 do
  local heat = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[at]) or '')
  local reads = (heat and 2 ^ (heat - half_lives) or 0) + tonumber(ARGV[at + 1])
  redis.call('ZADD', KEYS[2], string.format('%.17g', math.log(reads) / math.log(2) + half_lives), ARGV[at])
end
local cold = redis.call('ZCOUNT', KEYS[2], '-inf', string.format('(%.17g', half_lives - 1))
local gone = math.max(cold, redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[2]))
if gone > 0 then redis.call('ZREMRANGEBYRANK', KEYS[2], 0, gone - 1) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {0}
"
));
