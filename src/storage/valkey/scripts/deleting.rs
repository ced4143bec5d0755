//! The scripts that delete a topic, or one message.

/// What both begin with: is the topic there, and what is beside it the relay's.
macro_rules! there {
    () => {
        concat!(
            kind!(),
            of_a_topic!(),
            is_foreign!(),
            info_of!(),
            end_of!(),
            marker_of!(),
            sortable!(),
            latest!(),
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
latest_forget(KEYS[1])
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
    trim!(),
    r"
local idle = tonumber(redis.call('HGET', KEYS[2], 'idle') or '')
if not idle or string.sub(end_of(KEYS[1]) or '', 1, 22) == 'tidemill-end:importing' then return 3 end
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

/// Deletes a message, and remembers that it was deleted by request.
///
/// The server knows the largest id that was ever taken out, and no other. Where the message may become that one, and
/// the one that is was taken out by somebody else, among those that are kept, that id is remembered, too: behind all
/// others, with a sign in front of it.
///
/// What is remembered is of one stream, the one with its marker; a stream that has none gets one, so that nothing of
/// it is taken for the next stream of the name. The removal comes first, as it does where topics are deleted.
///
/// KEYS: stream, deleted ids, description. ARGV: id, the same as it is sorted, how many are remembered, an epoch. Answers 0 when
/// deleted, 1 when the topic does not exist, 2 when the key holds something else, 3 when the topic has no such
/// message, -2 when the other key holds something else.
pub(in super::super) const DELETE_MESSAGE: &str = concat!(
    kind!(),
    of_a_topic!(),
    is_foreign!(),
    marker_of!(),
    mark!(),
    is_of_another!(),
    sortable!(),
    info_of!(),
    end_of!(),
    latest!(),
    r"
if is_foreign(KEYS[2], 'zset') then return -2 end
local info = info_of(KEYS[1])
local first, taken_out = info['first-entry'], info['max-deleted-entry-id'] or '0-0'
local by, was_latest = redis.pcall('HGET', KEYS[3], 'compact_by'), false
if type(by) == 'string' then
  -- Else one that it has replaced would be the latest again.
  latest_index(KEYS[1], by, math.huge)
  was_latest = latest_drop(latest_keys(KEYS[1]), ARGV[2], by)
end
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return was_latest and 0 or 3 end
local marker = marker_of(KEYS[1])
if not marker then
  mark(KEYS[1], ARGV[4], '0-0')
  marker = marker_of(KEYS[1])
end
if is_of_another(KEYS[2], marker) then redis.call('DEL', KEYS[2]) end
local score = string.format('%.0f', score_of(marker))
local others = sortable(taken_out)
if sortable(first[1]) < others and not redis.call('ZSCORE', KEYS[2], others) then
  redis.call('ZREMRANGEBYLEX', KEYS[2], '[~', '+')
  redis.call('ZADD', KEYS[2], score, '~' .. others)
end
redis.call('ZADD', KEYS[2], score, ARGV[2])
-- In front of the ids may stand how many are forgotten.
local oldest = redis.call('ZLEXCOUNT', KEYS[2], '-', '(0')
local over = redis.call('ZCARD', KEYS[2]) - oldest - ARGV[3]
if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[2], oldest, oldest + over - 1) end
return 0
"
);
