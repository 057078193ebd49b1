-- Restore a delayed or dead batch of a buffer. One whose id is there already stays as it is.
--
-- KEYS   the import's progress, meta, groups, since, delayed or dead, batch:<id>, busy, wake
-- ARGV   the progress that this step begins at, and the one it leads to; the batch's id, the ms when it is due or died;
--        1 if its group waits for it, else 0; then what its list holds: group, attempts, holder, reason, item, ...
-- Reply  the progress; nothing has been done if it was another one

local call = redis.call
local progress, meta, groups, since, index, batch, busy, wake = unpack(KEYS)
local from, to, id, time, waits, group = unpack(ARGV, 1, 6)
local at = call('GET', progress)
if at ~= from then
  return at
end
call('ZCARD', groups)
call('ZCARD', since)
call('ZCARD', index)
call('HLEN', busy)
local tokens = call('LLEN', wake)
if call('EXISTS', batch) == 0 then
  for i = 6, #ARGV, 1000 do
    call('RPUSH', batch, unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
  call('ZADD', index, time, id)
  if waits == '1' and call('HSETNX', busy, group, id) == 1 then
    call('ZREM', groups, group)
    call('ZREM', since, group)
  end
  call('PERSIST', meta)
  if tokens == 0 then
    call('LPUSH', wake, '1')
  end
end
call('SET', progress, to, 'PX', '31536000000') -- a year
return to
