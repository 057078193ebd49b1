-- buffer/release: give a batch back, whole
--
-- KEYS[1]  leases   zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[2]  delayed  zset    {queue}:delayed     batch id -> ms when it is due again
-- KEYS[3]  batch    list    {queue}:batch:<id>  group, attempts, item...
-- KEYS[4]  ended    string  {queue}:ended:<id>  how the lease of that id ended
-- KEYS[5]  wake     list    {queue}:wake        a token for who waits
-- KEYS[6]  layout   string  {queue}:layout      the layout of these keys: 1, or absent
-- ARGV[1]  id       string  not empty           the lease's
-- ARGV[2]  delay    int     0..315360000000     ms until the batch is due again
-- ARGV[3]  attempt  enum    count | forget      forget: this hand-over does not count, nobody began on it
-- ARGV[4]  window   int     0..604800000        ms that the answer is remembered, 0: not at all
-- ARGV[5]  now      ms                          empty: the server's clock
-- REPLY    back                                 how many items are given back
-- ERROR    BADARG                               an argument is out of range
-- ERROR    LAYOUT                               these keys are of another layout than this script
-- ERROR    LEASELOST                            the batch was handed out again, buried, settled or purged
-- REPLAY   lease                                the same answer; after an ack: LEASELOST

local leases, delayed, batch, ended, wake, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, delay, attempt, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if #KEYS ~= 6 or #ARGV ~= 5 then
  return redis.error_reply('BADARG release takes 6 keys and 5 arguments')
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
if attempt ~= 'count' and attempt ~= 'forget' then
  return redis.error_reply('BADARG attempt is ' .. string.sub(attempt, 1, 32) .. ', give count or forget')
end
if not string.find(window, '^%d+$') or tonumber(window) > 604800000 then
  return redis.error_reply('BADARG window is ' .. string.sub(window, 1, 32) .. ', give whole ms from 0 to 604800000')
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
  local back = string.match(answer or '', '^release (%d+)$')
  if back then
    return tonumber(back)
  end
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end

redis.call('ZCARD', delayed)
local tokens = redis.call('LLEN', wake)
local attempts = tonumber(redis.call('LINDEX', batch, 1))
local count = math.max(0, redis.call('LLEN', batch) - 2)

-- ZREM comes first: it frees, so a full server takes the release.
redis.call('ZREM', leases, id)
redis.call('ZADD', delayed, now + delay, id)
if attempt == 'forget' and attempts then
  redis.call('LSET', batch, 1, math.max(0, attempts - 1))
end
if tokens == 0 then
  redis.call('LPUSH', wake, 1)
end
if tonumber(window) > 0 then
  redis.call('SET', ended, 'release ' .. count, 'PX', window)
end
return count
