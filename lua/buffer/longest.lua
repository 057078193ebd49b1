-- buffer/longest: name the longest groups
--
-- KEYS[1]  groups  zset  {queue}:groups  group -> waiting length
-- ARGV[1]  count   int   1..10000
-- REPLY    [group, length, ...]          longest first; equal lengths: the greater name first
-- ERROR    BADARG                        an argument is out of range
-- REPLAY   yes                           it only reads

local groups = KEYS[1]
local count = ARGV[1]

if #KEYS ~= 1 or #ARGV ~= 1 then
  return redis.error_reply('BADARG longest takes 1 key and 1 argument')
end
if not string.find(count, '^%d+$') or tonumber(count) < 1 or tonumber(count) > 10000 then
  return redis.error_reply('BADARG count is ' .. string.sub(count, 1, 32) .. ', give a whole number from 1 to 10000')
end

local longest = redis.call('ZREVRANGE', groups, 0, count - 1, 'WITHSCORES')
for i = 2, #longest, 2 do
  longest[i] = tonumber(longest[i])
end
return longest
