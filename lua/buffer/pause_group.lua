--!df flags=allow-undeclared-keys
-- buffer/pause_group: give no new batch of a group, for a time or until it is resumed; what was handed out is retried
--
-- KEYS[1]  meta           hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]  groups         zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]  since          zset    {queue}:since          the same groups -> ms since when they wait
-- KEYS[4]  paused_groups  zset    {queue}:paused_groups  group -> ms at which its pause ends, or +inf
-- KEYS[5]  once           string  {queue}:once:<id>      the answer that this call gave
-- KEYS[6]  wake           list    {queue}:wake           a wake-up for blocked clients
-- ARGV[1]  group          string  not empty
-- ARGV[2]  duration       int     0..99999999999         ms, 0: until it is resumed
-- ARGV[3]  window         int     0..999999999           ms that the answer is remembered, 0: not at all
-- ARGV[4]  now            ms                             empty: the server's clock
-- COMPUTES {queue}:leases, {queue}:delayed, {queue}:dead
-- REPLY    1                                             whatever pause there was before
-- ERROR    BADARG                                        an argument is out of range
-- ERROR    LAYOUT                                        the queue's mark is not 2 buffer
-- REPLAY   once                                          the same id within the window: nothing more, the same answer

local call = redis.call
local meta, groups, since, paused_groups, once, wake = unpack(KEYS)
local group, duration, window, now = unpack(ARGV)
if #KEYS ~= 6 or #ARGV ~= 4 or group == '' or #duration > 11 or not string.find(duration, '^%d+$') or #window > 9
  or not string.find(window, '^%d+$') or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', '), 1, 80)
    .. ': pause_group takes 6 keys, a group, 0..99999999999 ms, a window of 0..999999999 ms, ms since 1970 or nothing')
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
call('ZCARD', since)
call('ZCARD', paused_groups)
local queue, ends = string.sub(meta, 1, -5), tonumber(duration) == 0 and '+inf' or string.format('%d', now + duration)
local wakes = call('EXISTS', groups, queue .. 'leases', queue .. 'delayed', queue .. 'dead', paused_groups) > 0
  and call('LLEN', wake) == 0 and ends ~= '+inf'
call('ZREM', groups, group) -- it frees, or could, so a full server takes the rest
call('ZREM', since, group)
call('ZADD', paused_groups, ends, group)
if wakes then -- a client that waits is to hear when it ends
  call('LPUSH', wake, '1')
end
answer = 1
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return answer
