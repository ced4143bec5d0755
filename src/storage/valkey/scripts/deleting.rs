//! The scripts that delete a topic.

/// What both begin with: is the topic there, and what is beside it the relay's.
macro_rules! there {
    () => {
        concat!(
            kind!(),
            of_a_topic!(),
            is_foreign!(),
            info_of!(),
            end_of!(),
            r"
if is_foreign(KEYS[2], 'hash') then return -2 end
if is_foreign(KEYS[3], 'string') then return -3 end
if is_foreign(KEYS[4], 'zset') then return -4 end
if is_foreign(KEYS[5], 'zset') then return -5 end
if is_foreign(KEYS[6], 'hash') then return -6 end
if is_foreign(KEYS[7], 'hash') then return -7 end
if is_foreign(KEYS[8], 'set') then return -8 end
"
        )
    };
}

/// What both end with.
macro_rules! delete {
    () => {
        r"
local last = string.match(end_of(KEYS[1]) or info_of(KEYS[1])['last-generated-id'], '(%d+)%-%d+$')
local groups = redis.call('SMEMBERS', KEYS[8])
-- Those that other programs have made, too.
for _, of in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do groups[#groups + 1] = of[2] end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
for _, group in ipairs(groups) do
  for at = 3, #ARGV do redis.call('UNLINK', ARGV[2] .. group .. ':' .. ARGV[at]) end
end
redis.call('DEL', KEYS[8])
redis.call('SET', KEYS[3], last, 'PX', ARGV[1])
return 0
"
    };
}

/// Deletes a topic with its description, and remembers its last id for as long as ARGV says (ms).
///
/// The removal comes first: at its memory limit the server refuses a script that would begin by
/// writing, and deleting is what makes room.
///
/// KEYS: stream, description, last id, deleted ids, what waits for later (due, bodies, recurring), and the set of the
/// topic's groups. ARGV: how long, what the keys of groups begin with, and how they end. Answers 0 when deleted, 1 when the
/// topic does not exist, 2 when the key holds something else, and the place of another key, below 0, when that does.
pub(in super::super) const DELETE_TOPIC: &str = concat!(there!(), delete!());

/// Deletes a topic with which nothing was done for as long as it says: it was given no message, and its description was
/// not changed; nothing waits in it for later; and its groups are done with all that it has. A stream tells when it was made
/// by its last id, which begins there.
///
/// KEYS and ARGV are those of [`DELETE_TOPIC`], and so are the answers; 3 when the topic stays.
pub(in super::super) const DELETE_IDLE: &str = concat!(
    there!(),
    sortable!(),
    trim!(),
    r"
local idle = tonumber(redis.call('HGET', KEYS[2], 'idle') or '')
if not idle then return 3 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local given = string.match(end_of(KEYS[1]) or info_of(KEYS[1])['last-generated-id'], '(%d+)%-%d+$')
local used = math.max(tonumber(given), tonumber(redis.call('HGET', KEYS[2], 'touched_at') or 0))
if used + idle * 1000 > now or redis.call('ZCARD', KEYS[5]) > 0 then return 3 end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local held = newest and held_from(KEYS[1])
if held and sortable(held) <= sortable(newest[1]) then return 3 end
",
    delete!(),
);
