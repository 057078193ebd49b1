--!df flags=allow-undeclared-keys
-- buffer/resume_group: end the pause of a group, and wake a blocked client
--
-- KEYS[1]  meta           hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]  paused_groups  zset    {queue}:paused_groups  group -> ms at which its pause ends, or +inf
-- KEYS[3]  once           string  {queue}:once:<id>      the answer that this call gave
-- ARGV[1]  group          string  not empty
-- ARGV[2]  window         int     0..999999999           ms that the answer is remembered, 0: not at all
-- ARGV[3]  now            ms                             empty: the server's clock
-- COMPUTES {queue}:groups, {queue}:since, {queue}:items:<group>, {queue}:leases, {queue}:delayed, {queue}:dead
-- COMPUTES {queue}:busy, {queue}:wake
-- REPLY    resumed                                       1: it was paused, 0: it was not
-- ERROR    BADARG                                        an argument is out of range
-- ERROR    LAYOUT                                        the queue's mark is not 2 buffer
-- REPLAY   once                                          the same id within the window: nothing more, the same answer

local call = redis.call
local meta, paused_groups, once = unpack(KEYS)
local group, window, now = unpack(ARGV)
if #KEYS ~= 3 or #ARGV ~= 3 or group == '' or #window > 9 or not string.find(window, '^%d+$')
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': resume_group takes 3 keys, a group, a window of 0..999999999 ms, ms since 1970 or nothing')
end
-- idiom: buffer layout
local mark = call('HGET', meta, 'queue')
if mark and mark ~= '2 buffer' then
  return redis.error_reply('LAYOUT this queue is marked ' .. string.sub(mark, 1, 32) .. ', the script is for 2 buffer')
end
-- end
-- idiom: once
local answer = call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end
-- idiom: clock
if now == '' then
  local time = call('TIME')
  now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
end
-- end
local queue = string.sub(meta, 1, -5)
-- idiom: types
-- A script is not rolled back: a key of another type must stop it here, before it has written anything.
for _, key in ipairs({ 'groups', 'since', 'leases', 'delayed', 'dead', 'paused_groups' }) do
  call('ZCARD', queue .. key)
end
call('HLEN', queue .. 'busy')
call('LLEN', queue .. 'items:' .. group)
-- end
local tokens = call('LLEN', queue .. 'wake')
answer = call('ZREM', paused_groups, group) -- it frees, or could, so a full server takes the rest
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
-- idiom: buffer drained
local kept = { queue .. 'groups', queue .. 'leases', queue .. 'delayed', queue .. 'dead', queue .. 'paused_groups' }
if call('EXISTS', unpack(kept)) == 0 then
  call('PEXPIRE', meta, '604800000') -- an empty queue keeps its counters for seven days
  redis.pcall('LPOP', queue .. 'wake') -- there is one at most; a key of another type is left alone
end
-- end
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
