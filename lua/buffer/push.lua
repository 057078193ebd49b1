-- buffer/push: add items to one group, at its back or put back at its front
--
-- KEYS[1]   groups  zset    {queue}:groups         group -> waiting length
-- KEYS[2]   since   zset    {queue}:since          group -> ms it became non-empty or was last served
-- KEYS[3]   items   list    {queue}:items:<group>  newest left, oldest right
-- KEYS[4]   once    string  {queue}:once:<id>      the answer this push gave
-- KEYS[5]   wake    list    {queue}:wake           a token for who waits
-- KEYS[6]   layout  string  {queue}:layout         the layout of these keys: 1, or absent
-- ARGV[1]   group   string  not empty
-- ARGV[2]   side    enum    back | front           at the front the first item given leaves first
-- ARGV[3]   window  int     0..604800000           ms that the answer is remembered, 0: not at all
-- ARGV[4]   now     ms                             empty: the server's clock
-- ARGV[5+]  item    bytes   0..10000 of them
-- REPLY     length                                 the group's waiting length after it
-- ERROR     BADARG                                 an argument is out of range
-- ERROR     LAYOUT                                 these keys are of another layout than this script
-- REPLAY    once                                   the same id within the window: nothing more, the same answer

local groups, since, items, once, wake, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, side, window, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 6 or #ARGV < 4 or #ARGV > 10004 then
  return redis.error_reply('BADARG push takes 6 keys, 4 arguments and at most 10000 items')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if group == '' then
  return redis.error_reply('BADARG group is empty, give it a name')
end
if side ~= 'back' and side ~= 'front' then
  return redis.error_reply('BADARG side is ' .. string.sub(side, 1, 32) .. ', give back or front')
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

-- A client that loses the reply sends the push again. It has been done: only its answer is due.
-- idiom: once
local answer = redis.call('GET', once)
if answer then
  return tonumber(answer) or answer
end
-- end

-- Read every key before the first write: one of another type stops the script here, with nothing written.
redis.call('ZSCORE', groups, group)
redis.call('ZSCORE', since, group)
local tokens = redis.call('LLEN', wake)
local length = redis.call('LLEN', items)
if #ARGV == 4 then
  return length
end

-- The first write needs memory, so a full server refuses the whole push.
local command, list, first = 'LPUSH', ARGV, 5
if side == 'front' then
  command, list, first = 'RPUSH', {}, 1
  for i = #ARGV, 5, -1 do
    list[#list + 1] = ARGV[i]
  end
end
if not mark then
  redis.call('SET', layout, 1)
end
for i = first, #list, 1000 do
  length = redis.call(command, items, unpack(list, i, math.min(i + 999, #list)))
end
redis.call('ZADD', groups, length, group)
redis.call('ZADD', since, 'NX', now, group)
-- One token is enough: who takes work and leaves some puts the next.
if tokens == 0 then
  redis.call('LPUSH', wake, 1)
end

-- Last, because scripts do not roll back: an id written first, and a failure after it, would lose the items.
answer = length
-- idiom: remember
if tonumber(window) > 0 then
  redis.call('SET', once, answer, 'PX', window)
end
return answer
-- end
