-- buffer/ack: settle a batch; items that failed are given back, the others are done
--
-- KEYS[1]   leases   zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[2]   delayed  zset    {queue}:delayed     batch id -> ms when it is due again
-- KEYS[3]   batch    list    {queue}:batch:<id>  group, attempts, item...
-- KEYS[4]   ended    string  {queue}:ended:<id>  how the lease of that id ended
-- KEYS[5]   wake     list    {queue}:wake        a token for who waits
-- KEYS[6]   layout   string  {queue}:layout      the layout of these keys: 1, or absent
-- ARGV[1]   id       string  not empty           the lease's
-- ARGV[2]   delay    int     0..315360000000     ms until the failed items are due again
-- ARGV[3]   window   int     0..604800000        ms that the answer is remembered, 0: not at all
-- ARGV[4]   now      ms                          empty: the server's clock
-- ARGV[5+]  failed   int     0..                 places of failed items, from 0, none twice
-- REPLY     done                                 how many items are done
-- ERROR     BADARG                               an argument is out of range
-- ERROR     LAYOUT                               these keys are of another layout than this script
-- ERROR     LEASELOST                            the batch was handed out again, buried, settled or purged
-- REPLAY    lease                                the same answer; after a release: LEASELOST

local leases, delayed, batch, ended, wake, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, delay, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 6 or #ARGV < 4 or #ARGV > 10004 then
  return redis.error_reply('BADARG ack takes 6 keys, 4 arguments and at most 10000 places')
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
if not string.find(delay, '^%d+$') or tonumber(delay) > 315360000000 then
  return redis.error_reply('BADARG delay is ' .. string.sub(delay, 1, 32) .. ', give whole ms from 0 to 315360000000')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
end
local failed, last = {}, -1
for i = 5, #ARGV do
  local place = string.find(ARGV[i], '^%d+$') and tonumber(ARGV[i])
  if not place or failed[place] then
    return redis.error_reply('BADARG failed is ' .. string.sub(ARGV[i], 1, 32) .. ', give places from 0, none twice')
  end
  failed[place] = true
  if place > last then
    last = place
  end
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

local answer = redis.call('GET', ended)
if not redis.call('ZSCORE', leases, id) then
  local before = string.match(answer or '', '^ack (%d+)$')
  if before then
    return tonumber(before)
  end
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end

redis.call('ZCARD', delayed)
local tokens = redis.call('LLEN', wake)
local count = math.max(0, redis.call('LLEN', batch) - 2)
if last >= count then
  return redis.error_reply(string.format('BADARG failed is %.0f, the batch has the places from 0 to %d', last, count - 1))
end
local items = last >= 0 and redis.call('LRANGE', batch, 0, -1) or {}
local kept = { items[1], items[2] }
for i = 3, #items do
  if failed[i - 3] then
    kept[#kept + 1] = items[i] -- oldest first, in whatever order they were given
  end
end

-- ZREM comes first: it frees, so a full server takes the ack.
redis.call('ZREM', leases, id)
redis.call('UNLINK', batch)
if last >= 0 then
  for i = 1, #kept, 1000 do
    redis.call('RPUSH', batch, unpack(kept, i, math.min(i + 999, #kept)))
  end
  redis.call('ZADD', delayed, now + delay, id)
  if tokens == 0 then
    redis.call('LPUSH', wake, 1)
  end
end
local done = count - (#ARGV - 4)
if tonumber(window) > 0 then
  redis.call('SET', ended, 'ack ' .. done, 'PX', window)
end
return done
