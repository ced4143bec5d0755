//! The scripts that make several commands one step. The server runs a script whole or not at all,
//! so no crash point lies between its commands.

mod script;

pub(super) use appending::{
    APPEND_BOUNDED, APPEND_FENCED, APPEND_IF, APPEND_ONCE, APPEND_UNIQUE, KEY_ANSWER,
};
pub(super) use buckets::{
    CHANGE_KEYS, COUNT_READS, DELETE_BUCKET, DESCRIBE_BUCKET, EXPIRE_KEYS, FILL_KEY, KEY_HISTORY, LIST_KEYS,
    PUT_BUCKET, READ_KEY, REVOKE_KEYS, TOUCH_KEY, TOUCH_REVISIONS,
};
pub(super) use copying::{
    BEGIN_BUCKET, BEGIN_IMPORT, CLAIM_IMPORT, COPIED_BUCKET, COPIED_ENDS, COPIED_KEYS, COPIED_TOPIC,
    FINISH_BUCKET, FINISH_IMPORT, FREEZE, FREEZE_BUCKET, IMPORT_DELETIONS, IMPORT_ENDS, IMPORT_FORGOTTEN,
    IMPORT_KEYS, IMPORT_MESSAGES, IMPORT_WAITING,
};
pub(super) use deleting::{DELETE_IDLE, DELETE_MESSAGE, DELETE_TOPIC};
pub(super) use latest::{FORGET_TRIMMED, LATEST};
pub(super) use leases::{END_LEASE, LET_GO, MAKE_LEASE, PUT_UNDER, RENEW_LEASE, SEE_LEASE};
pub(super) use locks::{ACQUIRE_LOCK, RELEASE_LOCK, RENEW_LOCK, SEE_LOCK, TAKE_LOCK};
pub(super) use losing::TELL_LOSS;
pub(super) use runs::END_RUN;
pub(super) use schedules::{
    CANCEL, COUNT_IN, DUE_TOPICS, NEXT_DUE, PROMOTE, PUBLISH_NOW, PUT_RECURRING, RECURRING, REMOVE_RECURRING,
    SCHEDULE, WAITING_PAGE,
};
pub(super) use script::Script;
pub(super) use series::{ADD_POINTS, DELETE_SERIES, READ_SERIES};
pub(super) use shared::{
    ANNOUNCE, CHANGE_ACCESS, CHANGE_RECORDS, CLAIM_TICKET, DRAW, HOLD_PLACES, LIST_NODES, PUT_TICKET,
    READ_RECORDS,
};
pub(super) use takes::TAKE;
pub(super) use trimming::TRIM_TOPIC;
pub(super) use work::{
    BURY, CLAIM, CLAIM_NEW, COPIED_GROUP, COPIED_PENDING, COPIED_UNIQUE, DEAD, DELETE_GROUP, DESCRIBE_GROUP,
    DYING, FATE, GROUP_NAMES, GROUPS_SWEPT, IMPORT_DEAD, IMPORT_GROUP, IMPORT_PENDING, IMPORT_UNIQUE,
    PUT_GROUP, REVIVE, SETTLE, TEND, WAITING,
};

/// Defines `ring(channel, said)`, which gives notice on a channel, if that is none: on one of a cluster to the nodes
/// that listen to this server (it has braces), else to all. A notice is a hint, so nothing fails for want of it.
macro_rules! ring {
    () => {
        r"
local function ring(channel, said)
  if channel == '' then return end
  redis.pcall(string.find(channel, '{', 1, true) and 'SPUBLISH' or 'PUBLISH', channel, said)
end
"
    };
}

/// What scripts about a topic begin with: what is kept under its stream's key, as `kind`. Servers answer
/// with a text or with a table.
macro_rules! kind {
    () => {
        r"
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind['ok'] end
"
    };
}

/// What follows in those that are for a topic that exists: they answer 1 when it does not, 2 when the key
/// holds something else.
macro_rules! of_a_topic {
    () => {
        r"
if kind == 'none' then return 1 end
if kind ~= 'stream' then return 2 end
"
    };
}

/// Defines `now`, in ms.
macro_rules! now {
    () => {
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
"
    };
}

/// Defines `is_foreign(key, kind)`: whether a key that may hold this kind of value holds another one.
macro_rules! is_foreign {
    () => {
        r"
local function is_foreign(key, expected)
  local found = redis.call('TYPE', key)
  if type(found) == 'table' then found = found['ok'] end
  return found ~= 'none' and found ~= expected
end
"
    };
}

/// Defines `marker_of(key)`: the name of a stream's marker (see `marker`), or nothing; and how far it lags behind,
/// where the server knows. And `marker_in(groups)`: the same, where its groups are known.
macro_rules! marker_of {
    () => {
        r"
local function marker_in(groups)
  for _, group in ipairs(groups) do
    if string.sub(group[2], 1, 15) == 'tidemill-epoch:' then return group[2], group[11] == 'lag' and group[12] end
  end
end
local function marker_of(key) return marker_in(redis.call('XINFO', 'GROUPS', key)) end
"
    };
}

/// Defines `sortable(id)`: an id as it is sorted (see `keys`).
macro_rules! sortable {
    () => {
        r"
local function sortable(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
"
    };
}

/// Defines `mark(key, epoch, born)`, which gives a stream a marker and makes it where it is not there. The
/// marker says that it has read nothing, so that its lag tells what the stream was given (see `marker`); servers before
/// 7.0 do not know of that.
macro_rules! mark {
    () => {
        r"
local function mark(key, epoch, born)
  local name = 'tidemill-epoch:' .. epoch .. ':' .. born
  local made = redis.pcall('XGROUP', 'CREATE', key, name, '0', 'MKSTREAM', 'ENTRIESREAD', '0')
  if type(made) == 'table' and made['err'] then redis.call('XGROUP', 'CREATE', key, name, '0', 'MKSTREAM') end
end
"
    };
}

/// Defines `first_answer(key, fingerprint)`, behind `marker_of`: what is to be answered where an idempotency key is
/// remembered or another program's, as [`APPEND_ONCE`] tells it, or nothing where it is new. Of a message for later the id
/// of its schedule is remembered, whose first part is a time as well.
macro_rules! first_answer {
    () => {
        r"
local function first_answer(key, fingerprint)
  local kept = redis.pcall('GET', key)
  if type(kept) == 'table' then
    if string.find(kept['err'], 'WRONGTYPE', 1, true) then return {4} end
    return kept
  end
  if not kept then return end
  local print, id, timestamp = string.match(kept, '^(%x+) (%S+) (%S+)$')
  if not id and not (#kept == 32 and string.match(kept, '^%x+$')) then return {4} end
  if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end
  if not id then return end
  local born = tonumber(string.match(marker_of(KEYS[1]) or '', ':(%d+)%-%d+$') or 0)
  local of_this_topic
  if born > 0 then of_this_topic = tonumber(string.match(id, '^%d+')) >= born
  else of_this_topic = not string.match(id, '^%d+%-%d+$') or #redis.call('XRANGE', KEYS[1], id, id) > 0 end
  if not of_this_topic then return end
  if print ~= fingerprint then return {2} end
  return {1, id, timestamp}
end
"
    };
}

/// Defines `info_of(key)`: what `XINFO STREAM` tells, by name.
macro_rules! info_of {
    () => {
        r"
local function info_of(key)
  local info, known = redis.call('XINFO', 'STREAM', key), {}
  for at = 1, #info, 2 do known[info[at]] = info[at + 1] end
  return known
end
"
    };
}

/// Defines `last_of(key)`: the last id that a stream was given, `0-0` where it was given none. Servers before 7.0 do not
/// count what they have added; there a last id from before the first that the stream can give, as its marker says, is
/// none.
macro_rules! last_of {
    () => {
        r"
local function last_of(key)
  local info = info_of(key)
  local last = info['last-generated-id']
  if info['entries-added'] == 0 then return '0-0' end
  if not info['entries-added'] then
    local born = string.match(marker_of(key) or '', ':(%d+%-%d+)$')
    if born and sortable(last) < sortable(born) then return '0-0' end
  end
  return last
end
"
    };
}

/// Defines, behind `sortable`, `last_delivered(group)` of the stream under the first key, nothing where it has no such
/// group; `lives(id, group, last, dying)`, whether a message waits or is worked on in a group that gave out `last` last, and
/// of which this key has what is dying; and `forget_over(unique, group, dying)`, which forgets some unique keys whose
/// messages are over.
macro_rules! lives {
    () => {
        r"
local function last_delivered(group)
  for _, of in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if of[2] == group then
      for at = 1, #of, 2 do if of[at] == 'last-delivered-id' then return of[at + 1] end end
    end
  end
end
local function lives(id, group, last, dying)
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not entry then return false end
  for at = 1, #entry[2], 2 do
    local time = entry[2][at] == 'expires_at' and redis.call('TIME')
    if time and (tonumber(entry[2][at + 1]) or math.huge) <= time[1] * 1000 + time[2] / 1000 then return false end
  end
  if sortable(id) > sortable(last) then return true end
  return #redis.call('XPENDING', KEYS[1], group, id, id, 1) > 0 and not redis.call('ZSCORE', dying, id)
end
local function forget_over(unique, group, dying)
  local last = last_delivered(group)
  local found = redis.call('HSCAN', unique, redis.call('HGET', unique, 'at') or '0', 'COUNT', 100)
  for at = 1, #found[2], 2 do
    if string.sub(found[2][at], 1, 1) == 'k' then
      local id = string.match(found[2][at + 1], '^%S+')
      if not last or not lives(id, group, last, dying) then redis.call('HDEL', unique, found[2][at], 'i' .. id) end
    end
  end
  if found[1] ~= '0' then redis.call('HSET', unique, 'at', found[1]) else redis.call('HDEL', unique, 'at') end
end
"
    };
}

/// Defines `end_of(key)`: the name of the group that says that a stream takes no entries any more (see `runs`, beside
/// the scripts), or nothing.
macro_rules! end_of {
    () => {
        r"
local function end_of(key)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    if string.sub(group[2], 1, 13) == 'tidemill-end:' then return group[2] end
  end
end
"
    };
}

#[macro_use]
mod fencing;
#[macro_use]
mod forgetting;
#[macro_use]
mod latest;
#[macro_use]
mod losing;
#[macro_use]
mod trimming;
mod appending;
#[macro_use]
mod buckets;
mod copying;
mod deleting;
mod runs;

/// Creates a topic: an empty stream with its marker, and its description.
///
/// KEYS: stream, description, last id, deleted ids, what waits for later (due, bodies, recurring). ARGV: epoch, then field and value pairs of the description.
/// Answers 0 when created, 1 when the topic exists, 2 when the key holds something else, and the place of
/// another key, below 0, when that does.
///
/// The marker says which is the smallest id that the stream can give: of the millisecond after now, by the server's
/// clock, or of the one after the last id of a stream of the same name that was deleted lately, where
/// that is later. So a stream never gives an id of its predecessor, also in the same millisecond and
/// when the server's clock goes back a little. A last id of more milliseconds than a script can count (2^53) is
/// not heeded: whoever gave it left no room behind it.
pub(super) const CREATE_TOPIC: &str = concat!(
    kind!(),
    mark!(),
    is_foreign!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    sortable!(),
    latest!(),
    r"
if kind == 'stream' then return 1 end
if kind ~= 'none' then return 2 end
if is_foreign(KEYS[2], 'hash') then return -2 end
if is_foreign(KEYS[3], 'string') then return -3 end
if is_foreign(KEYS[4], 'zset') then return -4 end
if is_foreign(KEYS[5], 'zset') then return -5 end
if is_foreign(KEYS[6], 'hash') then return -6 end
if is_foreign(KEYS[7], 'hash') then return -7 end
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = redis.call('GET', KEYS[3])
last = last and tonumber(last) or 0
if last < 9007199254740992 then ms = math.max(ms, last) end
redis.call('DEL', KEYS[2], KEYS[4])
redis.call('UNLINK', KEYS[5], KEYS[6], KEYS[7])
latest_forget(KEYS[1])
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
mark(KEYS[1], ARGV[1], string.format('%.0f-0', ms + 1))
redis.call('XSETID', KEYS[1], string.format('%.0f-18446744073709551615', ms))
return 0
"
);

/// Changes parts of a description.
///
/// Where the topic goes when it is not used, it is noted that it was used now. Where it is compacted by another field, what
/// is known of the one before goes.
///
/// KEYS: stream, description. ARGV: pairs of a field and what it is from now on, which is empty to clear it. Answers 0 when
/// changed, 1 when the topic does not exist, 2 when the key holds something else, -2 when the other does.
pub(super) const UPDATE_TOPIC: &str = concat!(
    kind!(),
    of_a_topic!(),
    is_foreign!(),
    info_of!(),
    marker_of!(),
    end_of!(),
    sortable!(),
    latest!(),
    r"
if is_foreign(KEYS[2], 'hash') then return -2 end
for at = 1, #ARGV, 2 do
  if ARGV[at] == 'compact_by' and (redis.call('HGET', KEYS[2], 'compact_by') or '') ~= ARGV[at + 1] then
    latest_forget(KEYS[1])
  end
  if ARGV[at + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[at])
  else redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
end
if redis.call('HGET', KEYS[2], 'idle') then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('HSET', KEYS[2], 'touched_at', string.format('%.0f', now))
end
return 0
"
);

/// What a sweep does to a stream beside its trims: one that has no marker gets one, what is remembered of
/// deletions goes with what was trimmed, but for how many those were, and whoever gives it ids that do not follow the clock is noticed.
///
/// KEYS: stream, deleted ids, description. ARGV: epoch, and by how much an id may be behind (ms). Answers 1 when
/// the stream was marked, or is another one than the last sweep saw, else 0;
/// 2 where it is being taken over.
///
/// Of the millisecond of the oldest message it stays remembered what was deleted: it proves that nothing else was
/// there.
///
/// The description remembers of a stream how it was seen last (`seen`: epoch, how many messages it had been given,
/// when; `seen_id`: its last id). What it was given since has ids that are later than that time, or whoever gave
/// them does not go by the clock, which is noted with the time of now (`late`: epoch, time). The same is noted of a
/// stream that another producer has made, or that has taken the place of another, once: nobody knows what it was
/// given before. Where it was given
/// nothing since, nothing is written; where there is no room to write, that comes last. Servers before 7.0 do not
/// count what they are given.
pub(super) const SWEEP_TOPIC: &str = concat!(
    kind!(),
    marker_of!(),
    mark!(),
    is_of_another!(),
    forget!(),
    sortable!(),
    is_foreign!(),
    info_of!(),
    end_of!(),
    r"
if kind ~= 'stream' or is_foreign(KEYS[2], 'zset') then return 0 end
-- What is taken over has ids of other times, and is looked at when it is whole.
local ended = end_of(KEYS[1]) or ''
if string.sub(ended, 1, 22) == 'tidemill-end:importing' then return 2 end
local marker, given = marker_of(KEYS[1])
local is_new = 0
if not marker then
  mark(KEYS[1], ARGV[1], '0-0')
  marker, given = marker_of(KEYS[1])
  is_new = 1
end
if is_of_another(KEYS[2], marker) then redis.call('DEL', KEYS[2]) end
local deleted = redis.call('ZLEXCOUNT', KEYS[2], '[0', '(~')
if deleted > 0 then
  local info = info_of(KEYS[1])
  local first = info['first-entry']
  if first and (info['entries-added'] or 0) - info['length'] > deleted + forgotten_in(KEYS[2]) then
    forget(KEYS[2], string.sub(sortable(first[1]), 1, 20), score_of(marker))
  end
end
local seen = redis.pcall('HGET', KEYS[3], 'seen')
if type(seen) == 'table' then return is_new end
local epoch = string.sub(marker, 16, 31)
local of, before, at = string.match(seen or '', '^(%x+) (%d+) (%d+)$')
local is_same = of == epoch
-- As many as are kept may be fewer than were given: see `marker`.
if given == redis.call('XLEN', KEYS[1]) then given = nil end
if is_same and given and given == tonumber(before) then return is_new end
local info = info_of(KEYS[1])
given = given or info['entries-added']
if not given or (is_same and given == tonumber(before)) then return is_new end
if of and not is_same or not of and string.sub(marker, 32) == ':0-0' then is_new = 1 end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
if is_same and given > tonumber(before) then
  local seen_id = redis.call('HGET', KEYS[3], 'seen_id') or '0-0'
  local next = redis.call('XRANGE', KEYS[1], '(' .. seen_id, '+', 'COUNT', '1')[1]
  local id = next and next[1] or string.match(ended, '(%d+%-%d+)$') or info['last-generated-id']
  if tonumber(string.match(id, '^%d+')) < tonumber(at) - tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[3], 'late', epoch .. ' ' .. now)
  end
end
if is_new == 1 then redis.call('HSET', KEYS[3], 'late', epoch .. ' ' .. now) end
redis.call('HSET', KEYS[3], 'seen', string.format('%s %.0f %s', epoch, given, now), 'seen_id',
  string.match(ended, '(%d+%-%d+)$') or info['last-generated-id'])
return is_new
"
);

/// Tells what the server knows of a stream, without its entries.
///
/// KEYS: stream, deleted ids. ARGV: a cursor and the id behind it, as they are sorted. Answers `{first id, last
/// given id, length, entries ever added, newest id taken out, name of the marker, newest id taken out by others, whether
/// the cursor or the id behind it was deleted by request, how many behind the cursor were, how many of these in front
/// of the first id, or at all where there is none, how many at all, what is kept of those that are forgotten (see
/// `forgetting`), name of the group that says that the topic has
/// ended, of a topic that is compacted what is gone of which its latest messages have no trace: the id behind that, the
/// newest of it, and the newest message without a key, each `-` where there is none, the names of the groups that
/// say where messages were lost}`; an id or a name that there is not is empty, a number that the server does not know is -1.
/// A key that does not exist, or holds something else, is the error of `XINFO`.
pub(super) const STREAM_FACTS: &str = concat!(
    marker_of!(),
    is_of_another!(),
    sortable!(),
    info_of!(),
    end_of!(),
    holes_in!(),
    latest!(),
    r"
local known, groups = info_of(KEYS[1]), redis.call('XINFO', 'GROUPS', KEYS[1])
local marker = marker_in(groups) or ''
local first = known['first-entry']
local taken_out = known['max-deleted-entry-id'] or ''
local others, at_cursor, behind, in_front, deleted, forgotten = taken_out, 0, 0, 0, 0, ''
if taken_out ~= '' and taken_out ~= '0-0' and not is_of_another(KEYS[2], marker) then
  deleted = redis.call('ZLEXCOUNT', KEYS[2], '[0', '(~')
  forgotten = redis.call('ZRANGEBYLEX', KEYS[2], '[!', '(0')[1] or ''
  if deleted > 0 then
    local remembered = redis.call('ZRANGEBYLEX', KEYS[2], '[~', '+')[1]
    if redis.call('ZSCORE', KEYS[2], sortable(taken_out)) then others = string.sub(remembered or '', 2) end
    if redis.call('ZSCORE', KEYS[2], ARGV[1]) or redis.call('ZSCORE', KEYS[2], ARGV[2]) then at_cursor = 1 end
    behind = redis.call('ZLEXCOUNT', KEYS[2], '(' .. ARGV[1], '(~')
    local oldest = first and sortable(first[1]) or '~'
    if oldest > ARGV[1] then in_front = redis.call('ZLEXCOUNT', KEYS[2], '(' .. ARGV[1], '(' .. oldest) end
  end
end
local last, ended = known['last-generated-id'], ''
if last == '18446744073709551615-18446744073709551615' then ended = end_of(KEYS[1]) or '' end
-- Where nothing is gone, it is no matter.
local untold = known['entries-added'] == known['length'] and '' or latest_untold(KEYS[1], marker)
local holes = {}
for at, hole in ipairs(holes_in(groups)) do holes[at] = hole[1] end
return {first and first[1] or '', last, known['length'], known['entries-added'] or -1,
  taken_out, marker, others, at_cursor, behind, in_front, deleted, forgotten, ended, untold, holes}
"
);

mod leases;
mod locks;
mod schedules;
mod series;
mod shared;
mod takes;
mod work;
