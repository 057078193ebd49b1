-- buffer/extend: keep a batch longer
--
-- KEYS[1]  leases  zset    {queue}:leases   batch id -> ms at which its lease runs out
-- KEYS[2]  layout  string  {queue}:layout   the layout of these keys: 1, or absent
-- ARGV[1]  id      string  not empty        the lease's
-- ARGV[2]  lease   int     1..315360000000  ms from now; a later deadline stays
-- ARGV[3]  now     ms                       empty: the server's clock
-- REPLY    deadline                         ms at which the lease runs out
-- ERROR    BADARG                           an argument is out of range
-- ERROR    LAYOUT                           these keys are of another layout than this script
-- ERROR    LEASELOST                        the batch was handed out again, buried, settled or purged
-- REPLAY   yes                              the later deadline wins

local leases, layout = KEYS[1], KEYS[2]
local id, lease, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 2 or #ARGV ~= 3 then
  return redis.error_reply('BADARG extend takes 2 keys and 3 arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if id == '' then
  return redis.error_reply('BADARG id is empty, give each reserve a new one')
end
if not string.find(lease, '^%d+$') or tonumber(lease) < 1 or tonumber(lease) > 315360000000 then
  return redis.error_reply('BADARG lease is ' .. string.sub(lease, 1, 32) .. ', give whole ms from 1 to 315360000000')
end
-- idiom: clock
if now == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
elseif string.find(now, '^%d+$') and #now < 16 then
  now = tonumber(now)
else
  return redis.error_reply('BADARG now is ' .. string.sub(now, 1, 32) .. ', give whole ms since 1970 or leave it empty')
end
-- end

local held = redis.call('ZSCORE', leases, id)
if not held then
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
local deadline = math.max(tonumber(held), now + lease)
-- ZREM comes first: it frees, so a full server takes it.
redis.call('ZREM', leases, id)
redis.call('ZADD', leases, deadline, id)
return deadline
