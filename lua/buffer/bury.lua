--!df flags=allow-undeclared-keys
-- buffer/bury: a permanent failure: the batch is a dead letter now
--
-- KEYS[1]  meta      hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]  leases    zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[3]  dead      zset    {queue}:dead        batch id -> ms at which it was buried
-- KEYS[4]  batch     list    {queue}:batch:<id>  group, attempts, holder, reason, item, ...
-- KEYS[5]  ended     string  {queue}:ended:<id>  how the lease of that id ended
-- ARGV[1]  id        string  not empty           the lease's
-- ARGV[2]  options   ints                        whole numbers, a blank between them:
--            max_dead  0..999999999              dead letters to keep, in batches, 0: all
--            window    0..999999999              ms that the answer is remembered, 0: not at all
-- ARGV[3]  reason    string                      why; its first 1000 bytes are kept, empty: the one that is there stays
-- ARGV[4]  now       ms                          empty: the server's clock
-- COMPUTES {queue}:groups, {queue}:since, {queue}:items:<group>, {queue}:delayed, {queue}:batch:<id>, {queue}:busy
-- COMPUTES {queue}:paused_groups, {queue}:ended:<id>, {queue}:wake
-- REPLY    buried                                how many items are dead
-- ERROR    BADARG                                an argument is out of range
-- ERROR    LAYOUT                                the queue's mark is not 2 buffer
-- ERROR    LEASELOST                             the batch was handed out again, settled, buried or purged
-- REPLAY   lease                                 the same answer; after an ack or a release: LEASELOST

local call = redis.call
local meta, leases, dead, batch, ended = unpack(KEYS)
local id, options, reason, now = unpack(ARGV)
local max_dead, window = string.match(options or '', '^(%d+) (%d+)$')
if #KEYS ~= 5 or #ARGV ~= 4
  or id == '' or not max_dead or #max_dead > 9 or #window > 9 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': bury takes 5 keys, the id of a lease, "max_dead window", a text, ms since 1970 or nothing')
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
local verb, queue = 'bury', string.sub(meta, 1, -5)
-- idiom: ended
local before = call('GET', ended)
if before then
  local count = string.match(before, '^' .. verb .. ' (%d+)$')
  return tonumber(count) or redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end

local header, count, tokens = call('LRANGE', batch, '0', '3'), call('LLEN', batch) - 4, call('LLEN', queue .. 'wake')
local group, from, name, source, how = header[1] or '', leases, id, batch, 'bury ' .. count
reason = reason == '' and header[4] or string.sub(reason, 1, 1000)
-- idiom: types
-- A script is not rolled back: a key of another type must stop it here, before it has written anything.
for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead', 'paused_groups' }) do
  call('ZCARD', queue .. key)
end
call('HLEN', queue .. 'busy')
call('LLEN', queue .. 'items:' .. group)
-- end
if count < 1 or not call('ZSCORE', leases, id) then -- it is gone, or the server evicted it
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- idiom: bury batch
local over = max_dead == '0' and 0 or math.min(10, call('ZCARD', dead) + 1 - max_dead)
local oldest, trimmed = over > 0 and call('ZRANGE', dead, '0', string.format('%d', over - 1)) or {}, 0
for i, earlier in ipairs(oldest) do
  oldest[i] = queue .. 'batch:' .. earlier
  trimmed = trimmed + math.max(0, call('LLEN', oldest[i]) - 4)
end
call('ZREM', from, name) -- it frees, so a full server takes the rest
if over > 0 then
  call('ZREMRANGEBYRANK', dead, '0', string.format('%d', over - 1))
  call('UNLINK', unpack(oldest))
  redis.pcall('HINCRBY', meta, 'trimmed', string.format('%d', trimmed))
end
call('ZADD', dead, now, name)
call('LSET', source, '3', reason)
redis.pcall('HINCRBY', meta, 'buried', string.format('%d', count))
if tonumber(window) > 0 then
  call('SET', queue .. 'ended:' .. name, how, 'NX', 'PX', window)
end
if call('HGET', queue .. 'busy', group) == name then
  call('HDEL', queue .. 'busy', group)
end
-- end
-- idiom: offer
-- A group may be chosen while it has items and is neither busy nor paused.
local length = call('LLEN', queue .. 'items:' .. group)
if length > 0 and call('HEXISTS', queue .. 'busy', group) == 0
  and not call('ZSCORE', queue .. 'paused_groups', group) then
  call('ZADD', queue .. 'groups', string.format('%d', length), group)
  call('ZADD', queue .. 'since', 'NX', now, group)
  if tokens == 0 then
    tokens = call('LPUSH', queue .. 'wake', '1')
  end
end
-- end
return count
