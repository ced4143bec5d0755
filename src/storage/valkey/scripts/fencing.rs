//! How scripts check fences.

/// Defines, behind `sortable` and `is_foreign`, `fenced(held, seen, name, fence)`: nothing where who shows this fence of the
/// lock of this name may go on, else the fence that stands against it, empty where there is none; and
/// `note_fence(seen, name, fence, kept)`, which remembers it for so many ms once nothing else stands in the way.
///
/// `held` is the key of who holds the lock of this name that guards what is written, and `seen` that of the greatest
/// fences that were shown of locks that guard nothing, both in the slot of what is written. The last bit of a fence says
/// of which kind its lock is (see `storage::locks`).
macro_rules! fence_check {
    () => {
        r"
local function guards(fence) return string.find('13579', string.sub(fence, -1), 1, true) ~= nil end
local function fenced(held, seen, name, fence)
  if guards(fence) then
    local is = redis.call('HMGET', held, 'fence', 'until')
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    if not is[2] or tonumber(is[2]) <= now then return '' end
    if is[1] ~= fence then return is[1] end
    return
  end
  local greatest = redis.call('HGET', seen, name)
  if greatest and sortable(greatest) > sortable(fence) then return greatest end
end
local function note_fence(seen, name, fence, kept)
  if guards(fence) then return end
  if redis.call('HSET', seen, name, fence) == 1 and redis.call('HLEN', seen) > 1000 then
    local all, least = redis.call('HGETALL', seen), nil
    for at = 1, #all, 2 do
      if all[at] ~= name and (not least or sortable(all[at + 1]) < sortable(all[least + 1])) then least = at end
    end
    redis.call('HDEL', seen, all[least])
  end
  redis.call('PEXPIRE', seen, kept)
end
"
    };
}
