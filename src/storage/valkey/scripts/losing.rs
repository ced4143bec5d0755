//! The script that marks what a server has lost. `losing`, beside the scripts, says when it is asked.

use super::Script;

/// Defines, behind `sortable`, `holes_in(groups)`: the names of those groups of a stream that say where messages were lost
/// (see `losing`, beside the scripts), each with the id behind which it is and the last one that is gone, as they are
/// sorted.
macro_rules! holes_in {
    () => {
        r"
local function holes_in(groups)
  local holes = {}
  for _, group in ipairs(groups) do
    local from, to = string.match(group[2], '^tidemill%-lost:(%d+%-%d+):(%d+%-%d+)$')
    if from then holes[#holes + 1] = {group[2], sortable(from), sortable(to)} end
  end
  return holes
end
"
    };
}

/// Defines `lose(key, holes)`: where messages of a stream were lost, as texts `from:to` with blanks between them.
macro_rules! lose {
    () => {
        r"
local function lose(key, holes)
  for hole in string.gmatch(holes, '%S+') do redis.call('XGROUP', 'CREATE', key, 'tidemill-lost:' .. hole, '$') end
end
"
    };
}

/// Looks whether a message that was confirmed is there, and where it was lost, marks the hole.
///
/// What is in front of the oldest entry was trimmed, mostly; what was confirmed within the last minute may be lost all the
/// same, and is marked: whoever has not read it has missed it either way. The stream gives no id in the hole from then on.
/// Where others have come since, readers may have passed the place: there is another mark at the end, for those.
///
/// KEYS: stream, deleted ids. ARGV: an id, the same as it is sorted, and a channel with what is said there. Answers 1 where
/// it is lost, else 0.
pub(in super::super) static TELL_LOSS: Script = Script::new(concat!(
    kind!(),
    marker_of!(),
    sortable!(),
    info_of!(),
    end_of!(),
    holes_in!(),
    ring!(),
    r"
if kind ~= 'stream' or redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1] then return 0 end
if type(redis.pcall('ZSCORE', KEYS[2], ARGV[2])) == 'string' then return 0 end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
local born = string.match(marker_in(groups) or '', ':(%d+%-%d+)$')
if born and ARGV[2] < sortable(born) then return 0 end
local ended = string.match(end_of(KEYS[1]) or '', ':(%d+%-%d+)$')
local last = ended or info_of(KEYS[1])['last-generated-id']
local is_new = sortable(last) < ARGV[2]
local before = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', 1)[1]
if not is_new and not before then
  local now = tonumber(redis.call('TIME')[1])
  if tonumber(string.match(ARGV[1], '^%d+')) / 1000 < now - 60 then return 0 end
end
before = before and before[1] or '0-0'
local holes = holes_in(groups)
for at = #holes, 1, -1 do
  local hole = holes[at]
  if hole[2] <= sortable(before) and hole[3] >= ARGV[2] then return 1 end
  if hole[2] >= sortable(before) and hole[3] <= ARGV[2] then
    redis.call('XGROUP', 'DESTROY', KEYS[1], hole[1])
    table.remove(holes, at)
  end
end
local function mark(from, to)
  local name = 'tidemill-lost:' .. from .. ':' .. to
  redis.call('XGROUP', 'CREATE', KEYS[1], name, '$')
  holes[#holes + 1] = {name, sortable(from), sortable(to)}
end
mark(before, ARGV[1])
if is_new and not ended then redis.call('XSETID', KEYS[1], ARGV[1]) end
local ms, seq = string.match(last, '^(%d+)-(%d+)$')
if not is_new and not ended and #seq < 16 then
  -- Who has come by already is told at the end.
  local next = string.format('%s-%.0f', ms, tonumber(seq) + 1)
  redis.call('XSETID', KEYS[1], next)
  mark(last, next)
end
table.sort(holes, function(one, other) return one[3] < other[3] end)
for at = 1, #holes - 8 do redis.call('XGROUP', 'DESTROY', KEYS[1], holes[at][1]) end
ring(ARGV[3], ARGV[4])
return 1
"
));
