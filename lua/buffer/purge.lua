--!df flags=allow-undeclared-keys
-- buffer/purge: throw away waiting items, a bounded number of groups a call
--
-- KEYS[1]   groups  zset  {queue}:groups  group -> waiting length
-- KEYS[2]   since   zset  {queue}:since   group -> ms it became non-empty or was last served
-- KEYS[3]   guard   none  {queue}:guard   never exists: while a cluster moves the slot the server says TRYAGAIN
-- ARGV[1]   limit   int   1..10000        groups to purge in this call
-- COMPUTES  {queue}:items:<group>
-- REPLY     [more, items]                 more: 1 when groups are left; items: how many were thrown away
-- ERROR     BADARG                        an argument is out of range
-- REPLAY    yes                           what is gone is gone; a second run counts only what it finds itself

local groups, since, guard = KEYS[1], KEYS[2], KEYS[3]
local limit = ARGV[1]

if #KEYS ~= 3 or #ARGV ~= 1 then
  return redis.error_reply('BADARG purge takes 3 keys and 1 argument')
end
if not string.find(limit, '^%d+$') or tonumber(limit) < 1 or tonumber(limit) > 10000 then
  return redis.error_reply('BADARG limit is ' .. string.sub(limit, 1, 32) .. ', give a whole number from 1 to 10000')
end

local queue = string.sub(guard, 1, -6)
local doomed = redis.call('ZRANGE', groups, 0, limit - 1)
redis.call('ZCARD', since)
local count = 0
for _, group in ipairs(doomed) do
  count = count + redis.call('LLEN', queue .. 'items:' .. group)
end

-- UNLINK frees a long list in the background: the server is not held while ten million items go.
for _, group in ipairs(doomed) do
  redis.call('UNLINK', queue .. 'items:' .. group)
  redis.call('ZREM', groups, group)
  redis.call('ZREM', since, group)
end

if redis.call('ZCARD', groups) > 0 then
  return { 1, count }
end
return { 0, count }
