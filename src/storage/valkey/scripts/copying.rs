//! The scripts of topics that are copied. `runs`, beside the scripts, says how a stream tells that it is frozen.
//!
//! Answers are tables whose first number is 0 where all is well, 1 where there is no such topic, 2 where its key holds
//! something else, and below 0 the place of a key that another program has.

use super::Script;

/// Defines, behind `info_of`, `state_of(key)`: what a stream that takes no messages says of that, and its last id.
macro_rules! state_of {
    () => {
        r"
local function state_of(key)
  return string.match(end_of(key) or '', '^tidemill%-end:(%a+):(.+)$')
end
"
    };
}

/// Defines `give(key, last, more)`, which has a stream go on behind an id; one that has given none begins where its marker
/// says. What follows the id in `XSETID` may be `more`.
macro_rules! give {
    () => {
        r"
local function give(key, last, more)
  if last == '0-0' then
    local born = string.match(marker_of(key) or '', ':(%d+)%-0$')
    if born and tonumber(born) > 0 then last = string.format('%.0f-18446744073709551615', tonumber(born) - 1) end
  end
  if more then
    local set = redis.pcall('XSETID', key, last, unpack(more))
    -- Servers before 7.0 do not count.
    if type(set) ~= 'table' or not set['err'] then return end
  end
  redis.call('XSETID', key, last)
end
"
    };
}

/// Tells what a copy of a topic needs to know beside its messages.
///
/// KEYS: stream, description. Answers `{0, name of the marker, name of the group that says that it takes no messages, first
/// id, last given id, length, entries ever added or -1, newest id taken out, names of the groups that say where messages were
/// lost}`, then field and value pairs of the description; what there is not is empty.
pub(in super::super) static COPIED_TOPIC: Script = Script::new(concat!(
    kind!(),
    is_foreign!(),
    marker_of!(),
    sortable!(),
    info_of!(),
    end_of!(),
    last_of!(),
    holes_in!(),
    r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
if is_foreign(KEYS[2], 'hash') then return {-2} end
local holes = {}
for _, hole in ipairs(holes_in(redis.call('XINFO', 'GROUPS', KEYS[1]))) do holes[#holes + 1] = hole[1] end
local info = info_of(KEYS[1])
local first, ended = info['first-entry'], end_of(KEYS[1]) or ''
local answer = {0, marker_of(KEYS[1]) or '', ended, first and first[1] or '',
  string.match(ended, '(%d+%-%d+)$') or last_of(KEYS[1]), info['length'], info['entries-added'] or -1,
  info['max-deleted-entry-id'] or '', holes}
for _, part in ipairs(redis.call('HGETALL', KEYS[2])) do answer[#answer + 1] = part end
return answer
"
));

/// Has a topic take no messages, or take them again.
///
/// KEYS: stream. ARGV: 1, or nothing. Answers 3 where it is being taken over.
pub(in super::super) static FREEZE: Script = Script::new(concat!(
    kind!(),
    marker_of!(),
    sortable!(),
    info_of!(),
    end_of!(),
    last_of!(),
    state_of!(),
    give!(),
    r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local state, last = state_of(KEYS[1])
if state == 'importing' then return {3} end
if ARGV[1] == '1' and not state then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-end:frozen:' .. last_of(KEYS[1]), '0')
  redis.call('XSETID', KEYS[1], '18446744073709551615-18446744073709551615')
elseif ARGV[1] == '' and state == 'frozen' then
  give(KEYS[1], last)
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'tidemill-end:frozen:' .. last)
end
return {0}
"
));

/// Makes a topic that is to be taken over.
///
/// KEYS: stream, description, last id, deleted ids, what waits for later (due, bodies, recurring). ARGV: epoch, the smallest
/// id that it can give, how many messages it was given before its first, then field and value pairs of the description.
/// Answers 3 where the topic is there.
pub(in super::super) static BEGIN_IMPORT: Script = Script::new(concat!(
    kind!(),
    mark!(),
    is_foreign!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    sortable!(),
    latest!(),
    r"
if kind == 'stream' then return {3} end
if kind ~= 'none' then return {2} end
for at, kind in ipairs({'stream', 'hash', 'string', 'zset', 'zset', 'hash', 'hash'}) do
  if is_foreign(KEYS[at], kind) then return {-at} end
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('UNLINK', KEYS[5], KEYS[6], KEYS[7])
latest_forget(KEYS[1])
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
mark(KEYS[1], ARGV[1], ARGV[2])
redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-end:importing:0-0', '0')
local last = '18446744073709551615-18446744073709551615'
local set = redis.pcall('XSETID', KEYS[1], last, 'ENTRIESADDED', ARGV[3], 'MAXDELETEDID', '0-0')
if type(set) == 'table' and set['err'] then redis.call('XSETID', KEYS[1], last) end
return {0}
"
));

/// What follows in those that go on with what is being taken over: they define `marker`, and `last`, the last id that was
/// taken over, and answer 3 where it is not. ARGV: the epoch, first.
macro_rules! importing {
    () => {
        r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
local state, last = state_of(KEYS[1])
local marker = marker_of(KEYS[1]) or ''
local is_it = ARGV[1] == '' or string.sub(marker, 16, 31) == ARGV[1]
"
    };
}

/// Takes over messages. While it runs the stream gives ids; nobody else comes between.
///
/// KEYS: stream. ARGV: epoch, the last id that was taken over, then of each message its id, how many arguments follow, and
/// these: fields and values. Ids increase. Answers 3 where the topic is not being taken over under this epoch, and `{4,
/// id}` where another is the last.
pub(in super::super) static IMPORT_MESSAGES: Script = Script::new(concat!(
    kind!(),
    marker_of!(),
    end_of!(),
    state_of!(),
    importing!(),
    r"
if state ~= 'importing' or not is_it then return {3} end
if last ~= ARGV[2] then return {4, last} end
redis.call('XSETID', KEYS[1], last)
local at, id, failed = 3, last, nil
while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  local added = redis.pcall('XADD', KEYS[1], ARGV[at], unpack(ARGV, at + 2, at + 1 + count))
  if type(added) == 'table' then
    failed = added
    break
  end
  id = ARGV[at]
  at = at + 2 + count
end
if id ~= last then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-end:importing:' .. id, '0')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'tidemill-end:importing:' .. last)
end
redis.call('XSETID', KEYS[1], '18446744073709551615-18446744073709551615')
return failed or {0}
"
));

/// What those begin with that change what a topic that is being taken over has of its latest messages, which were looked at
/// before: they define `by`, the field by which it is compacted, if it is.
///
/// KEYS: stream, description, then those of their own. ARGV: the epoch, first.
macro_rules! importing_latest {
    () => {
        concat!(
            kind!(),
            is_foreign!(),
            marker_of!(),
            sortable!(),
            info_of!(),
            end_of!(),
            latest!(),
            state_of!(),
            importing!(),
            r"
if state ~= 'importing' or not is_it then return {3} end
if is_foreign(KEYS[2], 'hash') then return {-2} end
local by = redis.call('HGET', KEYS[2], 'compact_by')
"
        )
    };
}

/// Takes over which messages were deleted by request, or were taken out by others.
///
/// KEYS: stream, description, deleted ids. ARGV: epoch, then pairs of what is remembered and the id of the message, which is
/// empty where that is for others to tell.
pub(in super::super) static IMPORT_DELETIONS: Script = Script::new(concat!(
    importing_latest!(),
    is_of_another!(),
    r"
if is_foreign(KEYS[3], 'zset') then return {-3} end
local score = string.format('%.0f', score_of(marker))
for at = 2, #ARGV, 2 do
  if ARGV[at + 1] ~= '' then
    redis.call('XDEL', KEYS[1], ARGV[at + 1])
    if by then latest_drop(latest_keys(KEYS[1]), ARGV[at], by) end
  end
  redis.call('ZADD', KEYS[3], score, ARGV[at])
end
return {0}
"
));

/// Has messages be none of the latest of their keys.
///
/// KEYS: stream, description. ARGV: epoch, then ids as they are sorted.
pub(in super::super) static IMPORT_FORGOTTEN: Script = Script::new(concat!(
    importing_latest!(),
    r"
if by then
  for at = 2, #ARGV do latest_drop(latest_keys(KEYS[1]), ARGV[at], by) end
end
return {0}
"
));

/// Has one copy take over what cannot be taken over by two.
///
/// KEYS: stream, and the description, or of the log of a bucket its facts. ARGV: the token of the copy, and for how many
/// milliseconds. Answers `{0, 1}`, `{0, 0}` where another copy has it, and 3 where it is not being taken over.
pub(in super::super) static CLAIM_IMPORT: Script = Script::new(concat!(
    kind!(),
    is_foreign!(),
    end_of!(),
    state_of!(),
    r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
if is_foreign(KEYS[2], 'hash') then return {-2} end
if state_of(KEYS[1]) ~= 'importing' then return {3} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local by, till = string.match(redis.call('HGET', KEYS[2], 'claim') or '', '^(%x+) (%d+)$')
if by and by ~= ARGV[1] and tonumber(till) > now then return {0, 0} end
redis.call('HSET', KEYS[2], 'claim', ARGV[1] .. ' ' .. string.format('%.0f', now + ARGV[2]))
return {0, 1}
"
));

/// Ends taking over.
///
/// KEYS: stream, description. ARGV: epoch, last id, entries ever added (empty where nobody knows), the newest id taken out,
/// the first id that is kept (empty for none), how the topic has ended (empty where it has not), the newest message, and the
/// newest without a key, of which the table of the latest messages has no trace (each may be empty), where messages were
/// lost, then field and value pairs of the description. Answers 3 where the topic is not, and was not, taken over under this epoch, and `{4, id}` where a
/// later message was.
pub(in super::super) static FINISH_IMPORT: Script = Script::new(concat!(
    kind!(),
    is_foreign!(),
    marker_of!(),
    sortable!(),
    info_of!(),
    end_of!(),
    latest!(),
    state_of!(),
    give!(),
    lose!(),
    importing!(),
    r"
if not is_it then return {3} end
if state ~= 'importing' then return ARGV[1] == '' and {3} or {0} end
if is_foreign(KEYS[2], 'hash') then return {-2} end
if sortable(last) > sortable(ARGV[2]) then return {4, last} end
if ARGV[5] == '' then redis.call('XTRIM', KEYS[1], 'MAXLEN', '0')
else redis.call('XTRIM', KEYS[1], 'MINID', ARGV[5]) end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 10))
local info = info_of(KEYS[1])
local added = math.max(tonumber(ARGV[3]) or info['entries-added'] or 0, info['length'])
give(KEYS[1], ARGV[2], {'ENTRIESADDED', string.format('%.0f', added), 'MAXDELETEDID', ARGV[4]})
lose(KEYS[1], ARGV[9])
local by = redis.call('HGET', KEYS[2], 'compact_by')
local facts = latest_keys(KEYS[1]).facts
if by and redis.call('HGET', facts, 'of') == string.sub(marker, 16, 31) .. ' ' .. by then
  redis.call('HDEL', facts, 'from', 'upto', 'keyless')
  if ARGV[7] ~= '' then redis.call('HSET', facts, 'upto', ARGV[7]) end
  if ARGV[8] ~= '' then redis.call('HSET', facts, 'keyless', ARGV[8]) end
  if redis.call('HGET', facts, 'at') == last then redis.call('HSET', facts, 'nth', string.format('%.0f', added)) end
end
if ARGV[6] ~= '' then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-end:' .. ARGV[6] .. ':' .. ARGV[2], '0')
  redis.call('XSETID', KEYS[1], '18446744073709551615-18446744073709551615')
end
redis.call('XGROUP', 'DESTROY', KEYS[1], 'tidemill-end:importing:' .. last)
return {0}
"
));

/// Takes over what waits for later in a topic.
///
/// KEYS: stream, due, bodies, recurring. ARGV: 1 where what waits there goes before, then of each its id, when it is due or
/// nothing, its body, and its rule, which is empty where it is published once; a recurring one has its name behind a `~` as
/// id. Answers 3 where the topic is not being taken over.
///
/// Ids that the topic gives come behind those.
pub(in super::super) static IMPORT_WAITING: Script = Script::new(concat!(
    kind!(),
    is_foreign!(),
    end_of!(),
    state_of!(),
    r"
if kind == 'none' then return {1} end
if kind ~= 'stream' then return {2} end
if state_of(KEYS[1]) ~= 'importing' then return {3} end
for at, kind in ipairs({'stream', 'zset', 'hash', 'hash'}) do
  if is_foreign(KEYS[at], kind) then return {-at} end
end
if ARGV[1] == '1' then redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4]) end
local ms, number = string.match(redis.call('HGET', KEYS[3], 'last') or '', '^(%d+) (%d+)$')
ms, number = tonumber(ms or '0'), tonumber(number or '0')
for at = 2, #ARGV, 4 do
  local id, due, rule = ARGV[at], ARGV[at + 1], ARGV[at + 3]
  redis.call('HSET', KEYS[3], id, ARGV[at + 2])
  if rule ~= '' then redis.call('HSET', KEYS[4], string.sub(id, 2), rule) end
  if due ~= '' then redis.call('ZADD', KEYS[2], due, id) end
  local id_ms, id_number = string.match(id, '^(%d+)%-(%d+)')
  id_ms, id_number = tonumber(id_ms or '0'), tonumber(id_number or '0')
  if id_ms > ms or id_ms == ms and id_number > number then ms, number = id_ms, id_number end
end
if ms > 0 then redis.call('HSET', KEYS[3], 'last', string.format('%.0f %.0f', ms, number)) end
return {0}
"
));

mod buckets;

pub(in super::super) use buckets::{
    BEGIN_BUCKET, COPIED_BUCKET, COPIED_ENDS, COPIED_KEYS, FINISH_BUCKET, FREEZE_BUCKET, IMPORT_ENDS,
    IMPORT_KEYS,
};
