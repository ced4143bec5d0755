//! The script of limits of applications.

use super::Script;

/// Takes of a limit, looks at it, or gives back to it, which is what `storage::takes` does in a process.
///
/// The record has a line for each policy of which something is owed: its name, and until when, in whole microseconds of
/// the server's clock and parts of one. It expires with the last of them. All numbers are whole and below 2^53.
///
/// KEYS: the record. ARGV: what is done (`take`, `peek`, `refund`), how many policies may be in the record, and of each
/// policy its name, how many parts a microsecond has, and the time of the cost and of a whole burst, in microseconds and
/// parts. Answers 0, whether the cost fits, and of each policy what is owed then, in microseconds and parts; or 1 where
/// there are too many policies, and 2 where the key holds something else.
pub(in crate::storage::valkey) static TAKE: Script = Script::new(
    r"
local kept = redis.pcall('GET', KEYS[1])
if type(kept) == 'table' then
  if string.find(kept['err'], 'WRONGTYPE', 1, true) then return {2} end
  return kept
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local order, micros, parts, read = {}, {}, {}, 0
if kept then
  for line, name, whole, part in string.gmatch(kept, '(([%d/]+) (%d+) (%d+)\n)') do
    read = read + #line
    order[#order + 1] = name
    micros[name], parts[name] = tonumber(whole), tonumber(part)
  end
  if read == 0 or read ~= #kept then return {2} end
end
local answer, after, fits = {0, 1}, {}, true
for at = 3, #ARGV, 6 do
  local name, parts_of = ARGV[at], tonumber(ARGV[at + 1])
  local cost, cost_parts = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local full, full_parts = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local owed, owed_parts = 0, 0
  if micros[name] and micros[name] >= now then owed, owed_parts = micros[name] - now, parts[name] end
  if owed > full or (owed == full and owed_parts > full_parts) then owed, owed_parts = full, full_parts end
  answer[#answer + 1], answer[#answer + 2] = owed, owed_parts
  local next, next_parts
  if ARGV[1] == 'refund' then
    next, next_parts = owed - cost, owed_parts - cost_parts
    if next_parts < 0 then next, next_parts = next - 1, next_parts + parts_of end
    if next < 0 then next, next_parts = 0, 0 end
  else
    next, next_parts = owed + cost, owed_parts + cost_parts
    if next_parts >= parts_of then next, next_parts = next + 1, next_parts - parts_of end
    if next > full or (next == full and next_parts > full_parts) then fits = false end
  end
  after[#after + 1], after[#after + 2] = next, next_parts
end
if not fits then answer[2] = 0 end
if ARGV[1] == 'peek' or not fits then return answer end
for at = 1, #after do answer[at + 2] = after[at] end
for at = 3, #ARGV, 6 do
  local name, place = ARGV[at], (at - 3) / 3 + 1
  if not micros[name] then order[#order + 1] = name end
  micros[name], parts[name] = now + after[place], after[place + 1]
end
local lines, last = {}, now
for _, name in ipairs(order) do
  if micros[name] > now or (micros[name] == now and parts[name] > 0) then
    lines[#lines + 1] = string.format('%s %.0f %.0f\n', name, micros[name], parts[name])
    last = math.max(last, micros[name] + 1)
  end
end
if #lines > tonumber(ARGV[2]) then return {1} end
if #lines == 0 then
  if kept then redis.call('DEL', KEYS[1]) end
else
  redis.call('SET', KEYS[1], table.concat(lines), 'PX', string.format('%.0f', math.ceil((last - now) / 1000)))
end
return answer
",
);
