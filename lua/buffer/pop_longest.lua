--!df flags=allow-undeclared-keys
-- buffer/pop_longest: choose the longest groups and take the oldest items of each
--
-- KEYS[1]   groups  zset   {queue}:groups  group -> waiting length
-- KEYS[2]   since   zset   {queue}:since   group -> ms it became non-empty or was last served
-- KEYS[3]   guard   none   {queue}:guard   never exists: while a cluster moves the slot the server says TRYAGAIN
-- KEYS[4]   layout  string  {queue}:layout  the layout of these keys: 1, or absent
-- ARGV[1]   count   int    1..500          how many groups; count * size at most 10000
-- ARGV[2]   size    int    1..10000        how many items of each
-- ARGV[3]   now     ms                     empty: the server's clock
-- COMPUTES  {queue}:items:<group>
-- REPLY     [[group, [item, ...]], ...]    longest first, oldest item first
-- ERROR     BADARG                         an argument is out of range
-- ERROR     LAYOUT                         these keys are of another layout than this script
-- REPLAY    no                             a second run takes other items: where that matters, reserve

local groups, since, guard, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local count, size, now = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 4 or #ARGV ~= 3 then
  return redis.error_reply('BADARG pop_longest takes 4 keys and 3 arguments')
end
-- idiom: layout
local mark = redis.call('GET', layout)
if mark and mark ~= '1' then
  return redis.error_reply('LAYOUT these keys are of layout ' .. string.sub(mark, 1, 32) .. ', this script is of layout 1')
end
-- end
if not string.find(count, '^%d+$') or tonumber(count) < 1 or tonumber(count) > 500 then
  return redis.error_reply('BADARG count is ' .. string.sub(count, 1, 32) .. ', give a whole number from 1 to 500')
end
if not string.find(size, '^%d+$') or tonumber(size) < 1 or tonumber(size) > 10000 then
  return redis.error_reply('BADARG size is ' .. string.sub(size, 1, 32) .. ', give a whole number from 1 to 10000')
end
if count * size > 10000 then
  return redis.error_reply('BADARG count * size is ' .. count * size .. ', ask for at most 10000 items a call')
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

local queue = string.sub(guard, 1, -6)
local chosen = redis.call('ZREVRANGE', groups, 0, count - 1)

-- Every list is read before the first is popped: one of another type stops the script with nothing taken.
redis.call('ZCARD', since)
local lengths = {}
for i, group in ipairs(chosen) do
  lengths[i] = redis.call('LLEN', queue .. 'items:' .. group)
end

local batches, empty, longer, served = {}, {}, {}, {}
for i, group in ipairs(chosen) do
  local left = math.max(0, lengths[i] - size)
  -- An entry whose list is gone, evicted say, is dropped: it must not keep a place among the longest.
  if lengths[i] > 0 then
    batches[#batches + 1] = { group, redis.call('RPOP', queue .. 'items:' .. group, size) }
  end
  if left == 0 then
    empty[#empty + 1] = group
  else
    longer[#longer + 1], longer[#longer + 2] = left, group
    served[#served + 1], served[#served + 2] = now, group
  end
end
if #empty > 0 then
  redis.call('ZREM', groups, unpack(empty))
  redis.call('ZREM', since, unpack(empty))
end
if #longer > 0 then
  redis.call('ZADD', groups, unpack(longer))
  redis.call('ZADD', since, unpack(served))
end
return batches
