-- buffer/release: give a batch back, whole
--
-- KEYS[1]  meta     hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]  leases   zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[3]  delayed  zset    {queue}:delayed     batch id -> ms when it is due again
-- KEYS[4]  batch    list    {queue}:batch:<id>  group, attempts, holder, reason, item, ...
-- KEYS[5]  ended    string  {queue}:ended:<id>  how the lease of that id ended
-- KEYS[6]  wake     list    {queue}:wake        a wake-up for blocked clients
-- ARGV[1]  id       string  not empty           the lease's
-- ARGV[2]  options  ints                        whole numbers, a blank between them:
--            delay    0..99999999999            ms until it is due again
--            window   0..999999999              ms that the answer is remembered, 0: not at all
-- ARGV[3]  attempt  enum    count | forget      forget: this hand-over is no attempt
-- ARGV[4]  reason   string                      why; its first 1000 bytes are kept, empty: the one that is there stays
-- ARGV[5]  now      ms                          empty: the server's clock
-- REPLY    back                                 how many items are given back
-- ERROR    BADARG                               an argument is out of range
-- ERROR    LAYOUT                               the queue's mark is not 2 buffer
-- ERROR    LEASELOST                            the batch was handed out again, settled, buried or purged
-- REPLAY   lease                                the same answer; after an ack: LEASELOST

local call = redis.call
local meta, leases, delayed, batch, ended, wake = unpack(KEYS)
local id, options, attempt, reason, now = unpack(ARGV)
local delay, window = string.match(options or '', '^(%d+) (%d+)$')
if #KEYS ~= 6 or #ARGV ~= 5
  or id == '' or not delay or #delay > 11 or #window > 9 or attempt ~= 'count' and attempt ~= 'forget'
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': release takes 6 keys, the id of a lease, "delay window", count or forget, a text, ms since 1970 or nothing')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local verb = 'release'
-- idiom: ended
local before = call('GET', ended)
if before then
  local count = string.match(before, '^' .. verb .. ' (%d+)$')
  return tonumber(count) or redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end

local back, attempts, tokens = call('LLEN', batch) - 4, call('LINDEX', batch, '1'), call('LLEN', wake)
call('ZCARD', delayed)
if back < 1 then -- it is gone, or the server evicted it: a reserve drops what is left
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- idiom: held
if call('ZREM', leases, id) == 0 then -- what frees comes first, so a full server takes the rest
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
call('ZADD', delayed, string.format('%d', now + delay), id)
if attempt == 'forget' then
  call('LSET', batch, '1', string.format('%d', math.max(0, attempts - 1)))
else
  redis.pcall('HINCRBY', meta, 'failed', string.format('%d', back))
end
if reason ~= '' then
  call('LSET', batch, '3', string.sub(reason, 1, 1000))
end
if tokens == 0 then -- a client that waits is to hear the new time
  call('LPUSH', wake, '1')
end
if tonumber(window) > 0 then
  call('SET', ended, 'release ' .. back, 'PX', window)
end
return back
