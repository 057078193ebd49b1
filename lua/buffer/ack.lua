--!df flags=allow-undeclared-keys
-- buffer/ack: settle a batch; items that failed are given back, the others are done
--
-- KEYS[1]   meta     hash    {queue}:meta        the queue's mark and counters
-- KEYS[2]   leases   zset    {queue}:leases      batch id -> ms at which its lease runs out
-- KEYS[3]   batch    list    {queue}:batch:<id>  group, attempts, holder, reason, item, ...
-- KEYS[4]   ended    string  {queue}:ended:<id>  how the lease of that id ended
-- ARGV[1]   id       string  not empty           the lease's
-- ARGV[2]   options  ints                        whole numbers, a blank between them:
--             delay    0..99999999999            ms until the failed items are due again
--             window   0..999999999              ms that the answer is remembered, 0: not at all
-- ARGV[3]   reason   string                      why they failed; its first 1000 bytes are kept
-- ARGV[4]   now      ms                          empty: the server's clock
-- ARGV[5+]  failed   int     0..2999             places of failed items, from 0, in rising order
-- COMPUTES  {queue}:groups, {queue}:since, {queue}:items:<group>, {queue}:delayed, {queue}:dead, {queue}:busy
-- COMPUTES  {queue}:paused_groups, {queue}:wake
-- REPLY     done                                 how many items are done
-- ERROR     BADARG                               an argument is out of range
-- ERROR     LAYOUT                               the queue's mark is not 2 buffer
-- ERROR     LEASELOST                            the batch was handed out again, settled, buried or purged
-- REPLAY    lease                                the same answer; after a release: LEASELOST

local call = redis.call
local meta, leases, batch, ended = unpack(KEYS)
local id, options, reason, now = unpack(ARGV, 1, 4)
local failed = #ARGV - 4
local delay, window = string.match(options or '', '^(%d+) (%d+)$')
if #KEYS ~= 4 or failed < 0 or failed > 3000
  or id == '' or not delay or #delay > 11 or #window > 9 or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 4)), 1, 80)
    .. ': ack takes 4 keys, the id of a lease, "delay window", a text, ms since 1970 or nothing, at most 3000 places')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
local verb, queue = 'ack', string.sub(meta, 1, -5)
local busy, tokens, header, group = queue .. 'busy', nil, nil, nil
local some_busy = call('EXISTS', ended, busy) > 0 -- usually neither is there, and one look says so
if some_busy then
  -- idiom: ended
  local before = call('GET', ended)
  if before then
    local count = string.match(before, '^' .. verb .. ' (%d+)$')
    return tonumber(count) or redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
  end
  -- end
end

local count = call('LLEN', batch) - 4
if count < 1 then -- it is gone, or the server evicted it: a reserve drops what is left
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
local some = failed > 0 and failed ~= count -- if all failed, the list stays as it is
if failed > 0 or some_busy then
  header, tokens = call('LRANGE', batch, '0', some and '-1' or '0'), call('LLEN', queue .. 'wake')
  group = header[1]
  -- idiom: clock
  if now == '' then
    local time = call('TIME')
    now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
  end
  -- end
  -- idiom: types
  -- A script is not rolled back: a key of another type must stop it here, before it has written anything.
  for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead', 'paused_groups' }) do
    call('ZCARD', queue .. key)
  end
  call('HLEN', queue .. 'busy')
  call('LLEN', queue .. 'items:' .. group)
  -- end
end
local back, last = some and { group, header[2], header[3], string.sub(reason, 1, 1000) }, -1
local odd = failed > 0 and string.find(table.concat(ARGV, '', 5), '%D')
for i = 5, #ARGV do
  local place = tonumber(ARGV[i])
  if odd or not place or place <= last or place >= count then
    return redis.error_reply('BADARG failed is ' .. string.sub(table.concat(ARGV, ', ', 5), 1, 80)
      .. ': give places from 0 in rising order, below ' .. count)
  end
  last = place
  if some then
    back[i] = header[place + 5]
  end
end

-- idiom: held
if call('ZREM', leases, id) == 0 then -- what frees comes first, so a full server takes the rest
  return redis.error_reply('LEASELOST lease ' .. string.sub(id, 1, 64) .. ' is no longer held')
end
-- end
local done = count - failed
if some or failed == 0 then
  call('UNLINK', batch)
end
if failed > 0 then -- a group that is busy stays so: its batch is not over
  for i = 1, some and #back or 0, 1000 do
    call('RPUSH', batch, unpack(back, i, math.min(i + 999, #back)))
  end
  if not some then
    call('LSET', batch, '3', string.sub(reason, 1, 1000))
  end
  call('ZADD', queue .. 'delayed', string.format('%d', now + delay), id)
  if tokens == 0 then -- a client that waits is to hear the new time
    call('LPUSH', queue .. 'wake', '1')
  end
  redis.pcall('HINCRBY', meta, 'failed', string.format('%d', failed))
elseif header and call('HGET', busy, group) == id then
  call('HDEL', busy, group)
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
end
local text = string.format('%d', done)
if done > 0 then
  redis.pcall('HINCRBY', meta, 'done', text)
end
if failed == 0 and call('EXISTS', leases, queue .. 'groups') == 0 then
  -- idiom: buffer drained
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
end
if tonumber(window) > 0 then
  call('SET', ended, 'ack ' .. text, 'PX', window)
end
return done
