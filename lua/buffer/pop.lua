-- buffer/pop: take the oldest items of one group
--
-- KEYS[1]  groups  zset    {queue}:groups         group -> waiting length
-- KEYS[2]  since   zset    {queue}:since          group -> ms it became non-empty or was last served
-- KEYS[3]  items   list    {queue}:items:<group>  newest left, oldest right
-- KEYS[4]  layout  string  {queue}:layout         the layout of these keys: 1, or absent
-- KEYS[5]  guard   none    {queue}:guard          never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]  group   string  not empty
-- ARGV[2]  size    int     1..10000
-- ARGV[3]  now     ms                             empty: the server's clock
-- REPLY    [item, ...]                            oldest first; empty when the group is empty
-- ERROR    BADARG                                 an argument is out of range
-- ERROR    LAYOUT                                 these keys are of another layout than this script
-- REPLAY   no                                     a second run takes other items: where that matters, reserve

local groups, since, items, layout, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, size, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 5 or #ARGV ~= 3 then
  return redis.error_reply('BADARG pop takes 5 keys and 3 arguments')
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
if not string.find(size, '^%d+$') or tonumber(size) < 1 or tonumber(size) > 10000 then
  return redis.error_reply('BADARG size is ' .. string.sub(size, 1, 32) .. ', give a whole number from 1 to 10000')
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

redis.call('ZSCORE', groups, group)
redis.call('ZSCORE', since, group)
local taken = redis.call('RPOP', items, size) or {}

-- The length is always the list's own, never a difference: a counter that is computed can drift.
local length = redis.call('LLEN', items)
if length == 0 then
  redis.call('ZREM', groups, group)
  redis.call('ZREM', since, group)
else
  redis.call('ZADD', groups, length, group)
  redis.call('ZADD', since, now, group)
end
return taken
