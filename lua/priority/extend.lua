-- priority/extend: keep a lease longer
--
-- KEYS[1]  meta    hash    {queue}:meta      the queue's mark and counters
-- KEYS[2]  leases  zset    {queue}:leases    lease id -> ms at which it runs out
-- ARGV[1]  id      string  not empty         the lease's
-- ARGV[2]  lease   int     1..99999999999    ms from now; a later deadline stays
-- ARGV[3]  now     ms                        empty: the server's clock
-- REPLY    deadline                          ms at which it runs out
-- ERROR    BADARG                            an argument is out of range
-- ERROR    LAYOUT                            the queue's mark is not 2 fifo or 2 score
-- ERROR    LEASELOST                         a reserve found that it ran out, or it was settled, buried or purged
-- REPLAY   yes                               the later deadline stays

local call = redis.call
local meta, leases = unpack(KEYS)
local id, lease, now = unpack(ARGV)
-- idiom: priority layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 fifo' and mark ~= '2 score' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 fifo, 2 score')
end
-- end
-- idiom: extend
if #KEYS ~= 2 or #ARGV ~= 3 or id == '' or #lease > 11 or not string.find(lease, '^[1-9]%d*$')
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': extend takes 2 keys, the id of a lease, 1..99999999999, ms since 1970 or nothing')
end
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
local deadline = call('ZSCORE', leases, id)
if not deadline then
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
deadline = math.max(deadline, now + lease)
call('ZREM', leases, '') -- it frees nothing, but after a write that could a full server takes the next one
call('ZADD', leases, string.format('%d', deadline), id)
return deadline
-- end
