--!df flags=allow-undeclared-keys
-- buffer/pop_longest: take the oldest items of groups that have waited max_wait, then of the longest groups
--
-- KEYS[1]  meta      hash    {queue}:meta    the queue's mark and counters
-- KEYS[2]  groups    zset    {queue}:groups  group -> waiting length; the groups that may be chosen
-- KEYS[3]  since     zset    {queue}:since   the same groups -> ms since when they wait
-- KEYS[4]  paused    string  {queue}:paused  <until or 0> <reason>
-- KEYS[5]  guard     none    {queue}:guard   never exists, so a slot on the move answers TRYAGAIN
-- ARGV[1]  options   ints                    whole numbers, a blank between them:
--            count     1..250                groups at most
--            size      1..5000               items of each at most; count * size at most 5000
--            max_wait  0..99999999999        ms after which a group goes first, 0: never
-- ARGV[2]  now       ms                      empty: the server's clock
-- COMPUTES {queue}:items:<group>, {queue}:leases, {queue}:delayed, {queue}:dead, {queue}:busy, {queue}:paused_groups
-- COMPUTES {queue}:wake
-- REPLY    [[group, [item, ...]], ...]       first the groups that have waited longest, then the longest; items oldest first
-- ERROR    BADARG                            an argument is out of range
-- ERROR    LAYOUT                            the queue's mark is not 2 buffer
-- REPLAY   no                                a second run takes other items: where that matters, reserve

local call = redis.call
local meta, groups, since, paused = unpack(KEYS)
local options, now = unpack(ARGV)
local count, size, max_wait = string.match(options or '', '^([1-9]%d*) ([1-9]%d*) (%d+)$')
if #KEYS ~= 5 or #ARGV ~= 2
  or not count or #count > 3 or tonumber(count) > 250 or #size > 4 or count * size > 5000 or #max_wait > 11
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': pop_longest takes 5 keys, "count size max_wait", count * size 1..5000, ms since 1970 or nothing')
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
local queue, chosen = string.sub(meta, 1, -5), {}
if call('EXISTS', paused, queue .. 'paused_groups') > 0 then
  -- idiom: paused
  local pause = call('GET', paused)
  local ends = pause and tonumber(string.match(pause, '^%d+'))
  local stopped = ends and (ends == 0 or ends > tonumber(now))
  -- end
  if stopped then
    return {}
  end
  local tokens = call('LLEN', queue .. 'wake')
  -- idiom: ended pauses
  -- Groups whose pause has ended may be chosen again, ten a call; their pauses may have been all that kept the queue.
  local over, lengths = call('ZRANGEBYSCORE', queue .. 'paused_groups', '-inf', now, 'LIMIT', '0', '10'), {}
  for i, one in ipairs(over) do -- a key of another type stops it here, before it has written anything
    for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead' }) do
      call('ZCARD', queue .. key)
    end
    lengths[i] = call('HEXISTS', queue .. 'busy', one) == 0 and call('LLEN', queue .. 'items:' .. one) or 0
  end
  for i, one in ipairs(over) do
    call('ZREM', queue .. 'paused_groups', one)
    if lengths[i] > 0 then
      call('ZADD', queue .. 'groups', string.format('%d', lengths[i]), one)
      call('ZADD', queue .. 'since', 'NX', now, one)
      tokens = tokens > 0 and tokens or call('LPUSH', queue .. 'wake', '1')
    end
  end
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
end

if max_wait ~= '0' then
  chosen = call('ZRANGEBYSCORE', since, '-inf', string.format('%d', now - max_wait), 'LIMIT', '0', count)
else
  call('ZCARD', since)
end
if #chosen == 0 then
  chosen = call('ZREVRANGE', groups, '0', string.format('%d', count - 1))
elseif #chosen < tonumber(count) then
  local seen = {}
  for _, group in ipairs(chosen) do
    seen[group] = true
  end
  for _, group in ipairs(call('ZREVRANGE', groups, '0', string.format('%d', count - 1))) do
    if #chosen < tonumber(count) and not seen[group] then
      chosen[#chosen + 1] = group
    end
  end
else
  call('ZCARD', groups)
end

-- Every list is read before the first is popped: one of another type stops the script with nothing taken.
local batches, empty, lengths, served = {}, {}, {}, {}
for _, group in ipairs(chosen) do
  local left = call('LLEN', queue .. 'items:' .. group) - size
  if left > 0 then
    local n = #lengths
    lengths[n + 1], lengths[n + 2] = string.format('%d', left), group
    served[n + 1], served[n + 2] = now, group
  else
    empty[#empty + 1] = group
  end
end
for i, group in ipairs(chosen) do
  batches[i] = { group, call('LPOP', queue .. 'items:' .. group, size) or {} }
end
if #lengths > 0 then
  call('ZADD', groups, unpack(lengths))
  call('ZADD', since, unpack(served))
end
if #empty > 0 then
  call('ZREM', groups, unpack(empty))
  call('ZREM', since, unpack(empty))
  -- idiom: buffer drained
  local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
  if call('EXISTS', unpack(kept)) == 0 then
    call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
    redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
  end
  -- end
end
return batches
