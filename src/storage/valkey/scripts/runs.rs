//! The scripts of topics that end. `runs`, beside the scripts, says how a stream tells that it has.

/// Ends a topic.
///
/// What waits for later in it is dropped.
///
/// KEYS: stream, description, and the three keys of what waits. ARGV: `closed` or `cancelled`, and the reason of the
/// latter. Answers 0 when the topic has ended so, now or before; 1 when it does not exist, 2 when the key holds something
/// else, 3 when it is closed and is to be cancelled, -2 when the description's key holds something else.
pub(in super::super) const END_RUN: &str = concat!(
    kind!(),
    of_a_topic!(),
    is_foreign!(),
    marker_of!(),
    sortable!(),
    info_of!(),
    end_of!(),
    last_of!(),
    r"
if is_foreign(KEYS[2], 'hash') then return -2 end
local name = end_of(KEYS[1])
local state, last = string.match(name or '', '^tidemill%-end:(%a+):(.+)$')
if state == ARGV[1] then return 0 end
if state == 'closed' then return 3 end
redis.call('XGROUP', 'CREATE', KEYS[1], 'tidemill-end:' .. ARGV[1] .. ':' .. (last or last_of(KEYS[1])), '0')
if name then redis.call('XGROUP', 'DESTROY', KEYS[1], name)
else redis.call('XSETID', KEYS[1], '18446744073709551615-18446744073709551615') end
redis.call('UNLINK', KEYS[3], KEYS[4], KEYS[5])
if ARGV[1] == 'cancelled' then redis.call('HSET', KEYS[2], 'reason', ARGV[2]) end
return 0
"
);
