--!df flags=allow-undeclared-keys
-- buffer/push: add items to one group, at its back or put back at its front
--
-- KEYS[1]   meta    hash    {queue}:meta           the queue's mark and counters
-- KEYS[2]   groups  zset    {queue}:groups         group -> waiting length; the groups that may be chosen
-- KEYS[3]   since   zset    {queue}:since          the same groups -> ms since when they wait
-- KEYS[4]   items   list    {queue}:items:<group>  waiting items, oldest left
-- KEYS[5]   once    string  {queue}:once:<id>      the answer that this push gave
-- KEYS[6]   wake    list    {queue}:wake           a wake-up for blocked clients
-- ARGV[1]   group   string  not empty
-- ARGV[2]   side    enum    back | front           at the front the first item given leaves first
-- ARGV[3]   window  int     0..999999999           ms that the answer is remembered, 0: not at all
-- ARGV[4]   now     ms                             empty: the server's clock
-- ARGV[5+]  item    bytes   0..5000                so many of them
-- COMPUTES  {queue}:busy, {queue}:paused_groups
-- REPLY     length                                 the group's waiting length after it
-- ERROR     BADARG                                 an argument is out of range
-- ERROR     LAYOUT                                 the queue's mark is not 2 buffer
-- REPLAY    once                                   the same id within the window: nothing more, the same answer

local call = redis.call
local meta, groups, since, items, once, wake = unpack(KEYS)
local group, side, window, now = unpack(ARGV, 1, 4)
if #KEYS ~= 6 or #ARGV < 4 or #ARGV > 5004
  or group == '' or side ~= 'back' and side ~= 'front' or #window > 9 or not string.find(window, '^%d+$')
  or now ~= '' and (#now > 13 or string.find(now, '%D')) then
  return redis.error_reply('BADARG ' .. string.sub(table.concat(ARGV, ', ', 1, math.min(#ARGV, 4)), 1, 80)
    .. ': push takes 6 keys, a name, back or front, 0..999999999, ms since 1970 or nothing, at most 5000 items')
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
local before, tokens = call('LLEN', items), call('LLEN', wake)
if #ARGV == 4 then
  return before
end

local length = string.format('%d', before + #ARGV - 4)
if before > 0 then
  call('ZADD', groups, 'XX', length, group) -- a group that is busy or paused has no entry, and gets none
else
  local queue = string.sub(meta, 1, -5)
  local busy, paused_groups = queue .. 'busy', queue .. 'paused_groups'
  call('ZCARD', since)
  if call('EXISTS', busy, paused_groups) == 0
    or call('HEXISTS', busy, group) == 0 and not call('ZSCORE', paused_groups, group) then
    -- idiom: clock
    if now == '' then
      local time = call('TIME')
      now = time[1] .. string.sub('00000' .. time[2], -6, -4) -- ms
    end
    -- end
    call('ZADD', groups, length, group)
    call('ZADD', since, now, group)
  end
end
if side == 'back' then
  for i = 5, #ARGV, 1000 do
    call('RPUSH', items, unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
else
  local queue, back, first = string.sub(meta, 1, -5), ARGV, 5
  -- idiom: put back
  -- In pieces from the last item on, so that the first one is the next to be taken.
  for i = #back, first, -1000 do
    local piece = {}
    for j = i, math.max(first, i - 999), -1 do
      piece[i - j + 1] = back[j]
    end
    call('LPUSH', queue .. 'items:' .. group, unpack(piece))
  end
  -- end
end
if not mark then
  call('HSET', meta, 'queue', '2 buffer')
end
if before == 0 then
  call('PERSIST', meta) -- if the queue was drained, its counters had been about to expire
end
if tokens == 0 then
  call('LPUSH', wake, '1')
end
-- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the items.
answer = length
-- idiom: remember
if tonumber(window) > 0 then
  call('SET', once, answer, 'PX', window)
end
-- end
return tonumber(answer)
